// Quantization to u8 over the range of what is quantized, as DynamicQuantizeLinear has it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/thread_pool.h"

namespace weft::runtime {

struct Quantization {
  float scale;
  std::int32_t zero;
};
// Over the range of x and 0.
Quantization range_quantization(const float* x, std::size_t count, ThreadPool& pool);
// y = saturate(round(x / scale) + zero)
void quantize(const float* x, std::size_t count, const Quantization& by, std::uint8_t* y, ThreadPool& pool);

}  // namespace weft::runtime
