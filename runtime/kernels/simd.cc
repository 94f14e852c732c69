#include "runtime/kernels/simd.h"

#include <algorithm>
#include <cmath>
#include <limits>

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/simd-inl.h"

#if HWY_ONCE
namespace weft::runtime::simd {

HWY_EXPORT(TargetName);
HWY_EXPORT(Activate);
HWY_EXPORT(ApplyUnary);
HWY_EXPORT(SoftmaxRow);
HWY_EXPORT(SoftmaxColumns);
HWY_EXPORT(LayerNormRow);
HWY_EXPORT(RmsNormRow);
HWY_EXPORT(AddRow);
HWY_EXPORT(AccumulateRow);
HWY_EXPORT(L2NormRow);
HWY_EXPORT(LayerNormColumns);
HWY_EXPORT(L2NormColumns);
HWY_EXPORT(RotateRow);

std::string target_name() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

void activate(Activation activation, float alpha, const float* x, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Activate)(activation, alpha, x, y, count);
}
void unary(const Function& function, const float* x, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(ApplyUnary)(function, x, y, count);
}
void softmax_row(const float* x, float* y, std::size_t count) { HWY_DYNAMIC_DISPATCH(SoftmaxRow)(x, y, count); }
void softmax_columns(const float* x, std::size_t rows, std::size_t stride, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(SoftmaxColumns)(x, rows, stride, y, count);
}
void layer_norm_row(const float* x, const float* scale, const float* bias, float epsilon, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(LayerNormRow)(x, scale, bias, epsilon, y, count);
}
void rms_norm_row(const float* x, const float* scale, float epsilon, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(RmsNormRow)(x, scale, epsilon, y, count);
}
void add_row(const float* a, const float* b, const float* bias, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(AddRow)(a, b, bias, y, count);
}
void accumulate_row(const std::byte* x, float factor, bool first, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(AccumulateRow)(x, factor, first, y, count);
}
void l2_norm_row(const float* x, const float* scale, float epsilon, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(L2NormRow)(x, scale, epsilon, y, count);
}
void layer_norm_columns(const Columns& columns, const float* scale, const float* bias, float epsilon) {
  HWY_DYNAMIC_DISPATCH(LayerNormColumns)(columns, scale, bias, epsilon);
}
void l2_norm_columns(const Columns& columns, const float* scale, float epsilon) {
  HWY_DYNAMIC_DISPATCH(L2NormColumns)(columns, scale, epsilon);
}
void rotate_row(const float* x, const float* cos, const float* sin, bool interleaved, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(RotateRow)(x, cos, sin, interleaved, y, count);
}

}  // namespace weft::runtime::simd
#endif
