// What references and kernels of convolutions share.
#pragma once

#include <span>
#include <vector>

#include "ops/op_def.h"

namespace weft {

// Along each spatial axis: input i is added to the outputs i * stride - pad_begin + k * dilation, k < kernel.
struct TransposedExtents {
  std::vector<std::int64_t> pads_begin, output;
};

// Do these channels and weights [outputs, inputs of a group, ...] come in so many groups?
bool groups_fit(std::int64_t groups, std::int64_t channels, std::span<const std::int64_t> weights);

// From the attributes strides, dilations, pads, output_padding, output_shape and auto_pad.
TransposedExtents transposed_extents(const AttributeReader& attributes, const std::vector<std::int64_t>& input,
                                     const std::vector<std::int64_t>& kernel);

}  // namespace weft
