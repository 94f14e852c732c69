// How many positions a decoder has.
#pragma once

#include <cstdint>
#include <optional>

#include "graph/graph.h"

namespace weft::runtime {

// Rows of the smallest table (learned positions, rotary angles) that the graph looks up by position_ids, what is added
// to them taken off; nullopt when it looks up none, so that any position can be computed.
std::optional<std::int64_t> position_limit(const Graph& graph);

}  // namespace weft::runtime
