// Vector loops and activation functions. Compiled once per instruction set, included by other -inl.h files only.
#if defined(WEFT_ACTIVATION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_ACTIVATION_INL_H
#undef WEFT_ACTIVATION_INL_H
#else
#define WEFT_ACTIVATION_INL_H
#endif

#include <cstddef>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "runtime/kernels/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

// Calls body(i, lanes) for each vector of [0, count); lanes is short in the last one only.
template <class Body>
HWY_INLINE void ForEachVector(std::size_t count, Body&& body) {
  const std::size_t lanes = hn::Lanes(F());
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) body(i, lanes);
  if (i < count) body(i, count - i);
}

HWY_INLINE V Load(const float* p, std::size_t lanes) {
  const F d;
  return lanes == hn::Lanes(d) ? hn::LoadU(d, p) : hn::LoadN(d, p, lanes);
}

HWY_INLINE void Store(V v, float* p, std::size_t lanes) {
  const F d;
  if (lanes == hn::Lanes(d)) {
    hn::StoreU(v, d, p);
  } else {
    hn::StoreN(v, d, p, lanes);
  }
}

// erf(x) as an odd rational function of the clamped argument (coefficients of a minimax fit on [-4, 4]).
HWY_INLINE V Erf(V x) {
  const F d;
  const V t = hn::Clamp(x, hn::Set(d, -4.0f), hn::Set(d, 4.0f));
  const V u = hn::Mul(t, t);
  V p = hn::Set(d, -2.72614225801306e-10f);
  for (const float c : {2.77068142495902e-08f, -2.10102402082508e-06f, -5.69250639462346e-05f, -7.34990630326855e-04f,
                        -2.95459980854025e-03f, -1.60960333262415e-02f}) {
    p = hn::MulAdd(p, u, hn::Set(d, c));
  }
  V q = hn::Set(d, -1.45660718464996e-05f);
  for (const float c :
       {-2.13374055278905e-04f, -1.68282697438203e-03f, -7.37332916720468e-03f, -1.42647390514189e-02f}) {
    q = hn::MulAdd(q, u, hn::Set(d, c));
  }
  const V y = hn::Div(hn::Mul(t, p), q);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// exp(t) for t in [-87.33, 0], to two units in the last place; of NaN anything. (Cephes' polynomial.)
HWY_INLINE V ExpBelowZero(V t) {
  const F d;
  const hn::RebindToSigned<F> di;
  const V magic = hn::Set(d, 12582912.0f);  // brings the power of two into the lowest bits
  const V shifted = hn::MulAdd(t, hn::Set(d, 1.44269504f), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), t);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::Set(d, 1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = hn::MulAdd(p, r, hn::Set(d, c));
  const V y = hn::MulAdd(hn::Mul(r, r), p, hn::Add(r, hn::Set(d, 1.0f)));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, y), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
}

HWY_INLINE V Sigmoid(V x) {
  const F d;
  const V one = hn::Set(d, 1.0f);
  // exp of the negative magnitude never overflows; below -87 it would be subnormal, which is slow.
  const V e = ExpBelowZero(hn::Max(hn::Neg(hn::Abs(x)), hn::Set(d, -87.0f)));
  const V y = hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

HWY_INLINE V Tanh(V x) {
  const F d;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Tanh(d, x));
}

HWY_INLINE V Apply(Activation activation, V alpha, V x) {
  const F d;
  const V half = hn::Set(d, 0.5f);
  const V one = hn::Set(d, 1.0f);
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);
    case Activation::kGelu:
      return hn::Mul(hn::Mul(half, x), hn::Add(one, Erf(hn::Mul(x, hn::Set(d, 0.70710678118654752f)))));
    case Activation::kGeluTanh: {  // (1 + tanh(u)) / 2 is sigmoid(2 u)
      const V cube = hn::Mul(hn::Mul(x, x), x);
      return hn::Mul(
          x, Sigmoid(hn::Mul(hn::Set(d, 2 * 0.79788456080286536f), hn::MulAdd(hn::Set(d, 0.044715f), cube, x))));
    }
    case Activation::kSilu: return hn::Mul(x, Sigmoid(x));
    case Activation::kTanh: return Tanh(x);
    case Activation::kSigmoid: return Sigmoid(x);
    case Activation::kQuickGelu: return hn::Mul(x, Sigmoid(hn::Mul(alpha, x)));
  }
  return x;
}

// y[i] = f(x[i]).
HWY_INLINE void ActivateRow(Activation activation, float alpha, const float* x, float* y, std::size_t count) {
  const V a = hn::Set(F(), alpha);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes)
                           HWY_ATTR { Store(Apply(activation, a, Load(x + i, lanes)), y + i, lanes); });
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
