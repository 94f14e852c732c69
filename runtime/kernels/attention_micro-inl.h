// Products of queries with panels of keys and of weights with values, for the rows that registers hold; 2^x; packing.
// Compiled once per instruction set, included by attention_simd-inl.h only.
#if defined(WEFT_ATTENTION_MICRO_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_ATTENTION_MICRO_INL_H
#undef WEFT_ATTENTION_MICRO_INL_H
#else
#define WEFT_ATTENTION_MICRO_INL_H
#endif

#include <cstddef>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "runtime/kernels/attention_simd.h"
#include "runtime/kernels/halves-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::CappedTag<float, kPanelKeys>;
using V = hn::Vec<F>;

constexpr std::size_t kLanes = hn::MaxLanes(F());
constexpr std::size_t kVectors = kPanelKeys / kLanes;       // of one row of a panel
constexpr bool kManyRegisters = kLanes >= 16;               // 32 of them
constexpr std::size_t kBlockRows = kManyRegisters ? 8 : 4;  // query rows of a micro-kernel

HWY_INLINE std::size_t RoundUp(std::size_t x) { return (x + kPanelKeys - 1) / kPanelKeys * kPanelKeys; }

// 2^x for x <= 0, within 1.5e-7 of the result; 0 below 2^-126, NaN for NaN and inf. The polynomial is a minimax fit
// of 2^f / 1 on [-1/2, 1/2].
HWY_INLINE V Exp2(V x) {
  const F d;
  const hn::RebindToSigned<F> di;
  const V magic = hn::Set(d, 12582912.0f);  // 1.5 * 2^23: rounds to an integer in the low bits
  const V shifted = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(shifted, magic));
  V p = hn::MulAdd(hn::Set(d, 0.00132647271f), f, hn::Set(d, 0.00967151265f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.0555073374f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.240222421f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.693146978f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const V y = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), y);
}

HWY_INLINE float Exp2(float x) { return hn::GetLane(Exp2(hn::Set(F(), x))); }

// --- Packing ---------------------------------------------------------------------------------------

// Four floats of every fourth row from `row` on, a block of the vector each.
template <class D, class Row>
HWY_INLINE hn::Vec<D> LoadBlocks(D d, const Row& row, std::size_t r, std::size_t i) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, row(r) + i);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, LoadBlocks(half, row, r + hn::MaxLanes(half), i), LoadBlocks(half, row, r, i));
  }
}

// to[i * stride + r] = row(r)[i], for as many rows as d has lanes and i < size.
template <class D, class Row>
HWY_INLINE void TransposeRows(D d, const Row& row, std::size_t size, float* to, std::size_t stride) {
  const hn::RepartitionToWide<D> dd;
  std::size_t i = 0;
  for (; i + 4 <= size; i += 4, to += 4 * stride) {
    const auto a = LoadBlocks(d, row, 0, i), b = LoadBlocks(d, row, 1, i);
    const auto c = LoadBlocks(d, row, 2, i), e = LoadBlocks(d, row, 3, i);
    const auto ab0 = hn::BitCast(dd, hn::InterleaveLower(d, a, b)), ab1 = hn::BitCast(dd, hn::InterleaveUpper(d, a, b));
    const auto ce0 = hn::BitCast(dd, hn::InterleaveLower(d, c, e)), ce1 = hn::BitCast(dd, hn::InterleaveUpper(d, c, e));
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, ab0, ce0)), d, to);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, ab0, ce0)), d, to + stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, ab1, ce1)), d, to + 2 * stride);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, ab1, ce1)), d, to + 3 * stride);
  }
  for (; i < size; ++i, to += stride) {
    for (std::size_t r = 0; r < hn::MaxLanes(d); ++r) to[r] = row(r)[i];
  }
}

// To lanes [at, at + count) of a panel of so many keys.
template <std::size_t Keys>
HWY_INLINE void StoreKeys(const float* keys, std::size_t stride, std::size_t count, std::size_t size, float* panel,
                          std::size_t at) {
  std::size_t t = 0;
  const auto transpose = [&](auto d) HWY_ATTR {
    for (; t + hn::MaxLanes(d) <= count && at % 4 == 0; t += hn::MaxLanes(d)) {
      const auto row = [&](std::size_t r) { return keys + (t + r) * stride; };
      TransposeRows(d, row, size, panel + at + t, Keys);
    }
  };
  transpose(hn::CappedTag<float, Keys>());
  transpose(hn::FixedTag<float, 4>());
  for (; t < count; ++t) {
    for (std::size_t i = 0; i < size; ++i) panel[i * Keys + at + t] = keys[t * stride + i];
  }
}

