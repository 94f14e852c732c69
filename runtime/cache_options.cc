#include "runtime/cache_options.h"

#include <algorithm>

#include "runtime/kernels/attention_masks.h"

namespace weft::runtime {
CacheState::Options cache_options(const Graph& graph, const State& state) {
  CacheState::Options options;
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

}  // namespace weft::runtime
