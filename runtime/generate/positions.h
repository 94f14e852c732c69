// How many positions a decoder has.
#pragma once

#include <cstdint>
#include <optional>

#include "graph/graph.h"

namespace weft::runtime {

// Rows of the smallest table (learned positions, rotary angles) that the graph looks up by position_ids, or by
// positions that it makes itself of lengths or of a mask; what is added to them is taken off. nullopt when it looks up
// none, so that any position can be computed, or when they follow from something else.
std::optional<std::int64_t> position_limit(const Graph& graph);

}  // namespace weft::runtime
