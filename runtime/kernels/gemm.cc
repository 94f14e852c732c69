#include "runtime/kernels/gemm.h"

#include <algorithm>

#include "runtime/thread_pool.h"

// Later instruction sets add nothing to f32 products, earlier ones have the kernels of SSE2.
#define HWY_DISABLED_TARGETS (HWY_AVX3_SPR | HWY_AVX3_ZEN4 | HWY_AVX3_DL | HWY_SSE4 | HWY_SSSE3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/gemm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/kernels/gemm-inl.h"

#if HWY_ONCE
namespace weft::runtime::gemm {

HWY_EXPORT(PanelColumns);
HWY_EXPORT(VectorColumns);
HWY_EXPORT(Pack);
HWY_EXPORT(MultiplyBlock);

namespace {

constexpr std::size_t kBlockRows = 256;
constexpr std::size_t kBlockPanels = 8;
// So many blocks a thread let one that was held up be helped out.
constexpr std::size_t kBlocksPerThread = 4;
// Below this many multiplications handing work to other threads costs more than it saves.
constexpr std::size_t kSerialWork = 64 * 1024;

std::size_t blocks_of(std::size_t count, std::size_t size) { return (count + size - 1) / size; }

}  // namespace

std::size_t panel_columns() { return HWY_DYNAMIC_DISPATCH(PanelColumns)(); }
std::size_t panel_count(const PackedShape& shape) { return blocks_of(shape.n, panel_columns()); }

std::size_t packed_size(const PackedShape& shape) {
  const std::size_t lanes = HWY_DYNAMIC_DISPATCH(VectorColumns)();
  return shape.k * (blocks_of(shape.n, lanes) * lanes);
}

void pack(const PackedShape& shape, const float* source, std::size_t k_stride, std::size_t n_stride, std::size_t first,
          std::size_t last, float* packed) {
  HWY_DYNAMIC_DISPATCH(Pack)(shape, source, k_stride, n_stride, first, last, packed);
}

void multiply_block(const Product& product, const Block& block) { HWY_DYNAMIC_DISPATCH(MultiplyBlock)(product, block); }

void multiply(const Product& product, ThreadPool& pool) {
  const std::size_t panels = panel_count(product.shape);
  const auto threads = static_cast<std::size_t>(pool.threads());
  const std::size_t row_blocks = blocks_of(product.rows, kBlockRows);
  std::size_t group_size = kBlockPanels;
  if (threads > 1) {
    if (product.rows * product.shape.k * product.shape.n < kSerialWork) {
      return multiply_block(product, {0, product.rows, 0, panels});
    }
    const std::size_t wanted = blocks_of(threads * kBlocksPerThread, row_blocks);
    group_size = std::clamp<std::size_t>(panels / wanted, 1, kBlockPanels);
  }
  const std::size_t groups = blocks_of(panels, group_size);
  pool.parallel_for(row_blocks * groups, [&](std::size_t i) {
    const std::size_t group = i / row_blocks;
    const std::size_t block = i % row_blocks;
    multiply_block(product, {block * product.rows / row_blocks, (block + 1) * product.rows / row_blocks,
                             group * panels / groups, (group + 1) * panels / groups});
  });
}

}  // namespace weft::runtime::gemm
#endif
