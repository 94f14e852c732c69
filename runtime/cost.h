// What a node has to do at least, to compare with what the machine can.
#pragma once

#include <span>

#include "graph/graph.h"

namespace weft::runtime {

class CacheState;  // runtime/cache.h

struct Cost {
  double flops = 0;  // of products and convolutions; a multiply-add counts twice
  double bytes = 0;  // of constants and caches, each read once
};

// inputs and outputs as a kernel gets them (RunContext): null where absent; caches: per input the cache it is, or null.
// Causal attention counts the keys that a query sees.
Cost cost_of(const Graph& graph, const Node& node, std::span<const Tensor* const> inputs,
             std::span<const CacheState* const> caches, std::span<Tensor* const> outputs);

}  // namespace weft::runtime
