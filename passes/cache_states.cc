// present = Concat(past, new) becomes a state of the session that grows in place; a past that only attention reads, and
// that comes out as it went in or not at all, a state that is set once; a cache in another layout, states of what
// attention reads of it.
#include <algorithm>

#include "passes/node_util.h"
#include "passes/passes.h"
#include "passes/rearranged_caches.h"

namespace weft {
namespace {

// f32[B, heads, P, size], as sessions keep them.
bool is_cache(const Graph& graph, ValueId past) {
  const Shape* shape = shape_of(graph, past);
  return shape != nullptr && shape->size() == 4 && graph.value(past).type.dtype == DType::kF32 &&
         (*shape)[1].is_constant() && (*shape)[3].is_constant();
}

// Is `value` Concat(past, new) along the axis of time?
bool appends(const Graph& graph, ValueId past, ValueId value) {
  const Node* concat = producer(graph, value, "Concat");
  if (concat == nullptr || concat->inputs.size() != 2 || concat->inputs[0] != past) return false;
  const std::int64_t axis = attributes_of(*concat).integer("axis");
  return axis == 2 || axis == -2;
}

// Attention reads keys and values where a session keeps them; others would need the cache as a tensor at every step.
bool only_attention_reads(const Graph& graph, ValueId past) {
  const std::vector<Use>& uses = graph.value(past).uses;
  return !uses.empty() && std::all_of(uses.begin(), uses.end(), [&](const Use& use) {
    return graph.node(use.node).op == "Attention" && (use.input == 1 || use.input == 2);
  });
}

auto find_output(const Graph& graph, std::string_view name) {
  return std::find_if(graph.outputs().begin(), graph.outputs().end(),
                      [&](const Output& output) { return output.name == name; });
}

}  // namespace

bool cache_stays(const Graph& graph, ValueId past, std::string_view present_name) {
  for (const State& state : graph.states()) {
    if (state.current == past) return state.next == past;
  }
  const auto present = find_output(graph, present_name);
  if (present == graph.outputs().end() || present->value == past) return true;
  const Value& value = graph.value(present->value);
  return value.tensor && value.tensor->size() == 0;
}

int lift_cache_states(Graph& graph, const std::vector<std::pair<std::string, std::string>>& pairs, bool any_layout) {
  int lifted = 0;
  std::vector<CachePair> others;
  for (const auto& [past_name, present_name] : pairs) {
    const auto past = graph.find_value(past_name);
    if (!past || graph.value(*past).kind != ValueKind::kInput) continue;
    const auto output = find_output(graph, present_name);
    const bool comes_out = output != graph.outputs().end();
    const auto index = static_cast<std::size_t>(output - graph.outputs().begin());
    if (!is_cache(graph, *past)) {
      if (comes_out) others.push_back({past_name, present_name, *past});
      continue;
    }
    if (comes_out && appends(graph, *past, output->value)) {
      const ValueId present = output->value;
      const NodeId concat = graph.value(present).producer;
      Builder builder(graph, concat, graph.node(concat).origin);
      const ValueId added = graph.node(concat).inputs[1];
      graph.replace_uses(present, builder.make("CacheAppend", {*past, added}, {{"axis", std::int64_t{2}}}));
      graph.erase_node(concat);
    } else if (cache_stays(graph, *past, present_name) && only_attention_reads(graph, *past)) {
      if (comes_out)
        graph.set_output(index, *past);
      else
        graph.add_output(present_name, *past);
    } else {
      if (comes_out) others.push_back({past_name, present_name, *past});
      continue;
    }
    graph.make_state(past_name, *past, index);
    ++lifted;
  }
  if (!any_layout || others.empty()) return lifted;
  const int rearranged = lift_rearranged_caches(graph, others);
  if (rearranged > 0) {
    std::vector<std::string> passes = canonical_passes();
    passes.insert(passes.end(), {"absorb-into-attention", "absorb-masks", "dead-code"});
    optimize(graph, {.passes = passes});
  }
  return lifted + rearranged;
}

}  // namespace weft
