// Vector loops over the scores of a vocabulary, compiled for every instruction set and chosen at run time.
#pragma once

#include <cstddef>

namespace weft::runtime::simd {

// In place: x - log(sum(exp(x))), within 1e-6 and a rounding of x - max. All NaN where x holds NaN, +inf, or nothing
// but -inf.
void log_softmax_row(float* x, std::size_t count);

// y = exp(x - max), and their sum. The same of NaN.
double exp_row(const float* x, double* y, std::size_t count);

// The first i >= first of which x[i] is larger than limit, or NaN; count if there is none.
std::size_t find_larger(const float* x, std::size_t first, std::size_t count, float limit);

}  // namespace weft::runtime::simd