// The same to halves, some dimensions at a time.
HWY_INLINE void StoreHalfKeys(const float* keys, std::size_t stride, std::size_t count, std::size_t size, bool brain,
                              std::uint16_t* block, std::size_t at) {
  constexpr std::size_t kTogether = 32;
  const F d;
  const hn::Rebind<std::uint16_t, F> du;
  HWY_ALIGN float wide[kTogether * kBlockKeys] = {};
  HWY_ALIGN std::uint16_t halves[kTogether * kBlockKeys];
  for (std::size_t first = 0; first < size; first += kTogether) {
    const std::size_t some = HWY_MIN(kTogether, size - first);
    StoreKeys<kBlockKeys>(keys + first, stride, count, some, wide, at);
    for (std::size_t i = 0; i < some * kBlockKeys; i += kLanes)  // reads and writes whole vectors of the buffers
      hn::StoreU(NarrowToHalves(d, hn::LoadU(d, wide + i), brain), du, halves + i);
    std::uint16_t* to = block + first * kBlockKeys;
    if (count == kBlockKeys) {
      hwy::CopyBytes(halves, to, some * kBlockKeys * sizeof(*to));
      continue;
    }
    for (std::size_t i = 0; i < some; ++i) {
      for (std::size_t t = at; t < at + count; ++t) to[i * kBlockKeys + t] = halves[i * kBlockKeys + t];
    }
  }
}

void StoreBlock(const float* keys, std::size_t stride, std::size_t count, std::size_t size, Element element,
                std::byte* block, std::size_t at) {
  if (element == Element::kF32)
    StoreKeys<kBlockKeys>(keys, stride, count, size, reinterpret_cast<float*>(block), at);
  else
    StoreHalfKeys(keys, stride, count, size, element == Element::kBF16, reinterpret_cast<std::uint16_t*>(block), at);
}

// --- Elements of blocks ----------------------------------------------------------------------------

// Vectors of numbers as blocks hold them. LoadTwo: the lower half of a vector from one place, the upper from another.
struct Single {
  using T = float;
  static HWY_INLINE V Load(const float* x) { return hn::LoadU(F(), x); }
  static HWY_INLINE V LoadTwo(const float* low, const float* high) {
    const hn::Half<F> half;
    return hn::Combine(F(), hn::LoadU(half, high), hn::LoadU(half, low));
  }
};

template <bool kBrain>
struct Halves {
  using T = std::uint16_t;
  using D = hn::Rebind<std::uint16_t, F>;
  static HWY_INLINE V Load(const T* x) { return WidenHalves(F(), hn::LoadU(D(), x), kBrain); }
  static HWY_INLINE V LoadTwo(const T* low, const T* high) {
    const hn::Half<D> half;
    return WidenHalves(F(), hn::Combine(D(), hn::LoadU(half, high), hn::LoadU(half, low)), kBrain);
  }
};

// --- Micro-kernels ---------------------------------------------------------------------------------

// Keys [n * kLanes, ...) of dimension i of a panel, which lies in one piece [D][kPanelKeys] or in blocks.
template <class E, bool kInBlocks>
HWY_INLINE V LoadKeys(const typename E::T* const* halves, std::size_t n, std::size_t i) {
  if constexpr (!kInBlocks) {
    return E::Load(halves[0] + i * kPanelKeys + n * kLanes);
  } else if constexpr (kLanes == kPanelKeys) {
    return E::LoadTwo(halves[0] + i * kBlockKeys, halves[1] + i * kBlockKeys);
  } else {
    return E::Load(halves[n * kLanes / kBlockKeys] + i * kBlockKeys + n * kLanes % kBlockKeys);
  }
}

// scores[r][..] = q_r . k_t for R rows of queries packed [D][kBlockRows] and the keys of P panels, two pointers each.
// Meanwhile the blocks of `ahead` come nearer.
template <class E, std::size_t R, std::size_t P, bool kInBlocks>
HWY_INLINE void ScorePanels(const float* q, const typename E::T* const* keys, const typename E::T* const* ahead,
                            std::size_t size, float* scores) {
  const F d;
  constexpr std::size_t kWide = P * kVectors;
  V sum[R][kWide];
  HWY_UNROLL(8)
  for (std::size_t r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < kWide; ++n) sum[r][n] = hn::Zero(d);
  }
  const typename E::T* halves[2 * P];
  HWY_UNROLL(8)
  for (std::size_t p = 0; p < 2 * P; ++p) halves[p] = keys[p];
  for (std::size_t i = 0; i < size; ++i) {
    HWY_UNROLL(8)
    for (std::size_t p = 0; p < P; ++p) hwy::Prefetch(ahead[2 * p + i % 2] + i / 2 * kPanelKeys);
    V key[kWide];
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < kWide; ++n) key[n] = LoadKeys<E, kInBlocks>(halves + n / kVectors * 2, n % kVectors, i);
    HWY_UNROLL(8)
    for (std::size_t r = 0; r < R; ++r) {
      const V x = hn::Set(d, q[i * kBlockRows + r]);
      HWY_UNROLL(8)
      for (std::size_t n = 0; n < kWide; ++n) sum[r][n] = hn::MulAdd(x, key[n], sum[r][n]);
    }
  }
  HWY_UNROLL(8)
  for (std::size_t r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < kWide; ++n) hn::StoreU(sum[r][n], d, scores + r * kChunkKeys + n * kLanes);
  }
}

