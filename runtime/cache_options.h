// How the cache of a state is kept, from who reads it.
#pragma once

#include "graph/graph.h"
#include "runtime/cache.h"

namespace weft::runtime {

// Panels when attention reads the state as keys, and a window when attention within windows reads it and nothing else.
CacheState::Options cache_options(const Graph& graph, const State& state);

}  // namespace weft::runtime
