// Compiled once per instruction set, included by score_simd.cc only.
#if defined(WEFT_SCORE_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_SCORE_SIMD_INL_H
#undef WEFT_SCORE_SIMD_INL_H
#else
#define WEFT_SCORE_SIMD_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "runtime/kernels/score_simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;
using D = hn::ScalableTag<double>;

// NaN where x holds NaN or +inf, and where it holds nothing but -inf.
HWY_INLINE float Largest(const float* x, std::size_t count) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V highest = lowest;
  auto bad = hn::MaskFalse(d);  // Max does not keep NaN
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const V v = hn::LoadU(d, x + i);
    highest = hn::Max(highest, v);
    bad = hn::Or(bad, hn::IsNaN(v));
  }
  float largest = hn::ReduceMax(d, highest);
  bool nan = !hn::AllFalse(d, bad);
  for (; i < count; ++i) {
    largest = std::max(largest, x[i]);
    nan = nan || std::isnan(x[i]);
  }
  return nan || std::isinf(largest) ? std::numeric_limits<float>::quiet_NaN() : largest;
}

// exp of x <= 0, 0 where it would be subnormal.
HWY_INLINE V ExpOfNegative(V x) {
  const F d;
  const V least = hn::Set(d, -87.3365447f);
  return hn::IfThenZeroElse(hn::Lt(x, least), hn::Exp(d, hn::Max(x, least)));
}

// In f32 within a stretch, in f64 over all of them.
HWY_INLINE double SumOfExp(const float* x, std::size_t count, float shift) {
  constexpr std::size_t kStretch = 4096;
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const V top = hn::Set(d, shift);
  double total = 0;
  for (std::size_t first = 0; first < count; first += kStretch) {
    const std::size_t last = std::min(first + kStretch, count);
    V even = hn::Zero(d), odd = hn::Zero(d);
    std::size_t i = first;
    for (; i + 2 * lanes <= last; i += 2 * lanes) {
      even = hn::Add(even, ExpOfNegative(hn::Sub(hn::LoadU(d, x + i), top)));
      odd = hn::Add(odd, ExpOfNegative(hn::Sub(hn::LoadU(d, x + i + lanes), top)));
    }
    total += static_cast<double>(hn::ReduceSum(d, hn::Add(even, odd)));
    for (; i < last; ++i) total += static_cast<double>(std::exp(x[i] - shift));
  }
  return total;
}

void LogSoftmaxRow(float* x, std::size_t count) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const float largest = Largest(x, count);
  if (std::isnan(largest)) return std::fill_n(x, count, largest), void();
  const auto log_total = static_cast<float>(std::log(SumOfExp(x, count, largest)));
  const V top = hn::Set(d, largest), shift = hn::Set(d, log_total);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Sub(hn::Sub(hn::LoadU(d, x + i), top), shift), d, x + i);
  for (; i < count; ++i) x[i] = x[i] - largest - log_total;
}

double ExpRow(const float* x, double* y, std::size_t count) {
  const D d;
  const hn::Rebind<float, D> half;
  const std::size_t lanes = hn::Lanes(d);
  const auto largest = static_cast<double>(Largest(x, count));
  if (std::isnan(largest)) return std::fill_n(y, count, largest), largest;
  const auto top = hn::Set(d, largest), least = hn::Set(d, -708.0);
  auto sum = hn::Zero(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::Sub(hn::PromoteTo(d, hn::LoadU(half, x + i)), top);
    const auto e = hn::IfThenZeroElse(hn::Lt(v, least), hn::Exp(d, hn::Max(v, least)));
    hn::StoreU(e, d, y + i);
    sum = hn::Add(sum, e);
  }
  double total = hn::ReduceSum(d, sum);
  for (; i < count; ++i) total += y[i] = std::exp(static_cast<double>(x[i]) - largest);
  return total;
}

std::size_t FindLarger(const float* x, std::size_t first, std::size_t count, float limit) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const V least = hn::Set(d, limit);
  std::size_t i = first;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto smaller = [&](std::size_t at) HWY_ATTR { return hn::Le(hn::LoadU(d, x + i + at * lanes), least); };
    const auto all = hn::And(hn::And(smaller(0), smaller(1)), hn::And(smaller(2), smaller(3)));
    if (!hn::AllTrue(d, all)) break;
  }
  while (i < count && x[i] <= limit) ++i;
  return i;
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // WEFT_SCORE_SIMD_INL_H
