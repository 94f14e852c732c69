// Vector loops that reduce f32, compiled for every instruction set and chosen at run time. Every result takes its terms
// in an order that follows from the extents alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace weft::runtime::reduce {

// NaN wins in kLargest and kSmallest.
enum class Kind : std::uint8_t { kSum, kMagnitudes, kSquares, kProduct, kLargest, kSmallest };

// What nothing reduces to.
float start(Kind kind);
// Of x[0 .. count).
float row(Kind kind, const float* x, std::size_t count);
// y[i] = over t of x[offsets[t] + i], i in [0, count).
void columns(Kind kind, const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count);

// The largest of x, and log(sum(exp(x - top))), NaN where that is infinite.
struct Exponents {
  float top, log_sum;
};
Exponents exponents(const float* x, std::size_t count);

struct Moments {
  float mean, variance;
};
Moments moments(const float* x, std::size_t count);
// y[i] = (x[i] - mean) * factor + shift; x and y may be the same.
void centre(const float* x, float mean, float factor, float shift, float* y, std::size_t count);

// The first (or last) position of the largest (or smallest) of x[0 .. count), count > 0; NaN is passed over, unless it
// is the first.
struct Extreme {
  bool largest = true, last = false;
};
std::int64_t position(Extreme extreme, const float* x, std::size_t count);
// The same of columns x[t * stride + i], t in [0, rows), i in [0, count); rows < 2^31.
void positions(Extreme extreme, const float* x, std::size_t rows, std::size_t stride, std::int64_t* y,
               std::size_t count);
// The first position from `first` on whose value is beyond `bound` (above it, or below), or count.
std::size_t find_beyond(bool above, float bound, const float* x, std::size_t first, std::size_t count);

}  // namespace weft::runtime::reduce
