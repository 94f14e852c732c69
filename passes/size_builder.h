// Sizes computed from the extents of inputs and states.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "ops/builder.h"

namespace weft {

// Ordered as Dim::compare does.
struct DimLess {
  bool operator()(const Dim& a, const Dim& b) const { return Dim::compare(a, b) < 0; }
};

// Adds its nodes at the front of the graph, one for each size asked for.
class SizeBuilder {
 public:
  // but: inputs that are not asked for their extents.
  explicit SizeBuilder(Graph& graph, const std::set<ValueId>& but = {});

  // i64[1]; invalid when a symbol is no extent of an input or state, or the polynomial is not linear.
  ValueId size(const Dim& dim);
  // The elements as a tensor of the rank of what it replaces.
  ValueId sizes(const std::vector<Dim>& dims, bool is_scalar);

 private:
  void add_sources(ValueId input);
  ValueId build(const Dim& dim);
  ValueId linear(const Dim& dim);

  Builder b_;
  std::map<std::string, std::pair<ValueId, std::size_t>, std::less<>> sources_;
  std::map<Dim, ValueId, DimLess> known_;
  std::map<std::pair<std::vector<ValueId>, bool>, ValueId> joined_;
};

}  // namespace weft
