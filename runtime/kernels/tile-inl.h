// Compiled once per instruction set, included by tile.cc only.
#if defined(WEFT_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_TILE_INL_H
#undef WEFT_TILE_INL_H
#else
#define WEFT_TILE_INL_H
#endif

#include <algorithm>
#include <limits>
#include <utility>

#include "hwy/highway.h"
#include "runtime/kernels/tile.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::tile::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::CappedTag<float, kMostColumns / 2>;
using I = hn::RebindToSigned<F>;
using V = hn::Vec<F>;
using VI = hn::Vec<I>;

// Rows of the largest tile: accumulators of two vectors a row, and room for operands.
constexpr std::size_t kRows = HWY_MAX_BYTES >= 64 ? 12 : 6;

std::size_t PanelColumns() { return 2 * hn::Lanes(F()); }

HWY_INLINE std::size_t Left(std::size_t count, std::size_t first) { return first < count ? count - first : 0; }

// Of a vector as many lanes as there are.
template <class D>
HWY_INLINE hn::Vec<D> LoadSome(D d, const hn::TFromD<D>* p, std::size_t count) {
  return count >= hn::Lanes(d) ? hn::LoadU(d, p) : hn::LoadN(d, p, count);
}
template <class D>
HWY_INLINE void StoreSome(hn::Vec<D> v, D d, hn::TFromD<D>* p, std::size_t count) {
  if (count >= hn::Lanes(d)) {
    hn::StoreU(v, d, p);
  } else if (count > 0) {
    hn::StoreN(v, d, p, count);
  }
}

// body(0), body(1), ..., unrolled: compilers leave loops over registers rolled up, and then in memory.
template <std::size_t... kI, class Body>
HWY_INLINE void Each(std::index_sequence<kI...>, const Body& body) {
  (body(kI), ...);
}
template <std::size_t kCount, class Body>
HWY_INLINE void Each(const Body& body) {
  Each(std::make_index_sequence<kCount>(), body);
}

// kR rows by kPanels panels; `columns` may end in the last panel.
template <std::size_t kR, std::size_t kPanels>
HWY_INLINE void Tile(const Product& p, const float* a, const float* b, float* c, std::size_t columns) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  constexpr std::size_t kVectors = 2 * kPanels;
  V sum[kR][kVectors];
  Each<kR>([&](std::size_t r) HWY_ATTR {
    Each<kVectors>([&](std::size_t v) HWY_ATTR {
      sum[r][v] = p.accumulate ? LoadSome(d, c + r * p.c_stride + v * lanes, Left(columns, v * lanes)) : hn::Zero(d);
    });
  });
  for (std::size_t k = 0; k < p.depth; ++k) {
    V row[kVectors];
    Each<kVectors>([&](std::size_t v)
                       HWY_ATTR { row[v] = hn::LoadU(d, b + v / 2 * p.b_stride + k * p.b_step + v % 2 * lanes); });
    Each<kR>([&](std::size_t r) HWY_ATTR {
      const V x = hn::Set(d, a[r * p.a_stride + k]);
      Each<kVectors>([&](std::size_t v) HWY_ATTR { sum[r][v] = hn::MulAdd(x, row[v], sum[r][v]); });
    });
  }
  Each<kR>([&](std::size_t r) HWY_ATTR {
    Each<kVectors>([&](std::size_t v)
                       HWY_ATTR { StoreSome(sum[r][v], d, c + r * p.c_stride + v * lanes, Left(columns, v * lanes)); });
  });
}

// The same of bytes.
template <std::size_t kR, std::size_t kPanels>
HWY_INLINE void Tile(const IntegerProduct& p, const std::uint8_t* a, const std::int8_t* b, std::int32_t* c,
                     std::size_t columns) {
  const I d;
  const hn::Repartition<std::uint8_t, I> du;
  const hn::Repartition<std::int8_t, I> ds;
  const std::size_t lanes = hn::Lanes(d);
  constexpr std::size_t kVectors = 2 * kPanels;
  VI sum[kR][kVectors];
  Each<kR>([&](std::size_t r) HWY_ATTR { Each<kVectors>([&](std::size_t v) HWY_ATTR { sum[r][v] = hn::Zero(d); }); });
  for (std::size_t k = 0; k < p.depth; k += 4) {
    hn::Vec<decltype(ds)> row[kVectors];
    Each<kVectors>([&](std::size_t v)
                       HWY_ATTR { row[v] = hn::LoadU(ds, b + v / 2 * p.b_stride + (k * 2 + v % 2 * 4) * lanes); });
    Each<kR>([&](std::size_t r) HWY_ATTR {
      std::int32_t quad;
      hwy::CopyBytes<4>(a + r * p.a_stride + k, &quad);
      const auto x = hn::BitCast(du, hn::Set(d, quad));
      Each<kVectors>([&](std::size_t v) HWY_ATTR { sum[r][v] = hn::SumOfMulQuadAccumulate(d, x, row[v], sum[r][v]); });
    });
  }
  Each<kR>([&](std::size_t r) HWY_ATTR {
    Each<kVectors>([&](std::size_t v)
                       HWY_ATTR { StoreSome(sum[r][v], d, c + r * p.c_stride + v * lanes, Left(columns, v * lanes)); });
  });
}

