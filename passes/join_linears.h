// Linears of one input side by side in one: what the fusions of siblings share.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace weft {

struct Projection {
  NodeId linear;
  ValueId x, weight;
  ValueId bias;  // invalid: none
  std::string activation;
};

// The Linear at `id` with constant f32 parameters and no residual; nullopt for anything else.
std::optional<Projection> read_projection(const Graph& graph, NodeId id);

// Replaces Linears of one input by one Linear and a Split of the last axis into their widths, in order; a missing bias
// counts as zeros, an activation becomes an operator of its own behind the Split. The new Linear stands where the
// first of them stood and is called `name`, its parameters `name`_weight and `name`_bias.
void join_linears(Graph& graph, const std::vector<Projection>& parts, std::string_view name);

}  // namespace weft
