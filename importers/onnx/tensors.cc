#include "importers/onnx/tensors.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "graph/narrow.h"
#include "importers/onnx/onnx.h"

namespace weft::onnx {
namespace {

struct Code {
  std::int64_t data_type;
  DType dtype;
};
constexpr std::array<Code, 24> kCodes = {
    {{1, DType::kF32},     {2, DType::kU8},          {3, DType::kI8},        {4, DType::kU16},
     {5, DType::kI16},     {6, DType::kI32},         {7, DType::kI64},       {8, DType::kString},
     {9, DType::kBool},    {10, DType::kF16},        {11, DType::kF64},      {12, DType::kU32},
     {13, DType::kU64},    {16, DType::kBF16},       {17, DType::kF8E4M3FN}, {18, DType::kF8E4M3FNUZ},
     {19, DType::kF8E5M2}, {20, DType::kF8E5M2FNUZ}, {21, DType::kU4},       {22, DType::kI4},
     {23, DType::kF4E2M1}, {24, DType::kF8E8M0},     {25, DType::kU2},       {26, DType::kI2}}};

template <class T>
T from_integer(std::int64_t value) {
  if constexpr (std::is_same_v<T, bool>)
    return value != 0;
  else if constexpr (std::is_arithmetic_v<T>)
    return static_cast<T>(value);
  else
    return T::from_bits(static_cast<std::uint16_t>(value));
}

// The typed field that holds elements of T.
template <class T>
Tensor from_fields(const TensorProto& proto, Extents shape, std::int64_t count) {
  const auto check = [&](std::size_t given) {
    if (static_cast<std::int64_t>(given) != count) {
      fail(ErrorCode::kInvalidModel, "{} values for shape {}", given, to_string(shape));
    }
  };
  if constexpr (std::is_same_v<T, float>) {
    check(proto.float_data.size());
    return Tensor::of<float>(std::move(shape), proto.float_data);
  } else if constexpr (std::is_same_v<T, double>) {
    check(proto.double_data.size());
    return Tensor::of<double>(std::move(shape), proto.double_data);
  } else if constexpr (std::is_same_v<T, std::string>) {
    check(proto.string_data.size());
    const std::vector<std::string> strings(proto.string_data.begin(), proto.string_data.end());
    return Tensor::of<std::string>(std::move(shape), strings);
  } else {
    check(proto.int_data.size());
    Tensor tensor = Tensor::uninitialized(dtype_of<T>, std::move(shape));
    const auto out = tensor.mutable_data<T>();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = from_integer<T>(proto.int_data[i]);
    return tensor;
  }
}

// Bytes of bool may be anything; weft's are 0 or 1. Small tensors are copied where that aligns them: inference
// reads them.
Tensor normalized(Tensor tensor) {
  constexpr std::size_t kSmall = 4096;
  if (tensor.byte_size() <= kSmall) tensor = tensor.aligned();
  if (tensor.dtype() != DType::kBool) return tensor;
  const auto bytes = tensor.bytes();
  if (std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b <= std::byte{1}; })) return tensor;
  Tensor clean = Tensor::uninitialized(DType::kBool, tensor.shape());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    clean.mutable_bytes()[i] = bytes[i] == std::byte{0} ? std::byte{0} : std::byte{1};
  }
  return clean;
}

std::uint64_t parse_count(const std::string& text, std::string_view key) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(ErrorCode::kInvalidModel, "external data: {} = \"{}\" is not a number", key, text);
  }
  return value;
}

// Bytes in the file.
std::size_t bytes_of(DType dtype, std::int64_t count) {
  const auto bits = static_cast<std::uint64_t>(packed_bits(dtype));
  if (static_cast<std::uint64_t>(count) > (std::uint64_t{1} << 60) / bits) {
    fail(ErrorCode::kInvalidModel, "a tensor of {} elements is too large", count);
  }
  return (static_cast<std::size_t>(count) * bits + 7) / 8;
}

// Elements of 2 or 4 bits, the first in the low bits of the first byte, one a byte.
Tensor unpack(DType dtype, Extents shape, Bytes packed) {
  Tensor tensor = Tensor::uninitialized(dtype, std::move(shape));
  const auto bits = static_cast<std::size_t>(packed_bits(dtype));
  const std::size_t per_byte = 8 / bits;
  const unsigned mask = (1u << bits) - 1;
  const bool is_signed = dtype == DType::kI4 || dtype == DType::kI2;
  const auto out = tensor.mutable_bytes();
  for (std::size_t i = 0; i < out.size(); ++i) {
    unsigned code = std::to_integer<unsigned>(packed[i / per_byte]) >> (i % per_byte * bits) & mask;
    if (is_signed && (code >> (bits - 1)) != 0) code |= ~mask;
    out[i] = static_cast<std::byte>(code);
  }
  return tensor;
}

