// Vector loops and activation functions. Compiled once per instruction set, included by other -inl.h files only.
#if defined(WEFT_ACTIVATION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_ACTIVATION_INL_H
#undef WEFT_ACTIVATION_INL_H
#else
#define WEFT_ACTIVATION_INL_H
#endif

#include <cstddef>

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

// term(i, lanes) of the vectors of a row, folded from `none` on in four chains that do not wait for each other. Of the
// last vector the lanes beyond the row are `none`.
template <class Term, class Take, class Join>
HWY_INLINE V FoldVectors(std::size_t count, V none, const Term& term, const Take& take, const Join& join) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  V a = none, b = none, c = none, e = none;
  std::size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    a = take(a, term(i, lanes));
    b = take(b, term(i + lanes, lanes));
    c = take(c, term(i + 2 * lanes, lanes));
    e = take(e, term(i + 3 * lanes, lanes));
  }
  for (; i + lanes <= count; i += lanes) a = take(a, term(i, lanes));
  if (i < count) b = take(b, hn::IfThenElse(hn::FirstN(d, count - i), term(i, count - i), none));
  return join(join(a, b), join(c, e));
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

// exp(t) is the result times 2^n; n, by which t is reduced, is what is nearest to `near`, and in the lowest bits of
// `shifted`.
HWY_INLINE V ReducedExp(V t, V near, V& shifted) {
  const F d;
  const V magic = hn::Set(d, 12582912.0f);  // brings the power of two into the lowest bits
  shifted = hn::MulAdd(near, hn::Set(d, 1.44269504f), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), t);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::Set(d, 1.38143205e-3f);  // a minimax fit between -log(2) / 2 and log(2) / 2
  for (const float c : {8.36885107e-3f, 4.16684011e-2f, 1.66665195e-1f, 4.99999934e-1f, 1.0f, 1.0f})
    p = hn::MulAdd(p, r, hn::Set(d, c));
  return p;
}

