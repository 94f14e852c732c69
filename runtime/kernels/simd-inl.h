// Compiled once per instruction set, included by simd.cc only.
#if defined(WEFT_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_SIMD_INL_H
#undef WEFT_SIMD_INL_H
#else
#define WEFT_SIMD_INL_H
#endif

#include <algorithm>
#include <cmath>

#include "hwy/contrib/math/math-inl.h"
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

HWY_INLINE V Log(V x) {
  const F d;
  const V infinity = hn::Inf(d), zero = hn::Zero(d);
  V y = hn::Log(d, x);
  y = hn::IfThenElse(hn::Eq(x, zero), hn::Neg(infinity), y);
  y = hn::IfThenElse(hn::Lt(x, zero), hn::NaN(d), y);
  return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::Eq(x, infinity)), x, y);
}

// exp(x) - 1 where it cannot overflow.
HWY_INLINE V Expm1(V x) {
  const F d;
  const V y = hn::Expm1(d, hn::Clamp(x, hn::Set(d, -88.0f), hn::Set(d, 88.0f)));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

HWY_INLINE V Softplus(V x) {
  const F d;
  const V y = hn::Add(hn::Max(x, hn::Zero(d)), hn::Log1p(d, Exp(hn::Neg(hn::Abs(x)))));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// x tanh(log(1 + e)), e = exp(x): the tangent is that of (1 + e)^2 - 1 and (1 + e)^2 + 1.
HWY_INLINE V Mish(V x) {
  const F d;
  const V two = hn::Set(d, 2.0f);
  const V e = Exp(hn::Min(x, hn::Set(d, 20.0f)));
  const V n = hn::Mul(e, hn::Add(e, two));
  return hn::Mul(x, hn::Div(n, hn::Add(n, two)));
}

// f(x) where the library's functions are exact enough, scalar(x) of vectors that go beyond.
template <class Function, class Scalar>
HWY_INLINE V Periodic(V x, const Function& function, const Scalar& scalar) {
  const F d;
  if (HWY_LIKELY(hn::AllTrue(d, hn::Lt(hn::Abs(x), hn::Set(d, 39000.0f))))) return function(x);
  float values[HWY_MAX_BYTES / sizeof(float)];
  hn::StoreU(x, d, values);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) values[i] = scalar(values[i]);
  return hn::LoadU(d, values);
}

HWY_INLINE V Sin(V x) {
  return Periodic(x, [](V v) HWY_ATTR { return hn::Sin(F(), v); }, [](float v) { return std::sin(v); });
}
HWY_INLINE V Cos(V x) {
  return Periodic(x, [](V v) HWY_ATTR { return hn::Cos(F(), v); }, [](float v) { return std::cos(v); });
}

// NaN passes.
HWY_INLINE V Clip(V x, V low, V high) {
  const V y = hn::IfThenElse(hn::Lt(x, low), low, x);
  return hn::IfThenElse(hn::Gt(y, high), high, y);
}

HWY_INLINE V Sign(V x) {
  const F d;
  const V one = hn::Set(d, 1.0f), zero = hn::Zero(d);
  const V y = hn::Sub(hn::IfThenElseZero(hn::Gt(x, zero), one), hn::IfThenElseZero(hn::Lt(x, zero), one));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

void ApplyUnary(const Function& function, const float* x, float* y, std::size_t count) {
  const F d;
  const V zero = hn::Zero(d), one = hn::Set(d, 1.0f), half = hn::Set(d, 0.5f), sixth = hn::Set(d, 1.0f / 6);
  const V alpha = hn::Set(d, function.alpha), beta = hn::Set(d, function.beta);
  const auto map = [&](const auto& f) HWY_ATTR { Map(x, y, count, f); };
  switch (function.op) {
    case Unary::kAbs: return map([](V v) HWY_ATTR { return hn::Abs(v); });
    case Unary::kNeg: return map([](V v) HWY_ATTR { return hn::Neg(v); });
    case Unary::kSqrt: return map([](V v) HWY_ATTR { return hn::Sqrt(v); });
    case Unary::kReciprocal: return map([&](V v) HWY_ATTR { return hn::Div(one, v); });
    case Unary::kFloor: return map([](V v) HWY_ATTR { return hn::Floor(v); });
    case Unary::kCeil: return map([](V v) HWY_ATTR { return hn::Ceil(v); });
    case Unary::kRound: return map([](V v) HWY_ATTR { return hn::Round(v); });
    case Unary::kSign: return map([](V v) HWY_ATTR { return Sign(v); });
    case Unary::kExp: return map([](V v) HWY_ATTR { return Exp(v); });
    case Unary::kLog: return map([](V v) HWY_ATTR { return Log(v); });
    case Unary::kSin: return map([](V v) HWY_ATTR { return Sin(v); });
    case Unary::kCos: return map([](V v) HWY_ATTR { return Cos(v); });
    case Unary::kErf: return map([](V v) HWY_ATTR { return Erf(v); });
    case Unary::kSoftplus: return map([](V v) HWY_ATTR { return Softplus(v); });
    case Unary::kSoftsign: return map([&](V v) HWY_ATTR { return hn::Div(v, hn::Add(one, hn::Abs(v))); });
    case Unary::kMish: return map([](V v) HWY_ATTR { return Mish(v); });
    case Unary::kHardSwish:
      return map([&](V v) HWY_ATTR { return hn::Mul(v, Clip(hn::MulAdd(v, sixth, half), zero, one)); });
    case Unary::kHardSigmoid: return map([&](V v) HWY_ATTR { return Clip(hn::MulAdd(v, alpha, beta), zero, one); });
    case Unary::kLeakyRelu:
      return map([&](V v) HWY_ATTR { return hn::IfThenElse(hn::Lt(v, zero), hn::Mul(alpha, v), v); });
    case Unary::kThresholdedRelu: return map([&](V v) HWY_ATTR { return hn::IfThenElseZero(hn::Gt(v, alpha), v); });
    case Unary::kElu:
      return map([&](V v) HWY_ATTR { return hn::IfThenElse(hn::Lt(v, zero), hn::Mul(alpha, Expm1(v)), v); });
    case Unary::kCelu:
      return map([&](V v)
                     HWY_ATTR { return hn::IfThenElse(hn::Gt(v, zero), v, hn::Mul(alpha, Expm1(hn::Div(v, alpha)))); });
    case Unary::kSelu:
      return map([&](V v)
                     HWY_ATTR { return hn::Mul(beta, hn::IfThenElse(hn::Gt(v, zero), v, hn::Mul(alpha, Expm1(v)))); });
    case Unary::kClip: return map([&](V v) HWY_ATTR { return Clip(v, alpha, beta); });
  }
}

// The largest of a row, NaN passed over where the vectors' comparison does.
HWY_INLINE float LargestOf(const float* x, std::size_t count) {
  const auto larger = [](V a, V b) HWY_ATTR { return hn::Max(a, b); };
  const V lowest = hn::Set(F(), -std::numeric_limits<float>::infinity());
  const auto term = [&](std::size_t i, std::size_t lanes) HWY_ATTR { return Load(x + i, lanes); };
  return hn::ReduceMax(F(), FoldVectors(count, lowest, term, larger, larger));
}

void SoftmaxRow(const float* x, float* y, std::size_t count) {
  const F d;
  const V shift = hn::Set(d, LargestOf(x, count));
  V total = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V weight = ExpOfDifference(hn::Sub(Load(x + i, lanes), shift));  // NaN of -inf - -inf and inf - inf
    Store(weight, y + i, lanes);
    total = hn::Add(total, lanes < hn::Lanes(d) ? hn::IfThenElseZero(hn::FirstN(d, lanes), weight) : weight);
  });
  const V scale = hn::Set(d, 1.0f / hn::ReduceSum(d, total));
  Map(y, y, count, [&](V weight) HWY_ATTR { return hn::Mul(weight, scale); });
}

