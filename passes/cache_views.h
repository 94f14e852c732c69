// What attention reads of a cache that lies in a file's own way: transposed, stacked with others, flattened.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft {

// Keys or values [B, heads, T, size] of Attention that a cache holds, beside others perhaps.
struct CacheView {
  ValueId value;             // as attention reads it: [B, heads, T, size], or [B, T, heads * size]
  std::vector<Use> readers;  // inputs 1 and 2 of Attention
  std::int64_t heads = 0, size = 0;
};

// A cache that nothing but attention reads, after rearranging it.
struct CacheUse {
  std::vector<CacheView> views;
  std::vector<NodeId> movers;         // nodes that only move its elements, in execution order
  std::vector<NodeId> sizes;          // Shape of what they make
  std::size_t time = 0;               // its axis that grows
  bool scatters = false;              // a mover writes new tokens to places that it is told
  bool is_buffer = false;             // the axis does not grow: the cache is longer than what it holds
  std::optional<std::string> buffer;  // its length, where it is a symbol
  // Inputs whose contents tell the places: positions [S] that follow those past, or a mask [B, T] whose ones are
  // counted; and names of T, which is all tokens.
  std::set<ValueId> written_by;
  std::vector<std::string> totals;
};

// What sessions keep: f32, f16 and bf16.
bool is_cache_type(DType dtype);

// Where a cache turned out to be something else.
struct CacheRefusal {
  std::string reason;
  NodeId node;    // that stands in the way; invalid if none does
  int depth = 0;  // nodes that only move it, up to there
};

// nullopt, with the refusal, unless each view is what it was at the last run with the new tokens behind, whatever the
// cache looked like in between. Proved by running the nodes in question on small tensors whose elements are all
// different.
std::optional<CacheUse> read_cache_use(const Graph& graph, ValueId past, ValueId present, CacheRefusal& refusal);

}  // namespace weft