// All rows of kPanels panels.
template <std::size_t kPanels, class P>
HWY_INLINE void Strip(const P& p, std::size_t panel, std::size_t columns) {
  const auto* b = p.b + panel * p.b_stride;
  auto* c = p.c + panel * PanelColumns();
  std::size_t r = 0;
  const auto step = [&]<std::size_t kR>() HWY_ATTR {
    for (; r + kR <= p.rows; r += kR) Tile<kR, kPanels>(p, p.a + r * p.a_stride, b, c + r * p.c_stride, columns);
  };
  if constexpr (kPanels == 1) {
    if constexpr (kRows > 8) {  // 12 rows a time, but 8 and 8 rather than 12 and 4
      const auto end = p.rows % kRows == 4 && p.rows > kRows ? p.rows - kRows : p.rows;
      for (; r + kRows <= end; r += kRows) {
        Tile<kRows, kPanels>(p, p.a + r * p.a_stride, b, c + r * p.c_stride, columns);
      }
      step.template operator()<8>();
    } else {
      step.template operator()<kRows>();
    }
    step.template operator()<4>();
    step.template operator()<2>();
  }
  step.template operator()<1>();
}

template <class P>
HWY_INLINE void Multiply(const P& p) {
  const std::size_t width = PanelColumns();
  std::size_t panel = 0;
  // A single row is a chain of dependent sums: several panels keep the units busy.
  constexpr std::size_t kWide = HWY_MAX_BYTES >= 64 ? 4 : 3;
  if (p.rows == 1) {
    for (; (panel + kWide) * width <= p.columns; panel += kWide) Strip<kWide>(p, panel, kWide * width);
  }
  for (; panel * width < p.columns; ++panel) Strip<1>(p, panel, std::min(width, p.columns - panel * width));
}

void MultiplyFloats(const Product& p) { Multiply(p); }
void MultiplyIntegers(const IntegerProduct& p) { Multiply(p); }

void PackRows(const float* x, std::span<const std::ptrdiff_t> offsets, std::size_t columns, float* panels,
              std::size_t stride) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t n = 0; n < columns; n += 2 * lanes, panels += stride) {
    const std::size_t count = columns - n;
    float* to = panels;
    if (count >= 2 * lanes) {
      for (const std::ptrdiff_t offset : offsets) {
        const float* from = x + offset + n;
        hn::StoreU(hn::LoadU(d, from), d, to);
        hn::StoreU(hn::LoadU(d, from + lanes), d, to + lanes);
        to += 2 * lanes;
      }
      continue;
    }
    for (const std::ptrdiff_t offset : offsets) {
      const float* from = x + offset + n;
      hn::StoreU(LoadSome(d, from, count), d, to);
      hn::StoreU(count > lanes ? LoadSome(d, from + lanes, count - lanes) : hn::Zero(d), d, to + lanes);
      to += 2 * lanes;
    }
  }
}

