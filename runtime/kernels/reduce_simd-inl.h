// Compiled once per instruction set, included by reduce_simd.cc only.
#if defined(WEFT_REDUCE_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_REDUCE_SIMD_INL_H
#undef WEFT_REDUCE_SIMD_INL_H
#else
#define WEFT_REDUCE_SIMD_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/highway.h"
#include "runtime/kernels/activation-inl.h"
#include "runtime/kernels/reduce_simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::reduce::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using simd::HWY_NAMESPACE::F;
using simd::HWY_NAMESPACE::ForEachVector;
using simd::HWY_NAMESPACE::Load;
using simd::HWY_NAMESPACE::Store;
using simd::HWY_NAMESPACE::V;

// --- Steps: one more value, two partial results, the lanes of one ---------------------------------

struct Sum {
  static HWY_INLINE V Take(V total, V x) { return hn::Add(total, x); }
  static HWY_INLINE V Join(V a, V b) { return hn::Add(a, b); }
  static HWY_INLINE float Lanes(V v) { return hn::ReduceSum(F(), v); }
};
struct Magnitudes : Sum {
  static HWY_INLINE V Take(V total, V x) { return hn::Add(total, hn::Abs(x)); }
};
struct Squares : Sum {
  static HWY_INLINE V Take(V total, V x) { return hn::MulAdd(x, x, total); }
};
struct Product {
  static HWY_INLINE V Take(V total, V x) { return hn::Mul(total, x); }
  static HWY_INLINE V Join(V a, V b) { return hn::Mul(a, b); }
  static HWY_INLINE float Lanes(V v) {
    float values[HWY_MAX_BYTES / sizeof(float)];
    hn::StoreU(v, F(), values);
    float total = 1;
    for (std::size_t i = 0; i < hn::Lanes(F()); ++i) total *= values[i];
    return total;
  }
};
struct Largest {
  static HWY_INLINE V Take(V best, V x) { return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::Gt(x, best)), x, best); }
  static HWY_INLINE V Join(V a, V b) { return Take(a, b); }
  static HWY_INLINE float Lanes(V v) {
    return hn::AllFalse(F(), hn::IsNaN(v)) ? hn::ReduceMax(F(), v) : std::numeric_limits<float>::quiet_NaN();
  }
};
struct Smallest {
  static HWY_INLINE V Take(V best, V x) { return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::Lt(x, best)), x, best); }
  static HWY_INLINE V Join(V a, V b) { return Take(a, b); }
  static HWY_INLINE float Lanes(V v) {
    return hn::AllFalse(F(), hn::IsNaN(v)) ? hn::ReduceMin(F(), v) : std::numeric_limits<float>::quiet_NaN();
  }
};

// --- Rows and columns -----------------------------------------------------------------------------

template <class Step>
HWY_INLINE float RowOf(float nothing, const float* x, std::size_t count) {
  const auto term = [&](std::size_t i, std::size_t lanes) HWY_ATTR { return Load(x + i, lanes); };
  const auto take = [](V best, V value) HWY_ATTR { return Step::Take(best, value); };
  const auto join = [](V a, V b) HWY_ATTR { return Step::Join(a, b); };
  return Step::Lanes(simd::HWY_NAMESPACE::FoldVectors(count, hn::Set(F(), nothing), term, take, join));
}

template <class Step>
HWY_INLINE void ColumnsOf(float nothing, const float* x, std::span<const std::ptrdiff_t> offsets, float* y,
                          std::size_t count) {
  std::size_t t = 0;
  const V none = hn::Set(F(), nothing);
  if (offsets.size() < 4) std::fill_n(y, count, nothing);
  for (; t + 4 <= offsets.size(); t += 4) {  // four rows for each time that y is read and written
    const float *x0 = x + offsets[t], *x1 = x + offsets[t + 1], *x2 = x + offsets[t + 2], *x3 = x + offsets[t + 3];
    ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
      V v = Step::Take(t == 0 ? none : Load(y + i, lanes), Load(x0 + i, lanes));
      v = Step::Take(v, Load(x1 + i, lanes));
      v = Step::Take(v, Load(x2 + i, lanes));
      Store(Step::Take(v, Load(x3 + i, lanes)), y + i, lanes);
    });
  }
  for (; t < offsets.size(); ++t) {
    const float* row = x + offsets[t];
    ForEachVector(count, [&](std::size_t i, std::size_t lanes)
                             HWY_ATTR { Store(Step::Take(Load(y + i, lanes), Load(row + i, lanes)), y + i, lanes); });
  }
}

float Row(Kind kind, float nothing, const float* x, std::size_t count) {
  switch (kind) {
    case Kind::kSum: return RowOf<Sum>(nothing, x, count);
    case Kind::kMagnitudes: return RowOf<Magnitudes>(nothing, x, count);
    case Kind::kSquares: return RowOf<Squares>(nothing, x, count);
    case Kind::kProduct: return RowOf<Product>(nothing, x, count);
    case Kind::kLargest: return RowOf<Largest>(nothing, x, count);
    case Kind::kSmallest: return RowOf<Smallest>(nothing, x, count);
  }
  return nothing;
}

void Columns(Kind kind, float nothing, const float* x, std::span<const std::ptrdiff_t> offsets, float* y,
             std::size_t count) {
  switch (kind) {
    case Kind::kSum: return ColumnsOf<Sum>(nothing, x, offsets, y, count);
    case Kind::kMagnitudes: return ColumnsOf<Magnitudes>(nothing, x, offsets, y, count);
    case Kind::kSquares: return ColumnsOf<Squares>(nothing, x, offsets, y, count);
    case Kind::kProduct: return ColumnsOf<Product>(nothing, x, offsets, y, count);
    case Kind::kLargest: return ColumnsOf<Largest>(nothing, x, offsets, y, count);
    case Kind::kSmallest: return ColumnsOf<Smallest>(nothing, x, offsets, y, count);
  }
}