void SoftmaxColumns(const float* x, std::size_t rows, std::size_t stride, float* y, std::size_t count) {
  const F d;
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V top = hn::Set(d, -std::numeric_limits<float>::infinity()), total = hn::Zero(d);
    for (std::size_t t = 0; t < rows; ++t) top = hn::Max(top, Load(x + t * stride + i, lanes));
    for (std::size_t t = 0; t < rows; ++t) {
      const V weight = ExpOfDifference(hn::Sub(Load(x + t * stride + i, lanes), top));
      Store(weight, y + t * stride + i, lanes);
      total = hn::Add(total, weight);
    }
    const V scale = hn::Div(hn::Set(d, 1.0f), total);
    for (std::size_t t = 0; t < rows; ++t) {
      float* to = y + t * stride + i;
      Store(hn::Mul(Load(to, lanes), scale), to, lanes);
    }
  });
}

// The sum of term(i, lanes) over the vectors of a row.
template <class Term>
HWY_INLINE float SumOfVectors(std::size_t count, const Term& term) {
  const auto add = [](V a, V b) HWY_ATTR { return hn::Add(a, b); };
  return hn::ReduceSum(F(), FoldVectors(count, hn::Zero(F()), term, add, add));
}

void LayerNormRow(const float* x, const float* scale, const float* bias, float epsilon, float* y, std::size_t count) {
  const F d;
  const auto length = static_cast<float>(count);
  const V mean = hn::Set(
      d, SumOfVectors(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR { return Load(x + i, lanes); }) / length);
  const float squares = SumOfVectors(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V centred = hn::Sub(Load(x + i, lanes), mean);
    return hn::Mul(centred, centred);
  });
  const V inverse = hn::Set(d, 1.0f / std::sqrt(squares / length + epsilon));
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V value = hn::Mul(hn::Mul(hn::Sub(Load(x + i, lanes), mean), inverse), Load(scale + i, lanes));
    if (bias != nullptr) value = hn::Add(value, Load(bias + i, lanes));
    Store(value, y + i, lanes);
  });
}

