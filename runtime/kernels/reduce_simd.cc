#include "runtime/kernels/reduce_simd.h"

#include "runtime/kernels/float_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/reduce_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/reduce_simd-inl.h"

#if HWY_ONCE
namespace weft::runtime::reduce {

HWY_EXPORT(Row);
HWY_EXPORT(Columns);
HWY_EXPORT(ExponentsOf);
HWY_EXPORT(MomentsOf);
HWY_EXPORT(Centre);
HWY_EXPORT(Position);
HWY_EXPORT(Positions);
HWY_EXPORT(FindBeyond);

float start(Kind kind) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  switch (kind) {
    case Kind::kProduct: return 1;
    case Kind::kLargest: return -kInfinity;
    case Kind::kSmallest: return kInfinity;
    default: return 0;
  }
}
float row(Kind kind, const float* x, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(Row)(kind, start(kind), x, count);
}
void columns(Kind kind, const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Columns)(kind, start(kind), x, offsets, y, count);
}
Exponents exponents(const float* x, std::size_t count) { return HWY_DYNAMIC_DISPATCH(ExponentsOf)(x, count); }
Moments moments(const float* x, std::size_t count) { return HWY_DYNAMIC_DISPATCH(MomentsOf)(x, count); }
void centre(const float* x, float mean, float factor, float shift, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Centre)(x, mean, factor, shift, y, count);
}
std::int64_t position(Extreme extreme, const float* x, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(Position)(extreme, x, count);
}
void positions(Extreme extreme, const float* x, std::size_t rows, std::size_t stride, std::int64_t* y,
               std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Positions)(extreme, x, rows, stride, y, count);
}
std::size_t find_beyond(bool above, float bound, const float* x, std::size_t first, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(FindBeyond)(above, bound, x, first, count);
}

}  // namespace weft::runtime::reduce
#endif
