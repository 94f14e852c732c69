// The messages of the ONNX format as read from a file. Text and bytes refer to the file's memory.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "importers/onnx/wire.h"

namespace weft::onnx {

using Properties = std::map<std::string, std::string, std::less<>>;

struct TensorProto {
  std::string_view name;
  std::vector<std::int64_t> dims;
  std::int64_t data_type = 0;
  std::vector<float> float_data;
  std::vector<std::int64_t> int_data;  // int32_data or int64_data or uint64_data
  std::vector<double> double_data;
  std::vector<std::string_view> string_data;
  Bytes raw_data;
  bool has_raw_data = false;
  bool has_segment = false;
  bool external = false;
  Properties external_data;
};

struct SparseTensorProto {
  TensorProto values, indices;
  std::vector<std::int64_t> dims;
};

struct DimProto {
  std::optional<std::int64_t> value;
  std::string_view symbol;
};

struct TypeProto {
  enum class Kind : std::uint8_t { kNone, kTensor, kSequence, kOptional, kOptionalSequence, kOther };
  Kind kind = Kind::kNone;
  bool present = false;
  std::int64_t elem_type = 0;
  std::optional<std::vector<DimProto>> shape;
};

struct ValueInfoProto {
  std::string_view name;
  TypeProto type;
};

struct GraphProto;

enum class AttributeType : std::int64_t {
  kUndefined = 0,
  kFloat = 1,
  kInt = 2,
  kString = 3,
  kTensor = 4,
  kGraph = 5,
  kFloats = 6,
  kInts = 7,
  kStrings = 8,
  kTensors = 9,
  kGraphs = 10,
  kSparseTensor = 11,
  kSparseTensors = 12,
  kType = 13,
  kTypes = 14,
};

struct AttributeProto {
  std::string_view name;
  std::string_view reference;  // ref_attr_name
  AttributeType type = AttributeType::kUndefined;
  float f = 0;
  std::int64_t i = 0;
  std::string_view s;
  std::vector<float> floats;
  std::vector<std::int64_t> ints;
  std::vector<std::string_view> strings;
  std::shared_ptr<TensorProto> tensor;
  std::shared_ptr<SparseTensorProto> sparse_tensor;
  std::shared_ptr<GraphProto> graph;
  TypeProto type_proto;
};

struct NodeProto {
  std::vector<std::string_view> inputs, outputs;
  std::string_view name, op_type, domain, overload;
  std::vector<AttributeProto> attributes;
  Properties metadata;
};

struct GraphProto {
  std::string_view name;
  std::vector<NodeProto> nodes;
  std::vector<TensorProto> initializers;
  std::vector<SparseTensorProto> sparse_initializers;
  std::vector<ValueInfoProto> inputs, outputs;
};

using OpsetImports = std::map<std::string, std::int64_t, std::less<>>;

struct FunctionProto {
  std::string_view name, domain, overload;
  std::vector<std::string_view> inputs, outputs;
  std::vector<std::string_view> attributes;  // without default
  std::vector<AttributeProto> attribute_defaults;
  std::vector<NodeProto> nodes;
  OpsetImports opsets;
};

struct ModelProto {
  std::int64_t ir_version = 0;
  OpsetImports opsets;
  std::string_view producer_name, producer_version;
  std::optional<GraphProto> graph;
  std::vector<FunctionProto> functions;
  Properties metadata;
};

// Error kInvalidModel; messages nested more than 64 deep are refused.
ModelProto parse_model(Bytes bytes);
TensorProto parse_tensor(Bytes bytes);

// "ai.onnx" is another spelling of "".
std::string_view normal_domain(std::string_view domain);

}  // namespace weft::onnx
