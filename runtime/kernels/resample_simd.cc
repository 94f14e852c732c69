#include "runtime/kernels/resample_simd.h"

#include "runtime/kernels/float_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/resample_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/resample_simd-inl.h"

#if HWY_ONCE
namespace weft::runtime::resample {

HWY_EXPORT(Weigh);
HWY_EXPORT(Pick);

void weigh(const float* x, const std::int32_t* index, const float* weight, std::size_t each, std::size_t stride,
           float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Weigh)(x, index, weight, each, stride, y, count);
}
void pick(const std::int32_t* x, const std::int32_t* index, std::int32_t* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Pick)(x, index, y, count);
}

}  // namespace weft::runtime::resample
#endif
