#include "runtime/cache_options.h"

#include <algorithm>

#include "ops/builder.h"
#include "runtime/kernels/attention_masks.h"

namespace weft::runtime {
CacheState::Options cache_options(const Graph& graph, const State& state) {
  CacheState::Options options;
  options.dtype = graph.value(state.current).type.dtype;
  std::int64_t window = 0;
  bool bounded = true;
  const auto see = [&](ValueId value, bool current) {
    for (const Use& use : graph.value(value).uses) {
      const Node& node = graph.node(use.node);
      if (current && node.op == "CacheAppend" && use.input == 0) continue;
      const bool attention = node.op == "Attention" && (use.input == 1 || use.input == 2);
      if (attention && use.input == 1) options.layout = CacheLayout::kPanels;
      const std::int64_t wanted = attention ? attention_window(node) : CacheState::kUnbounded;
      bounded = bounded && wanted != CacheState::kUnbounded;
      window = std::max(window, wanted);
    }
    for (const Output& output : graph.outputs()) bounded = bounded && output.value != value;
  };
  see(state.current, true);
  if (state.next != state.current) see(state.next, false);
  if (bounded && window > 0) options.window = window;
  return options;
}

namespace {

bool appends(const Graph& graph, const State& state) {
  const Value& next = graph.value(state.next);
  if (next.kind != ValueKind::kResult) return false;
  const Node& node = graph.node(next.producer);
  return node.op == "CacheAppend" && node.inputs[0] == state.current;
}

// All that reads `cache`, but for the node that appends to it, reads it as f32.
void widen_readers(Graph& graph, ValueId cache, NodeId appender, NodeId before) {
  const std::vector<Use> uses = graph.value(cache).uses;
  ValueId wide;
  for (const Use& use : uses) {
    if (use.node == appender) continue;
    if (!wide.valid()) {
      Builder builder(graph, before, graph.node(use.node).origin);
      wide = builder.cast(builder.wrap(cache), DType::kF32).id();
    }
    graph.set_input(use.node, use.input, wide);
  }
}

}  // namespace

void narrow_states(Graph& graph, DType dtype) {
  const std::vector<State> states(graph.states().begin(), graph.states().end());
  for (const State& state : states) {
    const bool grows = appends(graph, state);
    const bool given_out = std::ranges::any_of(graph.outputs(), [&](const Output& output) {
      return output.value == state.current || output.value == state.next;
    });
    if (graph.value(state.current).type.dtype != DType::kF32 || given_out || !(grows || state.next == state.current))
      continue;
    graph.value(state.current).type.dtype = dtype;
    const NodeId appender = grows ? graph.value(state.next).producer : NodeId();
    if (grows) {
      Builder builder(graph, appender, graph.node(appender).origin);
      graph.set_input(appender, 1, builder.cast(builder.wrap(graph.node(appender).inputs[1]), dtype).id());
      graph.value(state.next).type.dtype = dtype;
      widen_readers(graph, state.next, {}, graph.next_node(appender));
    }
    widen_readers(graph, state.current, appender, graph.nodes().front());
  }
}

ValueId half_cache(const Graph& graph, ValueId value) {
  const Value& wide = graph.value(value);
  if (wide.kind != ValueKind::kResult || wide.type.dtype != DType::kF32) return {};
  const Node& node = graph.node(wide.producer);
  if (node.op != "Cast") return {};
  const ValueId cache = node.inputs[0];
  const bool kept = std::ranges::any_of(graph.states(), [&](const State& state) {
    return state.current == cache || (state.next == cache && appends(graph, state));
  });
  const DType dtype = graph.value(cache).type.dtype;
  return kept && (dtype == DType::kF16 || dtype == DType::kBF16) ? cache : ValueId();
}

}  // namespace weft::runtime
