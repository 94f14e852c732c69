// The sliding window that convolutions and pools share.
#pragma once

#include <vector>

#include "ops/op_def.h"

namespace weft {

// Along each spatial axis: output n looks at inputs n * stride - pad_begin + k * dilation, k < kernel.
struct Window {
  std::vector<std::int64_t> kernel, strides, dilations, pads_begin, pads_end;

  // From the attributes kernel_shape (or `kernel`, of a weight), strides, dilations, pads, auto_pad.
  // SAME_* needs the input's spatial extents; Error kInvalidModel for lists of wrong length.
  Window(const AttributeReader& attributes, std::vector<std::int64_t> kernel, std::span<const std::int64_t> input);

  std::int64_t output_extent(std::size_t axis, std::int64_t input, bool ceil_mode) const;
};

// The same symbolically; unknown where auto_pad depends on an extent that is not known.
Shape infer_window(InferContext& context, const Shape& input, const std::vector<std::int64_t>& kernel, bool ceil_mode);

// Attributes of every operator with a window.
std::vector<AttributeDef> window_attributes(std::vector<AttributeDef> more);

}  // namespace weft
