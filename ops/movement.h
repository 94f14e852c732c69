// Where the elements of operators that only move them come from, for their kernels.
#pragma once

#include <span>

#include "ops/op_def.h"

namespace weft {

// Element [i, j, ...] of the result is element offset + i * strides[0] + j * strides[1] + ... of the source.
struct StridedView {
  Extents shape, strides;
  std::int64_t offset = 0;
};

// Writes the elements that `view` sees of x to out, which has as many, in their order.
void copy_view(const Tensor& x, const StridedView& view, Tensor& out);

// Transpose of a dense tensor of shape x. Error kInvalidModel when perm does not permute its axes.
StridedView transposed_view(const AttributeReader& attributes, const Extents& x);
// Slice of inputs[0] by the others (null where absent). Error kInvalidModel when they do not fit.
StridedView sliced_view(std::span<const Tensor* const> inputs);
// Expand of x to `shape`. Error kInvalidModel when it does not broadcast.
StridedView expanded_view(const Tensor& x, const Tensor& shape);
// What Tile gives: its shape, Error kInvalidModel when the repeats do not fit; and where it reads, each axis as its
// repeats and its extent.
Extents tiled_shape(const Extents& x, std::span<const std::int64_t> repeats);
StridedView tiled_view(const Extents& x, std::span<const std::int64_t> repeats);
// Lengths of the pieces of Split along an axis of length `total`; sizes: its input 1, or null. Error kInvalidModel.
std::vector<std::int64_t> split_sizes(std::int64_t total, const Tensor* sizes, std::size_t pieces);

// Pad of inputs[0] by the others (null where absent): the shape of the result, and how much comes before each axis.
struct Padding {
  Extents shape, before;
};
Padding padding_of(std::span<const Tensor* const> inputs);
// Where position `index` (0: the first that is not padding) of an axis is read from in a mode of Pad; -1: the constant.
// Error kInvalidModel when there is nothing to read.
std::int64_t padded_source(std::int64_t index, std::int64_t extent, const std::string& mode);

}  // namespace weft
