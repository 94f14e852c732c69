// Compiled once per instruction set, included by simd.cc only.
#if defined(WEFT_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_SIMD_INL_H
#undef WEFT_SIMD_INL_H
#else
#define WEFT_SIMD_INL_H
#endif

#include <algorithm>
#include <cmath>

#include "hwy/highway.h"
#include "runtime/kernels/activation-inl.h"
#include "runtime/kernels/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

void Activate(Activation activation, float alpha, const float* x, float* y, std::size_t count) {
  ActivateRow(activation, alpha, x, y, count);
}

template <class Function>
HWY_INLINE void Map(const float* x, float* y, std::size_t count, const Function& function) {
  ForEachVector(count,
                [&](std::size_t i, std::size_t lanes) HWY_ATTR { Store(function(Load(x + i, lanes)), y + i, lanes); });
}

// Zero where the result would be subnormal, infinite where it would be too large, NaN for NaN; the library's Exp is
// defined for less.
HWY_INLINE V Exp(V x) {
  const F d;
  const V least = hn::Set(d, -87.3365447f), largest = hn::Set(d, 88.7228391f);
  V y = hn::Exp(d, hn::Clamp(x, least, largest));
  y = hn::IfThenZeroElse(hn::Lt(x, least), y);
  y = hn::IfThenElse(hn::Gt(x, largest), hn::Inf(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

void ApplyUnary(Unary op, const float* x, float* y, std::size_t count) {
  const V one = hn::Set(F(), 1.0f);
  switch (op) {
    case Unary::kAbs: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Abs(v); });
    case Unary::kNeg: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Neg(v); });
    case Unary::kSqrt: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Sqrt(v); });
    case Unary::kReciprocal: return Map(x, y, count, [one](V v) HWY_ATTR { return hn::Div(one, v); });
    case Unary::kFloor: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Floor(v); });
    case Unary::kCeil: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Ceil(v); });
    case Unary::kExp: return Map(x, y, count, [](V v) HWY_ATTR { return Exp(v); });
    case Unary::kErf: return Map(x, y, count, [](V v) HWY_ATTR { return Erf(v); });
  }
}

template <class Function>
HWY_INLINE void Combine(const float* a, bool a_advances, const float* b, bool b_advances, float* y, std::size_t count,
                        const Function& function) {
  const F d;
  if (a_advances && b_advances) {
    ForEachVector(count, [&](std::size_t i, std::size_t lanes)
                             HWY_ATTR { Store(function(Load(a + i, lanes), Load(b + i, lanes)), y + i, lanes); });
  } else if (b_advances) {
    const V left = hn::Set(d, *a);
    Map(b, y, count, [&](V right) HWY_ATTR { return function(left, right); });
  } else if (a_advances) {
    const V right = hn::Set(d, *b);
    Map(a, y, count, [&](V left) HWY_ATTR { return function(left, right); });
  } else {
    const V value = function(hn::Set(d, *a), hn::Set(d, *b));
    ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR { Store(value, y + i, lanes); });
  }
}

void ApplyBinary(Binary op, const float* a, bool a_advances, const float* b, bool b_advances, float* y,
                 std::size_t count) {
  const auto apply = [&](const auto& function) HWY_ATTR { Combine(a, a_advances, b, b_advances, y, count, function); };
  switch (op) {
    case Binary::kAdd: return apply([](V l, V r) HWY_ATTR { return hn::Add(l, r); });
    case Binary::kSub: return apply([](V l, V r) HWY_ATTR { return hn::Sub(l, r); });
    case Binary::kMul: return apply([](V l, V r) HWY_ATTR { return hn::Mul(l, r); });
    case Binary::kDiv: return apply([](V l, V r) HWY_ATTR { return hn::Div(l, r); });
  }
}

void SoftmaxRow(const float* x, float* y, std::size_t count) {
  const F d;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V highest = lowest;
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V value = Load(x + i, lanes);
    if (lanes < hn::Lanes(d)) value = hn::IfThenElse(hn::FirstN(d, lanes), value, lowest);
    highest = hn::Max(highest, value);
  });
  const V shift = hn::Set(d, hn::ReduceMax(d, highest));
  V total = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V weight = Exp(hn::Sub(Load(x + i, lanes), shift));  // NaN of -inf - -inf and inf - inf
    Store(weight, y + i, lanes);
    total = hn::Add(total, lanes < hn::Lanes(d) ? hn::IfThenElseZero(hn::FirstN(d, lanes), weight) : weight);
  });
  const V scale = hn::Set(d, 1.0f / hn::ReduceSum(d, total));
  Map(y, y, count, [&](V weight) HWY_ATTR { return hn::Mul(weight, scale); });
}

HWY_INLINE float Sum(const float* x, std::size_t count) {
  V total = hn::Zero(F());
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR { total = hn::Add(total, Load(x + i, lanes)); });
  return hn::ReduceSum(F(), total);
}

void LayerNormRow(const float* x, const float* scale, const float* bias, float epsilon, float* y, std::size_t count) {
  const F d;
  const float mean = Sum(x, count) / static_cast<float>(count);
  const V m = hn::Set(d, mean);
  V squares = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V centred = hn::Sub(Load(x + i, lanes), m);
    if (lanes < hn::Lanes(d)) centred = hn::IfThenElseZero(hn::FirstN(d, lanes), centred);
    squares = hn::MulAdd(centred, centred, squares);
  });
  const float variance = hn::ReduceSum(d, squares) / static_cast<float>(count);
  const V inverse = hn::Set(d, 1.0f / std::sqrt(variance + epsilon));
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V value = hn::Mul(hn::Mul(hn::Sub(Load(x + i, lanes), m), inverse), Load(scale + i, lanes));
    if (bias != nullptr) value = hn::Add(value, Load(bias + i, lanes));
    Store(value, y + i, lanes);
  });
}

void RmsNormRow(const float* x, const float* scale, float epsilon, float* y, std::size_t count) {
  const F d;
  V squares = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V value = Load(x + i, lanes);
    squares = hn::MulAdd(value, value, squares);
  });
  const float mean = hn::ReduceSum(d, squares) / static_cast<float>(count);
  const V inverse = hn::Set(d, 1.0f / std::sqrt(mean + epsilon));
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    Store(hn::Mul(hn::Mul(Load(x + i, lanes), inverse), Load(scale + i, lanes)), y + i, lanes);
  });
}

void RotateRow(const float* x, const float* cos, const float* sin, bool interleaved, float* y, std::size_t count) {
  if (interleaved) {
    for (std::size_t i = 0; i + 1 < count; i += 2) {
      const float a = x[i];
      const float b = x[i + 1];
      y[i] = a * cos[i] + -b * sin[i];
      y[i + 1] = b * cos[i + 1] + a * sin[i + 1];
    }
    return;
  }
  const std::size_t half = count / 2;
  ForEachVector(half, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V a = Load(x + i, lanes);
    const V b = Load(x + half + i, lanes);
    const V low = hn::Sub(hn::Mul(a, Load(cos + i, lanes)), hn::Mul(b, Load(sin + i, lanes)));
    const V high = hn::Add(hn::Mul(b, Load(cos + half + i, lanes)), hn::Mul(a, Load(sin + half + i, lanes)));
    Store(low, y + i, lanes);
    Store(high, y + half + i, lanes);
  });
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