// `x` times 2^n.
HWY_INLINE V TimesPower(V x, V shifted) {
  const hn::RebindToSigned<F> di;
  return hn::BitCast(F(), hn::Add(hn::BitCast(di, x), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
}

// exp(t) for t in [-87.33, 88], to one unit in the last place or two; of NaN anything.
HWY_INLINE V BoundedExp(V t) {
  V shifted;
  const V p = ReducedExp(t, t, shifted);
  return TimesPower(p, shifted);
}

// exp(t) of t up to 88; 0 where it is subnormal, NaN of NaN.
HWY_INLINE V ExpOfDifference(V t) {
  const F d;
  const V least = hn::Set(d, -87.33f);
  V shifted;
  const V p = ReducedExp(t, hn::Max(t, least), shifted);  // NaN stays in p, and in its product
  return hn::IfThenZeroElse(hn::Lt(t, least), hn::Mul(p, TimesPower(hn::Set(d, 1.0f), shifted)));
}

// 1 / x of normal x with a normal inverse, to a unit in the last place. With AVX-512 a division takes as long as ten
// other instructions; two steps from the estimate are exact enough.
HWY_INLINE V Inverse(V x) {
  const F d;
  const V one = hn::Set(d, 1.0f);
#if HWY_TARGET <= HWY_AVX3
  const V r = hn::ApproximateReciprocal(x);
  return hn::MulAdd(r, hn::NegMulAdd(x, r, one), r);
#else
  return hn::Div(one, x);
#endif
}

// The sigmoid of -x. Of NaN anything.
HWY_INLINE V SigmoidOfNegative(V x) {
  const F d;
  const V t = hn::Clamp(x, hn::Set(d, -87.0f), hn::Set(d, 87.0f));
  return Inverse(hn::Add(hn::Set(d, 1.0f), BoundedExp(t)));
}

HWY_INLINE V Sigmoid(V x) { return hn::IfThenElse(hn::IsNaN(x), x, SigmoidOfNegative(hn::Neg(x))); }

// The normal distribution's integral up to x, as 1/2 and an odd rational function (a minimax fit up to 5.5, within
// 1e-8; where it ends it is 1). Of NaN anything.
HWY_INLINE V NormalIntegral(V x) {
  const F d;
  const V bound = hn::Set(d, 5.52f), low = hn::Neg(bound);
  const V t = hn::Clamp(x, low, bound);
  const V u = hn::Mul(t, t);
  V p = hn::Set(d, 2.274934831e-08f);
  for (const float c : {6.352115016e-06f, 1.688259763e-04f, 4.677262388e-03f, 3.385268203e-02f, 3.989422346e-01f})
    p = hn::MulAdd(p, u, hn::Set(d, c));
  V q = hn::Set(d, 1.197503219e-06f);
  for (const float c : {7.364757349e-05f, 1.884446550e-03f, 2.864589081e-02f, 2.515220083e-01f, 1.000000000e+00f})
    q = hn::MulAdd(q, u, hn::Set(d, c));
  const V y = hn::MulAdd(hn::Mul(t, p), Inverse(q), hn::Set(d, 0.5f));
  return hn::IfThenZeroElse(hn::Lt(x, low), y);
}

// An odd rational function (a minimax fit up to 9; where it ends it is 1).
HWY_INLINE V Tanh(V x) {
  const F d;
  const V one = hn::Set(d, 1.0f), bound = hn::Set(d, 9.05f);
  const V t = hn::Clamp(x, hn::Neg(bound), bound);
  const V u = hn::Mul(t, t);
  V p = hn::Set(d, 1.331900521e-08f);
  for (const float c : {2.058343168e-05f, 3.494031526e-03f, 1.337971540e-01f, 1.0f})
    p = hn::MulAdd(p, u, hn::Set(d, c));
  V q = hn::Set(d, 7.761991650e-07f);
  for (const float c : {3.283087883e-04f, 2.587106168e-02f, 4.671303064e-01f, 1.0f})
    q = hn::MulAdd(q, u, hn::Set(d, c));
  const V y = hn::Clamp(hn::Mul(hn::Mul(t, p), Inverse(q)), hn::Neg(one), one);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// Calls body(f), f the function of a vector that the activation is; alpha is that of kQuickGelu.
template <class Body>
HWY_INLINE void WithActivation(Activation activation, float alpha, const Body& body) {
  const F d;
  const V factor = hn::Set(d, -alpha);
  switch (activation) {
    case Activation::kNone: return body([](V x) HWY_ATTR { return x; });
    case Activation::kRelu: return body([](V x) HWY_ATTR { return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(F())), x); });
    case Activation::kGelu: return body([](V x) HWY_ATTR { return hn::Mul(x, NormalIntegral(x)); });
    case Activation::kGeluTanh:  // (1 + tanh(u)) / 2 is sigmoid(2 u)
      return body([](V x) HWY_ATTR {
        const F f;
        const V linear = hn::Set(f, -2 * 0.79788456080286536f), cubic = hn::Set(f, -2 * 0.035677408136300125f);
        return hn::Mul(x, SigmoidOfNegative(hn::Mul(x, hn::MulAdd(cubic, hn::Mul(x, x), linear))));
      });
    case Activation::kSilu: return body([](V x) HWY_ATTR { return hn::Mul(x, SigmoidOfNegative(hn::Neg(x))); });
    case Activation::kTanh: return body([](V x) HWY_ATTR { return Tanh(x); });
    case Activation::kSigmoid: return body([](V x) HWY_ATTR { return Sigmoid(x); });
    case Activation::kQuickGelu:
      return body([&](V x) HWY_ATTR { return hn::Mul(x, SigmoidOfNegative(hn::Mul(factor, x))); });
  }
}

// y[i] = f(x[i]).
HWY_INLINE void ActivateRow(Activation activation, float alpha, const float* x, float* y, std::size_t count) {
  WithActivation(activation, alpha, [&](const auto& f) HWY_ATTR {
    ForEachVector(count,
                  [&](std::size_t i, std::size_t lanes) HWY_ATTR { Store(f(Load(x + i, lanes)), y + i, lanes); });
  });
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
