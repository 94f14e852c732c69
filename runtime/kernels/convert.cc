#include "runtime/kernels/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/convert.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/halves-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::convert::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using simd::HWY_NAMESPACE::NarrowToHalves;
using simd::HWY_NAMESPACE::WidenHalves;
using F = hn::CappedTag<float, 16>;
using I = hn::RebindToSigned<F>;
using V = hn::Vec<F>;
using VI = hn::Vec<I>;

// body(i) for whole vectors of [0, count); the rest goes through `padded` copies by rest(i, left).
template <class Body, class Rest>
HWY_INLINE void ForEach(std::size_t count, const Body& body, const Rest& rest) {
  const std::size_t lanes = hn::Lanes(F());
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) body(i);
  if (i < count) rest(i, count - i);
}

HWY_INLINE V Widen(const std::uint16_t* x, bool brain) {
  return WidenHalves(F(), hn::LoadU(hn::Rebind<std::uint16_t, F>(), x), brain);
}

HWY_INLINE void Narrow(V v, bool brain, std::uint16_t* y) {
  hn::StoreU(NarrowToHalves(F(), v, brain), hn::Rebind<std::uint16_t, F>(), y);
}

void FromHalf(const std::uint16_t* x, bool brain, float* y, std::size_t count) {
  const F d;
  ForEach(
      count, [&](std::size_t i) HWY_ATTR { hn::StoreU(Widen(x + i, brain), d, y + i); },
      [&](std::size_t i, std::size_t left) HWY_ATTR {
        std::uint16_t padded[16] = {};
        hwy::CopyBytes(x + i, padded, left * sizeof(*x));
        hn::StoreN(Widen(padded, brain), d, y + i, left);
      });
}

void ToHalf(const float* x, bool brain, std::uint16_t* y, std::size_t count) {
  const F d;
  ForEach(
      count, [&](std::size_t i) HWY_ATTR { Narrow(hn::LoadU(d, x + i), brain, y + i); },
      [&](std::size_t i, std::size_t left) HWY_ATTR {
        std::uint16_t padded[16];
        Narrow(hn::LoadN(d, x + i, left), brain, padded);
        hwy::CopyBytes(padded, y + i, left * sizeof(*y));
      });
}

// Clamped before it becomes an integer, so that every integer fits; NaN becomes 0 as in Cast.
HWY_INLINE VI Quantized(V x, V scale, VI zero, V low, V high) {
  const I di;
  const V rounded = hn::Add(hn::Round(hn::Div(x, scale)), hn::ConvertTo(F(), zero));
  const V clamped = hn::Min(hn::Max(rounded, low), high);
  return hn::IfThenZeroElse(hn::RebindMask(di, hn::IsNaN(rounded)), hn::ConvertTo(di, clamped));
}

void Quantize(const float* x, float scale, std::int32_t zero, bool is_signed, std::uint8_t* y, std::size_t count) {
  const F d;
  const I di;
  const hn::Rebind<std::uint8_t, F> du8;
  const V s = hn::Set(d, scale), low = hn::Set(d, is_signed ? -128.0f : 0.0f),
          high = hn::Set(d, is_signed ? 127.0f : 255.0f);
  const VI z = hn::Set(di, zero);
  const auto narrow = [&](V v) HWY_ATTR {
    return hn::TruncateTo(du8, hn::BitCast(hn::RebindToUnsigned<F>(), Quantized(v, s, z, low, high)));
  };
  ForEach(
      count, [&](std::size_t i) HWY_ATTR { hn::StoreU(narrow(hn::LoadU(d, x + i)), du8, y + i); },
      [&](std::size_t i, std::size_t left) HWY_ATTR {
        std::uint8_t padded[16];
        hn::StoreU(narrow(hn::LoadN(d, x + i, left)), du8, padded);
        hwy::CopyBytes(padded, y + i, left);
      });
}

HWY_INLINE V Dequantized(const std::uint8_t* x, bool is_signed, VI zero, V scale) {
  const I di;
  const hn::Rebind<std::uint8_t, F> du8;
  const auto bytes = hn::LoadU(du8, x);
  const VI wide =
      is_signed ? hn::PromoteTo(di, hn::BitCast(hn::Rebind<std::int8_t, F>(), bytes)) : hn::PromoteTo(di, bytes);
  return hn::Mul(hn::ConvertTo(F(), hn::Sub(wide, zero)), scale);
}

void DequantizeBytes(const std::uint8_t* x, bool is_signed, std::int32_t zero, float scale, float* y,
                     std::size_t count) {
  const F d;
  const V s = hn::Set(d, scale);
  const VI z = hn::Set(I(), zero);
  ForEach(
      count, [&](std::size_t i) HWY_ATTR { hn::StoreU(Dequantized(x + i, is_signed, z, s), d, y + i); },
      [&](std::size_t i, std::size_t left) HWY_ATTR {
        std::uint8_t padded[16] = {};
        hwy::CopyBytes(x + i, padded, left);
        hn::StoreN(Dequantized(padded, is_signed, z, s), d, y + i, left);
      });
}

void DequantizeIntegers(const std::int32_t* x, std::int32_t zero, const float* scales, float scale, float* y,
                        std::size_t count) {
  const F d;
  const I di;
  const VI z = hn::Set(di, zero);
  const V one = hn::Set(d, scale);
  ForEach(
      count,
      [&](std::size_t i) HWY_ATTR {
        const V s = scales != nullptr ? hn::LoadU(d, scales + i) : one;
        hn::StoreU(hn::Mul(hn::ConvertTo(d, hn::Sub(hn::LoadU(di, x + i), z)), s), d, y + i);
      },
      [&](std::size_t i, std::size_t left) HWY_ATTR {
        const V s = scales != nullptr ? hn::LoadN(d, scales + i, left) : one;
        hn::StoreN(hn::Mul(hn::ConvertTo(d, hn::Sub(hn::LoadN(di, x + i, left), z)), s), d, y + i, left);
      });
}

}  // namespace weft::runtime::convert::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft::runtime::convert {

HWY_EXPORT(FromHalf);
HWY_EXPORT(ToHalf);
HWY_EXPORT(Quantize);
HWY_EXPORT(DequantizeBytes);
HWY_EXPORT(DequantizeIntegers);

void from_half(const std::uint16_t* x, bool brain, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(FromHalf)(x, brain, y, count);
}
void to_half(const float* x, bool brain, std::uint16_t* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(ToHalf)(x, brain, y, count);
}
void quantize(const float* x, float scale, std::int32_t zero, bool is_signed, std::uint8_t* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Quantize)(x, scale, zero, is_signed, y, count);
}
void dequantize(const std::uint8_t* x, bool is_signed, std::int32_t zero, float scale, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(DequantizeBytes)(x, is_signed, zero, scale, y, count);
}
void dequantize(const std::int32_t* x, std::int32_t zero, float scale, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(DequantizeIntegers)(x, zero, nullptr, scale, y, count);
}
void dequantize(const std::int32_t* x, const float* scale, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(DequantizeIntegers)(x, 0, scale, 0.0f, y, count);
}

}  // namespace weft::runtime::convert
#endif
