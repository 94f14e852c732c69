// Projections of one input that feed one Attention become one Linear and a Split: three for
// self-attention, k and v for cross-attention. A sibling fusion: found from the Attention upwards.
#include <algorithm>
#include <deque>
#include <set>

#include "passes/find_sites.h"
#include "passes/join_linears.h"
#include "passes/join_packed.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// The node whose output comes to the value, laid out anew, scaled, turned or with something known added.
NodeId source_of(const Graph& graph, ValueId value) {
  constexpr int kMaxSteps = 24;
  for (int step = 0; step < kMaxSteps; ++step) {
    const Value& current = graph.value(value);
    if (current.kind != ValueKind::kResult) return {};
    const Node& node = graph.node(current.producer);
    // The new part of a cache is the last one joined.
    if (node.op == "Concat" || node.op == "CacheAppend") {
      value = node.inputs.back();
      continue;
    }
    static constexpr std::string_view kRearranging[] = {
        "Reshape", "Transpose", "Squeeze", "Unsqueeze",        "Expand",          "Rotary", "Split", "Slice",
        "Gather",  "Mul",       "Div",     "RMSNormalization", "L2Normalization", "Add",    "Tile"};
    if (std::find(std::begin(kRearranging), std::end(kRearranging), node.op) == std::end(kRearranging))
      return current.producer;
    const bool joins = node.op == "Mul" || node.op == "Div" || node.op == "Add";
    if (joins && !is_constant(graph, node.inputs[1]) && is_constant(graph, node.inputs[0]))
      value = node.inputs[1];
    else if (joins && node.op != "Div" && !is_constant(graph, node.inputs[1]))
      return current.producer;
    else
      value = node.inputs[0];
  }
  return {};
}

// Products that make the value, alone or side by side. Breadth first: one that several paths lead to is nearer than
// what is added to it on the way.
std::vector<NodeId> products_of(const Graph& graph, ValueId value) {
  constexpr std::size_t kMaxValues = 96;
  const std::span<const std::string_view> between = below_projection();
  std::deque<ValueId> pending = {value};
  std::set<ValueId> seen;
  std::vector<NodeId> found;
  while (!pending.empty() && seen.size() < kMaxValues) {
    const ValueId id = pending.front();
    pending.pop_front();
    if (!id.valid() || !seen.insert(id).second || graph.value(id).kind != ValueKind::kResult) continue;
    const NodeId at = graph.value(id).producer;
    const Node& node = graph.node(at);
    const bool grouped = node.op == "Conv" && attributes_of(node).integer("group") != 1;
    if (node.op == "Linear" || node.op == "DynamicQuantizeMatMul" || (is_packed_product(node.op) && !grouped)) {
      if (std::find(found.begin(), found.end(), at) == found.end()) found.push_back(at);
      continue;
    }
    if (std::find(between.begin(), between.end(), node.op) == between.end()) continue;
    // The new part of a cache is the last one joined.
    const bool joins = node.op == "Concat" || node.op == "CacheAppend";
    if (joins)
      pending.insert(pending.end(), node.inputs.rbegin(), node.inputs.rend());
    else
      pending.insert(pending.end(), node.inputs.begin(), node.inputs.end());
  }
  return found;
}

// What makes q, k or v and is known not to be one Linear.
void explain_source(const Graph& graph, NodeId attention, RuleReport& report) {
  for (std::size_t i = 0; i < 3; ++i) {
    for (const NodeId product : products_of(graph, graph.node(attention).inputs[i])) {
      const std::vector<ValueId>& inputs = graph.node(product).inputs;
      if (graph.node(product).op != "Linear" || inputs.size() < 4 || !inputs[3].valid()) continue;
      record_near_miss(report, graph, attention, 1, "something computed is added to a projection in the same Linear");
      return;
    }
    const NodeId source = source_of(graph, graph.node(attention).inputs[i]);
    if (!source.valid() || graph.node(source).op != "Conv") continue;
    const std::int64_t groups = attributes_of(graph.node(source)).integer("group");
    if (groups == 1) continue;
    record_near_miss(report, graph, attention, 1, fmt::format("a convolution of {} groups is no one Linear", groups));
    return;
  }
}

// Linears that make q, k and v of the Attention.
std::vector<Projection> projections(const Graph& graph, const Node& attention) {
  std::vector<Projection> found;
  for (std::size_t i = 0; i < 3; ++i) {
    for (const NodeId product : products_of(graph, attention.inputs[i])) {
      const auto projection = read_projection(graph, product);
      if (!projection || projection->activation != "none") continue;
      const bool known =
          std::any_of(found.begin(), found.end(), [&](const Projection& p) { return p.linear == projection->linear; });
      if (!known) found.push_back(*projection);
    }
  }
  return found;
}

// Those that read one input, an input of v, and are not one Linear yet; empty when there are none.
std::vector<Projection> siblings(const Graph& graph, NodeId id, RuleReport& report) {
  const Node& attention = graph.node(id);
  const std::vector<Projection> found = projections(graph, attention);
  if (found.size() < 2) {
    explain_source(graph, id, report);
    return {};
  }
  std::vector<Projection> together;
  for (const NodeId product : products_of(graph, attention.inputs[2])) {
    const auto value = read_projection(graph, product);
    if (!value || together.size() > 1) continue;
    together.clear();
    std::copy_if(found.begin(), found.end(), std::back_inserter(together),
                 [&](const Projection& p) { return p.x == value->x; });
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

// The same of products with packed weights.
std::vector<PackedProjection> packed_siblings(const Graph& graph, NodeId id, RuleReport& report) {
  const Node& attention = graph.node(id);
  std::vector<PackedProjection> together;
  for (std::size_t i = 3; i-- > 0;) {  // k and v before q, which may read another input
    const auto part = read_packed_projection(graph, projection_of(graph, attention.inputs[i]));
    if (!part) continue;
    const bool known =
        std::any_of(together.begin(), together.end(), [&](const PackedProjection& p) { return p.node == part->node; });
    if (known) continue;
    if (graph.is_output(graph.node(part->node).outputs[0])) {
      record_near_miss(report, graph, id, 3, "a projection is an output of the graph");
    } else if (together.empty() || may_join(graph, together[0], *part)) {
      together.insert(together.begin(), *part);
    } else {
      record_near_miss(report, graph, id, 2,
                       "the packed projections do not read the same input, or are not packed alike");
    }
  }
  return together.size() < 2 ? std::vector<PackedProjection>() : together;
}

}  // namespace

NodeId projection_of(const Graph& graph, ValueId value) {
  const std::vector<NodeId> products = products_of(graph, value);
  return products.empty() ? NodeId() : products[0];
}

int fuse_qkv(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of("fuse-qkv");
  int fused = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "Attention") continue;
    // One after the other where several inputs are projected.
    for (std::vector<Projection> parts = siblings(graph, id, report); !parts.empty();
         parts = siblings(graph, id, report)) {
      join_linears(graph, parts, "qkv");
      ++fused;
      context.rewritten(graph, "fuse-qkv");
    }
    const std::vector<PackedProjection> packed = packed_siblings(graph, id, report);
    if (packed.empty()) continue;
    join_packed(graph, packed, "qkv");
    ++fused;
    context.rewritten(graph, "fuse-qkv");
  }
  erase_dead(graph);
  report.applied += fused;
  return fused;
}

}  // namespace weft
