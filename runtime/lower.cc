#include "runtime/lower.h"

#include <algorithm>

#include "ops/builder.h"
#include "passes/node_util.h"

namespace weft::runtime {
namespace {

bool has_residual(const Node& product) {
  const std::size_t place = product.op == "Linear" ? 3 : product.op == "DynamicQuantizeMatMul" ? 5 : 7;
  return product.inputs.size() > place && product.inputs[place].valid();
}

// Of a product of bytes, with a kernel: weights are a constant matrix, and it has no parts or activation yet.
bool takes_parts(const Graph& graph, const Node& product) {
  const Value& weight = graph.value(product.inputs[1]);
  const bool matrix = weight.kind == ValueKind::kConstant && weight.type.shape && weight.type.shape->size() == 2;
  return matrix && product.outputs.size() == 1 && product.attributes.empty();
}

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
  const bool of_bytes = linear.op == "MatMulIntegerToFloat" || linear.op == "DynamicQuantizeMatMul";
  if (!last || (!of_bytes && linear.op != "Linear") || has_residual(linear)) return nullptr;
  const Value& weight = graph.value(linear.inputs[1]);
  if (of_bytes) return takes_parts(graph, linear) ? &linear : nullptr;
  const bool plain = attributes_of(linear).text("activation") == "none";
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
  const std::string op = linear.op == "Linear" ? "LinearSplit" : linear.op;
  const std::vector<Expr> results = b.make_many(op, inputs, parts.size(), attributes);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    graph.replace_uses(parts[i].result, results[i]);
    if (parts[i].activator.valid()) graph.erase_node(parts[i].activator);
  }
  graph.erase_node(id);
  graph.erase_node(producer);
}

// The activation that alone reads a product of bytes is taken in.
bool join_activation(Graph& graph, NodeId id) {
  const Node& product = graph.node(id);
  if (product.op != "MatMulIntegerToFloat" && product.op != "DynamicQuantizeMatMul") return false;
  if (!takes_parts(graph, product) || has_residual(product)) return false;
  const ActivatedPart part = with_activation(graph, product.outputs[0]);
  if (!part.activator.valid()) return false;
  Origin origin = product.origin;
  origin.merge(graph.node(part.activator).origin);
  const std::vector<ValueId> inputs = product.inputs;
  Builder b(graph, id, std::move(origin));
  const std::string op = product.op;
  const Attributes attributes = {{"activations", std::vector<std::string>{part.activation}}};
  graph.replace_uses(part.result, b.make(op, inputs, attributes));
  graph.erase_node(part.activator);
  graph.erase_node(id);
  return true;
}

// The Linear that alone makes an input of the node, and adds nothing yet; invalid if there is none.
NodeId plain_linear(const Graph& graph, ValueId input, ValueId other) {
  const Value& value = graph.value(input);
  if (value.kind != ValueKind::kResult || graph.use_count(input) != 1 || graph.is_output(input)) return {};
  const Node& linear = graph.node(value.producer);
  const bool same = value.type.shape && value.type == graph.value(other).type;
  return linear.op == "Linear" && linear.inputs.size() <= 3 && same ? value.producer : NodeId();
}

// The Linear with what skips it added, then the norm; both take the place of the node.
void add_skip_to_product(Graph& graph, NodeId id, NodeId product, ValueId skip) {
  const std::vector<ValueId> inputs = graph.node(id).inputs, outputs = graph.node(id).outputs;
  const bool layer = graph.node(id).op == "SkipLayerNormalization";
  const Attributes norm = {{"axis", std::int64_t{-1}}, {"epsilon", attributes_of(graph.node(id)).number("epsilon")}};
  std::vector<ValueId> factors = graph.node(product).inputs;
  factors.resize(3);
  factors.push_back(skip);
  const Attributes attributes = graph.node(product).attributes;
  Builder b(graph, id, graph.node(product).origin);
  const Expr sum = b.make("Linear", std::span<const ValueId>(factors), attributes);
  std::vector<ValueId> normed = {sum};
  normed.insert(normed.end(), inputs.begin() + 2, inputs.end());
  b.set_origin(graph.node(id).origin);
  const Expr result = b.make(layer ? "LayerNormalization" : "RMSNormalization", std::span<const ValueId>(normed), norm);
  graph.replace_uses(outputs[0], result);
  if (outputs.size() > 1 && outputs[1].valid()) graph.replace_uses(outputs[1], sum);
  graph.erase_node(id);
  graph.erase_node(product);
}

