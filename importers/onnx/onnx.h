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

// Parses, checks and lowers a model: IR versions 3 to 14, opsets 7 to 28 (and 1 to 6 as far as operators are the same),
// functions inlined, captures made inputs, external data mapped (and confined to the model's folder, docs/security.md),
// types and symbolic shapes inferred, verified. Named dimensions become symbols; nameless ones fresh symbols. Error:
// kIo; kInvalidModel with node and tensor; kUnsupported listing all unsupported operators with their counts and the
// first node of each.
Graph import_onnx(const std::filesystem::path& path, const ImportOptions& options = {});
// The same from memory; external data is looked for in `folder` (none allowed when empty).
Graph import_onnx(std::span<const std::byte> bytes, const std::filesystem::path& folder = {},
                  const ImportOptions& options = {});

// What an exported model spells fused operators with. Every file runs in any runtime that has the operators it names,
// and import_onnx() with the default passes makes the same graph of it again.
enum class ExportTarget : std::uint8_t {
  // Operator set 20; what it lacks are model-local functions of domain "weft" that hold their definition.
  kFunctions,
  // Operator set 23 (24 with Swish): Attention, RMSNormalization, Gelu, Swish and, inside functions, RotaryEmbedding.
  // One difference: rows of Attention without any key to attend have numbers there, where weft may have NaN as PyTorch
  // has.
  kStandard,
  // The same with operators of com.microsoft, for which ONNX Runtime has kernels: MultiHeadAttention,
  // SkipLayerNormalization, SkipSimplifiedLayerNormalization, BiasGelu, FastGelu, QuickGelu.
  kMicrosoft,
};

struct ExportOptions {
  ExportTarget target = ExportTarget::kFunctions;
  // Tensors of 1 KiB and more go into "<path>.data". They always do when weights exceed 1.5 GB.
  bool external_data = false;
};

// Serializes a graph as an ONNX model. Names of inputs and outputs, dynamic axes and metadata are kept; states become
// pairs of inputs and outputs. Error kIo.
std::string export_onnx(const Graph& graph, ExportTarget target = ExportTarget::kFunctions);
void export_onnx(const Graph& graph, const std::filesystem::path& path, const ExportOptions& options = {});

// A serialized TensorProto, SequenceProto or OptionalProto (the .pb files of ONNX test folders, which do not say
// which they are: `type` does) and its name. Error kInvalidModel.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};
NamedTensor read_tensor_proto(std::span<const std::byte> bytes, const TensorType& type = {});
std::string write_tensor_proto(const NamedTensor& tensor);

}  // namespace weft
