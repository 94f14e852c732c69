// Shape arithmetic that operators share.
#pragma once

#include <array>
#include <functional>

#include "ops/op_def.h"

namespace weft {

// axis in [-rank, rank) -> [0, rank); Error kInvalidModel otherwise.
std::int64_t normalize_axis(std::int64_t axis, std::int64_t rank);
// The same for several, sorted; Error kInvalidModel on a duplicate.
std::vector<std::int64_t> normalize_axes(std::span<const std::int64_t> axes, std::int64_t rank);

// NumPy broadcasting. Two unequal dims of which neither is 1: a constant above 1 wins (the other has to
// be 1 or equal to it at run time), otherwise the larger, max(a, b). Error kInvalidModel when two
// constants clash.
Dim broadcast_dim(const Dim& a, const Dim& b);
Shape broadcast_shapes(const Shape& a, const Shape& b);
// Exact, for running; Error kInvalidModel when the shapes do not broadcast.
Extents broadcast_extents(std::span<const std::int64_t> a, std::span<const std::int64_t> b);

// Are these lengths of consecutive parts of an axis of length `total`?
bool is_partition(std::span<const std::int64_t> sizes, std::int64_t total);

// Strides in elements of a tensor of `shape` seen as `target` (0 along broadcast axes).
Extents broadcast_strides(std::span<const std::int64_t> shape, std::span<const std::int64_t> target);

// Calls row(offsets) for each row (run along the last axis) of `shape`, with the offset of its first
// element in every operand. A rank-0 shape has one row of one element; an empty one has none.
template <std::size_t kOperands, class Row>
void for_each_row(const Extents& shape, const std::array<Extents, kOperands>& strides, const Row& row) {
  if (element_count(shape) == 0) return;
  std::array<std::int64_t, kOperands> offsets{};
  if (shape.size() <= 1) {
    row(offsets);
    return;
  }
  const std::size_t outer = shape.size() - 1;
  Extents index(outer, 0);
  for (;;) {
    row(offsets);
    std::size_t axis = outer;
    while (axis-- > 0) {
      if (++index[axis] < shape[axis]) {
        for (std::size_t k = 0; k < kOperands; ++k) offsets[k] += strides[k][axis];
        break;
      }
      for (std::size_t k = 0; k < kOperands; ++k) {
        offsets[k] -= strides[k][axis] * (shape[axis] - 1);
      }
      index[axis] = 0;
      if (axis == 0) return;
    }
  }
}

// Infer functions that many operators share.
void infer_same_as_first(InferContext& context);
// Output 0 has the dtype of input 0 and the broadcast shape of inputs 0 and 1.
void infer_broadcast(InferContext& context);

// Where everything is known, integer contents follow the same rule as the values: applies f to the
// (broadcast) elements of inputs 0 and 1, f returns nullopt when it cannot tell.
using DimFunction = std::optional<Dim> (*)(const Dim&, const Dim&);
void infer_elements(InferContext& context, DimFunction f);

// Error kInvalidModel for a rank that no tensor has.
inline void check_rank(std::int64_t rank) {
  constexpr std::int64_t kMaxRank = 64;
  if (rank > kMaxRank) fail(ErrorCode::kInvalidModel, "a tensor of {} dimensions", rank);
}

}  // namespace weft
