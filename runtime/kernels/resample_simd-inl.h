// Compiled once per instruction set, included by resample_simd.cc only.
#if defined(WEFT_RESAMPLE_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_RESAMPLE_SIMD_INL_H
#undef WEFT_RESAMPLE_SIMD_INL_H
#else
#define WEFT_RESAMPLE_SIMD_INL_H
#endif

#include "hwy/highway.h"
#include "runtime/kernels/activation-inl.h"
#include "runtime/kernels/resample_simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::resample::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using simd::HWY_NAMESPACE::F;
using simd::HWY_NAMESPACE::ForEachVector;
using simd::HWY_NAMESPACE::Load;
using simd::HWY_NAMESPACE::Store;
using simd::HWY_NAMESPACE::V;
using I = hn::RebindToSigned<F>;

HWY_INLINE hn::Vec<I> LoadIndices(const std::int32_t* index, std::size_t lanes) {
  const I d;
  return lanes == hn::Lanes(d) ? hn::LoadU(d, index) : hn::LoadN(d, index, lanes);
}

void Weigh(const float* x, const std::int32_t* index, const float* weight, std::size_t each, std::size_t stride,
           float* y, std::size_t count) {
  const F d;
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V sum = hn::Zero(d);
    for (std::size_t k = 0; k < each; ++k) {
      const V w = Load(weight + k * stride + i, lanes);
      const V value = hn::MaskedGatherIndex(hn::Ne(w, hn::Zero(d)), d, x, LoadIndices(index + k * stride + i, lanes));
      sum = hn::MulAdd(w, value, sum);
    }
    Store(sum, y + i, lanes);
  });
}

void Pick(const std::int32_t* x, const std::int32_t* index, std::int32_t* y, std::size_t count) {
  const I d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::GatherIndex(d, x, hn::LoadU(d, index + i)), d, y + i);
  for (; i < count; ++i) y[i] = x[index[i]];
}

}  // namespace weft::runtime::resample::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
