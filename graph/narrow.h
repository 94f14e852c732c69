// Element types narrower than a byte or of 8-bit floating point: stored one element a byte.
#pragma once

#include <utility>

#include "graph/dtype.h"

namespace weft {

// The number that the bits of an element mean. Integers are sign-extended to the byte (i4 -3 is 0xfd); floats use
// the low bits as the OCP formats write them. Error kInternal for a dtype that is_narrow() denies.
float narrow_to_float(DType dtype, std::uint8_t bits);

enum class Rounding : std::uint8_t { kNearest, kUp, kDown };

// The nearest element, ties to even (kUp, kDown: of f8e8m0 only, away from and towards zero). Beyond the range:
// integers wrap as a conversion from int does; floats give the largest finite number when saturating, otherwise
// infinity where there is one, else NaN (f4e2m1 has neither: it saturates always). The table is ONNX's for Cast.
std::uint8_t narrow_from_double(DType dtype, double value, bool saturate = true,
                                Rounding rounding = Rounding::kNearest);

// Bits an element takes in a file: 2, 4 or 8. Elements of 2 and 4 bits are packed there, low bits first.
int packed_bits(DType dtype);

// [smallest, largest] finite number.
std::pair<double, double> narrow_range(DType dtype);

}  // namespace weft
