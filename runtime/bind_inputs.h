// Checking what a caller gives against what a graph declares.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft::runtime {

using TensorMap = std::map<std::string, Tensor, std::less<>>;

// The inputs in the graph's order, defaults filled in. Error kInvalidArgument for an unknown name (with
// the closest known one), a missing input, another dtype or rank, an extent other than declared, or
// two extents that disagree about one symbol. Inputs that only a branch reads which another input's value
// keeps from running may disagree: merged decoders get placeholders for caches that are not there yet.
std::vector<Tensor> match_inputs(const Graph& graph, const TensorMap& given);

// The same for inputs given in the graph's order.
std::vector<Tensor> check_inputs(const Graph& graph, std::span<const Tensor> given);

// The candidate that differs least from `word`, empty if none is close.
std::string closest(std::string_view word, std::span<const std::string> candidates);

}  // namespace weft::runtime
