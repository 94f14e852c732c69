// Projections of one input that feed one Attention become one Linear and a Split: three for
// self-attention, k and v for cross-attention. A sibling fusion: found from the Attention upwards.
#include <algorithm>
#include <cstring>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

struct Projection {
  NodeId linear;
  ValueId x, weight, bias;
};

// A Linear with constant parameters and no activation, used only to be cut up and rearranged.
std::optional<Projection> read_projection(const Graph& graph, NodeId id) {
  if (!id.valid()) return std::nullopt;
  const Node& node = graph.node(id);
  const bool has_residual = node.inputs.size() > 3 && node.inputs[3].valid();
  const bool plain = attributes_of(node).text("activation") == "none" && !has_residual;
  if (!plain || !is_constant(graph, node.inputs[1]) || graph.value(node.inputs[1]).type.dtype != DType::kF32)
    return std::nullopt;
  const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : ValueId();
  if (bias.valid() && !is_constant(graph, bias)) return std::nullopt;
  return Projection{id, node.inputs[0], node.inputs[1], bias};
}

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

void fuse(Graph& graph, const std::vector<Projection>& parts) {
  std::vector<Tensor> weights;
  std::vector<std::int64_t> widths;
  bool any_bias = false;
  Origin origin;
  NodeId first = parts[0].linear;
  for (const Projection& part : parts) {
    weights.push_back(graph.value(part.weight).tensor->aligned());
    widths.push_back(weights.back().extent(1));
    any_bias = any_bias || part.bias.valid();
    origin.merge(graph.node(part.linear).origin);
    if (graph.precedes(part.linear, first)) first = part.linear;
  }
  Builder b(graph, first, std::move(origin));
  const Expr weight = b.constant(join_columns(weights), "qkv_weight");
  Expr bias;
  if (any_bias) {
    std::vector<float> values;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (!parts[i].bias.valid()) {
        values.insert(values.end(), static_cast<std::size_t>(widths[i]), 0.0f);
        continue;
      }
      const Tensor own = graph.value(parts[i].bias).tensor->aligned();
      values.insert(values.end(), own.data<float>().begin(), own.data<float>().end());
    }
    bias = b.constant(Tensor::vector<float>(values), "qkv_bias");
  }
  const Expr joined = b.make("Linear", {parts[0].x, weight.id(), bias.id()}, {}, "qkv");
  const std::vector<ValueId> split_inputs = {joined.id(), b.ints(widths).id()};
  const std::vector<Expr> pieces = b.make_many("Split", split_inputs, parts.size(), {{"axis", std::int64_t{-1}}});
  for (std::size_t i = 0; i < parts.size(); ++i) {
    graph.replace_uses(graph.node(parts[i].linear).outputs[0], pieces[i]);
    graph.erase_node(parts[i].linear);
  }
}

// Linears of q, k, v (or k, v) of the Attention that read one input and are not one Linear yet.
std::vector<Projection> siblings(const Graph& graph, NodeId id, RuleReport& report) {
  const Node& attention = graph.node(id);
  std::vector<Projection> found;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto projection = read_projection(graph, projection_of(graph, attention.inputs[i]));
    if (!projection) continue;
    const bool known =
        std::any_of(found.begin(), found.end(), [&](const Projection& p) { return p.linear == projection->linear; });
    if (!known) found.push_back(*projection);
  }
  if (found.size() < 2) return {};
  std::vector<Projection> together;
  for (const Projection& p : found) {
    if (p.x == found.back().x) together.push_back(p);
  }
  if (together.size() < 2) {
    record_near_miss(report, graph, id, static_cast<int>(found.size()), "the projections do not read the same input");
    return {};
  }
  for (const Projection& p : together) {
    if (graph.is_output(graph.node(p.linear).outputs[0])) {
      record_near_miss(report, graph, id, 3, "a projection is an output of the graph");
      return {};
    }
  }
  return together;
}

}  // namespace

NodeId projection_of(const Graph& graph, ValueId value) {
  constexpr int kMaxSteps = 24;
  for (int step = 0; step < kMaxSteps; ++step) {
    const Value& current = graph.value(value);
    if (current.kind != ValueKind::kResult) return {};
    const Node& node = graph.node(current.producer);
    if (node.op == "Linear") return current.producer;
    // The new part of a cache is the last one joined.
    if (node.op == "Concat" || node.op == "CacheAppend") {
      value = node.inputs.back();
      continue;
    }
    static constexpr std::string_view kRearranging[] = {"Reshape", "Transpose", "Squeeze", "Unsqueeze",
                                                        "Expand",  "Rotary",    "Split",   "Slice",
                                                        "Gather",  "Mul",       "Div",     "RMSNormalization"};
    if (std::find(std::begin(kRearranging), std::end(kRearranging), node.op) == std::end(kRearranging)) return {};
    const bool product = node.op == "Mul" || node.op == "Div";
    if (product && !known_number(graph, node.inputs[1]) && known_number(graph, node.inputs[0]))
      value = node.inputs[1];
    else if (product && !known_number(graph, node.inputs[1]))
      return {};
    else
      value = node.inputs[0];
  }
  return {};
}

int fuse_qkv(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of("fuse-qkv");
  int fused = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "Attention") continue;
    const std::vector<Projection> parts = siblings(graph, id, report);
    if (parts.empty()) continue;
    fuse(graph, parts);
    ++fused;
    context.rewritten(graph, "fuse-qkv");
  }
  erase_dead(graph);
  report.applied += fused;
  return fused;
}

}  // namespace weft
