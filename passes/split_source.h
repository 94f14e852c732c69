// What a decoder computes of its source alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft {

// Values that depend on nothing but `source`, inputs [B, ...] that stay the same from step to step, and that cost
// something (products, convolutions, attention, recurrent layers) become inputs of the graph, named prefix + "0", "1",
// ...; the graph returned takes what it needs of source and gives them, in that order. Each has rows of B first; keys
// and values of attention are [B, heads, T, size]. nullopt: there are none, and nothing changed. For decode loops,
// after fusion, before lift_cache_states().
std::optional<Graph> split_source(Graph& graph, const std::vector<std::string>& source, const std::string& prefix);

}  // namespace weft
