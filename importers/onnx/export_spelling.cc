// Which operators a file may call by name, and what functions hold.
#include <algorithm>
#include <array>
#include <numeric>

#include "importers/onnx/export_target.h"
#include "ops/builder.h"

namespace weft::onnx {
namespace {

struct Since {
  std::string_view op;
  std::int64_t opset;
};

// Operators with a definition by smaller ones that ONNX has too.
constexpr std::array<std::string_view, 12> kDefinedStandard = {"BatchNormalization",
                                                               "ConvInteger",
                                                               "DepthToSpace",
                                                               "DynamicQuantizeLinear",
                                                               "Gelu",
                                                               "Gemm",
                                                               "InstanceNormalization",
                                                               "LayerNormalization",
                                                               "MatMulInteger",
                                                               "QLinearConv",
                                                               "QLinearMatMul",
                                                               "SpaceToDepth"};
// Operators younger than set 20. Attention is not among them: weft's has another form.
constexpr std::array<Since, 8> kYoung = {{{"BitCast", 26},
                                          {"CausalConvWithState", 27},
                                          {"CumProd", 26},
                                          {"GroupNormalization", 21},
                                          {"LinearAttention", 27},
                                          {"RMSNormalization", 23},
                                          {"Swish", 24},
                                          {"TensorScatter", 24}}};

// Is a tensor's second half, along the last axis, its first?
bool is_doubled(const Tensor& given) {
  if (is_object(given.dtype()) || is_narrow(given.dtype()) || given.rank() == 0 || given.size() == 0) return false;
  const Tensor tensor = given.aligned();
  const auto width = static_cast<std::size_t>(tensor.shape().back()) * element_size(tensor.dtype());
  if (tensor.shape().back() % 2 != 0) return false;
  const auto bytes = tensor.bytes();
  for (std::size_t row = 0; row + width <= bytes.size(); row += width) {
    if (!std::equal(bytes.begin() + static_cast<std::ptrdiff_t>(row),
                    bytes.begin() + static_cast<std::ptrdiff_t>(row + width / 2),
                    bytes.begin() + static_cast<std::ptrdiff_t>(row + width / 2))) {
      return false;
    }
  }
  return true;
}

// RotaryEmbedding wants cosines and sines of one half, [B, S, D / 2].
Graph rotary_body(const Node& node, const std::vector<TensorType>& types) {
  Graph body("Rotary");
  Builder b(body);
  const Expr x = b.wrap(body.add_input("x", types[0]));
  const auto half = [&](std::string_view name, const TensorType& type) {
    const Expr table = b.wrap(body.add_input(std::string(name), type));
    const Expr shape = b.shape_of(x);
    const ValueId sizes[] = {b.slice(shape, 0, 0, 1).id(), b.slice(shape, 0, 2, 3).id(), b.ints({1}).id()};
    const std::int64_t width = type.shape->back().value() / 2;
    return b.make("Expand", {b.squeeze(b.slice(table, -1, 0, width), {1}).id(), b.concat(sizes, 0).id()});
  };
  const Expr cos = half("cos", types[1]), sin = half("sin", types[2]);
  NodeSpec spec{"::RotaryEmbedding", {x, cos, sin}, {}, {}, node.origin};
  const OutputSpec output{"y", types[0]};
  const NodeId made = body.add_node(std::move(spec), {&output, 1});
  body.add_output("y", body.node(made).outputs[0]);
  return body;
}

bool takes_rotary_embedding(const Node& node, const std::vector<TensorType>& types, const Graph& graph) {
  const auto interleaved = node.attributes.find("interleaved");
  if (interleaved != node.attributes.end() && std::get<std::int64_t>(interleaved->second) != 0) return false;
  if (!types[0].shape || types[0].shape->size() != 4) return false;
  for (std::size_t i = 1; i < 3; ++i) {
    const auto& shape = types[i].shape;
    const bool fits = shape && shape->size() == 4 && (*shape)[1].is(1) && shape->back().is_constant() &&
                      shape->back() == types[0].shape->back() && types[i].dtype == types[0].dtype;
    if (!fits || !has_equal_halves(graph, node.inputs[i])) return false;
  }
  return true;
}

}  // namespace

std::int64_t standard_since(std::string_view op) {
  for (const Since& young : kYoung) {
    if (young.op == op) return young.opset;
  }
  const OpDef* def = find_op(op);
  if (def == nullptr || op == "Attention") return 0;
  const bool known = std::find(kDefinedStandard.begin(), kDefinedStandard.end(), op) != kDefinedStandard.end();
  return def->decompose == nullptr || known ? 1 : 0;
}

bool has_equal_halves(const Graph& graph, ValueId value) {
  // Through what treats every element of the last axis alike.
  static constexpr std::array<std::string_view, 7> kThrough = {"Cos", "Sin",    "Cast",    "Unsqueeze",
                                                               "Mul", "Gather", "Identity"};
  constexpr int kMaxSteps = 16;
  for (int step = 0; step < kMaxSteps; ++step) {
    const Value& current = graph.value(value);
    if (current.kind == ValueKind::kConstant) return is_doubled(*current.tensor);
    if (current.kind != ValueKind::kResult || !current.type.shape) return false;
    const Node& node = graph.node(current.producer);
    const std::int64_t rank = static_cast<std::int64_t>(current.type.shape->size());
    const AttributeReader attributes(get_op(node.op), node.attributes);
    if (node.op == "Concat") {
      const std::int64_t axis = attributes.integer("axis");
      return node.inputs.size() == 2 && node.inputs[0] == node.inputs[1] && (axis == -1 || axis == rank - 1);
    }
    if (std::find(kThrough.begin(), kThrough.end(), node.op) == kThrough.end()) return false;
    const auto& before = graph.value(node.inputs[0]).type.shape;
    const bool same_last = before && !before->empty() && before->back() == current.type.shape->back();
    if (node.op == "Gather" && attributes.integer("axis") != 0) return false;
    if (node.op == "Mul") {
      const Value& factor = graph.value(node.inputs[1]);
      if (factor.kind != ValueKind::kConstant || factor.tensor->size() != 1) return false;
    }
    if (!same_last) return false;
    value = node.inputs[0];
  }
  return false;
}

Graph function_body(const Node& node, const std::vector<TensorType>& types, ExportTarget target, const Graph& graph) {
  if (target != ExportTarget::kFunctions && node.op == "Rotary" && takes_rotary_embedding(node, types, graph)) {
    return rotary_body(node, types);
  }
  return decomposition_graph(node, types);
}

}  // namespace weft::onnx
