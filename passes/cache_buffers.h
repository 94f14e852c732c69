// Caches that are longer than what they hold, and masks that say so.
#pragma once

#include <map>
#include <set>
#include <string>

#include "passes/cache_views.h"

namespace weft {

// Attention operators that read the cache.
std::set<NodeId> readers_of(const CacheUse& use);

// Does every Attention that reads the cache leave out what lies behind the tokens of a run? False with the refusal if
// not, or if nobody can tell before the run.
bool sees_only_what_is_written(const Graph& graph, const CacheUse& use, CacheRefusal& refusal);

// Masks of these Attention operators, whose keys are those written now, lose their columns behind them, or become
// attributes where they are causal.
void cut_masks(Graph& graph, const std::map<NodeId, const CacheUse*>& readers);

}  // namespace weft
