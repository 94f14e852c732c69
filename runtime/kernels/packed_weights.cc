// MatMulNBits with constant weights, which stay packed: a panel of columns is decoded block by block into the cache
// while it is multiplied, the same way for one row as for many.
#include <cstring>

#include "ops/op_def.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/parallel.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {
namespace {

enum Input : std::size_t { kA, kB, kScales, kZeros, kGroups, kBias };

constexpr std::size_t kRows = 96;  // of a task

struct PackedBits {
  std::size_t depth = 0, columns = 0, bits = 4, block = 32, blocks = 0, words = 0;  // words of a column
  Tensor values;                                                                    // u32 [panel, word, column]
  std::vector<float> scales, zeros;                                                 // [panel, block, column]
  std::vector<float> bias;

  PackedBits(const AttributeReader& attributes, const Tensor& b) {
    depth = static_cast<std::size_t>(attributes.integer("K"));
    columns = static_cast<std::size_t>(attributes.integer("N"));
    bits = static_cast<std::size_t>(attributes.integer("bits"));
    block = static_cast<std::size_t>(attributes.integer("block_size"));
    blocks = (depth + block - 1) / block;
    words = blocks * block * bits / 32;
    const std::size_t width = tile::panel_columns();
    const std::uint32_t flip = bits == 2 ? 0xAAAAAAAAu : bits == 4 ? 0x88888888u : 0x80808080u;  // the top bit of each
    values = Tensor::zeros(DType::kU32, {static_cast<std::int64_t>(tile::padded_columns(columns) * words)});
    std::uint32_t* to = values.mutable_data<std::uint32_t>().data();
    const std::byte* from = b.bytes().data();
    for (std::size_t n = 0; n < columns; ++n) {
      for (std::size_t w = 0; w < words; ++w) {
        std::uint32_t word;
        std::memcpy(&word, from + (n * words + w) * sizeof word, sizeof word);
        to[(n / width * words + w) * width + n % width] = word ^ flip;
      }
    }
  }

  const std::uint32_t* values_at(std::size_t panel) const {
    return values.data<std::uint32_t>().data() + panel * words * tile::panel_columns();
  }

  // value(n, block) as panels.
  template <class Value>
  std::vector<float> panels(const Value& value) const {
    const std::size_t width = tile::panel_columns();
    std::vector<float> result(tile::padded_columns(columns) * blocks, 0.0f);
    for (std::size_t n = 0; n < columns; ++n) {
      for (std::size_t i = 0; i < blocks; ++i) result[(n / width * blocks + i) * width + n % width] = value(n, i);
    }
    return result;
  }

  void set_zeros(const Tensor& tensor) {
    const auto middle = static_cast<float>(1 << (bits - 1));
    if (tensor.dtype() != DType::kU8) {
      const float* from = tensor.data<float>().data();
      zeros = panels([&](std::size_t n, std::size_t i) { return from[n * blocks + i] - middle; });
      return;
    }
    const std::size_t row = (blocks * bits + 7) / 8, each = 8 / bits;
    const std::uint8_t* from = tensor.data<std::uint8_t>().data();
    zeros = panels([&](std::size_t n, std::size_t i) {
      return static_cast<float>(from[n * row + i / each] >> i % each * bits & ((1u << bits) - 1)) - middle;
    });
  }
};

class BoundPackedWeights final : public BoundKernel {
 public:
  BoundPackedWeights(std::shared_ptr<const PackedBits> weights, const BindContext& context)
      : weights_(std::move(weights)) {
    const Extents& a = context.inputs[kA];
    if (a.empty() || a.back() != static_cast<std::int64_t>(weights_->depth)) {
      fail(ErrorCode::kInvalidModel, "MatMulNBits of {} with K = {}", to_string(a), weights_->depth);
    }
    rows_ = static_cast<std::size_t>(element_count(a)) / weights_->depth;
    workers_ = Workers(*context.pool, tile::block_scratch(std::min(rows_, kRows)));
    if (!weights_->zeros.empty()) sums_.resize(rows_ * weights_->blocks);
  }

