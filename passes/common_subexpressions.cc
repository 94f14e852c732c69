// Equal computations are done once; results nobody reads are not computed.
#include <algorithm>
#include <map>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Inputs in an order that is the same whichever way round a sum or product of two is written.
std::vector<ValueId> ordered_inputs(const Node& node) {
  std::vector<ValueId> inputs = node.inputs;
  if (inputs.size() == 2 && get_op(node.op).commutative && inputs[1] < inputs[0]) std::swap(inputs[0], inputs[1]);
  return inputs;
}

bool same_computation(const Node& a, const Node& b) {
  return a.op == b.op && ordered_inputs(a) == ordered_inputs(b) && a.outputs.size() == b.outputs.size() &&
         a.attributes.size() == b.attributes.size() &&
         std::equal(a.attributes.begin(), a.attributes.end(), b.attributes.begin(), [](const auto& x, const auto& y) {
           return x.first == y.first && operator_equal(x.second, y.second);
         });
}

// Small equal constants are one value, so that what reads them can be equal too.
int merge_constants(Graph& graph, PassContext& context) {
  constexpr std::size_t kSmall = 256;
  std::map<std::string, std::vector<ValueId>> seen;
  int merged = 0;
  for (const ValueId id : graph.values()) {
    const Value& value = graph.value(id);
    if (value.kind != ValueKind::kConstant || is_object(value.type.dtype) || value.tensor->byte_size() > kSmall)
      continue;
    std::vector<ValueId>& same_shape = seen[to_string(value.type)];
    const auto found = std::find_if(same_shape.begin(), same_shape.end(),
                                    [&](ValueId other) { return graph.value(other).tensor->identical(*value.tensor); });
    if (found == same_shape.end()) {
      same_shape.push_back(id);
    } else if (graph.use_count(id) > 0) {
      graph.replace_uses(id, *found);
      context.rewritten(graph, "merge-constants");
      ++merged;
    }
  }
  return merged;
}

}  // namespace

int eliminate_common_subexpressions(Graph& graph, PassContext& context) {
  int merged = merge_constants(graph, context);
  std::multimap<std::pair<std::string, ValueId>, NodeId> seen;  // by operator and first input
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (!node.subgraphs.empty() || !get_op(node.op).deterministic) continue;
    const std::pair key{node.op, node.inputs.empty() ? ValueId() : ordered_inputs(node)[0]};
    const auto [first, last] = seen.equal_range(key);
    const auto found =
        std::find_if(first, last, [&](const auto& entry) { return same_computation(node, graph.node(entry.second)); });
    if (found == last) {
      seen.emplace(key, id);
      continue;
    }
    Node& kept = graph.node(found->second);
    const bool complete = std::equal(node.outputs.begin(), node.outputs.end(), kept.outputs.begin(),
                                     [](ValueId a, ValueId b) { return !a.valid() || b.valid(); });
    if (!complete) continue;
    kept.origin.merge(node.origin);
    const std::vector<ValueId> from = node.outputs, to = kept.outputs;
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (from[i].valid()) graph.replace_uses(from[i], to[i]);
    }
    graph.erase_node(id);
    context.rewritten(graph, "common-subexpressions");
    ++merged;
  }
  erase_dead(graph);
  return merged;
}

int eliminate_dead_code(Graph& graph, PassContext&) { return erase_dead(graph); }

}  // namespace weft
