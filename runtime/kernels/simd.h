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

// y[i] = f(x[i]); x and y may be the same.
enum class Unary : std::uint8_t { kAbs, kNeg, kSqrt, kReciprocal, kFloor, kCeil, kExp, kErf };
void unary(Unary op, const float* x, float* y, std::size_t count);

// y[i] = f(a[i], b[i]); an operand that does not advance is one number. y may be an operand.
enum class Binary : std::uint8_t { kAdd, kSub, kMul, kDiv };
void binary(Binary op, const float* a, bool a_advances, const float* b, bool b_advances, float* y, std::size_t count);

// One row: y = exp(x - max) / sum. NaN where the row holds NaN, +inf, or nothing but -inf. x and y may be the same.
void softmax_row(const float* x, float* y, std::size_t count);

// One row: y = (x - mean) / sqrt(variance + epsilon) * scale + bias; bias may be null.
void layer_norm_row(const float* x, const float* scale, const float* bias, float epsilon, float* y, std::size_t count);
// One row: y = x / sqrt(mean(x^2) + epsilon) * scale.
void rms_norm_row(const float* x, const float* scale, float epsilon, float* y, std::size_t count);

// One row of `count` (even): y = x * cos + rotate(x) * sin, see docs/operators.md.
void rotate_row(const float* x, const float* cos, const float* sin, bool interleaved, float* y, std::size_t count);

// Attention of some query rows of one head over all keys, in blocks of keys, so that scores never take
// more than kQueryRows * kKeyBlock floats.
struct AttentionRows {
  static constexpr std::size_t kQueryRows = 16;
  static constexpr std::size_t kKeyBlock = 64;

  const float* q;        // [rows, D]
  std::size_t q_stride;  // floats between query rows
  std::size_t rows;      // at most kQueryRows
  const float* k;        // [T, D]
  std::size_t k_stride;
  const float* v;  // [T, E]
  std::size_t v_stride;
  std::size_t keys;        // T
  std::size_t size;        // D
  std::size_t value_size;  // E
  float scale;
  float softcap = 0;                        // > 0: scores become softcap * tanh(score / softcap) before masks
  const float* mask = nullptr;              // additive, or
  const std::uint8_t* mask_bits = nullptr;  // nonzero: attend
  std::size_t mask_row_stride = 0;          // elements between rows of the mask, 0: one row for all
  std::size_t mask_key_stride = 1;          // 0: one element for all keys
  std::ptrdiff_t causal_from = -1;          // >= 0: row r attends keys t <= causal_from + r
  bool zero_masked_rows = false;
  float* out;  // [rows, E]
  std::size_t out_stride;
  float* scratch;  // attention_scratch(D, E) floats
};
std::size_t attention_scratch(std::size_t size, std::size_t value_size);
void attend(const AttentionRows& task);

}  // namespace weft::runtime::simd
