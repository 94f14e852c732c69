// Conversions of rows of elements, vectorised: half precision, quantized integers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::runtime::convert {

// Halves are f16, or bf16 where `brain`. To halves: to nearest even, NaN stays NaN.
void from_half(const std::uint16_t* x, bool brain, float* y, std::size_t count);
void to_half(const float* x, bool brain, std::uint16_t* y, std::size_t count);

// y = saturate(round(x / scale) + zero), rounding half to even; NaN gives what the reference gives. `is_signed`: i8,
// else u8.
void quantize(const float* x, float scale, std::int32_t zero, bool is_signed, std::uint8_t* y, std::size_t count);
// y = (x - zero) * scale
void dequantize(const std::uint8_t* x, bool is_signed, std::int32_t zero, float scale, float* y, std::size_t count);
void dequantize(const std::int32_t* x, std::int32_t zero, float scale, float* y, std::size_t count);
// The same with a scale for each element, and a zero point where given.
void dequantize(const std::int32_t* x, const float* scale, float* y, std::size_t count);

}  // namespace weft::runtime::convert
