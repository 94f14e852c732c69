#include "runtime/kernels/score_simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/score_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/score_simd-inl.h"

#if HWY_ONCE
namespace weft::runtime::simd {

HWY_EXPORT(LogSoftmaxRow);
HWY_EXPORT(ExpRow);
HWY_EXPORT(FindLarger);

void log_softmax_row(float* x, std::size_t count) { HWY_DYNAMIC_DISPATCH(LogSoftmaxRow)(x, count); }
double exp_row(const float* x, double* y, std::size_t count) { return HWY_DYNAMIC_DISPATCH(ExpRow)(x, y, count); }
std::size_t find_larger(const float* x, std::size_t first, std::size_t count, float limit) {
  return HWY_DYNAMIC_DISPATCH(FindLarger)(x, first, count, limit);
}

}  // namespace weft::runtime::simd
#endif
