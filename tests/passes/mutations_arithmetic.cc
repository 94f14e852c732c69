// Other spellings of arithmetic.
#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/passes/mutations.h"

namespace weft {

bool Mutator::spell_square(NodeId id) {
  const Node& node = graph_.node(id);
  Builder builder = before(id);
  if (node.op == "Mul" && node.inputs[0] == node.inputs[1] && is_float32(node.inputs[0])) {
    const Expr x = builder.wrap(node.inputs[0]);
    return replace(id, builder.make("Pow", {x.id(), builder.scalar_like(x, 2).id()}));
  }
  if (node.op != "Pow" || !is_float32(node.inputs[0]) || number(node.inputs[1]) != 2.0) return false;
  const Expr x = builder.wrap(node.inputs[0]);
  return replace(id, x * x);
}

bool Mutator::spell_root(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Sqrt" || !is_float32(node.inputs[0])) return false;
  Builder builder = before(id);
  const Expr x = builder.wrap(node.inputs[0]);
  return replace(id, builder.make("Pow", {x.id(), builder.scalar_like(x, 0.5).id()}));
}

bool Mutator::spell_quotient(NodeId id) {
  const Node& node = graph_.node(id);
  if ((node.op != "Div" && node.op != "Mul") || !is_float32(node.outputs[0])) return false;
  Builder builder = before(id);
  const Expr a = builder.wrap(node.inputs[0]), b = builder.wrap(node.inputs[1]);
  const auto known = number(b);
  if (known && *known != 0 && std::isfinite(1 / *known)) {
    return replace(id, node.op == "Div" ? a * (1 / *known) : a / (1 / *known));
  }
  if (node.op == "Mul") return false;
  return replace(id, pick(2) == 0 ? a * builder.unary("Reciprocal", b) : a * (1.0 / b));
}

bool Mutator::spell_difference(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Sub" || !is_float32(node.outputs[0])) return false;
  Builder builder = before(id);
  return replace(id, builder.wrap(node.inputs[0]) + -builder.wrap(node.inputs[1]));
}

bool Mutator::turn_where(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Where") return false;
  const std::vector<ValueId> inputs = node.inputs;
  Builder builder = before(id);
  const Expr turned = builder.unary("Not", builder.wrap(inputs[0]));
  return replace(id, builder.where(turned, builder.wrap(inputs[2]), builder.wrap(inputs[1])));
}

bool Mutator::turn_comparison(NodeId id) {
  static constexpr std::pair<std::string_view, std::string_view> kTurned[] = {
      {"Greater", "Less"}, {"Less", "Greater"}, {"GreaterOrEqual", "LessOrEqual"}, {"LessOrEqual", "GreaterOrEqual"}};
  const Node& node = graph_.node(id);
  for (const auto& [op, turned] : kTurned) {
    if (node.op != op) continue;
    Builder builder = before(id);
    return replace(id, builder.make(turned, {node.inputs[1], node.inputs[0]}));
  }
  return false;
}

bool Mutator::move_scale(NodeId id) {
  const Node& node = graph_.node(id);
  if ((node.op != "Mul" && node.op != "Div") || !is_float32(node.outputs[0])) return false;
  const auto scale = number(node.inputs[1]);
  const Node* product = maker(node.inputs[0], "MatMul");
  if (!scale || *scale == 0 || product == nullptr || graph_.value(node.inputs[0]).uses.size() > 1) return false;
  const double factor = node.op == "Mul" ? *scale : 1 / *scale;
  const ValueId left = product->inputs[0], right = product->inputs[1];
  Builder builder = before(id);
  const Expr a = builder.wrap(left), b = builder.wrap(right);
  return replace(id, pick(2) == 0 ? builder.matmul(a * factor, b) : builder.matmul(a, b * factor));
}

bool Mutator::spell_mean(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "ReduceMean" || node.inputs.size() < 2 || !is_float32(node.inputs[0]) || rank(node.inputs[0]) < 1)
    return false;
  const Value& axes = graph_.value(node.inputs[1]);
  if (axes.kind != ValueKind::kConstant || axes.tensor->size() != 1) return false;
  const std::int64_t axis = axes.tensor->aligned().to_ints().front();
  const auto place = static_cast<std::size_t>(axis < 0 ? axis + rank(node.inputs[0]) : axis);
  const Dim extent = (*type(node.inputs[0]).shape)[place];
  if (!extent.is_constant() || extent.is(0)) return false;
  Builder builder = before(id);
  const std::vector<ValueId> inputs = node.inputs;
  const Expr sum = builder.make("ReduceSum", inputs, Attributes(node.attributes));
  const auto n = static_cast<double>(extent.value());
  return replace(id, pick(2) == 0 ? sum / n : sum * (1 / n));
}

bool Mutator::spell_negative(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Neg" || !is_float32(node.inputs[0])) return false;
  Builder builder = before(id);
  return replace(id, builder.wrap(node.inputs[0]) * -1.0);
}

bool Mutator::spell_sigmoid(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Sigmoid" || !is_float32(node.inputs[0])) return false;
  Builder builder = before(id);
  return replace(id, 1.0 / (builder.exp(-builder.wrap(node.inputs[0])) + 1.0));
}

bool Mutator::spell_inverse_root(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Div" || maker(node.inputs[1], "Sqrt") == nullptr || !is_float32(node.inputs[1])) return false;
  Builder builder = before(id);
  const Expr inside = builder.wrap(maker(node.inputs[1], "Sqrt")->inputs[0]);
  const Expr power = builder.make("Pow", {inside.id(), builder.scalar_like(inside, -0.5).id()});
  return replace(id, builder.wrap(graph_.node(id).inputs[0]) * power);
}

}  // namespace weft
