#include "tools/npz.h"

#include <fmt/ranges.h>
#include <zip.h>

#include <cstring>
#include <ctime>
#include <memory>

#include "ops/cast.h"

namespace weft::tools {
namespace {

struct Description {
  std::string_view text;
  DType dtype;
};
constexpr Description kDescriptions[] = {
    {"<f4", DType::kF32}, {"<f2", DType::kF16}, {"<f8", DType::kF64}, {"|i1", DType::kI8},
    {"<i2", DType::kI16}, {"<i4", DType::kI32}, {"<i8", DType::kI64}, {"|u1", DType::kU8},
    {"<u2", DType::kU16}, {"<u4", DType::kU32}, {"<u8", DType::kU64}, {"|b1", DType::kBool},
};

[[noreturn]] void malformed(std::string_view what) { fail(ErrorCode::kInvalidArgument, "malformed .npy: {}", what); }

// The text between the quotes, or up to a delimiter, after 'key': in the header's dictionary.
std::string_view field(std::string_view header, std::string_view key) {
  const std::size_t at = header.find(fmt::format("'{}'", key));
  if (at == std::string_view::npos) malformed(fmt::format("no {} in the header", key));
  std::string_view rest = header.substr(header.find(':', at) + 1);
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  return rest;
}

Tensor from_fortran(const Tensor& x) {
  Extents reversed(x.shape().rbegin(), x.shape().rend());
  Tensor result = Tensor::uninitialized(x.dtype(), x.shape());
  const Extents strides = row_major_strides(reversed);
  const std::size_t size = element_size(x.dtype());
  Extents index(x.shape().size(), 0);
  for (std::int64_t n = 0; n < x.size(); ++n) {
    std::int64_t from = 0;
    for (std::size_t i = 0; i < index.size(); ++i) from += index[i] * strides[index.size() - 1 - i];
    std::memcpy(result.mutable_bytes().data() + static_cast<std::size_t>(n) * size,
                x.bytes().data() + static_cast<std::size_t>(from) * size, size);
    for (std::size_t i = index.size(); i-- > 0 && ++index[i] == x.shape()[i];) index[i] = 0;
  }
  return result;
}

struct ZipCloser {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
using Zip = std::unique_ptr<zip_t, ZipCloser>;

Zip open_zip(const std::string& path, int flags) {
  int code = 0;
  Zip archive(zip_open(path.c_str(), flags, &code));
  if (!archive) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string message = zip_error_strerror(&error);
    zip_error_fini(&error);
    fail(ErrorCode::kIo, "{}: {}", path, message);
  }
  return archive;
}

}  // namespace

Tensor parse_npy(std::span<const std::byte> bytes) {
  if (bytes.size() < 10 || std::memcmp(bytes.data(), "\x93NUMPY", 6) != 0) malformed("no magic number");
  const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(bytes[i]); };
  const bool long_header = byte(6) >= 2;
  if (long_header && bytes.size() < 12) malformed("truncated");
  const std::size_t start = long_header ? 12 : 10;
  const std::size_t length = byte(8) | byte(9) << 8 | (long_header ? byte(10) << 16 | byte(11) << 24 : 0);
  if (bytes.size() - start < length) malformed("truncated header");
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + start, length);
  const std::string_view text = field(header, "descr");
  std::optional<DType> dtype;
  for (const Description& known : kDescriptions) {
    if (text.substr(1, 3) == known.text) dtype = known.dtype;
  }
  if (!dtype) fail(ErrorCode::kUnsupported, ".npy of dtype {}", text.substr(0, text.find(',')));
  const std::string_view shape_text = field(header, "shape");
  Extents shape;
  for (std::size_t i = 1; i < shape_text.size() && shape_text[i] != ')';) {
    if (shape_text[i] < '0' || shape_text[i] > '9') {
      ++i;
      continue;
    }
    std::int64_t extent = 0;
    for (; i < shape_text.size() && shape_text[i] >= '0' && shape_text[i] <= '9'; ++i) {
      if (extent > (INT64_MAX - 9) / 10) malformed("extent out of range");
      extent = extent * 10 + (shape_text[i] - '0');
    }
    shape.push_back(extent);
  }
  const bool fortran = field(header, "fortran_order").substr(0, 4) == "True";
  const std::span<const std::byte> data = bytes.subspan(start + length);
  const std::int64_t count = element_count(shape);
  if (static_cast<std::uint64_t>(count) > data.size() / element_size(*dtype)) malformed("truncated data");
  Tensor tensor = Tensor::uninitialized(*dtype, shape);
  if (count > 0) std::memcpy(tensor.mutable_bytes().data(), data.data(), tensor.byte_size());
  return fortran && shape.size() > 1 ? from_fortran(tensor) : tensor;
}

