// What became of each cache of a decoder, and why.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "passes/pipeline.h"

namespace weft {

struct CacheLift {
  std::string past;                   // the input
  std::vector<std::string> states;    // that it became; none: it stays an input
  std::optional<NearMiss> near_miss;  // without states: how many nodes it was followed through, and where that ended
  std::string reason;                 // without states and a node that stands in the way: what is missing
};

// lift_cache_states(), with an account of every pair whose first is an input of the graph.
std::vector<CacheLift> lift_and_explain_caches(Graph& graph,
                                               const std::vector<std::pair<std::string, std::string>>& pairs,
                                               bool any_layout = true);

}  // namespace weft