template <class E, std::size_t R, bool kInBlocks>
HWY_INLINE void ScoreRows(const float* q, const typename E::T* const* keys, const typename E::T* const* ahead,
                          std::size_t panels, std::size_t size, float* scores) {
  constexpr std::size_t kMost = kManyRegisters ? (R <= 4 ? 4 : 2) : (R <= 2 ? 2 : 1);
  std::size_t j = 0;
  for (; j + kMost <= panels; j += kMost) {
    ScorePanels<E, R, kMost, kInBlocks>(q, keys + 2 * j, ahead + 2 * j, size, scores + j * kPanelKeys);
  }
  if constexpr (kMost > 1) {
    for (; j < panels; ++j) {
      ScorePanels<E, R, 1, kInBlocks>(q, keys + 2 * j, ahead + 2 * j, size, scores + j * kPanelKeys);
    }
  }
}

// results[r][..] = results[r][..] * corrections[r] + weights[r][t] * v_t over the tokens of some blocks, for N vectors
// of the values.
template <class E, std::size_t R, std::size_t N>
HWY_INLINE void AddPanels(const float* weights, const typename E::T* const* values, const typename E::T* const* ahead,
                          std::size_t e, std::size_t stride, std::size_t tokens, const float* corrections,
                          float* results, std::size_t width) {
  const F d;
  V sum[R][N];
  HWY_UNROLL(8)
  for (std::size_t r = 0; r < R; ++r) {
    const V correction = hn::Set(d, corrections[r]);
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < N; ++n) {
      sum[r][n] = hn::Mul(hn::LoadU(d, results + r * width + n * kLanes), correction);
    }
  }
  for (std::size_t first = 0; first < tokens; first += kBlockKeys) {
    const typename E::T* value = *values++ + e;
    const typename E::T* next = *ahead++ + e;
    const float* weight = weights + first;
    const std::size_t count = HWY_MIN(kBlockKeys, tokens - first);
    for (std::size_t t = 0; t < count; ++t, value += stride, next += width) {
      HWY_UNROLL(8)
      for (std::size_t n = 0; n < N; n += kVectors) hwy::Prefetch(next + n * kLanes);
      V v[N];
      HWY_UNROLL(8)
      for (std::size_t n = 0; n < N; ++n) v[n] = E::Load(value + n * kLanes);
      HWY_UNROLL(8)
      for (std::size_t r = 0; r < R; ++r) {
        const V x = hn::Set(d, weight[r * kChunkKeys + t]);
        HWY_UNROLL(8)
        for (std::size_t n = 0; n < N; ++n) sum[r][n] = hn::MulAdd(x, v[n], sum[r][n]);
      }
    }
  }
  HWY_UNROLL(8)
  for (std::size_t r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (std::size_t n = 0; n < N; ++n) hn::StoreU(sum[r][n], d, results + r * width + n * kLanes);
  }
}

// values: rows of at least `width` (a multiple of kPanelKeys) readable elements.
template <class E, std::size_t R>
HWY_INLINE void AddRows(const float* weights, const typename E::T* const* values, const typename E::T* const* ahead,
                        std::size_t stride, std::size_t tokens, const float* corrections, float* results,
                        std::size_t width) {
  constexpr std::size_t kMost = kManyRegisters ? (R <= 4 ? 4 : 2) : (R <= 2 ? 4 : 2);
  std::size_t e = 0;
  for (; e + kMost * kLanes <= width; e += kMost * kLanes) {
    AddPanels<E, R, kMost>(weights, values, ahead, e, stride, tokens, corrections, results + e, width);
  }
  for (; e < width; e += kLanes) {
    AddPanels<E, R, 1>(weights, values, ahead, e, stride, tokens, corrections, results + e, width);
  }
}

// body(number of rows as a constant), for 1 <= rows <= kBlockRows.
template <std::size_t R, class Body>
HWY_INLINE void WithRows(std::size_t rows, const Body& body) {
  if constexpr (R == 1) {
    body(std::integral_constant<std::size_t, 1>());
  } else {
    if (rows == R) return body(std::integral_constant<std::size_t, R>());
    WithRows<R - 1>(rows, body);
  }
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
