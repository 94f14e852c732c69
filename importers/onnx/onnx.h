// ONNX in and out.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft {

struct ImportOptions {
  // Names of dimensions fixed at import ("batch" -> 1).
  std::map<std::string, std::int64_t, std::less<>> fixed_dims;
};

// Parses, checks and lowers a model: IR versions 3 to 13, opsets 7 to the newest, functions inlined,
// captures made inputs, external data mapped (and confined to the model's folder), types and symbolic
// shapes inferred, verified. Named dimensions become symbols; nameless ones fresh symbols.
// Error: kIo; kInvalidModel with node and tensor; kUnsupported listing all unsupported operators with
// their counts and the first node of each.
Graph import_onnx(const std::filesystem::path& path, const ImportOptions& options = {});
// The same from memory; external data is looked for in `folder` (none allowed when empty).
Graph import_onnx(std::span<const std::byte> bytes, const std::filesystem::path& folder = {},
                  const ImportOptions& options = {});

// Serializes a graph as an ONNX model (IR version 10, opset 20) that any runtime executes: operators that ONNX
// lacks at that opset become model-local functions of domain "weft" holding their definition, which
// import_onnx() reads back as the same operators. States become pairs of inputs and outputs.
std::string export_onnx(const Graph& graph);
void export_onnx(const Graph& graph, const std::filesystem::path& path);

// A serialized TensorProto, SequenceProto or OptionalProto (the .pb files of ONNX test folders, which do not say
// which they are: `type` does) and its name. Error kInvalidModel.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};
NamedTensor read_tensor_proto(std::span<const std::byte> bytes, const TensorType& type = {});
std::string write_tensor_proto(const NamedTensor& tensor);

}  // namespace weft
