#include "graph/tensor.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <system_error>
#include <utility>

#include "graph/narrow.h"

namespace weft {

class MemoryLimit::Account {
 public:
  explicit Account(std::size_t limit) : limit_(limit) {}
  void take(std::size_t bytes) {
    const std::size_t before = used_.fetch_add(bytes);
    if (bytes <= limit_ && before <= limit_ - bytes) return;
    used_.fetch_sub(bytes);
    refuse(bytes, before);
  }
  void check(std::size_t bytes) const {
    const std::size_t used = used_.load();
    if (bytes > limit_ || used > limit_ - bytes) refuse(bytes, used);
  }
  void give(std::size_t bytes) { used_.fetch_sub(bytes); }

 private:
  [[noreturn]] void refuse(std::size_t bytes, std::size_t used) const {
    fail(ErrorCode::kInvalidArgument, "{} bytes more than the {} in use would pass the memory limit of {}", bytes, used,
         limit_);
  }

  std::size_t limit_;
  std::atomic<std::size_t> used_ = 0;
};

namespace {

thread_local std::shared_ptr<MemoryLimit::Account> current_account;

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kPadding = 64;

// Counted by the size of the objects, without what strings hold besides.
template <class T>
std::shared_ptr<std::byte> allocate_objects(std::size_t count) {
  const std::shared_ptr<MemoryLimit::Account> account = current_account;
  const std::size_t total = count * sizeof(T);
  if (account) account->take(total);
  try {
    auto objects = std::make_unique<std::vector<T>>(count);
    auto* first = reinterpret_cast<std::byte*>(objects->data());
    return {first, [account, total, owner = std::shared_ptr<std::vector<T>>(std::move(objects))](std::byte*) mutable {
              owner.reset();
              if (account) account->give(total);
            }};
  } catch (const std::bad_alloc&) {
    if (account) account->give(total);
    throw;
  }
}

// Weights are read from end to end by every run: with small pages a good part of the time goes into finding them.
void want_huge_pages([[maybe_unused]] std::byte* memory, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  const std::size_t skipped = (kHugePage - reinterpret_cast<std::uintptr_t>(memory) % kHugePage) % kHugePage;
  if (bytes < skipped + kHugePage) return;
  madvise(memory + skipped, (bytes - skipped) / kHugePage * kHugePage, MADV_HUGEPAGE);  // a wish; may be refused
#endif
}

std::shared_ptr<std::byte> allocate_bytes(std::size_t count) {
  const std::size_t total = (count + kPadding + kAlignment - 1) / kAlignment * kAlignment;
  const std::shared_ptr<MemoryLimit::Account> account = current_account;
  if (account) account->take(total);
  auto* memory = static_cast<std::byte*>(::operator new(total, std::align_val_t{kAlignment}, std::nothrow));
  if (memory == nullptr && account) account->give(total);
  if (memory == nullptr) fail(ErrorCode::kInvalidArgument, "cannot allocate {} bytes", total);
  std::memset(memory + count, 0, total - count);
  want_huge_pages(memory, total);
  return {memory, [account, total](std::byte* p) {
            ::operator delete(p, std::align_val_t{kAlignment});
            if (account) account->give(total);
          }};
}

std::size_t bytes_needed(DType dtype, std::int64_t count) {
  const std::size_t size = dtype == DType::kString ? sizeof(std::string)
                           : is_container(dtype)   ? sizeof(Tensor)
                                                   : element_size(dtype);
  if (static_cast<std::uint64_t>(count) > (std::uint64_t{1} << 60) / size) {
    fail(ErrorCode::kInvalidModel, "a tensor of {} elements is too large", count);
  }
  return static_cast<std::size_t>(count) * size;
}

}  // namespace

std::shared_ptr<MemoryLimit::Account> MemoryLimit::account(std::size_t limit) {
  return std::make_shared<Account>(limit);
}
MemoryLimit::MemoryLimit(std::shared_ptr<Account> account)
    : before_(std::exchange(current_account, std::move(account))) {}
MemoryLimit::~MemoryLimit() { current_account = std::move(before_); }

void MemoryLimit::check(std::size_t bytes) {
  if (current_account) current_account->check(bytes);
}

namespace {

struct Count {
  std::int64_t nonzero = 1;  // product of the extents that are not 0
  bool empty = false;
};

Count count_of(std::span<const std::int64_t> shape) {
  constexpr std::int64_t kLimit = std::int64_t{1} << 62;
  constexpr std::size_t kMaxRank = 64;
  if (shape.size() > kMaxRank) fail(ErrorCode::kInvalidModel, "a tensor of {} dimensions", shape.size());
  Count count;
  for (const std::int64_t extent : shape) {
    if (extent < 0) fail(ErrorCode::kInvalidModel, "negative extent in shape {}", to_string(shape));
    if (extent == 0) {
      count.empty = true;
    } else if (count.nonzero > kLimit / extent) {
      fail(ErrorCode::kInvalidModel, "shape {} has too many elements", to_string(shape));
    } else {
      count.nonzero *= extent;
    }
  }
  return count;
}

}  // namespace

std::int64_t element_count(std::span<const std::int64_t> shape) {
  const Count count = count_of(shape);
  return count.empty ? 0 : count.nonzero;
}

void check_size(DType dtype, std::span<const std::int64_t> shape) {
  MemoryLimit::check(bytes_needed(dtype, count_of(shape).nonzero));
}

Extents row_major_strides(std::span<const std::int64_t> shape) {
  Extents strides(shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

std::string to_string(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Tensor Tensor::uninitialized(DType dtype, Extents shape) {
  Tensor result;
  result.dtype_ = dtype;
  result.size_ = element_count(shape);
  if (result.size_ == 0) check_size(dtype, shape);
  result.shape_ = std::move(shape);
  result.writable_ = true;
  const std::size_t bytes = bytes_needed(dtype, result.size_);
  const auto count = static_cast<std::size_t>(result.size_);
  result.bytes_ = dtype == DType::kString ? allocate_objects<std::string>(count)
                  : is_container(dtype)   ? allocate_objects<Tensor>(count)
                                          : allocate_bytes(bytes);
  return result;
}

Tensor Tensor::zeros(DType dtype, Extents shape) {
  Tensor result = uninitialized(dtype, std::move(shape));
  if (!is_object(dtype)) std::memset(result.bytes_.get(), 0, result.byte_size());
  return result;
}

Tensor Tensor::share(DType dtype, Extents shape, std::shared_ptr<const std::byte> bytes, std::size_t byte_count) {
  Tensor result = wrap(dtype, std::move(shape), std::const_pointer_cast<std::byte>(std::move(bytes)), byte_count);
  result.writable_ = false;
  return result;
}

Tensor Tensor::wrap(DType dtype, Extents shape, std::shared_ptr<std::byte> bytes, std::size_t byte_count) {
  if (is_object(dtype)) fail(ErrorCode::kInternal, "tensors of {} cannot share raw bytes", to_string(dtype));
  Tensor result;
  result.dtype_ = dtype;
  result.size_ = element_count(shape);
  if (result.size_ == 0) check_size(dtype, shape);
  result.shape_ = std::move(shape);
  result.writable_ = true;
  result.bytes_ = std::move(bytes);
  if (bytes_needed(dtype, result.size_) > byte_count) {
    fail(ErrorCode::kInvalidModel, "{} bytes do not hold {}{}", byte_count, to_string(dtype), to_string(result.shape_));
  }
  return result;
}

Tensor Tensor::full(DType dtype, Extents shape, double value) {
  Tensor result = uninitialized(dtype, std::move(shape));
  if (is_narrow(dtype)) {
    for (std::byte& element : result.mutable_bytes()) element = std::byte{narrow_from_double(dtype, value)};
    return result;
  }
  visit_dtype(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, std::string>) {
      fail(ErrorCode::kInternal, "a string tensor cannot be filled with a number");
    } else {
      T converted;
      if constexpr (std::is_same_v<T, bool>) {
        converted = value != 0;
      } else if constexpr (std::is_integral_v<T>) {  // what does not fit saturates, NaN is 0
        constexpr auto kLow = std::numeric_limits<T>::min(), kHigh = std::numeric_limits<T>::max();
        converted = std::isnan(value)                     ? T{0}
                    : value <= static_cast<double>(kLow)  ? kLow
                    : value >= static_cast<double>(kHigh) ? kHigh
                                                          : static_cast<T>(value);
      } else if constexpr (std::is_arithmetic_v<T>) {
        converted = static_cast<T>(value);
      } else {
        converted = T(static_cast<float>(value));
      }
      for (T& element : result.mutable_data<T>()) element = converted;
    }
  });
  return result;
}

std::size_t Tensor::byte_size() const { return bytes_needed(dtype_, size_); }

std::span<const std::byte> Tensor::bytes() const {
  if (is_object(dtype_)) fail(ErrorCode::kInternal, "tensors of {} have no raw bytes", to_string(dtype_));
  return {bytes_.get(), byte_size()};
}

std::span<std::byte> Tensor::mutable_bytes() {
  if (is_object(dtype_)) fail(ErrorCode::kInternal, "tensors of {} have no raw bytes", to_string(dtype_));
  if (!writable_) fail(ErrorCode::kInternal, "writing to a read-only tensor");
  return {bytes_.get(), byte_size()};
}

void Tensor::check_access(DType wanted, bool write) const {
  if (wanted != dtype_) {
    fail(ErrorCode::kInvalidArgument, "a tensor of {} read as {}", to_string(dtype_), to_string(wanted));
  }
  if (write && size_ > 0 && !writable_) fail(ErrorCode::kInternal, "writing to a read-only tensor");
  if (!is_object(dtype_)) check_word(element_size(dtype_), write);
}

void Tensor::check_word(std::size_t size, bool write) const {
  if (is_object(dtype_) || element_size(dtype_) != size) {
    fail(ErrorCode::kInvalidArgument, "a tensor of {} read as words of {} bytes", to_string(dtype_), size);
  }
  if (write && size_ > 0 && !writable_) fail(ErrorCode::kInternal, "writing to a read-only tensor");
  if (reinterpret_cast<std::uintptr_t>(bytes_.get()) % size != 0) {
    fail(ErrorCode::kInternal, "misaligned tensor of {}", to_string(dtype_));
  }
}

void Tensor::check_container(bool write) const {
  if (!is_container(dtype_)) fail(ErrorCode::kInvalidArgument, "a tensor of {} read as a container", to_string(dtype_));
  if (write && size_ > 0 && !writable_) fail(ErrorCode::kInternal, "writing to a read-only tensor");
}

double Tensor::item() const {
  if (size_ != 1) {
    fail(ErrorCode::kInvalidArgument, "one element wanted, shape {} given", to_string(shape_));
  }
  if (is_narrow(dtype_)) return narrow_to_float(dtype_, std::to_integer<std::uint8_t>(bytes()[0]));
  return visit_dtype(dtype_, [&](auto tag) -> double {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, std::string>) {
      fail(ErrorCode::kInvalidArgument, "a number wanted, a string given");
    } else if constexpr (std::is_arithmetic_v<T>) {
      return static_cast<double>(data<T>()[0]);
    } else {
      return static_cast<double>(static_cast<float>(data<T>()[0]));
    }
  });
}

std::vector<std::int64_t> Tensor::to_ints() const {
  if (!is_integer(dtype_) && dtype_ != DType::kBool) {
    fail(ErrorCode::kInvalidArgument, "integers wanted, {} given", to_string(dtype_));
  }
  return visit_dtype(dtype_, [&](auto tag) {
    using T = typename decltype(tag)::type;
    std::vector<std::int64_t> result;
    if constexpr (std::is_integral_v<T>) {
      const std::span<const T> values = data<T>();
      result.reserve(values.size());
      for (const T value : values) result.push_back(static_cast<std::int64_t>(value));
    }
    return result;
  });
}

Tensor Tensor::reshaped(Extents shape) const {
  if (element_count(shape) != size_) {
    fail(ErrorCode::kInvalidArgument, "shape {} cannot become {}", to_string(shape_), to_string(shape));
  }
  if (size_ == 0) check_size(dtype_, shape);
  Tensor result = *this;
  result.shape_ = std::move(shape);
  return result;
}

Tensor Tensor::clone() const {
  Tensor result = uninitialized(dtype_, shape_);
  if (is_object(dtype_)) {
    visit_storage(dtype_, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const auto from = data<T>();
      std::copy(from.begin(), from.end(), result.mutable_data<T>().begin());
    });
  } else if (size_ > 0) {
    std::memcpy(result.bytes_.get(), bytes_.get(), byte_size());
  }
  return result;
}

