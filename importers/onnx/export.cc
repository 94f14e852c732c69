// From a Graph to an ONNX model: what it is spelled with, and where its weights go.
#include "importers/onnx/export_graph.h"
#include "importers/onnx/onnx.h"
#include "ops/op_def.h"

namespace weft {
namespace {

// A message may not reach 2 GiB; beyond this the weights go into a file beside the model.
constexpr std::size_t kMaxInline = std::size_t{1500} << 20;

std::size_t constant_bytes(const Graph& graph) {
  std::size_t total = 0;
  for (const ValueId id : graph.values()) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kConstant && !is_object(value.tensor->dtype())) total += value.tensor->byte_size();
  }
  for (const NodeId id : graph.nodes()) {
    for (const Subgraph& subgraph : graph.node(id).subgraphs) total += constant_bytes(*subgraph.graph);
  }
  return total;
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) fail(ErrorCode::kIo, "cannot write {}", path.string());
}

std::string serialize(const Graph& graph, ExportTarget target, onnx::DataFile* data) {
  if (target == ExportTarget::kFunctions) return onnx::serialize_model(graph, target, data);
  Graph spelled = graph.clone();
  target == ExportTarget::kStandard ? onnx::spell_standard(spelled) : onnx::spell_microsoft(spelled);
  return onnx::serialize_model(spelled, target, data);
}

}  // namespace

std::string export_onnx(const Graph& graph, ExportTarget target) { return serialize(graph, target, nullptr); }

void export_onnx(const Graph& graph, const std::filesystem::path& path, const ExportOptions& options) {
  with_frame([&] { return "while writing " + path.string(); },
             [&] {
               if (!options.external_data && constant_bytes(graph) <= kMaxInline) {
                 return write_file(path, serialize(graph, options.target, nullptr));
               }
               const std::filesystem::path data_path = path.string() + ".data";
               onnx::DataFile data{std::ofstream(data_path, std::ios::binary), data_path.filename().string()};
               const std::string model = serialize(graph, options.target, &data);
               data.stream.close();
               if (!data.stream) fail(ErrorCode::kIo, "cannot write {}", data_path.string());
               write_file(path, model);
             });
}

}  // namespace weft
