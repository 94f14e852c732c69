// A tensor seen as [kept..., reduced...].
#pragma once

#include "graph/tensor.h"

namespace weft {

// Offsets of the kept elements, and from each of those to the reduced ones.
struct AxisSplit {
  Extents kept_shape;  // with 1s when keepdims
  std::vector<std::int64_t> kept, reduced;
};

// Axes in [0, rank). Where nothing is kept, nothing is reduced either. Error kInvalidArgument when the offsets would
// pass the memory limit in force.
AxisSplit split_axes(const Extents& shape, const std::vector<std::int64_t>& axes, bool keepdims);

}  // namespace weft
