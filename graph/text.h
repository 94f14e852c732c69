// The text form of graphs: SSA, typed, loss-free. print() then parse() gives an equal() graph.
//
//   graph main(%x: f32[B, S, 768]) -> (logits = %y) {
//     const %g: f32[768] = base64 "..."               // elements in decimal when there are few
//     %h: f32[B, S, 768] = LayerNormalization(%x, %g) {axis = -1, epsilon = 1e-05}  # /h.0/ln_1
//   }
#pragma once

#include <string>
#include <string_view>

#include "graph/graph.h"

namespace weft {

struct TextOptions {
  // Constants of more elements print as `= ...` (their contents left out), which parse() refuses.
  std::int64_t elide_above = std::numeric_limits<std::int64_t>::max();
  bool origins = true;
};

std::string print(const Graph& graph, const TextOptions& options = {});
// Error kInvalidArgument with line and column. The result is verified.
Graph parse_graph(std::string_view text);

}  // namespace weft