std::string pack(const Tensor& tensor) {
  const auto bits = static_cast<std::size_t>(packed_bits(tensor.dtype()));
  const std::size_t per_byte = 8 / bits;
  const unsigned mask = (1u << bits) - 1;
  std::string packed(bytes_of(tensor.dtype(), tensor.size()), '\0');
  const auto in = tensor.bytes();
  for (std::size_t i = 0; i < in.size(); ++i) {
    const unsigned code = std::to_integer<unsigned>(in[i]) & mask;
    auto& byte = packed[i / per_byte];
    byte = static_cast<char>(static_cast<unsigned char>(byte) | code << (i % per_byte * bits));
  }
  return packed;
}

// A tensor's elements are in one place only.
void check_one_field(const TensorProto& proto, DType dtype) {
  const int fields = static_cast<int>(!proto.float_data.empty()) + static_cast<int>(!proto.int_data.empty()) +
                     static_cast<int>(!proto.double_data.empty()) + static_cast<int>(!proto.string_data.empty()) +
                     static_cast<int>(proto.has_raw_data && !proto.raw_data.empty()) + static_cast<int>(proto.external);
  if (fields > 1) fail(ErrorCode::kInvalidModel, "its elements are given in {} fields", fields);
  if (dtype == DType::kString && proto.has_raw_data && !proto.raw_data.empty()) {
    fail(ErrorCode::kInvalidModel, "strings as raw data");
  }
}

bool is_inside(const std::filesystem::path& path, const std::filesystem::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

Tensor narrow_from_fields(const TensorProto& proto, DType dtype, Extents shape, std::int64_t count) {
  const std::size_t needed = bytes_of(dtype, count), given = proto.int_data.size();
  // Some writers fill each integer with four bytes of packed elements instead of one.
  const std::size_t each = packed_bits(dtype) < 8 && given != needed && given == (needed + 3) / 4 ? 4 : 1;
  if (each == 1 && given != needed) {
    fail(ErrorCode::kInvalidModel, "{} values for {}{}", given, to_string(dtype), to_string(shape));
  }
  std::vector<std::byte> packed;
  for (const std::int64_t value : proto.int_data) {
    for (std::size_t i = 0; i < each; ++i) packed.push_back(static_cast<std::byte>(value >> (8 * i) & 0xff));
  }
  if (packed_bits(dtype) < 8) return unpack(dtype, std::move(shape), packed);
  Tensor tensor = Tensor::uninitialized(dtype, std::move(shape));
  std::copy(packed.begin(), packed.end(), tensor.mutable_bytes().begin());
  return tensor;
}

}  // namespace

DType to_dtype(std::int64_t data_type) {
  for (const Code& code : kCodes) {
    if (code.data_type == data_type) return code.dtype;
  }
  fail(data_type >= 1 && data_type <= 30 ? ErrorCode::kUnsupported : ErrorCode::kInvalidModel,
       "element type {} of ONNX", data_type);
}

std::int64_t from_dtype(DType dtype) {
  for (const Code& code : kCodes) {
    if (code.dtype == dtype) return code.data_type;
  }
  fail(ErrorCode::kUnsupported, "ONNX export of {}", to_string(dtype));
}

TensorType base_type(const TypeProto& type) {
  using Kind = TypeProto::Kind;
  switch (type.kind) {
    case Kind::kTensor: return {to_dtype(type.elem_type), std::nullopt};
    case Kind::kSequence: return {DType::kSequence, std::nullopt, to_dtype(type.elem_type)};
    case Kind::kOptional: return {DType::kOptional, std::nullopt, to_dtype(type.elem_type)};
    case Kind::kOptionalSequence: return {DType::kOptionalSequence, std::nullopt, to_dtype(type.elem_type)};
    case Kind::kNone: fail(ErrorCode::kInvalidModel, "no type is given");
    case Kind::kOther: break;
  }
  fail(ErrorCode::kUnsupported, "a type that is no tensor, sequence or optional of tensors");
}

TensorLoader::TensorLoader(std::shared_ptr<const std::byte> owner, std::filesystem::path folder,
                           std::filesystem::path model)
    : owner_(std::move(owner)), folder_(std::move(folder)), model_(std::move(model)) {}

