// Products of one input with packed weights, as one product.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace weft {

// A MatMulNBits with constant parameters.
struct PackedProjection {
  NodeId node;
  ValueId x;
};
std::optional<PackedProjection> read_packed_projection(const Graph& graph, NodeId id);

// Do they read one input, with weights of one depth, layout and kind of zero points? Widths and biases may differ.
bool may_join(const Graph& graph, const PackedProjection& a, const PackedProjection& b);

// Replaces them by one MatMulNBits and a Split of the last axis into their widths, in order; packed weights, scales and
// zero points of columns lie one after the other as they are. It stands where the first of them stood, called `name`.
void join_packed(Graph& graph, const std::vector<PackedProjection>& parts, std::string_view name);

}  // namespace weft