void RmsNormRow(const float* x, const float* scale, float epsilon, float* y, std::size_t count) {
  const F d;
  const float squares = SumOfVectors(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V value = Load(x + i, lanes);
    return hn::Mul(value, value);
  });
  const V inverse = hn::Set(d, 1.0f / std::sqrt(squares / static_cast<float>(count) + epsilon));
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    Store(hn::Mul(hn::Mul(Load(x + i, lanes), inverse), Load(scale + i, lanes)), y + i, lanes);
  });
}

void AddRow(const float* a, const float* b, const float* bias, float* y, std::size_t count) {
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V sum = hn::Add(Load(a + i, lanes), Load(b + i, lanes));
    if (bias != nullptr) sum = hn::Add(sum, Load(bias + i, lanes));
    Store(sum, y + i, lanes);
  });
}

void AccumulateRow(const std::byte* x, float factor, bool first, float* y, std::size_t count) {
  const V f = hn::Set(F(), factor);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V value = hn::Mul(Load(reinterpret_cast<const float*>(x + i * sizeof(float)), lanes), f);
    Store(first ? value : hn::Add(Load(y + i, lanes), value), y + i, lanes);
  });
}

// The larger of the two; NaN where the first is.
HWY_INLINE V AtLeast(V x, V least) { return hn::IfThenElse(hn::Lt(x, least), least, x); }

void L2NormRow(const float* x, const float* scale, float epsilon, float* y, std::size_t count) {
  const F d;
  V squares = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V value = Load(x + i, lanes);
    squares = hn::MulAdd(value, value, squares);
  });
  const V length = AtLeast(hn::Sqrt(hn::Set(d, hn::ReduceSum(d, squares))), hn::Set(d, epsilon));
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V value = hn::Div(Load(x + i, lanes), length);
    if (scale != nullptr) value = hn::Mul(value, Load(scale + i, lanes));
    Store(value, y + i, lanes);
  });
}

void L2NormColumns(const Columns& c, const float* scale, float epsilon) {
  const F d;
  ForEachVector(c.count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V squares = hn::Zero(d);
    for (std::size_t t = 0; t < c.rows; ++t) {
      const V value = Load(c.x + t * c.stride + i, lanes);
      squares = hn::MulAdd(value, value, squares);
    }
    const V length = AtLeast(hn::Sqrt(squares), hn::Set(d, epsilon));
    for (std::size_t t = 0; t < c.rows; ++t) {
      V value = hn::Div(Load(c.x + t * c.stride + i, lanes), length);
      if (scale != nullptr) value = hn::Mul(value, hn::Set(d, scale[t]));
      Store(value, c.y + t * c.stride + i, lanes);
    }
  });
}

void LayerNormColumns(const Columns& c, const float* scale, const float* bias, float epsilon) {
  const F d;
  const V share = hn::Set(d, 1.0f / static_cast<float>(c.rows));
  ForEachVector(c.count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V mean = hn::Zero(d), squares = hn::Zero(d);
    for (std::size_t t = 0; t < c.rows; ++t) mean = hn::Add(mean, Load(c.x + t * c.stride + i, lanes));
    mean = hn::Mul(mean, share);
    for (std::size_t t = 0; t < c.rows; ++t) {
      const V centred = hn::Sub(Load(c.x + t * c.stride + i, lanes), mean);
      squares = hn::MulAdd(centred, centred, squares);
    }
    const V root = hn::Sqrt(hn::Add(hn::Mul(squares, share), hn::Set(d, epsilon)));
    const V inverse = hn::Div(hn::Set(d, 1.0f), root);
    for (std::size_t t = 0; t < c.rows; ++t) {
      const V centred = hn::Sub(Load(c.x + t * c.stride + i, lanes), mean);
      V value = hn::Mul(hn::Mul(centred, inverse), hn::Set(d, scale[t]));
      if (bias != nullptr) value = hn::Add(value, hn::Set(d, bias[t]));
      Store(value, c.y + t * c.stride + i, lanes);
    }
  });
}

void RotateRow(const float* x, const float* cos, const float* sin, bool interleaved, float* y, std::size_t count) {
  if (interleaved) {
    ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
      const V own = Load(x + i, lanes), other = hn::Shuffle2301(own);
      const V turned = hn::OddEven(other, hn::Neg(other));
      Store(hn::Add(hn::Mul(own, Load(cos + i, lanes)), hn::Mul(turned, Load(sin + i, lanes))), y + i, lanes);
    });
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
