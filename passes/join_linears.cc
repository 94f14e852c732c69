#include "passes/join_linears.h"

#include <algorithm>

#include "ops/builder.h"
#include "passes/node_util.h"

namespace weft {
namespace {

// The matrices side by side: [K, N1 + N2 + ...].
Tensor join_columns(const std::vector<Tensor>& parts) {
  const std::int64_t rows = parts[0].extent(0);
  std::int64_t columns = 0;
  for (const Tensor& part : parts) columns += part.extent(1);
  Tensor joined = Tensor::uninitialized(DType::kF32, {rows, columns});
  float* to = joined.mutable_data<float>().data();
  for (std::int64_t r = 0; r < rows; ++r) {
    for (const Tensor& part : parts) {
      const float* from = part.data<float>().data() + r * part.extent(1);
      to = std::copy(from, from + part.extent(1), to);
    }
  }
  return joined;
}

Tensor join_biases(const Graph& graph, const std::vector<Projection>& parts, const std::vector<std::int64_t>& widths) {
  std::vector<float> values;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].bias.valid()) {
      values.insert(values.end(), static_cast<std::size_t>(widths[i]), 0.0f);
      continue;
    }
    const Tensor own = graph.value(parts[i].bias).tensor->aligned();
    values.insert(values.end(), own.data<float>().begin(), own.data<float>().end());
  }
  return Tensor::vector<float>(values);
}

// A Linear's activation as the operator it stands for.
Expr activate(Builder& b, Expr x, const std::string& activation) {
  if (activation == "none") return x;
  if (activation == "relu") return b.unary("Relu", x);
  if (activation == "silu") return b.make("Swish", {x.id()}, {{"alpha", 1.0}});
  if (activation == "tanh") return b.tanh(x);
  if (activation == "sigmoid") return b.sigmoid(x);
  const std::string approximate = activation == "gelu_tanh" ? "tanh" : "none";
  return b.make("Gelu", {x.id()}, {{"approximate", approximate}});
}

}  // namespace

std::optional<Projection> read_projection(const Graph& graph, NodeId id) {
  if (!id.valid()) return std::nullopt;
  const Node& node = graph.node(id);
  if (node.op != "Linear" || (node.inputs.size() > 3 && node.inputs[3].valid())) return std::nullopt;
  if (!is_constant(graph, node.inputs[1]) || graph.value(node.inputs[1]).type.dtype != DType::kF32) return std::nullopt;
  const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : ValueId();
  if (bias.valid() && !is_constant(graph, bias)) return std::nullopt;
  return Projection{id, node.inputs[0], node.inputs[1], bias, attributes_of(node).text("activation")};
}

void join_linears(Graph& graph, const std::vector<Projection>& parts, std::string_view name) {
  std::vector<Tensor> weights;
  std::vector<std::int64_t> widths;
  Origin origin;
  NodeId first = parts[0].linear;
  for (const Projection& part : parts) {
    weights.push_back(graph.value(part.weight).tensor->aligned());
    widths.push_back(weights.back().extent(1));
    origin.merge(graph.node(part.linear).origin);
    if (graph.precedes(part.linear, first)) first = part.linear;
  }
  Builder b(graph, first, std::move(origin));
  const Expr weight = b.constant(join_columns(weights), std::string(name) + "_weight");
  const bool has_bias = std::any_of(parts.begin(), parts.end(), [](const Projection& p) { return p.bias.valid(); });
  Expr bias;
  if (has_bias) bias = b.constant(join_biases(graph, parts, widths), std::string(name) + "_bias");
  const Expr joined = b.make("Linear", {parts[0].x, weight.id(), bias.id()}, {}, name);
  const std::vector<ValueId> split_inputs = {joined.id(), b.ints(widths).id()};
  const std::vector<Expr> pieces = b.make_many("Split", split_inputs, parts.size(), {{"axis", std::int64_t{-1}}});
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Expr piece = activate(b, pieces[i], parts[i].activation);
    graph.replace_uses(graph.node(parts[i].linear).outputs[0], piece);
    graph.erase_node(parts[i].linear);
  }
}

}  // namespace weft
