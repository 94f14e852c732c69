// Where a graph computes attention, norms and projections, however it is written.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "passes/sites.h"

namespace weft {

struct FoundSite {
  SiteKind kind;
  NodeId at;                  // the softmax, the root, the product (the first of them)
  std::vector<NodeId> parts;  // kProjections: all of the products
  NodeId core;                // kProjections: the attention they feed
};

// Of this graph, not of its subgraphs, in execution order.
std::vector<FoundSite> find_sites(const Graph& graph);

// Operators between a projection and the product of the scores (or weights): its output is cut up, rearranged, rotated,
// normalised, repeated.
std::span<const std::string_view> below_projection();

// Is this a product of data with a matrix that is known before the run?
bool is_projection_operator(std::string_view op);

}  // namespace weft
