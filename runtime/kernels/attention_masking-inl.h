// What masks, slopes and soft caps do to scores.
// Compiled once per instruction set, included by attention_simd-inl.h only.
#if defined(WEFT_ATTENTION_MASKING_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_ATTENTION_MASKING_INL_H
#undef WEFT_ATTENTION_MASKING_INL_H
#else
#define WEFT_ATTENTION_MASKING_INL_H
#endif

#include <cstddef>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "runtime/kernels/attention_micro-inl.h"
#include "runtime/kernels/attention_simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

HWY_INLINE hn::Mask<F> Nonzero(const std::uint8_t* bits, std::size_t stride, std::size_t key, std::size_t lanes) {
  const F d;
  const hn::RebindToUnsigned<F> du;
  const hn::Rebind<std::uint8_t, F> db;
  const auto bytes = stride == 0 ? hn::Set(db, *bits) : hn::LoadN(db, bits + key, lanes);
  return hn::RebindMask(d, hn::Ne(hn::PromoteTo(du, bytes), hn::Zero(du)));
}

// Scale, soft cap, masks and slopes of a row's scores of the keys [begin, end), of which it looks at
// [begin + first, begin + last).
HWY_INLINE void ApplyMasks(const AttentionTask& a, const AttentionRow& row, std::size_t begin, std::size_t end,
                           std::size_t first, std::size_t last, float* scores) {
  const F d;
  const V fill = hn::Set(d, row.fill), zero = hn::Zero(d), lowest = hn::Set(d, kLowest);
  const float from_position = static_cast<float>(begin) - row.position;
  for (std::size_t t = first / kLanes * kLanes; t < last; t += kLanes) {
    const std::size_t key = begin + t;
    const std::size_t lanes = HWY_MIN(kLanes, end - key);
    V x = hn::Mul(hn::LoadU(d, scores + t), hn::Set(d, a.scale));
    if (a.softcap > 0) {
      const V y = hn::Mul(x, hn::Set(d, 1.0f / a.softcap));
      x = hn::Mul(hn::IfThenElse(hn::IsNaN(y), y, hn::Tanh(d, y)), hn::Set(d, a.softcap));
    }
    if (row.mask != nullptr) {
      x = hn::Add(x, a.mask_key_stride == 0 ? hn::Set(d, *row.mask) : hn::LoadN(d, row.mask + key, lanes));
    } else if (row.mask_bits != nullptr) {
      x = hn::Add(x, hn::IfThenElse(Nonzero(row.mask_bits, a.mask_key_stride, key, lanes), zero, lowest));
    }
    const V at = hn::Iota(d, static_cast<float>(t));
    if (row.slope != 0) x = hn::MulAdd(hn::Set(d, row.slope), hn::Add(at, hn::Set(d, from_position)), x);
    const float allowed = static_cast<float>(row.allowed) - static_cast<float>(begin);
    const float forbidden = static_cast<float>(row.forbidden) - static_cast<float>(begin);
    auto attended = hn::And(hn::Ge(at, hn::Set(d, allowed)), hn::Lt(at, hn::Set(d, forbidden)));
    if (row.padding != nullptr) {
      const auto kept = Nonzero(row.padding, 1, key, lanes);
      if (a.fill_per_condition) {
        x = hn::Add(x, hn::IfThenElse(kept, zero, fill));
      } else {
        attended = hn::And(attended, kept);
      }
    }
    x = hn::Add(x, hn::IfThenElse(attended, zero, fill));
    hn::StoreU(x, d, scores + t);
  }
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
