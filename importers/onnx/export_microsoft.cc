// Fused operators as operators of com.microsoft, for which ONNX Runtime has kernels.
#include <algorithm>

#include "importers/onnx/export_attention.h"
#include "importers/onnx/export_parts.h"
#include "importers/onnx/export_target.h"

namespace weft::onnx {
namespace {

const Node* maker_of(const Graph& graph, ValueId id, std::string_view op) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kResult) return nullptr;
  const Node& node = graph.node(value.producer);
  return node.op == op ? &node : nullptr;
}

// A node whose outputs are those of `types`; invalid types leave outputs out.
NodeId add_call(Graph& graph, NodeId before, std::string_view op, std::vector<ValueId> inputs, Attributes attributes,
                const Origin& origin, std::span<const OutputSpec> outputs) {
  while (!inputs.empty() && !inputs.back().valid()) inputs.pop_back();
  return graph.add_node({"com.microsoft::" + std::string(op), std::move(inputs), std::move(attributes), {}, origin},
                        outputs, before);
}

// y = Norm(a + b), the sum being read by others too: one operator with two outputs.
bool spell_skip_norm(Graph& graph, NodeId id) {
  const Node norm = {graph.node(id).op,    graph.node(id).inputs, graph.node(id).outputs, graph.node(id).attributes, {},
                     graph.node(id).origin};
  const Node* sum = maker_of(graph, norm.inputs[0], "Add");
  if (sum == nullptr || graph.is_output(norm.inputs[0])) return false;
  const ValueId a = sum->inputs[0], b = sum->inputs[1], total = sum->outputs[0];
  const auto& shape = graph.value(total).type.shape;
  const bool rows = shape && shape->size() == 3 && shape->back().is_constant();
  const bool same = graph.value(a).type == graph.value(total).type && graph.value(b).type == graph.value(total).type;
  const AttributeReader attributes(get_op(norm.op), norm.attributes);
  const std::int64_t axis = attributes.integer("axis");
  if (!rows || !same || graph.value(total).type.dtype != DType::kF32 || (axis != -1 && axis != 2)) return false;
  // The parameters are vectors, and known where the sum is made.
  for (std::size_t i = 1; i < norm.inputs.size(); ++i) {
    const Value& parameter = graph.value(norm.inputs[i]);
    const bool row = parameter.kind == ValueKind::kConstant && parameter.type.shape->size() == 1 &&
                     (*parameter.type.shape)[0] == shape->back();
    if (!row) return false;
  }
  const bool simplified = norm.op == "RMSNormalization";
  Origin origin = sum->origin;
  origin.merge(norm.origin);
  const OutputSpec outputs[] = {{graph.value(norm.outputs[0]).name, graph.value(norm.outputs[0]).type},
                                {"", {}, true},
                                {"", {}, true},
                                {graph.value(total).name, graph.value(total).type}};
  std::vector<ValueId> inputs = {a, b};
  inputs.insert(inputs.end(), norm.inputs.begin() + 1, norm.inputs.end());
  const NodeId add = graph.value(total).producer;
  const NodeId made = add_call(graph, add, simplified ? "SkipSimplifiedLayerNormalization" : "SkipLayerNormalization",
                               std::move(inputs), {{"epsilon", attributes.number("epsilon")}}, origin, outputs);
  const ValueId y = graph.node(made).outputs[0], new_total = graph.node(made).outputs[3];
  replace_output(graph, norm.outputs[0], y);
  replace_output(graph, total, new_total);
  return true;
}

// Linear with GELU: a product, and the sum with the activation in one.
bool spell_linear_gelu(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const std::string activation = AttributeReader(get_op("Linear"), node.attributes).text("activation");
  const bool exact = activation == "gelu", approximate = activation == "gelu_tanh";
  if ((!exact && !approximate) || node.inputs.size() != 3) return false;
  const ValueId old = node.outputs[0], bias = node.inputs[2];
  const Origin origin = node.origin;
  Builder b(graph, id, origin);
  const Expr product = b.matmul(b.wrap(node.inputs[0]), b.wrap(node.inputs[1]));
  const OutputSpec output{"", graph.value(old).type};
  const NodeId made = add_call(graph, id, exact ? "BiasGelu" : "FastGelu", {product, bias}, {}, origin, {&output, 1});
  replace_output(graph, old, graph.node(made).outputs[0]);
  return true;
}

