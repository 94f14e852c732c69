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

// The name that a Linear has for the activation this node is; empty if it is none.
std::string activation_name(const Node& node) {
  if (node.op == "Relu") return "relu";
  if (node.op == "Tanh") return "tanh";
  if (node.op == "Sigmoid") return "sigmoid";
  if (node.op != "Swish" && node.op != "Gelu") return "";
  const AttributeReader attributes(get_op(node.op), node.attributes);
  if (node.op == "Gelu") return attributes.text("approximate") == "tanh" ? "gelu_tanh" : "gelu";
  return attributes.number("alpha") == 1.0 ? "silu" : "";
}

struct ActivatedPart {
  ValueId result;
  std::string activation;  // "none": none
  NodeId activator;        // invalid: none
};

// A part together with the activation that alone reads it.
ActivatedPart with_activation(const Graph& graph, ValueId part) {
  const std::vector<Use>& uses = graph.value(part).uses;
  const ActivatedPart plain = {part, "none", NodeId()};
  if (uses.size() != 1 || graph.is_output(part)) return plain;
  const Node& reader = graph.node(uses[0].node);
  std::string activation = activation_name(reader);
  if (activation.empty()) return plain;
  return {reader.outputs[0], std::move(activation), uses[0].node};
}

// Linear and Split, and activations behind it, as one LinearSplit.
void join(Graph& graph, NodeId id, const Node& linear, const std::vector<std::int64_t>& widths) {
  const Node& split = graph.node(id);
  const NodeId producer = graph.value(split.inputs[0]).producer;
  const std::vector<ValueId> inputs = linear.inputs;
  Origin origin = linear.origin;
  origin.merge(split.origin);
  std::vector<ActivatedPart> parts;
  std::vector<std::string> activations;
  for (const ValueId output : split.outputs) {
    parts.push_back(with_activation(graph, output));
    activations.push_back(parts.back().activation);
    if (parts.back().activator.valid()) origin.merge(graph.node(parts.back().activator).origin);
  }
  Builder b(graph, id, std::move(origin));
  const Attributes attributes = {{"widths", widths}, {"activations", activations}};
  const std::vector<Expr> results = b.make_many("LinearSplit", inputs, parts.size(), attributes);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    graph.replace_uses(parts[i].result, results[i]);
    if (parts[i].activator.valid()) graph.erase_node(parts[i].activator);
  }
  graph.erase_node(id);
  graph.erase_node(producer);
}

}  // namespace

void lower(Graph& graph) {
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id)) continue;
    const Node& split = graph.node(id);
    const Node* linear = split_linear(graph, split);
    if (linear == nullptr) continue;
    const std::vector<std::int64_t> widths = graph.value(split.inputs[1]).tensor->to_ints();
    const bool whole =
        widths.size() == split.outputs.size() &&
        std::all_of(split.outputs.begin(), split.outputs.end(), [](ValueId out) { return out.valid(); }) &&
        std::all_of(widths.begin(), widths.end(), [](std::int64_t width) { return width > 0; });
    if (!whole) continue;
    join(graph, id, *linear, widths);
  }
}

}  // namespace weft::runtime
