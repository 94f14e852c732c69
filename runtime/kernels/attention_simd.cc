#include "runtime/kernels/attention_simd.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/kernels/float_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/attention_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/attention_simd-inl.h"

#if HWY_ONCE
namespace weft::runtime::simd {

HWY_EXPORT(Attend);
HWY_EXPORT(FinishAttention);
HWY_EXPORT(StoreBlock);

std::size_t attention_scratch(std::size_t size, std::size_t value_size) {
  const std::size_t wide = (value_size + kPanelKeys - 1) / kPanelKeys * kPanelKeys;
  // Queries, keys, values, scores, results, sums, and one tile of rows taken from several places.
  return (kTaskRows + 16) * size + kChunkKeys * (size + wide) + (kTaskRows + 16) * kChunkKeys +
         (kTaskRows + 16) * wide + kTaskRows * (kPanelKeys + 3) + 64;
}
std::size_t attention_partial(std::size_t value_size) {
  return (value_size + kPanelKeys - 1) / kPanelKeys * kPanelKeys + kPanelKeys;
}
void attend(const AttentionTask& task) { HWY_DYNAMIC_DISPATCH(Attend)(task); }
void finish_attention(const AttentionTask& task, const AttentionRow& row, const float* partials, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(FinishAttention)(task, row, partials, count);
}
void store_keys(const float* keys, std::size_t stride, std::size_t count, std::size_t size, Element element,
                std::byte* block, std::size_t at) {
  HWY_DYNAMIC_DISPATCH(StoreBlock)(keys, stride, count, size, element, block, at);
}

}  // namespace weft::runtime::simd
#endif
