// Indices that operators share.
#pragma once

#include <cstdint>

#include "graph/error.h"
#include "graph/tensor.h"

namespace weft {

// Negative counts from the end; Error kInvalidArgument out of range.
inline std::int64_t checked_index(std::int64_t index, std::int64_t extent) {
  if (index < -extent || index >= extent) {
    fail(ErrorCode::kInvalidArgument, "index {} on an axis of length {}", index, extent);
  }
  return index < 0 ? index + extent : index;
}

// Product of the extents of axes [first, last).
inline std::int64_t product(const Extents& shape, std::size_t first, std::size_t last) {
  std::int64_t result = 1;
  for (std::size_t i = first; i < last; ++i) result *= shape[i];
  return result;
}

}  // namespace weft
