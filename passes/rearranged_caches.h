// Caches that are not [B, heads, P, size] as states.
#pragma once

#include <string>

#include "passes/cache_views.h"

namespace weft {

// Turns the input `past` and the output into states, one for each view that attention has of the cache: named `name`,
// or "name.0", "name.1", ... where there are many. False, with the reason, where results would not be the same.
bool lift_rearranged_cache(Graph& graph, const std::string& name, ValueId past, std::size_t output,
                           std::string& reason);

}  // namespace weft
