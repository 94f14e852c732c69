// Messages of the wire format that an exported model is made of.
#pragma once

#include <string>
#include <string_view>

#include "graph/graph.h"
#include "importers/onnx/wire.h"

namespace weft::onnx {

Writer entry_message(std::string_view key, std::string_view value);           // StringStringEntryProto
Writer opset_message(std::string_view domain, std::int64_t version);          // OperatorSetIdProto
Writer value_info(std::string_view name, const TensorType& type);             // ValueInfoProto
Writer tensor_message(std::string_view name, const Tensor& tensor);           // TensorProto, with its contents
Writer attribute_message(std::string_view name, const Attribute& attribute);  // AttributeProto

// A TensorProto whose contents are in another file.
Writer external_tensor(std::string_view name, const Tensor& tensor, std::string_view location, std::size_t offset);

}  // namespace weft::onnx
