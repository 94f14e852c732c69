// Caches that are not [B, heads, P, size], or do not grow, as states.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"
#include "passes/cache_lifts.h"

namespace weft {

struct CachePair {
  std::string past_name, present_name;
  ValueId past;
};

// Turns each pair of an input and an output into states, one for each view that attention has of the cache: named as
// the input, or "name.0", "name.1", ... where there are many. Pairs of which results would not be the same stay.
// Returns what became of each, in their order.
std::vector<CacheLift> lift_rearranged_caches(Graph& graph, const std::vector<CachePair>& pairs);

}  // namespace weft