// --- Statistics -----------------------------------------------------------------------------------

Exponents ExponentsOf(const float* x, std::size_t count) {
  const F d;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float top = RowOf<Largest>(-kInfinity, x, count);
  if (!(std::abs(top) < kInfinity)) return {top, std::numeric_limits<float>::quiet_NaN()};
  const V shift = hn::Set(d, top);
  V total = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V e = simd::HWY_NAMESPACE::ExpOfDifference(hn::Sub(Load(x + i, lanes), shift));
    if (lanes < hn::Lanes(d)) e = hn::IfThenElseZero(hn::FirstN(d, lanes), e);
    total = hn::Add(total, e);
  });
  return {top, std::log(hn::ReduceSum(d, total))};
}

Moments MomentsOf(const float* x, std::size_t count) {
  const F d;
  const auto n = static_cast<float>(count);
  const float mean = RowOf<Sum>(0, x, count) / n;
  const V centre = hn::Set(d, mean);
  V even = hn::Zero(d), odd = hn::Zero(d);
  std::size_t i = 0;
  const std::size_t lanes = hn::Lanes(d);
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const V a = hn::Sub(hn::LoadU(d, x + i), centre), b = hn::Sub(hn::LoadU(d, x + i + lanes), centre);
    even = hn::MulAdd(a, a, even);
    odd = hn::MulAdd(b, b, odd);
  }
  for (; i < count; i += lanes) {
    const std::size_t left = std::min(lanes, count - i);
    V a = hn::Sub(Load(x + i, left), centre);
    if (left < lanes) a = hn::IfThenElseZero(hn::FirstN(d, left), a);
    even = hn::MulAdd(a, a, even);
  }
  return {mean, hn::ReduceSum(d, hn::Add(even, odd)) / n};
}

void Centre(const float* x, float mean, float factor, float shift, float* y, std::size_t count) {
  const V m = hn::Set(F(), mean), f = hn::Set(F(), factor), s = hn::Set(F(), shift);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes)
                           HWY_ATTR { Store(hn::MulAdd(hn::Sub(Load(x + i, lanes), m), f, s), y + i, lanes); });
}

// --- Positions ------------------------------------------------------------------------------------

template <bool kLargest>
HWY_INLINE hn::Mask<F> Better(V x, V than) {
  return kLargest ? hn::Gt(x, than) : hn::Lt(x, than);
}

template <bool kLargest>
HWY_INLINE float BestOf(const float* x, std::size_t count) {
  const V first = hn::Set(F(), *x);
  V best = first;
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V value = Load(x + i, lanes);
    if (lanes < hn::Lanes(F())) value = hn::IfThenElse(hn::FirstN(F(), lanes), value, first);
    best = hn::IfThenElse(Better<kLargest>(value, best), value, best);
  });
  return kLargest ? hn::ReduceMax(F(), best) : hn::ReduceMin(F(), best);
}

std::int64_t Position(Extreme extreme, const float* x, std::size_t count) {
  const F d;
  if (std::isnan(*x)) return 0;
  const V best = hn::Set(d, extreme.largest ? BestOf<true>(x, count) : BestOf<false>(x, count));
  const std::size_t lanes = hn::Lanes(d);
  std::int64_t found = 0;
  for (std::size_t i = 0; i < count; i += lanes) {
    const std::size_t left = std::min(lanes, count - i);
    const auto equal = hn::And(hn::Eq(Load(x + i, left), best), hn::FirstN(d, left));
    if (hn::AllFalse(d, equal)) continue;
    if (!extreme.last) return static_cast<std::int64_t>(i + hn::FindKnownFirstTrue(d, equal));
    found = static_cast<std::int64_t>(i + hn::FindKnownLastTrue(d, equal));
  }
  return found;
}

template <bool kLargest>
HWY_INLINE void PositionsOf(bool last, const float* x, std::size_t rows, std::size_t stride, std::int64_t* y,
                            std::size_t count) {
  const hn::RebindToSigned<F> di;
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V best = Load(x + i, lanes);
    auto at = hn::Zero(di);
    for (std::size_t t = 1; t < rows; ++t) {
      const V value = Load(x + t * stride + i, lanes);
      auto better = Better<kLargest>(value, best);
      if (last) better = hn::Or(better, hn::Eq(value, best));
      best = hn::IfThenElse(better, value, best);
      at = hn::IfThenElse(hn::RebindMask(di, better), hn::Set(di, static_cast<std::int32_t>(t)), at);
    }
    std::int32_t found[HWY_MAX_BYTES / sizeof(float)];
    hn::StoreU(at, di, found);
    for (std::size_t j = 0; j < lanes; ++j) y[i + j] = found[j];
  });
}

void Positions(Extreme extreme, const float* x, std::size_t rows, std::size_t stride, std::int64_t* y,
               std::size_t count) {
  extreme.largest ? PositionsOf<true>(extreme.last, x, rows, stride, y, count)
                  : PositionsOf<false>(extreme.last, x, rows, stride, y, count);
}

std::size_t FindBeyond(bool above, float bound, const float* x, std::size_t first, std::size_t count) {
  const F d;
  const V edge = hn::Set(d, bound);
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = first; i < count; i += lanes) {
    const std::size_t left = std::min(lanes, count - i);
    const V value = Load(x + i, left);
    const auto beyond = hn::And(above ? hn::Gt(value, edge) : hn::Lt(value, edge), hn::FirstN(d, left));
    if (!hn::AllFalse(d, beyond)) return i + hn::FindKnownFirstTrue(d, beyond);
  }
  return count;
}

}  // namespace weft::runtime::reduce::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
