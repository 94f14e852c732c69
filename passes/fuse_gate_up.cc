// The two projections of a gated block, act(x Wg) * (x Wu), become one Linear and a Split.
#include <algorithm>

#include "passes/join_linears.h"
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

}  // namespace

int fuse_gate_up(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of("fuse-gate-up");
  int fused = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "Mul") continue;
    const std::vector<Projection> parts = gated(graph, id, report);
    if (parts.empty()) continue;
    join_linears(graph, parts, "gate_up");
    ++fused;
    context.rewritten(graph, "fuse-gate-up");
  }
  erase_dead(graph);
  report.applied += fused;
  return fused;
}

}  // namespace weft
