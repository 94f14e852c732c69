// f16 and bf16 as f32 and back.
// Compiled once per instruction set.
#if defined(WEFT_HALVES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_HALVES_INL_H
#undef WEFT_HALVES_INL_H
#else
#define WEFT_HALVES_INL_H
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The numbers that bits of f16, or of bf16 where `brain`, stand for. Exact.
template <class D>
HWY_INLINE hn::Vec<D> WidenHalves(D d, hn::Vec<hn::Rebind<std::uint16_t, D>> bits, bool brain) {
  const hn::RebindToUnsigned<D> du32;
  if (brain) return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du32, bits)));
  const auto y = hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2  // without instructions for halves infinities and NaN become numbers
  const auto wide = hn::PromoteTo(du32, bits);
  const auto exponent = hn::Set(du32, 0x7C00u);
  const auto special = hn::RebindMask(d, hn::Eq(hn::And(wide, exponent), exponent));
  const auto sign = hn::ShiftLeft<16>(hn::And(wide, hn::Set(du32, 0x8000u)));
  const auto rest = hn::ShiftLeft<13>(hn::And(wide, hn::Set(du32, 0x3FFu)));
  return hn::IfThenElse(special, hn::BitCast(d, hn::Or(hn::Or(sign, rest), hn::Set(du32, 0x7F800000u))), y);
#else
  return y;
#endif
}

// To nearest even; NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<std::uint16_t, D>> NarrowToHalves(D d, hn::Vec<D> v, bool brain) {
  const hn::RebindToUnsigned<D> du32;
  const hn::Rebind<std::uint16_t, D> du;
  if (!brain) return hn::BitCast(du, hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), v));
  const auto bits = hn::BitCast(du32, v);
  const auto high = hn::ShiftRight<16>(bits);
  const auto even = hn::And(high, hn::Set(du32, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(even, hn::Set(du32, 0x7FFFu))));
  const auto quiet = hn::Or(high, hn::Set(du32, 0x40u));
  const auto nan = hn::RebindMask(du32, hn::IsNaN(v));
  (void)d;
  return hn::TruncateTo(du, hn::IfThenElse(nan, quiet, rounded));
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