  void run(const RunContext& context) override {
    const PackedBits& w = *weights_;
    const float* a = context.in<float>(kA);
    float* y = context.out<float>(0);
    if (!sums_.empty()) {
      context.pool->parallel_for(rows_, [&](std::size_t r) {
        for (std::size_t i = 0; i < w.blocks; ++i) {
          sums_[r * w.blocks + i] =
              tile::sum_of(a + r * w.depth + i * w.block, std::min(w.block, w.depth - i * w.block));
        }
      });
    }
    const std::size_t width = tile::panel_columns(), panels = tile::padded_columns(w.columns) / width;
    const std::size_t together = rows_ == 1 ? tile::kRowPanels : 1, strips = (panels + together - 1) / together;
    workers_.run(*context.pool, (rows_ + kRows - 1) / kRows * strips, [&](std::size_t task, float* scratch) {
      const std::size_t panel = task % strips * together, taken = std::min(together, panels - panel);
      const std::size_t column = panel * width, count = std::min(taken * width, w.columns - column);
      const std::size_t first = task / strips * kRows, rows = std::min(kRows, rows_ - first);
      float* to = y + first * w.columns + column;
      for (std::size_t r = 0; r < rows; ++r) {
        if (w.bias.empty()) {
          std::fill_n(to + r * w.columns, count, 0.0f);
        } else {
          std::copy_n(w.bias.data() + column, count, to + r * w.columns);
        }
      }
      const std::size_t blocks = panel * w.blocks * width;
      tile::BlockProduct product{a + first * w.depth,
                                 w.depth,
                                 rows,
                                 w.depth,
                                 w.values_at(panel),
                                 w.bits,
                                 w.block,
                                 w.scales.data() + blocks,
                                 w.zeros.empty() ? nullptr : w.zeros.data() + blocks,
                                 sums_.empty() ? nullptr : sums_.data() + first * w.blocks,
                                 to,
                                 w.columns,
                                 count,
                                 scratch};
      product.panels = taken;
      product.b_stride = w.words * width;
      product.scales_stride = w.blocks * width;
      tile::multiply(product);
    });
  }

 private:
  std::shared_ptr<const PackedBits> weights_;
  std::size_t rows_ = 0;
  std::vector<float> sums_;  // of the rows' blocks
  Workers workers_;
};

class PackedWeightsKernel final : public Kernel {
 public:
  explicit PackedWeightsKernel(std::shared_ptr<const PackedBits> weights) : weights_(std::move(weights)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundPackedWeights>(weights_, context);
  }
  bool packs_constant(std::size_t input) const override { return input != kA; }

 private:
  std::shared_ptr<const PackedBits> weights_;
};

}  // namespace

std::unique_ptr<Kernel> make_packed_weights_kernel(const Graph& graph, const Node& node) {
  if (node.op != "MatMulNBits" || !input_is(graph, node, kA, DType::kF32) || has_input(node, kGroups)) return nullptr;
  const Tensor *b = constant_input(graph, node, kB), *scales = constant_input(graph, node, kScales);
  const Tensor *zeros = constant_input(graph, node, kZeros), *bias = constant_input(graph, node, kBias);
  if (b == nullptr || b->dtype() != DType::kU8 || scales == nullptr || scales->dtype() != DType::kF32) return nullptr;
  if (has_input(node, kZeros) &&
      (zeros == nullptr || (zeros->dtype() != DType::kU8 && zeros->dtype() != DType::kF32))) {
    return nullptr;
  }
  if (has_input(node, kBias) && (bias == nullptr || bias->dtype() != DType::kF32)) return nullptr;
  auto packed = std::make_shared<PackedBits>(AttributeReader(get_op(node.op), node.attributes), *b);
  const float* from = scales->data<float>().data();
  packed->scales = packed->panels([&](std::size_t n, std::size_t i) { return from[n * packed->blocks + i]; });
  if (zeros != nullptr) packed->set_zeros(*zeros);
  if (bias != nullptr) {
    if (bias->size() != static_cast<std::int64_t>(packed->columns)) {
      fail(ErrorCode::kInvalidModel, "MatMulNBits with a bias of {}", to_string(bias->shape()));
    }
    packed->bias.assign(bias->data<float>().begin(), bias->data<float>().end());
  }
  return std::make_unique<PackedWeightsKernel>(std::move(packed));
}

}  // namespace weft::runtime
