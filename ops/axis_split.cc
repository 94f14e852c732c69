#include "ops/axis_split.h"

#include <algorithm>
#include <functional>

namespace weft {
namespace {

std::vector<std::int64_t> offsets_of(const Extents& shape, const Extents& strides, const std::vector<bool>& selected) {
  std::vector<std::int64_t> offsets = {0};
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (!selected[axis]) continue;
    std::vector<std::int64_t> next;
    MemoryLimit::check(offsets.size() * static_cast<std::size_t>(shape[axis]) * sizeof(std::int64_t));
    next.reserve(offsets.size() * static_cast<std::size_t>(shape[axis]));
    for (const std::int64_t base : offsets) {
      for (std::int64_t i = 0; i < shape[axis]; ++i) next.push_back(base + i * strides[axis]);
    }
    offsets = std::move(next);
  }
  return offsets;
}

}  // namespace

AxisSplit split_axes(const Extents& x, const std::vector<std::int64_t>& axes, bool keepdims) {
  std::vector<bool> reduced(x.size(), false);
  for (const std::int64_t axis : axes) reduced[static_cast<std::size_t>(axis)] = true;
  std::vector<bool> kept(reduced.size());
  std::transform(reduced.begin(), reduced.end(), kept.begin(), std::logical_not<>());
  AxisSplit split;
  for (std::size_t i = 0; i < reduced.size(); ++i) {
    if (!reduced[i])
      split.kept_shape.push_back(x[i]);
    else if (keepdims)
      split.kept_shape.push_back(1);
  }
  const Extents strides = row_major_strides(x);
  split.kept = offsets_of(x, strides, kept);
  if (!split.kept.empty()) split.reduced = offsets_of(x, strides, reduced);
  return split;
}

}  // namespace weft