void PackByteRows(const std::uint8_t* x, std::span<const std::ptrdiff_t> offsets, std::uint8_t flip,
                  std::size_t columns, std::int8_t* panels, std::size_t stride, std::int32_t* sums) {
  const I d;
  const hn::Repartition<std::uint8_t, I> du;
  const hn::Repartition<std::int8_t, I> ds;
  const hn::Rebind<std::uint8_t, I> bytes;  // one for each column of a vector
  const hn::RebindToUnsigned<I> du32;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t depth = offsets.size();
  for (std::size_t n = 0; n < columns; n += lanes) {
    const std::size_t count = std::min(lanes, columns - n);
    VI total = hn::Zero(d);
    std::int8_t* to = panels + n / (2 * lanes) * stride + n % (2 * lanes) * 4;
    for (std::size_t k = 0; k < depth; k += 4, to += 8 * lanes) {
      auto quad = hn::Zero(du32);
      for (std::size_t j = std::min<std::size_t>(4, depth - k); j-- > 0;) {
        const std::uint8_t* from = x + offsets[k + j] + n;
        std::uint8_t part[kMostColumns / 2] = {};
        if (count < lanes) {
          std::copy(from, from + count, part);
          from = part;
        }
        const auto row = hn::Xor(hn::LoadU(bytes, from), hn::Set(bytes, flip));
        quad = hn::Or(quad, hn::ShiftLeftSame(hn::PromoteTo(du32, row), static_cast<int>(8 * j)));
      }
      const auto packed = hn::BitCast(ds, quad);
      hn::StoreU(packed, ds, to);
      total = hn::SumOfMulQuadAccumulate(d, hn::Set(du, std::uint8_t{1}), packed, total);
    }
    StoreSome(total, d, sums + n, count);
  }
}

void SubtractProducts(std::int32_t a, const std::int32_t* x, std::int32_t b, const std::int32_t* z, std::int32_t* y,
                      std::size_t count) {
  const I d;
  const VI va = hn::Set(d, a), vb = hn::Set(d, b);
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < count; i += lanes) {
    const std::size_t left = count - i;
    const VI products = hn::Add(hn::Mul(va, LoadSome(d, x + i, left)), hn::Mul(vb, LoadSome(d, z + i, left)));
    StoreSome(hn::Sub(LoadSome(d, y + i, left), products), d, y + i, left);
  }
}

std::int32_t SumOfBytes(const std::uint8_t* x, std::size_t count) {
  const I d;
  const hn::Repartition<std::uint8_t, I> du;
  const auto ones = hn::Set(hn::Repartition<std::int8_t, I>(), std::int8_t{1});
  VI total = hn::Zero(d);
  std::size_t i = 0;
  for (; i + hn::Lanes(du) <= count; i += hn::Lanes(du)) {
    total = hn::SumOfMulQuadAccumulate(d, hn::LoadU(du, x + i), ones, total);
  }
  std::int32_t sum = hn::ReduceSum(d, total);
  for (; i < count; ++i) sum += x[i];
  return sum;
}

// Value j of each word.
template <int kBits>
HWY_INLINE V ValueOf(VI word, std::size_t j) {
#if HWY_TARGET <= HWY_AVX3
  if constexpr (kBits == 4) {  // of all 16 that there are
    const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
    return V{_mm512_permutexvar_ps(hn::ShiftRightSame(word, 4 * static_cast<int>(j)).raw, values)};
  }
#endif
  const int above = 32 - kBits * static_cast<int>(j + 1);
  return hn::ConvertTo(F(), hn::ShiftRight<32 - kBits>(hn::ShiftLeftSame(word, above)));
}

// Values of a word of `kBits` each as floats, [depth, 2 vectors].
template <int kBits>
HWY_INLINE void Decode(const std::uint32_t* words, std::size_t depth, float* to) {
  const F d;
  const I di;
  const std::size_t lanes = hn::Lanes(d);
  constexpr std::size_t kEach = 32 / kBits;
  for (std::size_t k = 0; k < depth; k += kEach, words += 2 * lanes) {
    const VI low = hn::LoadU(di, reinterpret_cast<const std::int32_t*>(words));
    const VI high = hn::LoadU(di, reinterpret_cast<const std::int32_t*>(words + lanes));
    const auto store = [&](std::size_t j) HWY_ATTR {
      hn::StoreU(ValueOf<kBits>(low, j), d, to + (k + j) * 2 * lanes);
      hn::StoreU(ValueOf<kBits>(high, j), d, to + ((k + j) * 2 + 1) * lanes);
    };
    if (k + kEach <= depth) {
      Each<kEach>(store);
    } else {
      for (std::size_t j = 0; k + j < depth; ++j) store(j);
    }
  }
}

// Values decoded at a time: they stay in the first cache.
constexpr std::size_t kDecoded = 64;

