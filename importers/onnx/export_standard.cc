// Fused operators as operators of ONNX.
#include <algorithm>

#include "importers/onnx/export_attention.h"
#include "importers/onnx/export_parts.h"
#include "importers/onnx/export_target.h"

namespace weft::onnx {

// A product, sums and an activation: importing fuses them again.
void spell_linear(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const std::vector<ValueId> inputs = node.inputs;
  const ValueId old = node.outputs[0];
  const std::string activation = AttributeReader(get_op("Linear"), node.attributes).text("activation");
  Builder b(graph, id, node.origin);
  Expr y = b.matmul(b.wrap(inputs[0]), b.wrap(inputs[1]));
  if (inputs.size() > 2 && inputs[2].valid()) y = y + b.wrap(inputs[2]);
  if (activation == "relu") y = b.unary("Relu", y);
  if (activation == "tanh") y = b.tanh(y);
  if (activation == "sigmoid") y = b.sigmoid(y);
  if (activation == "silu") y = b.make("Swish", {y.id()}, {{"alpha", 1.0}});
  if (activation == "gelu") y = b.make("Gelu", {y.id()});
  if (activation == "gelu_tanh") y = b.make("Gelu", {y.id()}, {{"approximate", std::string("tanh")}});
  if (inputs.size() > 3 && inputs[3].valid()) y = y + b.wrap(inputs[3]);
  replace_output(graph, old, y.id());
}

void replace_output(Graph& graph, ValueId old, ValueId by) {
  const std::string name = graph.value(old).name;
  graph.value(by).type = graph.value(old).type;
  graph.replace_uses(old, by);
  graph.erase_node(graph.value(old).producer);
  graph.rename_value(by, name);
}

bool knows_activation(const Node& node) {
  static constexpr std::string_view kKnown[] = {"none", "relu", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh"};
  const std::string& activation = AttributeReader(get_op("Linear"), node.attributes).text("activation");
  return std::find(std::begin(kKnown), std::end(kKnown), activation) != std::end(kKnown) && node.inputs.size() <= 4;
}

bool is_spelled_out(std::string_view op) {
  static constexpr std::string_view kOps[] = {
      "CacheAppend",          "L2Normalization",         "SkipLayerNormalization",
      "SkipRMSNormalization", "EmbedLayerNormalization", "EmbedRMSNormalization"};
  return std::find(std::begin(kOps), std::end(kOps), op) != std::end(kOps);
}

void sweep(Graph& graph) {
  const std::vector<NodeId> nodes = graph.nodes();
  for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) {
    const std::vector<ValueId>& outputs = graph.node(*it).outputs;
    const bool used =
        std::any_of(outputs.begin(), outputs.end(), [&](ValueId id) { return id.valid() && graph.use_count(id) > 0; });
    if (!used) graph.erase_node(*it);
  }
  for (const ValueId id : graph.values()) {
    if (graph.value(id).kind == ValueKind::kConstant && graph.use_count(id) == 0) graph.erase_value(id);
  }
}

void spell_standard(Graph& graph) {
  BiasCache biases;
  for (const NodeId id : graph.nodes()) {
    for (Subgraph& subgraph : graph.node(id).subgraphs) spell_standard(*subgraph.graph);
    const std::string op = graph.node(id).op;
    if (op == "Attention") spell_standard_attention(graph, id, biases);
    if (op == "Linear" && knows_activation(graph.node(id))) spell_linear(graph, id);
    if (is_spelled_out(op) || op == "DynamicQuantizeMatMul" || op == "MatMulIntegerToFloat") expand_node(graph, id);
  }
  sweep(graph);
}

}  // namespace weft::onnx
