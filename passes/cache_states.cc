// present = Concat(past, new) becomes a state of the session that grows in place.
#include <algorithm>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// The axis of Concat(past, new) when that is `value`, along the axis of time of [B, heads, P, size].
bool appends(const Graph& graph, ValueId past, ValueId value) {
  const Node* concat = producer(graph, value, "Concat");
  if (concat == nullptr || concat->inputs.size() != 2 || concat->inputs[0] != past) return false;
  const Shape* shape = shape_of(graph, past);
  if (shape == nullptr || shape->size() != 4 || graph.value(past).type.dtype != DType::kF32) return false;
  const std::int64_t axis = attributes_of(*concat).integer("axis");
  return (axis == 2 || axis == -2) && (*shape)[1].is_constant() && (*shape)[3].is_constant();
}

}  // namespace

int lift_cache_states(Graph& graph, const std::vector<std::pair<std::string, std::string>>& pairs) {
  int lifted = 0;
  for (const auto& [past_name, present_name] : pairs) {
    const auto past = graph.find_value(past_name);
    const auto output = std::find_if(graph.outputs().begin(), graph.outputs().end(),
                                     [&, name = present_name](const Output& o) { return o.name == name; });
    if (!past || output == graph.outputs().end() || graph.value(*past).kind != ValueKind::kInput) continue;
    const ValueId present = output->value;
    if (!appends(graph, *past, present)) continue;
    const NodeId concat = graph.value(present).producer;
    Builder builder(graph, concat, graph.node(concat).origin);
    const ValueId added = graph.node(concat).inputs[1];
    const Expr append = builder.make("CacheAppend", {*past, added}, {{"axis", std::int64_t{2}}});
    const auto index = static_cast<std::size_t>(output - graph.outputs().begin());
    graph.replace_uses(present, append);
    graph.erase_node(concat);
    graph.make_state(past_name, *past, index);
    ++lifted;
  }
  return lifted;
}

}  // namespace weft
