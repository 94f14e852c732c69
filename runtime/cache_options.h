// How the cache of a state is kept, from who reads it.
#pragma once

#include "graph/graph.h"
#include "runtime/cache.h"

namespace weft::runtime {

// Panels when attention reads the state as keys, and a window when attention within windows reads it and nothing else.
CacheState::Options cache_options(const Graph& graph, const State& state);

// States of f32 that grow, or stay as they are set, become states of f16 or bf16; what reads them converts.
void narrow_states(Graph& graph, DType dtype);
// The half cache of a state that this value is, converted to f32; invalid if it is none.
ValueId half_cache(const Graph& graph, ValueId value);

}  // namespace weft::runtime
