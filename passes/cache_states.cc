// present = Concat(past, new) becomes a state of the session that grows in place; a past that only attention reads, and
// that comes out as it went in or not at all, a state that is set once; a cache in another layout, states of what
// attention reads of it.
#include <algorithm>

#include "passes/cache_lifts.h"
#include "passes/cache_views.h"
#include "passes/node_util.h"
#include "passes/passes.h"
#include "passes/rearranged_caches.h"

namespace weft {
namespace {

// Floats [B, heads, P, size], as sessions keep them.
bool is_cache(const Graph& graph, ValueId past) {
  const Shape* shape = shape_of(graph, past);
  return shape != nullptr && shape->size() == 4 && is_cache_type(graph.value(past).type.dtype) &&
         (*shape)[1].is_constant() && (*shape)[3].is_constant();
}

// Is `value` Concat(past, new) along the axis of time?
bool appends(const Graph& graph, ValueId past, ValueId value) {
  const Node* concat = producer(graph, value, "Concat");
  if (concat == nullptr || concat->inputs.size() != 2 || concat->inputs[0] != past) return false;
  const std::int64_t axis = attributes_of(*concat).integer("axis");
  return axis == 2 || axis == -2;
}

bool reads_as_attention(const Graph& graph, const Use& use) {
  return graph.node(use.node).op == "Attention" && (use.input == 1 || use.input == 2);
}

// Attention reads keys and values where a session keeps them; others would need the cache as a tensor at every step.
bool only_attention_reads(const Graph& graph, ValueId past) {
  const std::vector<Use>& uses = graph.value(past).uses;
  return !uses.empty() &&
         std::all_of(uses.begin(), uses.end(), [&](const Use& use) { return reads_as_attention(graph, use); });
}

auto find_output(const Graph& graph, std::string_view name) {
  return std::find_if(graph.outputs().begin(), graph.outputs().end(),
                      [&](const Output& output) { return output.name == name; });
}

void append_in_state(Graph& graph, ValueId past, ValueId present) {
  const NodeId concat = graph.value(present).producer;
  Builder builder(graph, concat, graph.node(concat).origin);
  const ValueId added = graph.node(concat).inputs[1];
  graph.replace_uses(present, builder.make("CacheAppend", {past, added}, {{"axis", std::int64_t{2}}}));
  graph.erase_node(concat);
}

// Why a cache that does not come out again is no state.
void refuse_staying(const Graph& graph, ValueId past, CacheLift& lift) {
  if (!is_cache(graph, past)) {
    lift.reason =
        fmt::format("[B, heads, P, size] of f32, f16 or bf16 wanted, {} found", to_string(graph.value(past).type));
    return;
  }
  for (const Use& use : graph.value(past).uses) {
    if (reads_as_attention(graph, use)) continue;
    const std::string& op = graph.node(use.node).op;
    lift.near_miss = near_miss_at(graph, use.node, 0, fmt::format("Attention wanted to read the cache, {} found", op));
    return;
  }
  lift.reason = "nothing reads the cache";
}

// Does it become a state as it is?
bool lift_as_it_is(Graph& graph, const CachePair& pair) {
  if (!is_cache(graph, pair.past)) return false;
  const auto output = find_output(graph, pair.present_name);
  const bool comes_out = output != graph.outputs().end();
  const auto index = static_cast<std::size_t>(output - graph.outputs().begin());
  if (comes_out && appends(graph, pair.past, output->value)) {
    append_in_state(graph, pair.past, output->value);
  } else if (cache_stays(graph, pair.past, pair.present_name) && only_attention_reads(graph, pair.past)) {
    if (comes_out)
      graph.set_output(index, pair.past);
    else
      graph.add_output(pair.present_name, pair.past);
  } else {
    return false;
  }
  graph.make_state(pair.past_name, pair.past, index);
  return true;
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

std::vector<CacheLift> lift_and_explain_caches(Graph& graph,
                                               const std::vector<std::pair<std::string, std::string>>& pairs,
                                               bool any_layout) {
  std::vector<CacheLift> lifts;
  std::vector<CachePair> others;
  std::vector<std::size_t> places;
  for (const auto& [past_name, present_name] : pairs) {
    const auto past = graph.find_value(past_name);
    if (!past || graph.value(*past).kind != ValueKind::kInput) continue;
    CacheLift& lift = lifts.emplace_back(CacheLift{past_name, {}, {}, {}});
    const CachePair pair{past_name, present_name, *past};
    if (lift_as_it_is(graph, pair)) {
      lift.states = {past_name};
    } else if (find_output(graph, present_name) == graph.outputs().end()) {
      refuse_staying(graph, *past, lift);
    } else {
      lift.reason = "[B, heads, P, size] with new tokens behind wanted";
      places.push_back(lifts.size() - 1);
      others.push_back(pair);
    }
  }
  if (!any_layout || others.empty()) return lifts;
  std::vector<CacheLift> rearranged = lift_rearranged_caches(graph, others);
  bool changed = false;
  for (std::size_t i = 0; i < others.size(); ++i) {
    changed = changed || !rearranged[i].states.empty();
    lifts[places[i]] = std::move(rearranged[i]);
  }
  if (changed) {
    std::vector<std::string> passes = canonical_passes();
    passes.insert(passes.end(), {"absorb-into-attention", "absorb-masks", "dead-code"});
    optimize(graph, {.passes = passes});
  }
  return lifts;
}

int lift_cache_states(Graph& graph, const std::vector<std::pair<std::string, std::string>>& pairs, bool any_layout) {
  const std::vector<CacheLift> lifts = lift_and_explain_caches(graph, pairs, any_layout);
  return static_cast<int>(std::ranges::count_if(lifts, [](const CacheLift& lift) { return !lift.states.empty(); }));
}

}  // namespace weft