Tensor TensorLoader::load(const TensorProto& proto) {
  return with_frame([&] { return fmt::format("in tensor \"{}\"", proto.name); },
                    [&] {
                      if (proto.has_segment) fail(ErrorCode::kUnsupported, "tensors in segments");
                      const DType dtype = to_dtype(proto.data_type);
                      Extents shape = proto.dims;
                      const std::int64_t count = element_count(shape);
                      check_one_field(proto, dtype);
                      if (proto.external) return normalized(load_external(proto, dtype, std::move(shape)));
                      if (proto.has_raw_data && dtype != DType::kString) {
                        if (proto.raw_data.size() != bytes_of(dtype, count)) {
                          fail(ErrorCode::kInvalidModel, "{} bytes of raw data for {}{}", proto.raw_data.size(),
                               to_string(dtype), to_string(shape));
                        }
                        if (packed_bits(dtype) < 8) return unpack(dtype, std::move(shape), proto.raw_data);
                        return normalized(Tensor::share(dtype, std::move(shape),
                                                        std::shared_ptr<const std::byte>(owner_, proto.raw_data.data()),
                                                        proto.raw_data.size()));
                      }
                      if (count == 0) return Tensor::zeros(dtype, std::move(shape));
                      if (is_narrow(dtype)) return narrow_from_fields(proto, dtype, std::move(shape), count);
                      return visit_dtype(dtype, [&](auto tag) {
                        return from_fields<typename decltype(tag)::type>(proto, std::move(shape), count);
                      });
                    });
}

// Values at linear indices [NNZ] or coordinates [NNZ, rank] of a tensor of zeros, in ascending order.
Tensor TensorLoader::load(const SparseTensorProto& proto) {
  const Tensor values = load(proto.values).aligned();
  const Tensor indices = load(proto.indices).aligned();
  constexpr std::int64_t kMaxDense = std::int64_t{1} << 28;
  if (indices.dtype() != DType::kI64 || values.rank() != 1 || is_object(values.dtype()) ||
      element_count(proto.dims) > kMaxDense) {
    fail(ErrorCode::kInvalidModel, "malformed sparse tensor \"{}\"", proto.values.name);
  }
  Tensor dense = Tensor::zeros(values.dtype(), proto.dims);
  const Extents strides = row_major_strides(proto.dims);
  const auto at = indices.data<std::int64_t>();
  const std::size_t size = element_size(values.dtype());
  const std::int64_t width = indices.rank() == 2 ? indices.extent(1) : 1;
  if (at.size() != static_cast<std::size_t>(values.size() * width) ||
      (indices.rank() == 2 && width != static_cast<std::int64_t>(proto.dims.size()))) {
    fail(ErrorCode::kInvalidModel, "malformed sparse tensor \"{}\"", proto.values.name);
  }
  std::int64_t last = -1;
  for (std::int64_t i = 0; i < values.size(); ++i) {
    std::int64_t offset = 0;
    for (std::int64_t k = 0; k < width; ++k) {
      const bool linear = indices.rank() != 2;
      const std::int64_t index = at[static_cast<std::size_t>(i * width + k)];
      if (index < 0 || index >= (linear ? dense.size() : proto.dims[static_cast<std::size_t>(k)])) {
        fail(ErrorCode::kInvalidModel, "sparse tensor \"{}\": index out of range", proto.values.name);
      }
      offset += linear ? index : index * strides[static_cast<std::size_t>(k)];
    }
    if (offset <= last) {
      fail(ErrorCode::kInvalidModel, "sparse tensor \"{}\": indices are not in ascending order", proto.values.name);
    }
    last = offset;
    std::memcpy(dense.mutable_bytes().data() + static_cast<std::size_t>(offset) * size,
                values.bytes().data() + static_cast<std::size_t>(i) * size, size);
  }
  return dense;
}

Tensor TensorLoader::load_external(const TensorProto& proto, DType dtype, Extents shape) {
  const auto find = [&](std::string_view key) -> const std::string* {
    const auto found = proto.external_data.find(key);
    return found == proto.external_data.end() ? nullptr : &found->second;
  };
  const std::string* location = find("location");
  if (location == nullptr) fail(ErrorCode::kInvalidModel, "external data without a location");
  if (dtype == DType::kString) fail(ErrorCode::kInvalidModel, "external data of strings");
  const MappedFile& file = map(*location);
  const std::string* offset_text = find("offset");
  const std::string* length_text = find("length");
  const std::uint64_t offset = offset_text != nullptr ? parse_count(*offset_text, "offset") : 0;
  const std::uint64_t needed = bytes_of(dtype, element_count(shape));
  if (offset > file.size || needed > file.size - offset) {
    fail(ErrorCode::kInvalidModel, "external data: {} bytes at {} of \"{}\", which has {}", needed, offset, *location,
         file.size);
  }
  if (length_text != nullptr && parse_count(*length_text, "length") != needed) {
    fail(ErrorCode::kInvalidModel, "external data: length {} for {}{}", *length_text, to_string(dtype),
         to_string(shape));
  }
  if (packed_bits(dtype) < 8) return unpack(dtype, std::move(shape), {file.bytes.get() + offset, needed});
  return Tensor::share(dtype, std::move(shape), std::shared_ptr<const std::byte>(file.bytes, file.bytes.get() + offset),
                       needed);
}

