#include "importers/onnx/export_messages.h"

#include "importers/onnx/onnx.h"
#include "importers/onnx/schema.h"
#include "importers/onnx/tensors.h"

namespace weft::onnx {

Writer entry_message(std::string_view key, std::string_view value) {
  Writer writer;
  writer.text(1, key).text(2, value);
  return writer;
}

Writer opset_message(std::string_view domain, std::int64_t version) {
  Writer writer;
  writer.text(1, domain).integer(2, version);
  return writer;
}

Writer value_info(std::string_view name, const TensorType& type) {
  Writer tensor;
  tensor.integer(1, from_dtype(is_container(type.dtype) ? type.element : type.dtype));
  if (type.shape) {
    Writer shape;
    for (const Dim& dim : *type.shape) {
      Writer one;
      if (dim.is_constant())
        one.integer(1, dim.value());
      else
        one.text(2, dim.symbol_name().value_or(dim.to_string()));
      shape.message(1, one);
    }
    tensor.message(2, shape);
  }
  Writer wrapped;
  wrapped.message(1, tensor);
  const auto wrap = [&](int field) {
    Writer element, outer;
    element.message(1, wrapped);
    outer.message(field, element);
    wrapped = std::move(outer);
  };
  constexpr int kSequenceType = 4, kOptionalType = 9;
  if (type.dtype == DType::kSequence || type.dtype == DType::kOptionalSequence) wrap(kSequenceType);
  if (type.dtype == DType::kOptional || type.dtype == DType::kOptionalSequence) wrap(kOptionalType);
  Writer info;
  info.text(1, name).message(2, wrapped);
  return info;
}

Writer tensor_message(std::string_view name, const Tensor& tensor) {
  Writer writer;
  writer.raw(write_tensor_proto({std::string(name), tensor}));
  return writer;
}

Writer external_tensor(std::string_view name, const Tensor& tensor, std::string_view location, std::size_t offset) {
  constexpr std::int64_t kExternal = 1;
  Writer proto;
  for (const std::int64_t extent : tensor.shape()) proto.integer(1, extent);
  proto.integer(2, from_dtype(tensor.dtype())).text(8, name);
  proto.message(13, entry_message("location", location)).message(13, entry_message("offset", std::to_string(offset)));
  proto.message(13, entry_message("length", std::to_string(tensor.byte_size()))).integer(14, kExternal);
  return proto;
}

Writer attribute_message(std::string_view name, const Attribute& attribute) {
  Writer writer;
  writer.text(1, name);
  const auto kind = [&](AttributeType type) { writer.integer(20, static_cast<std::int64_t>(type)); };
  if (const auto* i = std::get_if<std::int64_t>(&attribute)) {
    writer.integer(3, *i);
    kind(AttributeType::kInt);
  } else if (const auto* f = std::get_if<double>(&attribute)) {
    writer.number32(2, static_cast<float>(*f));
    kind(AttributeType::kFloat);
  } else if (const auto* s = std::get_if<std::string>(&attribute)) {
    writer.text(4, *s);
    kind(AttributeType::kString);
  } else if (const auto* is = std::get_if<std::vector<std::int64_t>>(&attribute)) {
    for (const std::int64_t value : *is) writer.integer(8, value);
    kind(AttributeType::kInts);
  } else if (const auto* fs = std::get_if<std::vector<double>>(&attribute)) {
    for (const double value : *fs) writer.number32(7, static_cast<float>(value));
    kind(AttributeType::kFloats);
  } else if (const auto* ss = std::get_if<std::vector<std::string>>(&attribute)) {
    for (const std::string& value : *ss) writer.text(9, value);
    kind(AttributeType::kStrings);
  } else if (const auto* t = std::get_if<Tensor>(&attribute)) {
    writer.message(5, tensor_message("", *t));
    kind(AttributeType::kTensor);
  } else {
    writer.integer(3, from_dtype(std::get<DType>(attribute)));
    kind(AttributeType::kInt);
  }
  return writer;
}

}  // namespace weft::onnx
