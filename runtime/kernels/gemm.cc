#include "runtime/kernels/gemm.h"

#include <algorithm>

#include "runtime/kernels/float_targets.h"
#include "runtime/thread_pool.h"
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

// The rows of a block, as long as K is, stay in the second cache while all its panels pass; fewer rows than the least
// would have the weights read too often.
constexpr std::size_t kBlockBytes = 1024 * 1024;
constexpr std::size_t kLeastRows = 64, kMostRows = 128;
constexpr std::size_t kBlockPanels = 64;
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

void pack(const PackedShape& shape, const std::byte* source, std::size_t k_stride, std::size_t n_stride,
          std::size_t first, std::size_t last, float* packed) {
  HWY_DYNAMIC_DISPATCH(Pack)(shape, source, k_stride, n_stride, first, last, packed);
}

void multiply(const Product& product, const Block& block) { HWY_DYNAMIC_DISPATCH(MultiplyBlock)(product, block); }

std::vector<Task> schedule(std::span<const Product> products, int threads) {
  std::size_t panels = 0, work = 0, row_blocks = 1;
  for (const Product& product : products) {
    const std::size_t fitting = kBlockBytes / sizeof(float) / std::max<std::size_t>(product.shape.k, 1);
    panels += panel_count(product.shape);
    work += product.rows * product.shape.k * product.shape.n;
    row_blocks = std::max(row_blocks, blocks_of(product.rows, std::clamp(fitting, kLeastRows, kMostRows)));
  }
  std::size_t group = kBlockPanels;
  if (work < kSerialWork) {
    group = panels;
  } else if (threads > 1) {
    const std::size_t wanted = blocks_of(static_cast<std::size_t>(threads) * kBlocksPerThread, row_blocks);
    group = std::clamp<std::size_t>(panels / wanted, 1, kBlockPanels);
  }
  std::vector<Task> tasks;
  for (std::size_t b = 0; b < row_blocks; ++b) {
    for (std::size_t p = 0; p < products.size(); ++p) {
      const std::size_t rows = products[p].rows, own_panels = panel_count(products[p].shape);
      const std::size_t groups = blocks_of(own_panels, std::max<std::size_t>(group, 1));
      for (std::size_t g = 0; g < groups; ++g) {
        tasks.push_back({p,
                         {b * rows / row_blocks, (b + 1) * rows / row_blocks, g * own_panels / groups,
                          (g + 1) * own_panels / groups}});
      }
    }
  }
  return tasks;
}

void multiply(std::span<const Product> products, std::span<const Task> tasks, ThreadPool& pool) {
  pool.parallel_for(tasks.size(), [&](std::size_t i) { multiply(products[tasks[i].product], tasks[i].block); });
}

}  // namespace weft::runtime::gemm
#endif
