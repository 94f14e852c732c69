// The sliding window that convolutions and pools share.
#pragma once

#include <tuple>
#include <utility>
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
  // The taps [first, last) of output coordinate `output` that lie at [begin, end) of the input.
  std::pair<std::int64_t, std::int64_t> taps_inside(std::size_t axis, std::int64_t output, std::int64_t begin,
                                                    std::int64_t end) const;
};

// Calls body(tap, position) for each tap of flat output `at` that lies on the input, in order; both flat.
template <class Body>
void for_each_tap(const Window& window, const Extents& input, const Extents& output, std::int64_t at,
                  const Body& body) {
  const std::size_t rank = input.size();
  Extents first(rank), last(rank), start(rank);
  for (std::size_t i = rank; i-- > 0; at /= output[i]) {
    const std::int64_t o = at % output[i];
    std::tie(first[i], last[i]) = window.taps_inside(i, o, 0, input[i]);
    if (first[i] == last[i]) return;
    start[i] = o * window.strides[i] - window.pads_begin[i];
  }
  for (Extents tap = first;;) {
    std::int64_t flat = 0, position = 0;
    for (std::size_t i = 0; i < rank; ++i) {
      flat = flat * window.kernel[i] + tap[i];
      position = position * input[i] + start[i] + tap[i] * window.dilations[i];
    }
    body(flat, position);
    std::size_t axis = rank;
    while (axis > 0 && ++tap[axis - 1] == last[axis - 1]) {
      --axis;
      tap[axis] = first[axis];
    }
    if (axis == 0) return;
  }
}

// The same symbolically; unknown where auto_pad depends on an extent that is not known.
Shape infer_window(InferContext& context, const Shape& input, const std::vector<std::int64_t>& kernel, bool ceil_mode);

// Attributes of every operator with a window.
std::vector<AttributeDef> window_attributes(std::vector<AttributeDef> more);

}  // namespace weft