bool spell_activation(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const ValueId old = node.outputs[0], x = node.inputs[0];
  const AttributeReader attributes(get_op(node.op), node.attributes);
  const bool swish = node.op == "Swish";
  if (!swish && attributes.text("approximate") != "tanh") return false;
  Attributes given;
  if (swish) given["alpha"] = attributes.number("alpha");
  const OutputSpec output{"", graph.value(old).type};
  const NodeId made =
      add_call(graph, id, swish ? "QuickGelu" : "FastGelu", {x}, std::move(given), node.origin, {&output, 1});
  replace_output(graph, old, graph.node(made).outputs[0]);
  return true;
}

// ONNX Runtime's products of bytes, of the same names and inputs: with one scale for A, and a row of them for B.
bool spell_product_of_bytes(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const bool dynamic = node.op == "DynamicQuantizeMatMul";
  const std::size_t most = dynamic ? 5 : 7;
  const auto rank_of = [&](std::size_t i) -> std::size_t {
    if (i >= node.inputs.size() || !node.inputs[i].valid()) return 0;
    const auto& shape = graph.value(node.inputs[i]).type.shape;
    return shape ? shape->size() : SIZE_MAX;
  };
  const auto is_single = [&](std::size_t i) {
    return rank_of(i) == 0 || (rank_of(i) == 1 && graph.value(node.inputs[i]).type.shape->front().is(1));
  };
  if (node.outputs.size() != 1 || node.inputs.size() > most || rank_of(1) != 2) return false;
  for (std::size_t i = 2; i < most; ++i) {
    if (rank_of(i) > 1) return false;
  }
  if (!dynamic && (!is_single(2) || !is_single(4))) return false;
  const ValueId old = node.outputs[0];
  const OutputSpec output{"", graph.value(old).type};
  const NodeId made = add_call(graph, id, node.op, node.inputs, {}, node.origin, {&output, 1});
  replace_output(graph, old, graph.node(made).outputs[0]);
  return true;
}

// Linear with SiLU leaves a Swish behind: nodes that come out of others are spelled in a second round.
void spell_round(Graph& graph, BiasCache& biases) {
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id)) continue;
    const std::string op = graph.node(id).op;
    const bool is_f32 = !graph.node(id).outputs.empty() && graph.node(id).outputs[0].valid() &&
                        graph.value(graph.node(id).outputs[0]).type.dtype == DType::kF32;
    if (op == "Attention") {
      if (!spell_multi_head_attention(graph, id, biases)) spell_standard_attention(graph, id, biases);
    } else if (op == "Linear" && knows_activation(graph.node(id))) {
      if (!is_f32 || !spell_linear_gelu(graph, id)) spell_linear(graph, id);
    } else if (op == "LayerNormalization" || op == "RMSNormalization") {
      spell_skip_norm(graph, id);
    } else if ((op == "Swish" || op == "Gelu") && is_f32) {
      spell_activation(graph, id);
    } else if (op == "MatMulIntegerToFloat" || op == "DynamicQuantizeMatMul") {
      if (!is_f32 || !spell_product_of_bytes(graph, id)) expand_node(graph, id);
    } else if (is_spelled_out(op)) {
      expand_node(graph, id);
    }
  }
}

}  // namespace

void spell_microsoft(Graph& graph) {
  for (const NodeId id : graph.nodes()) {
    for (Subgraph& subgraph : graph.node(id).subgraphs) spell_microsoft(*subgraph.graph);
  }
  BiasCache biases;
  spell_round(graph, biases);
  spell_round(graph, biases);
  sweep(graph);
}

}  // namespace weft::onnx
