// Tiles of products of floats and of bytes, and how their operands are packed.
// Compiled once per instruction set, included by tile.cc and its other parts only.
#if defined(WEFT_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_TILE_INL_H
#undef WEFT_TILE_INL_H
#else
#define WEFT_TILE_INL_H
#endif

#include <algorithm>
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

// kR rows from r on by kPanels panels; `columns` may end in the last panel.
template <std::size_t kR, std::size_t kPanels>
HWY_INLINE void Tile(const Product& p, std::size_t r0, std::size_t panel, std::size_t columns) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const float* a = p.a + r0 * p.a_stride;
  const float* b = p.b + panel * p.b_stride;
  float* c = p.c + r0 * p.c_stride + panel * PanelColumns();
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

// Sums of products of bytes, of kR rows by kPanels panels.
template <std::size_t kR, std::size_t kPanels, class P>
HWY_INLINE void SumQuads(const P& p, std::size_t r0, std::size_t panel, VI (&sum)[kR][2 * kPanels]) {
  const I d;
  const hn::Repartition<std::uint8_t, I> du;
  const hn::Repartition<std::int8_t, I> ds;
  const std::size_t lanes = hn::Lanes(d);
  const std::uint8_t* a = p.a + r0 * p.a_stride;
  const std::int8_t* b = p.b + panel * p.b_stride;
  constexpr std::size_t kVectors = 2 * kPanels;
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
}

template <std::size_t kR, std::size_t kPanels>
HWY_INLINE void Tile(const IntegerProduct& p, std::size_t r0, std::size_t panel, std::size_t columns) {
  const I d;
  const std::size_t lanes = hn::Lanes(d);
  std::int32_t* c = p.c + r0 * p.c_stride + panel * PanelColumns();
  VI sum[kR][2 * kPanels];
  SumQuads<kR, kPanels>(p, r0, panel, sum);
  Each<kR>([&](std::size_t r) HWY_ATTR {
    Each<2 * kPanels>([&](std::size_t v) HWY_ATTR {
      StoreSome(sum[r][v], d, c + r * p.c_stride + v * lanes, Left(columns, v * lanes));
    });
  });
}

// Sums of row r, columns from `at` on, of which `left` are left.
HWY_INLINE void StoreScaled(const ScaledProduct& p, std::size_t r, std::size_t at, std::size_t left, VI sum) {
  const I di;
  const F d;
  VI exact = hn::Sub(sum, hn::LoadU(di, p.shifts + at));
  if (p.zeros != nullptr) exact = hn::Sub(exact, hn::Mul(hn::Set(di, p.sums[r]), hn::LoadU(di, p.zeros + at)));
  V y = hn::Mul(hn::ConvertTo(d, exact), hn::LoadU(d, p.scales + at));
  if (p.bias != nullptr) y = hn::Add(y, hn::LoadU(d, p.bias + at));
  if (p.residual != nullptr) y = hn::Add(y, LoadSome(d, p.residual + r * p.c_stride + at, left));
  StoreSome(y, d, p.c + r * p.c_stride + at, left);
}

template <std::size_t kR, std::size_t kPanels>
HWY_INLINE void Tile(const ScaledProduct& p, std::size_t r0, std::size_t panel, std::size_t columns) {
  const std::size_t lanes = hn::Lanes(F());
  VI sum[kR][2 * kPanels];
  SumQuads<kR, kPanels>(p, r0, panel, sum);
  Each<kR>([&](std::size_t r) HWY_ATTR {
    Each<2 * kPanels>([&](std::size_t v) HWY_ATTR {
      if (const std::size_t left = Left(columns, v * lanes); left > 0) {
        StoreScaled(p, r0 + r, panel * PanelColumns() + v * lanes, left, sum[r][v]);
      }
    });
  });
}

// All rows of kPanels panels.
template <std::size_t kPanels, class P>
HWY_INLINE void Strip(const P& p, std::size_t panel, std::size_t columns) {
  std::size_t r = 0;
  const auto step = [&]<std::size_t kR>() HWY_ATTR {
    for (; r + kR <= p.rows; r += kR) Tile<kR, kPanels>(p, r, panel, columns);
  };
  if constexpr (kPanels == 1) {
    if constexpr (kRows > 8) {  // 12 rows a time, but 8 and 8 rather than 12 and 4
      const auto end = p.rows % kRows == 4 && p.rows > kRows ? p.rows - kRows : p.rows;
      for (; r + kRows <= end; r += kRows) Tile<kRows, kPanels>(p, r, panel, columns);
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
void MultiplyScaled(const ScaledProduct& p) { Multiply(p); }

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

}  // namespace weft::runtime::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