// The sum that a norm begins with is made where a product is at hand already.
void add_skips_to_products(Graph& graph) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const bool layer = node.op == "SkipLayerNormalization";
    if ((!layer && node.op != "SkipRMSNormalization") || node.inputs.size() > (layer ? 4 : 3)) continue;
    for (const std::size_t side : {0u, 1u}) {
      const ValueId skip = node.inputs[1 - side];
      const NodeId product = plain_linear(graph, node.inputs[side], skip);
      if (!product.valid()) continue;
      add_skip_to_product(graph, id, product, skip);
      break;
    }
  }
}

// --- Norms between Transposes -----------------------------------------------------------------------------------

// The axis that the permutation brings to the end, the others in their order; -1 if it does something else.
std::int64_t axis_brought_last(const std::vector<std::int64_t>& perm) {
  for (std::size_t i = 0; i + 1 < perm.size(); ++i) {
    if (perm[i] != static_cast<std::int64_t>(i) + (static_cast<std::int64_t>(i) >= perm.back() ? 1 : 0)) return -1;
  }
  return perm.empty() ? -1 : perm.back();
}

const std::vector<std::int64_t>* permutation(const Node& node) {
  return node.op == "Transpose" ? permutation_of(node) : nullptr;
}

bool undoes(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (b[static_cast<std::size_t>(a[i])] != static_cast<std::int64_t>(i)) return false;
  }
  return true;
}

// The node that makes a value which is read once.
NodeId sole_maker(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kResult || value.uses.size() != 1 || graph.is_output(id)) return {};
  return value.producer;
}

// A norm of the axis that one Transpose brings last and the next back: it is taken where the axis is.
bool join_transposed_norm(Graph& graph, NodeId id) {
  const auto* back = permutation(graph.node(id));
  const NodeId norm = back != nullptr ? sole_maker(graph, graph.node(id).inputs[0]) : NodeId();
  if (!norm.valid() || graph.node(norm).op != "LayerNormalization" || graph.node(norm).outputs.size() != 1)
    return false;
  const NodeId first = sole_maker(graph, graph.node(norm).inputs[0]);
  const auto* there = first.valid() ? permutation(graph.node(first)) : nullptr;
  if (there == nullptr || there->size() != back->size() || !undoes(*there, *back)) return false;
  const std::int64_t axis = axis_brought_last(*there);
  const AttributeReader attributes = attributes_of(graph.node(norm));
  const std::int64_t over = attributes.integer("axis");
  if (axis < 0 || (over != -1 && over != static_cast<std::int64_t>(there->size()) - 1)) return false;
  std::vector<ValueId> inputs = graph.node(norm).inputs;
  for (const ValueId input : inputs) {
    if (input.valid() && graph.value(input).type.dtype != DType::kF32) return false;
  }
  inputs[0] = graph.node(first).inputs[0];
  Origin origin = graph.node(norm).origin;
  origin.merge(graph.node(id).origin);
  Builder b(graph, id, std::move(origin));
  const Expr y = b.make("AxisNormalization", inputs, {{"axis", axis}, {"epsilon", attributes.number("epsilon")}});
  graph.replace_uses(graph.node(id).outputs[0], y);
  for (const NodeId dead : {id, norm, first}) graph.erase_node(dead);
  return true;
}

}  // namespace

void lower(Graph& graph) {
  add_skips_to_products(graph);
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || join_activation(graph, id) || join_transposed_norm(graph, id)) continue;
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
