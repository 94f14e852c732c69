// Where a Softmax weighs values.
#include <algorithm>

#include "passes/node_util.h"
#include "passes/pipeline.h"

namespace weft {
namespace {

// Is the last axis of both the same, as far as is known?
bool keeps_last_axis(const Graph& graph, ValueId from, ValueId to) {
  const Shape *before = shape_of(graph, from), *after = shape_of(graph, to);
  return !before || !after || (!before->empty() && !after->empty() && before->back() == after->back());
}

// Does the node hand on its input, element by element: masked, scaled, guarded, rearranged?
bool hands_on(const Graph& graph, const Node& node, const Use& use) {
  static constexpr std::string_view kWhole[] = {"Cast", "Identity", "Dropout", "Mul"};
  if (std::ranges::find(kWhole, node.op) != std::end(kWhole)) return use.input == 0 || node.op == "Mul";
  if (node.op == "Where") return use.input > 0;
  if (node.op == "Slice") return use.input == 0;  // a sink's column goes
  static constexpr std::string_view kShape[] = {"Reshape", "Squeeze", "Unsqueeze", "Expand"};
  return std::ranges::find(kShape, node.op) != std::end(kShape) && use.input == 0 &&
         keeps_last_axis(graph, node.inputs[0], node.outputs[0]);
}

// The product of two computed values that it is the first operand of, null if there is none.
const Node* weighing(const Graph& graph, ValueId& weights) {
  for (const Use& use : graph.value(weights).uses) {
    const Node& node = graph.node(use.node);
    if (node.op == "MatMul" && use.input == 0 && node.inputs[1] != weights && !is_constant(graph, node.inputs[1]) &&
        rank_of(graph, weights) != 2) {
      return &node;
    }
    if (!hands_on(graph, node, use)) continue;
    ValueId next = node.outputs[0];
    if (const Node* product = weighing(graph, next)) {
      weights = next;
      return product;
    }
  }
  return nullptr;
}

}  // namespace

std::vector<AttentionWeights> find_attention_weights(const Graph& graph) {
  std::vector<AttentionWeights> found;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.op != "Softmax") continue;
    const std::int64_t rank = rank_of(graph, node.inputs[0]);
    const std::int64_t axis = attributes_of(node).integer("axis");
    if (axis != -1 && (rank < 0 || axis != rank - 1)) continue;
    ValueId weights = node.outputs[0];
    if (const Node* product = weighing(graph, weights)) found.push_back({weights, product->inputs[1]});
  }
  return found;
}

std::set<ValueId> computed_from(const Graph& graph, ValueId source) {
  std::set<ValueId> values = {source};
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.op == "Shape" || node.op == "Size") continue;
    if (!std::ranges::any_of(node.inputs, [&](ValueId input) { return values.contains(input); })) continue;
    for (const ValueId output : node.outputs) {
      if (output.valid()) values.insert(output);
    }
  }
  return values;
}

}  // namespace weft
