// Vector loops over f32 rows, compiled for every instruction set and chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace weft::runtime::simd {

// "AVX3", "AVX2", ...: the instruction set in use.
std::string target_name();

enum class Activation : std::uint8_t { kNone, kRelu, kGelu, kGeluTanh, kSilu, kTanh, kSigmoid, kQuickGelu };

// y[i] = f(x[i]); x and y may be the same. kQuickGelu is x * sigmoid(alpha x), kSilu the same with 1.
void activate(Activation activation, float alpha, const float* x, float* y, std::size_t count);

// y[i] = f(x[i]); x and y may be the same. alpha and beta are the operator's attributes of that name, gamma of Selu and
// the bounds of Clip.
enum class Unary : std::uint8_t {
  kAbs,
  kNeg,
  kSqrt,
  kReciprocal,
  kFloor,
  kCeil,
  kRound,
  kSign,
  kExp,
  kLog,
  kSin,
  kCos,
  kErf,
  kSoftplus,
  kSoftsign,
  kMish,
  kHardSwish,
  kHardSigmoid,
  kLeakyRelu,
  kThresholdedRelu,
  kElu,
  kCelu,
  kSelu,
  kClip,
};
struct Function {
  Unary op;
  float alpha = 0, beta = 0;
};
void unary(const Function& function, const float* x, float* y, std::size_t count);

// One row: y = exp(x - max) / sum. NaN where the row holds NaN, +inf, or nothing but -inf. x and y may be the same.
void softmax_row(const float* x, float* y, std::size_t count);
// The same of each of `count` columns x[t * stride + i], t in [0, rows); y has the strides of x.
void softmax_columns(const float* x, std::size_t rows, std::size_t stride, float* y, std::size_t count);

// One row: y = (x - mean) / sqrt(variance + epsilon) * scale + bias; bias may be null.
void layer_norm_row(const float* x, const float* scale, const float* bias, float epsilon, float* y, std::size_t count);
// One row: y = x / sqrt(mean(x^2) + epsilon) * scale.
void rms_norm_row(const float* x, const float* scale, float epsilon, float* y, std::size_t count);

// One row: y = a + b + bias; bias may be null.
void add_row(const float* a, const float* b, const float* bias, float* y, std::size_t count);
// One row: y += x * factor, or y = x * factor where it is the first; x holds floats at any address.
void accumulate_row(const std::byte* x, float factor, bool first, float* y, std::size_t count);
// One row: y = x / max(|x|, epsilon) * scale, NaN where x holds NaN; scale may be null.
void l2_norm_row(const float* x, const float* scale, float epsilon, float* y, std::size_t count);
// The same of each of `count` columns x[t * stride + i], t in [0, rows), with one scale and bias for each t.
struct Columns {
  const float* x;
  std::size_t rows, stride;
  float* y;  // of the same strides
  std::size_t count;
};
void layer_norm_columns(const Columns& columns, const float* scale, const float* bias, float epsilon);
void l2_norm_columns(const Columns& columns, const float* scale, float epsilon);

// One row of `count` (even): y = x * cos + rotate(x) * sin, see docs/operators.md.
void rotate_row(const float* x, const float* cos, const float* sin, bool interleaved, float* y, std::size_t count);

}  // namespace weft::runtime::simd
