#include "runtime/lower.h"

#include <algorithm>

#include "ops/builder.h"

namespace weft::runtime {
namespace {

// The Split of a Linear's features into known widths, which nothing else reads; null if the node is none.
const Node* split_linear(const Graph& graph, const Node& split) {
  if (split.op != "Split" || split.inputs.size() != 2 || !split.inputs[1].valid()) return nullptr;
  const Value& features = graph.value(split.inputs[0]);
  const Value& widths = graph.value(split.inputs[1]);
  if (features.kind != ValueKind::kResult || features.uses.size() != 1 || graph.is_output(split.inputs[0]) ||
      widths.kind != ValueKind::kConstant) {
    return nullptr;
  }
  const AttributeReader attributes(get_op("Split"), split.attributes);
  const std::int64_t axis = attributes.integer("axis");
  const bool last =
      axis == -1 || (features.type.shape && axis + 1 == static_cast<std::int64_t>(features.type.shape->size()));
  const Node& linear = graph.node(features.producer);
  if (!last || linear.op != "Linear" || linear.inputs.size() > 3) return nullptr;
  const Value& weight = graph.value(linear.inputs[1]);
  const bool plain = AttributeReader(get_op("Linear"), linear.attributes).text("activation") == "none";
  if (!plain || weight.kind != ValueKind::kConstant || weight.type.dtype != DType::kF32) return nullptr;
  return &linear;
}

}  // namespace

void lower(Graph& graph) {
  for (const NodeId id : graph.nodes()) {
    const Node& split = graph.node(id);
    const Node* linear = split_linear(graph, split);
    if (linear == nullptr) continue;
    const std::vector<std::int64_t> widths = graph.value(split.inputs[1]).tensor->to_ints();
    const bool whole =
        widths.size() == split.outputs.size() &&
        std::all_of(split.outputs.begin(), split.outputs.end(), [](ValueId out) { return out.valid(); }) &&
        std::all_of(widths.begin(), widths.end(), [](std::int64_t width) { return width > 0; });
    if (!whole) continue;
    const NodeId producer = graph.value(split.inputs[0]).producer;
    const std::vector<ValueId> inputs = linear->inputs;
    const std::vector<ValueId> outputs = split.outputs;
    Origin origin = linear->origin;
    origin.merge(split.origin);
    Builder b(graph, id, std::move(origin));
    const std::vector<Expr> parts = b.make_many("LinearSplit", inputs, outputs.size(), {{"widths", widths}});
    for (std::size_t i = 0; i < outputs.size(); ++i) graph.replace_uses(outputs[i], parts[i]);
    graph.erase_node(id);
    graph.erase_node(producer);
  }
}

}  // namespace weft::runtime
