// The two projections of a gated block, act(x Wg) * (x Wu), become one Linear and a Split.
#include <algorithm>

#include "passes/join_linears.h"
#include "passes/join_packed.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// The Linear that makes the factor of a product; invalid if there is none.
NodeId linear_of(const Graph& graph, ValueId factor) {
  return producer(graph, factor, "Linear") != nullptr ? graph.value(factor).producer : NodeId();
}

// Gate and up projection of the product at `id`, the gate first; empty if it is no gated block of one input.
std::vector<Projection> gated(const Graph& graph, NodeId id, RuleReport& report) {
  const Node& product = graph.node(id);
  std::vector<Projection> parts;
  for (const ValueId factor : product.inputs) {
    if (const auto projection = read_projection(graph, linear_of(graph, factor))) parts.push_back(*projection);
  }
  if (parts.size() != 2 || parts[0].linear == parts[1].linear) return {};
  if (parts[0].activation == "none") std::swap(parts[0], parts[1]);
  const auto refuse = [&](std::string reason) {
    record_near_miss(report, graph, id, 3, std::move(reason));
    return std::vector<Projection>();
  };
  if (parts[0].activation == "none" || parts[1].activation != "none") return refuse("not one of the two is a gate");
  if (parts[0].x != parts[1].x) return refuse("the projections do not read the same input");
  for (const Projection& part : parts) {
    const ValueId result = graph.node(part.linear).outputs[0];
    if (graph.is_output(result)) return refuse("a projection is an output of the graph");
    if (graph.value(result).uses.size() != 1) return refuse("a projection is read elsewhere");
  }
  return parts;
}

// --- Packed weights --------------------------------------------------------------------------------------------

struct Factor {
  std::optional<PackedProjection> product;
  bool activated = false;
};

// The product with packed weights that makes a factor, behind an activation or not.
Factor packed_factor(const Graph& graph, ValueId factor) {
  static constexpr std::string_view kActivations[] = {"Swish", "Gelu", "Relu", "Sigmoid", "Tanh"};
  Factor found;
  if (graph.value(factor).kind != ValueKind::kResult || graph.use_count(factor) != 1) return found;
  NodeId maker = graph.value(factor).producer;
  if (std::find(std::begin(kActivations), std::end(kActivations), graph.node(maker).op) != std::end(kActivations)) {
    const ValueId before = graph.node(maker).inputs[0];
    if (graph.value(before).kind != ValueKind::kResult || graph.use_count(before) != 1) return found;
    maker = graph.value(before).producer;
    found.activated = true;
  }
  if (graph.node(maker).op != "Conv") found.product = read_packed_projection(graph, maker);
  return found;
}

// Gate and up projection of the product at `id`, the gate first; empty if they are none of one input, packed alike.
std::vector<PackedProjection> packed_gated(const Graph& graph, NodeId id, RuleReport& report) {
  const Node& product = graph.node(id);
  Factor gate = packed_factor(graph, product.inputs[0]), up = packed_factor(graph, product.inputs[1]);
  if (!gate.product || !up.product || gate.product->node == up.product->node) return {};
  if (!gate.activated) std::swap(gate, up);
  const auto refuse = [&](std::string reason) {
    record_near_miss(report, graph, id, 3, std::move(reason));
    return std::vector<PackedProjection>();
  };
  if (!gate.activated || up.activated) return refuse("not one of the two is a gate");
  if (!may_join(graph, *gate.product, *up.product))
    return refuse("the packed projections do not read the same input, or are not packed alike");
  return {*gate.product, *up.product};
}

}  // namespace

int fuse_gate_up(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of("fuse-gate-up");
  int fused = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "Mul") continue;
    const std::vector<Projection> parts = gated(graph, id, report);
    const std::vector<PackedProjection> packed =
        parts.empty() ? packed_gated(graph, id, report) : std::vector<PackedProjection>();
    if (!parts.empty()) {
      join_linears(graph, parts, "gate_up");
    } else if (!packed.empty()) {
      join_packed(graph, packed, "gate_up");
    } else {
      continue;
    }
    ++fused;
    context.rewritten(graph, "fuse-gate-up");
  }
  erase_dead(graph);
  report.applied += fused;
  return fused;
}

}  // namespace weft