std::string write_npy(const Tensor& given) {
  const Tensor tensor = given.dtype() == DType::kBF16 ? cast(given, DType::kF32) : given;
  std::string_view description;
  for (const Description& known : kDescriptions) {
    if (known.dtype == tensor.dtype()) description = known.text;
  }
  if (description.empty()) fail(ErrorCode::kUnsupported, "writing {} as .npy", to_string(tensor.dtype()));
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", description,
                                   fmt::join(tensor.shape(), ", "), tensor.rank() == 1 ? "," : "");
  header.append(63 - (header.size() + 10) % 64, ' ');
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(header.size() & 0xff);
  out += static_cast<char>(header.size() >> 8);
  out += header;
  out.append(reinterpret_cast<const char*>(tensor.bytes().data()), tensor.byte_size());
  return out;
}

Tensor read_npy(const std::string& path) {
  const MappedFile file = map_file(path);
  return with_frame([&] { return "in " + path; }, [&] { return parse_npy({file.bytes.get(), file.size}); });
}

std::map<std::string, Tensor, std::less<>> read_npz(const std::string& path) {
  const Zip archive = open_zip(path, ZIP_RDONLY);
  std::map<std::string, Tensor, std::less<>> tensors;
  const zip_int64_t count = zip_get_num_entries(archive.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<zip_uint64_t>(i);
    zip_stat_t status;
    if (zip_stat_index(archive.get(), index, 0, &status) != 0) fail(ErrorCode::kIo, "{}: unreadable entry", path);
    std::string name = status.name;
    if (name.ends_with(".npy")) name.resize(name.size() - 4);
    const auto closer = [](zip_file_t* file) { zip_fclose(file); };
    const std::unique_ptr<zip_file_t, decltype(closer)> file(zip_fopen_index(archive.get(), index, 0), closer);
    std::vector<std::byte> bytes(status.size);
    if (!file || zip_fread(file.get(), bytes.data(), bytes.size()) != static_cast<zip_int64_t>(bytes.size())) {
      fail(ErrorCode::kIo, "{}: cannot read {}", path, name);
    }
    tensors[name] = with_frame([&] { return "in " + path + ", " + name; }, [&] { return parse_npy(bytes); });
  }
  return tensors;
}

void write_npz(const std::string& path, const std::map<std::string, Tensor, std::less<>>& tensors) {
  std::vector<std::string> contents;  // the archive reads them when it is closed
  contents.reserve(tensors.size());
  Zip archive = open_zip(path, ZIP_CREATE | ZIP_TRUNCATE);
  for (const auto& [name, tensor] : tensors) {
    contents.push_back(write_npy(tensor));
    zip_source_t* source = zip_source_buffer(archive.get(), contents.back().data(), contents.back().size(), 0);
    const zip_int64_t added =
        source == nullptr ? -1 : zip_file_add(archive.get(), (name + ".npy").c_str(), source, ZIP_FL_OVERWRITE);
    if (added < 0) {
      zip_source_free(source);
      fail(ErrorCode::kIo, "{}: cannot add {}", path, name);
    }
    // The same tensors make the same file, whenever it is written.
    constexpr std::time_t kFirstDay = 86400 * (10 * 365 + 2);  // of 1980, where the format's time begins
    zip_file_set_mtime(archive.get(), static_cast<zip_uint64_t>(added), kFirstDay + 86400, 0);
  }
  if (zip_close(archive.get()) != 0) fail(ErrorCode::kIo, "{}: {}", path, zip_strerror(archive.get()));
  static_cast<void>(archive.release());
}

}  // namespace weft::tools