Tensor Tensor::aligned() const {
  const std::size_t size = is_object(dtype_) ? 1 : element_size(dtype_);
  if (reinterpret_cast<std::uintptr_t>(bytes_.get()) % size == 0) return *this;
  return clone();
}

bool Tensor::identical(const Tensor& other) const {
  if (dtype_ != other.dtype_ || shape_ != other.shape_) return false;
  if (size_ == 0) return true;
  if (dtype_ == DType::kString) return std::ranges::equal(data<std::string>(), other.data<std::string>());
  if (is_container(dtype_)) {
    return std::ranges::equal(data<Tensor>(), other.data<Tensor>(),
                              [](const Tensor& a, const Tensor& b) { return a.identical(b); });
  }
  return std::memcmp(bytes_.get(), other.bytes_.get(), byte_size()) == 0;
}

MappedFile map_file(const std::string& path) {
  const auto system_message = [](int code) { return std::generic_category().message(code); };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
  if (descriptor < 0) fail(ErrorCode::kIo, "cannot open {}: {}", path, system_message(errno));
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};
  struct stat status{};
  if (::fstat(descriptor, &status) != 0) {
    fail(ErrorCode::kIo, "cannot read {}: {}", path, system_message(errno));
  }
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::kIo, "{} is not a regular file", path);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return {std::make_shared<std::byte>(), 0};
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (memory == MAP_FAILED) {
    fail(ErrorCode::kIo, "cannot map {}: {}", path, system_message(errno));
  }
  auto* bytes = static_cast<std::byte*>(memory);
  return {std::shared_ptr<const std::byte>(bytes,
                                           [size](const std::byte* p) { ::munmap(const_cast<std::byte*>(p), size); }),
          size};
}

}  // namespace weft
