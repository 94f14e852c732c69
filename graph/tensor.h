// Tensors: dtype, shape and bytes that are owned, shared or mapped from a file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/dtype.h"

namespace weft {

using Extents = std::vector<std::int64_t>;  // concrete shape

// Product of the extents; Error kInvalidModel on a negative extent, on more than 64, or when it passes 2^62.
std::int64_t element_count(std::span<const std::int64_t> shape);
// Error, as if it were allocated, when a tensor like this would pass the memory limit in force. Of an empty one: when
// it would without its axes of length 0, since loops run over the others.
void check_size(DType dtype, std::span<const std::int64_t> shape);
// Row-major strides in elements.
Extents row_major_strides(std::span<const std::int64_t> shape);
// "[2, 3]"
std::string to_string(std::span<const std::int64_t> shape);

// Bounds what tensors take: while one is in force on a thread, memory that tensors allocate there is counted until it
// is freed, and an allocation beyond the limit is Error kInvalidArgument, made before any memory is asked for.
class MemoryLimit {
 public:
  // Shared by the scopes that count together.
  class Account;
  static std::shared_ptr<Account> account(std::size_t limit);

  // In force until destroyed; null: no limit. The one before comes back then.
  explicit MemoryLimit(std::shared_ptr<Account> account);
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
  ~MemoryLimit();

  // The same Error when `bytes` more would pass the limit in force here; takes nothing. For memory that is no tensor's.
  static void check(std::size_t bytes);

 private:
  std::shared_ptr<Account> before_;
};

// A dense row-major tensor. Copies share the bytes (like an array of NumPy); clone() makes new ones.
// Distinct tensors that share bytes may be read from many threads; writing needs a sole user.
// Bytes that weft allocates start at a multiple of 64 and are followed by 64 readable bytes.
class Tensor {
 public:
  Tensor() = default;  // f32[0]

  // Zero-filled (strings: empty), owned. Error kInvalidModel when the size overflows,
  // kInvalidArgument when memory does not suffice.
  static Tensor zeros(DType dtype, Extents shape);
  // Owned, contents unspecified (strings: empty).
  static Tensor uninitialized(DType dtype, Extents shape);
  // Read-only bytes somebody else holds; `bytes` (which may alias an owner: a mapping, an arena)
  // lives as long as the tensor. byte_count must be at least what dtype and shape need. Not for
  // strings. Any alignment; data<T>() of misaligned bytes throws, see aligned().
  static Tensor share(DType dtype, Extents shape, std::shared_ptr<const std::byte> bytes, std::size_t byte_count);
  // The same over memory that may be written.
  static Tensor wrap(DType dtype, Extents shape, std::shared_ptr<std::byte> bytes, std::size_t byte_count);
  template <class T>
  static Tensor of(Extents shape, std::span<const T> values);
  template <class T>
  static Tensor of(Extents shape, std::initializer_list<T> values) {
    return of<T>(std::move(shape), std::span<const T>(values.begin(), values.size()));
  }
  template <class T>
  static Tensor vector(std::span<const T> values) {
    return of<T>({static_cast<std::int64_t>(values.size())}, values);
  }
  template <class T>
  static Tensor scalar(T value) {
    return of<T>({}, std::span<const T>(&value, 1));
  }
  // value, rounded to dtype (any numeric dtype or bool), in every element.
  static Tensor full(DType dtype, Extents shape, double value);

  DType dtype() const { return dtype_; }
  const Extents& shape() const { return shape_; }
  std::int64_t extent(std::int64_t axis) const { return shape_[static_cast<std::size_t>(axis)]; }
  std::int64_t rank() const { return static_cast<std::int64_t>(shape_.size()); }
  std::int64_t size() const { return size_; }  // elements
  std::size_t byte_size() const;
  bool writable() const { return writable_; }

  // Elements as T, which must be the C++ type of dtype(), or the Word of its size, or Tensor for containers; else
  // Error kInternal.
  template <class T>
  std::span<const T> data() const {
    check<T>(false);
    return {reinterpret_cast<const T*>(bytes_.get()), static_cast<std::size_t>(size_)};
  }
  template <class T>
  std::span<T> mutable_data() {
    check<T>(true);
    return {reinterpret_cast<T*>(bytes_.get()), static_cast<std::size_t>(size_)};
  }
  // Raw bytes; Error kInternal for strings and containers.
  std::span<const std::byte> bytes() const;
  std::span<std::byte> mutable_bytes();
  // The only element, converted; Error kInvalidArgument if there is not exactly one, or of strings.
  double item() const;
  // Every element of an integer or bool tensor; Error kInvalidArgument otherwise.
  std::vector<std::int64_t> to_ints() const;

  // Same bytes under another shape of as many elements; Error kInvalidArgument otherwise.
  Tensor reshaped(Extents shape) const;
  Tensor clone() const;
  // *this if its bytes are aligned for its dtype, else a copy that is.
  Tensor aligned() const;
  // Same dtype, shape and bits.
  bool identical(const Tensor& other) const;

 private:
  template <class T>
  void check(bool write) const {
    if constexpr (std::is_same_v<T, Tensor>) {
      check_container(write);
    } else if constexpr (requires { T::kWordSize; }) {
      check_word(T::kWordSize, write);
    } else {
      check_access(dtype_of<T>, write);
    }
  }
  void check_access(DType wanted, bool write) const;
  void check_word(std::size_t size, bool write) const;
  void check_container(bool write) const;

  DType dtype_ = DType::kF32;
  Extents shape_ = {0};
  std::int64_t size_ = 0;
  bool writable_ = false;
  std::shared_ptr<std::byte> bytes_;  // of strings: an array of std::string; of containers: of Tensor
};

template <class T>
Tensor Tensor::of(Extents shape, std::span<const T> values) {
  Tensor result = uninitialized(dtype_of<T>, std::move(shape));
  if (static_cast<std::size_t>(result.size()) != values.size()) {
    fail(ErrorCode::kInvalidArgument, "{} values for shape {}", values.size(), to_string(result.shape()));
  }
  std::span<T> out = result.mutable_data<T>();
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return result;
}

// An element of kSize bytes of whatever type.
template <std::size_t kSize>
struct Word {
  static constexpr std::size_t kWordSize = kSize;
  alignas(kSize) std::array<std::byte, kSize> bytes;
};

// Calls body(TypeTag<T>{}) with the type that moves elements of dtype unread: a Word of their size, std::string, or
// Tensor for containers.
template <class Body>
decltype(auto) visit_storage(DType dtype, Body&& body) {
  if (dtype == DType::kString) return body(TypeTag<std::string>{});
  if (is_container(dtype)) return body(TypeTag<Tensor>{});
  switch (element_size(dtype)) {
    case 1: return body(TypeTag<Word<1>>{});
    case 2: return body(TypeTag<Word<2>>{});
    case 4: return body(TypeTag<Word<4>>{});
    default: return body(TypeTag<Word<8>>{});
  }
}

// A file mapped read-only; the pointer keeps the mapping alive. Error kIo.
struct MappedFile {
  std::shared_ptr<const std::byte> bytes;
  std::size_t size = 0;
};
MappedFile map_file(const std::string& path);

}  // namespace weft
