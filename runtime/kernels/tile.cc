#include "runtime/kernels/tile.h"

#include <algorithm>
#include <limits>

// Products of bytes have instructions from AVX3_DL on; nothing here needs those beyond.
#define HWY_WANT_AVX3_DL
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/tile.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/tile-inl.h"
#include "runtime/kernels/tile_bits-inl.h"
#include "runtime/kernels/tile_windows-inl.h"

#if HWY_ONCE
namespace weft::runtime::tile {

HWY_EXPORT(PanelColumns);
HWY_EXPORT(MultiplyFloats);
HWY_EXPORT(MultiplyIntegers);
HWY_EXPORT(MultiplyScaled);
HWY_EXPORT(PackRows);
HWY_EXPORT(CopyRuns);
HWY_EXPORT(CopyRows);
HWY_EXPORT(Correlate);
HWY_EXPORT(CorrelatePlane);
HWY_EXPORT(Largest);
HWY_EXPORT(Total);
HWY_EXPORT(SumOf);
HWY_EXPORT(LargestOf);
HWY_EXPORT(SmallestOf);
HWY_EXPORT(PackByteRows);
HWY_EXPORT(SubtractProducts);
HWY_EXPORT(SumOfBytes);
HWY_EXPORT(MultiplyPacked);

std::size_t panel_columns() { return HWY_DYNAMIC_DISPATCH(PanelColumns)(); }
void multiply(const Product& product) { HWY_DYNAMIC_DISPATCH(MultiplyFloats)(product); }
void multiply(const IntegerProduct& product) { HWY_DYNAMIC_DISPATCH(MultiplyIntegers)(product); }
void multiply(const ScaledProduct& product) { HWY_DYNAMIC_DISPATCH(MultiplyScaled)(product); }

void pack_rows(const float* x, std::span<const std::ptrdiff_t> offsets, std::size_t columns, float* panels,
               std::size_t stride) {
  HWY_DYNAMIC_DISPATCH(PackRows)(x, offsets, columns, panels, stride);
}

void copy_runs(const float* x, std::span<const Run> runs, float value, float* y) {
  HWY_DYNAMIC_DISPATCH(CopyRuns)(x, runs, value, y);
}
void copy_rows(const float* x, std::size_t x_stride, std::size_t step, float* y, std::size_t y_stride, std::size_t rows,
               std::size_t count) {
  HWY_DYNAMIC_DISPATCH(CopyRows)(x, x_stride, step, y, y_stride, rows, count);
}
void correlate(const float* x, std::span<const std::ptrdiff_t> offsets, const float* weights, float bias, float* y,
               std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Correlate)(x, offsets, weights, bias, y, count);
}
void correlate_plane(const PlaneWindow& window) { HWY_DYNAMIC_DISPATCH(CorrelatePlane)(window); }
void largest(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Largest)(x, offsets, y, count);
}
void total(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Total)(x, offsets, y, count);
}
float sum_of(const float* x, std::size_t count) { return HWY_DYNAMIC_DISPATCH(SumOf)(x, count); }
float largest_of(const float* x, std::size_t count) { return HWY_DYNAMIC_DISPATCH(LargestOf)(x, count); }
float smallest_of(const float* x, std::size_t count) { return HWY_DYNAMIC_DISPATCH(SmallestOf)(x, count); }

void pack_rows(const std::uint8_t* x, std::span<const std::ptrdiff_t> offsets, std::uint8_t flip, std::size_t columns,
               std::int8_t* panels, std::size_t stride, std::int32_t* sums) {
  HWY_DYNAMIC_DISPATCH(PackByteRows)(x, offsets, flip, columns, panels, stride, sums);
}
void subtract_products(std::int32_t a, const std::int32_t* x, std::int32_t b, const std::int32_t* z, std::int32_t* y,
                       std::size_t count) {
  HWY_DYNAMIC_DISPATCH(SubtractProducts)(a, x, b, z, y, count);
}
std::int32_t sum_of(const std::uint8_t* x, std::size_t count) { return HWY_DYNAMIC_DISPATCH(SumOfBytes)(x, count); }
std::size_t block_scratch(std::size_t rows) { return (64 + rows) * kMostColumns; }
void multiply(const BlockProduct& product) { HWY_DYNAMIC_DISPATCH(MultiplyPacked)(product); }

}  // namespace weft::runtime::tile
#endif
