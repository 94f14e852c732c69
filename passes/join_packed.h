// Products of one input with packed weights, as one product.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace weft {

// A MatMulNBits, MatMulIntegerToFloat or Conv of one group with constant parameters.
struct PackedProjection {
  NodeId node;
  ValueId x;
};
bool is_packed_product(std::string_view op);
std::optional<PackedProjection> read_packed_projection(const Graph& graph, NodeId id);

// Do they read one input (and what it was quantized by), with weights of one depth, layout and kind of zero points?
// Widths and biases may differ.
bool may_join(const Graph& graph, const PackedProjection& a, const PackedProjection& b);

// Replaces them by one such product and a Split of the last axis (of Conv the channels) into their widths, in order;
// packed weights, scales and zero points of columns lie side by side as they are. It stands where the first of them
// stood, called `name`.
void join_packed(Graph& graph, const std::vector<PackedProjection>& parts, std::string_view name);

}  // namespace weft