// Only regular files inside the model's folder or that of the file it is a link to, also after links are followed.
const MappedFile& TensorLoader::map(const std::string& location) {
  if (const auto found = files_.find(location); found != files_.end()) return found->second;
  const std::filesystem::path relative(location);
  const bool climbs = std::any_of(relative.begin(), relative.end(), [](const auto& part) { return part == ".."; });
  if (folder_.empty() || relative.is_absolute() || climbs || location.empty() ||
      location.find('\0') != std::string::npos) {
    fail(ErrorCode::kInvalidModel, "external data \"{}\" is not inside the model's folder", location);
  }
  std::error_code error;
  const std::filesystem::path root = std::filesystem::canonical(folder_, error);
  if (error) fail(ErrorCode::kIo, "folder {}: {}", folder_.string(), error.message());
  const std::filesystem::path full = std::filesystem::canonical(root / relative, error);
  if (error) fail(ErrorCode::kIo, "external data \"{}\": {}", location, error.message());
  const std::filesystem::path target = model_.empty() ? root : std::filesystem::canonical(model_, error).parent_path();
  if (error || (!is_inside(full, root) && !is_inside(full, target))) {
    fail(ErrorCode::kInvalidModel, "external data \"{}\" leads out of the model's folder", location);
  }
  return files_.emplace(location, map_file(full.string())).first->second;
}

}  // namespace weft::onnx

namespace weft {

namespace {

NamedTensor read_plain(std::span<const std::byte> bytes) {
  const onnx::TensorProto proto = onnx::parse_tensor(bytes);
  if (proto.data_type == 0) fail(ErrorCode::kInvalidModel, "the file holds no tensor");
  onnx::TensorLoader loader(std::shared_ptr<const std::byte>(std::shared_ptr<void>(), bytes.data()), {});
  return {std::string(proto.name), loader.load(proto).clone()};
}

Tensor container(DType dtype, std::span<const Tensor> elements) {
  Tensor result = Tensor::uninitialized(dtype, {static_cast<std::int64_t>(elements.size())});
  std::copy(elements.begin(), elements.end(), result.mutable_data<Tensor>().begin());
  return result;
}

// SequenceProto and OptionalProto: 1 name, 3 the tensor or tensors, 5 the sequence of an optional.
NamedTensor read_container(std::span<const std::byte> bytes, DType dtype) {
  NamedTensor result;
  std::vector<Tensor> elements;
  onnx::Reader reader(bytes);
  for (onnx::Field field; reader.next(field);) {
    if (field.number == 1) result.name = field.text();
    if (field.number == 3 && dtype != DType::kOptionalSequence) elements.push_back(read_plain(field.message()).tensor);
    if (field.number == 5 && dtype == DType::kOptionalSequence) {
      elements.push_back(read_container(field.message(), DType::kSequence).tensor);
    }
  }
  result.tensor = container(dtype, elements);
  return result;
}

}  // namespace

NamedTensor read_tensor_proto(std::span<const std::byte> bytes, const TensorType& type) {
  return is_container(type.dtype) ? read_container(bytes, type.dtype) : read_plain(bytes);
}

std::string write_tensor_proto(const NamedTensor& named) {
  const Tensor& tensor = named.tensor;
  onnx::Writer proto;
  for (const std::int64_t extent : tensor.shape()) proto.integer(1, extent);
  proto.integer(2, onnx::from_dtype(tensor.dtype()));
  if (!named.name.empty()) proto.text(8, named.name);
  if (tensor.dtype() == DType::kString) {
    for (const std::string& text : tensor.data<std::string>()) proto.text(6, text);
  } else if (packed_bits(tensor.dtype()) < 8) {
    proto.text(9, onnx::pack(tensor));
  } else {
    proto.bytes(9, tensor.bytes());
  }
  return proto.data();
}

}  // namespace weft
