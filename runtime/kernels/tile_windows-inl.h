// What convolutions and pools do to rows: copies, taps, windows of a plane, and folds of a row.
// Compiled once per instruction set, included by tile.cc only.
#if defined(WEFT_TILE_WINDOWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_TILE_WINDOWS_INL_H
#undef WEFT_TILE_WINDOWS_INL_H
#else
#define WEFT_TILE_WINDOWS_INL_H
#endif

#include <cstddef>
#include <limits>
#include <span>

#include "hwy/highway.h"
#include "runtime/kernels/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::tile::HWY_NAMESPACE {

void CopyRuns(const float* x, std::span<const Run> runs, float value, float* y) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const V add = hn::Set(d, value);
  for (const Run& run : runs) {
    const float* from = x + run.from;
    float* to = y + run.to;
    std::size_t i = 0;
    for (; i + lanes <= run.count; i += lanes) hn::StoreU(hn::Add(hn::LoadU(d, from + i), add), d, to + i);
    if (i < run.count) hn::StoreN(hn::Add(hn::LoadN(d, from + i, run.count - i), add), d, to + i, run.count - i);
  }
}

void CopyRows(const float* x, std::size_t x_stride, std::size_t step, float* y, std::size_t y_stride, std::size_t rows,
              std::size_t count) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    std::size_t i = 0;
    if (step == 1) {
      for (; i + lanes <= count; i += lanes) hn::StoreU(hn::LoadU(d, x + i), d, y + i);
      if (i < count) hn::StoreN(hn::LoadN(d, x + i, count - i), d, y + i, count - i);
      continue;
    }
    if (step == 2) {
      V odd;
      for (V even; i + lanes < count; i += lanes) {
        hn::LoadInterleaved2(d, x + 2 * i, even, odd);
        hn::StoreU(even, d, y + i);
      }
    }
    for (; i < count; ++i) y[i] = x[i * step];
  }
}

// Vectors from i on of what `fold` makes of all taps.
template <std::size_t kVectors, class Fold>
HWY_INLINE void FoldVectors(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t i, V first,
                            const Fold& fold) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  V sum[kVectors];
  Each<kVectors>([&](std::size_t v) HWY_ATTR { sum[v] = first; });
  for (std::size_t t = 0; t < offsets.size(); ++t) {
    const float* from = x + offsets[t] + i;
    Each<kVectors>([&](std::size_t v) HWY_ATTR { sum[v] = fold(t, sum[v], hn::LoadU(d, from + v * lanes)); });
  }
  Each<kVectors>([&](std::size_t v) HWY_ATTR { hn::StoreU(sum[v], d, y + i + v * lanes); });
}

template <class Fold>
HWY_INLINE void FoldTaps(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count,
                         float start, const Fold& fold) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const V first = hn::Set(d, start);
  std::size_t i = 0;
  for (; i + 8 * lanes <= count; i += 8 * lanes) FoldVectors<8>(x, offsets, y, i, first, fold);
  for (; i + 4 * lanes <= count; i += 4 * lanes) FoldVectors<4>(x, offsets, y, i, first, fold);
  for (; i + lanes <= count; i += lanes) FoldVectors<1>(x, offsets, y, i, first, fold);
  if (i == count) return;
  V sum = first;
  for (std::size_t t = 0; t < offsets.size(); ++t) {
    sum = fold(t, sum, hn::LoadN(d, x + offsets[t] + i, count - i));
  }
  hn::StoreN(sum, d, y + i, count - i);
}

void Correlate(const float* x, std::span<const std::ptrdiff_t> offsets, const float* weights, float bias, float* y,
               std::size_t count) {
  FoldTaps(x, offsets, y, count, bias,
           [weights](std::size_t t, V sum, V v) HWY_ATTR { return hn::MulAdd(hn::Set(F(), weights[t]), v, sum); });
}

// kR rows of kC vectors; `columns` of them are wanted. A vector of x serves as many rows as the window is high.
template <std::size_t kY, std::size_t kR, std::size_t kC>
HWY_INLINE void WindowBlock(const PlaneWindow& p, const float* x, float* y, std::size_t columns) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  V sum[kR][kC];
  Each<kR>([&](std::size_t r) HWY_ATTR { Each<kC>([&](std::size_t c) HWY_ATTR { sum[r][c] = hn::Set(d, p.bias); }); });
  for (std::size_t k = 0; k < p.width; ++k) {
    V weight[kY];
    Each<kY>([&](std::size_t t) HWY_ATTR { weight[t] = hn::Set(d, p.weights[t * p.width + k]); });
    Each<kR + kY - 1>([&](std::size_t row) HWY_ATTR {
      Each<kC>([&](std::size_t c) HWY_ATTR {
        const V v = hn::LoadU(d, x + row * p.x_stride + k + c * lanes);
        Each<kY>([&](std::size_t t) HWY_ATTR {
          if (row >= t && row - t < kR) sum[row - t][c] = hn::MulAdd(weight[t], v, sum[row - t][c]);
        });
      });
    });
  }
  Each<kR>([&](std::size_t r) HWY_ATTR {
    Each<kC>([&](std::size_t c)
                 HWY_ATTR { StoreSome(sum[r][c], d, y + r * p.y_stride + c * lanes, Left(columns, c * lanes)); });
  });
}

