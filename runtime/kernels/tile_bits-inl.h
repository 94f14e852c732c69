// Products with weights of 2, 4 and 8 bits, decoded on the way.
// Compiled once per instruction set, included by tile.cc only.
#if defined(WEFT_TILE_BITS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_TILE_BITS_INL_H
#undef WEFT_TILE_BITS_INL_H
#else
#define WEFT_TILE_BITS_INL_H
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "runtime/kernels/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::tile::HWY_NAMESPACE {

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

}  // namespace weft::runtime::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