template <int kBits>
void MultiplyBlocks(const BlockProduct& p) {
  const F d;
  const std::size_t lanes = hn::Lanes(d), width = 2 * lanes;
  float* decoded = p.scratch;
  float* sums = decoded + kDecoded * width;
  std::size_t block = 0;
  for (std::size_t first = 0; first < p.depth; first += p.block, ++block) {
    const std::size_t end = std::min(p.depth, first + p.block);
    for (std::size_t k = first; k < end; k += kDecoded) {
      const std::size_t depth = std::min(kDecoded, end - k);
      Decode<kBits>(p.b + k * kBits / 32 * width, depth, decoded);
      Multiply(Product{p.a + k, p.a_stride, p.rows, depth, decoded, width, 0, sums, width, width, k > first});
    }
    for (std::size_t v = 0; v < 2; ++v) {
      const std::size_t left = Left(p.columns, v * lanes);
      const V scale = hn::LoadU(d, p.scales + block * width + v * lanes);
      const V zero = p.zeros != nullptr ? hn::LoadU(d, p.zeros + block * width + v * lanes) : hn::Zero(d);
      for (std::size_t r = 0; r < p.rows && left > 0; ++r) {
        V sum = hn::LoadU(d, sums + r * width + v * lanes);
        if (p.zeros != nullptr) {
          sum = hn::NegMulAdd(zero, hn::Set(d, p.sums[r * ((p.depth + p.block - 1) / p.block) + block]), sum);
        }
        float* to = p.c + r * p.c_stride + v * lanes;
        StoreSome(hn::MulAdd(scale, sum, LoadSome(d, to, left)), d, to, left);
      }
    }
  }
}

// One row by kPanels panels from `panel` on, decoded in registers: the same sums in the same order.
template <int kBits, std::size_t kPanels>
HWY_INLINE void MultiplyRow(const BlockProduct& p, std::size_t panel) {
  const F d;
  const I di;
  const std::size_t lanes = hn::Lanes(d), width = 2 * lanes;
  constexpr std::size_t kVectors = 2 * kPanels, kEach = 32 / kBits;
  const auto* words = reinterpret_cast<const std::int32_t*>(p.b) + panel * p.b_stride;
  std::size_t block = 0;
  for (std::size_t first = 0; first < p.depth; first += p.block, ++block) {
    const std::size_t end = std::min(p.depth, first + p.block);
    V sum[kVectors];
    Each<kVectors>([&](std::size_t v) HWY_ATTR { sum[v] = hn::Zero(d); });
    for (std::size_t k = first; k < end; k += kEach, words += width) {
      VI word[kVectors];
      Each<kVectors>([&](std::size_t v)
                         HWY_ATTR { word[v] = hn::LoadU(di, words + v / 2 * p.b_stride + v % 2 * lanes); });
      const auto take = [&](std::size_t j) HWY_ATTR {
        const V x = hn::Set(d, p.a[k + j]);
        Each<kVectors>([&](std::size_t v) HWY_ATTR { sum[v] = hn::MulAdd(x, ValueOf<kBits>(word[v], j), sum[v]); });
      };
      if (k + kEach <= end) {
        Each<kEach>(take);
      } else {
        for (std::size_t j = 0; k + j < end; ++j) take(j);
      }
    }
    Each<kVectors>([&](std::size_t v) HWY_ATTR {
      const std::size_t left = Left(p.columns, panel * width + v * lanes);
      const std::size_t at = (panel + v / 2) * p.scales_stride + block * width + v % 2 * lanes;
      if (p.zeros != nullptr) sum[v] = hn::NegMulAdd(hn::LoadU(d, p.zeros + at), hn::Set(d, p.sums[block]), sum[v]);
      float* to = p.c + panel * width + v * lanes;
      StoreSome(hn::MulAdd(hn::LoadU(d, p.scales + at), sum[v], LoadSome(d, to, left)), d, to, left);
    });
  }
}

template <int kBits>
HWY_INLINE void MultiplyRowOrBlocks(const BlockProduct& p) {
  if (p.rows != 1) return MultiplyBlocks<kBits>(p);
  constexpr std::size_t kWide = HWY_MAX_BYTES >= 64 ? kRowPanels : 2;
  std::size_t panel = 0;
  for (; panel + kWide <= p.panels; panel += kWide) MultiplyRow<kBits, kWide>(p, panel);
  for (; panel < p.panels; ++panel) MultiplyRow<kBits, 1>(p, panel);
}

void MultiplyPacked(const BlockProduct& p) {
  if (p.bits == 2) MultiplyRowOrBlocks<2>(p);
  if (p.bits == 4) MultiplyRowOrBlocks<4>(p);
  if (p.bits == 8) MultiplyRowOrBlocks<8>(p);
}

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
