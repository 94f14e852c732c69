// Loops over samples of a plane, compiled for several instruction sets and chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::runtime::resample {

// y[i] = sum over k of weight[k * stride + i] * x[index[k * stride + i]], k in [0, each); what weighs 0 is not read.
void weigh(const float* x, const std::int32_t* index, const float* weight, std::size_t each, std::size_t stride,
           float* y, std::size_t count);
// y[i] = x[index[i]], elements of 4 bytes.
void pick(const std::int32_t* x, const std::int32_t* index, std::int32_t* y, std::size_t count);

}  // namespace weft::runtime::resample