template <std::size_t kY, std::size_t kR>
HWY_INLINE void WindowRows(const PlaneWindow& p, std::size_t r) {
  const std::size_t lanes = hn::Lanes(F());
  const float* x = p.x + r * p.x_stride;
  float* y = p.y + r * p.y_stride;
  for (std::size_t i = 0; i < p.columns;) {
    const std::size_t left = p.columns - i;
    if (left > lanes) {
      WindowBlock<kY, kR, 2>(p, x + i, y + i, left);
      i += 2 * lanes;
    } else {
      WindowBlock<kY, kR, 1>(p, x + i, y + i, left);
      i += lanes;
    }
  }
}

template <std::size_t kY>
HWY_INLINE void CorrelateWindow(const PlaneWindow& p) {
  constexpr std::size_t kR = 4;
  for (std::size_t r = 0; p.rows >= kR && r < p.rows; r += kR) WindowRows<kY, kR>(p, std::min(r, p.rows - kR));
  for (std::size_t r = 0; p.rows < kR && r < p.rows; ++r) WindowRows<kY, 1>(p, r);
}

void CorrelatePlane(const PlaneWindow& p) {
  switch (p.height) {
    case 3: return CorrelateWindow<3>(p);
    case 5: return CorrelateWindow<5>(p);
    case 7: return CorrelateWindow<7>(p);
    default: break;
  }
}

HWY_INLINE V MaxOrNaN(V a, V b) {
  const auto takes = hn::Or(hn::Gt(b, a), hn::IsNaN(b));
  return hn::IfThenElse(hn::AndNot(hn::IsNaN(a), takes), b, a);
}

void Largest(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count) {
  FoldTaps(x, offsets, y, count, -std::numeric_limits<float>::infinity(),
           [](std::size_t, V sum, V v) HWY_ATTR { return MaxOrNaN(sum, v); });
}

void Total(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count) {
  FoldTaps(x, offsets, y, count, 0.0f, [](std::size_t, V sum, V v) HWY_ATTR { return hn::Add(sum, v); });
}

// What `fold` makes of all vectors of x, the last filled up with `start`; four at a time.
template <class Fold>
HWY_INLINE V FoldAll(const float* x, std::size_t count, float start, const Fold& fold) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const V first = hn::Set(d, start);
  V a = first, b = first, c = first, e = first;
  std::size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    a = fold(a, hn::LoadU(d, x + i));
    b = fold(b, hn::LoadU(d, x + i + lanes));
    c = fold(c, hn::LoadU(d, x + i + 2 * lanes));
    e = fold(e, hn::LoadU(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= count; i += lanes) a = fold(a, hn::LoadU(d, x + i));
  if (i < count) a = fold(a, hn::IfThenElse(hn::FirstN(d, count - i), LoadSome(d, x + i, count - i), first));
  return fold(fold(a, b), fold(c, e));
}

float SumOf(const float* x, std::size_t count) {
  return hn::ReduceSum(F(), FoldAll(x, count, 0.0f, [](V a, V b) HWY_ATTR { return hn::Add(a, b); }));
}

float LargestOf(const float* x, std::size_t count) {
  const V all =
      FoldAll(x, count, -std::numeric_limits<float>::infinity(), [](V a, V b) HWY_ATTR { return MaxOrNaN(a, b); });
  return hn::AllFalse(F(), hn::IsNaN(all)) ? hn::ReduceMax(F(), all) : std::numeric_limits<float>::quiet_NaN();
}

float SmallestOf(const float* x, std::size_t count) {
  const V all = FoldAll(x, count, std::numeric_limits<float>::infinity(), [](V a, V b) HWY_ATTR {
    return hn::IfThenElse(hn::AndNot(hn::IsNaN(a), hn::Or(hn::Lt(b, a), hn::IsNaN(b))), b, a);
  });
  return hn::AllFalse(F(), hn::IsNaN(all)) ? hn::ReduceMin(F(), all) : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace weft::runtime::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
