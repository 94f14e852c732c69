// GridSample of f32: where a point reads is found once for all channels.
#include <algorithm>

#include "ops/index_util.h"
#include "ops/resample.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/resample_simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kPoints = 256;  // of a task

class BoundGridSample final : public BoundKernel {
 public:
  explicit BoundGridSample(const BindContext& context)
      : sampler_(AttributeReader(get_op(context.node->op), context.node->attributes),
                 {context.inputs[0].begin() + 2, context.inputs[0].end()}) {
    const Extents &x = context.inputs[0], &grid = context.inputs[1];
    if (grid.size() != x.size() || grid.back() != static_cast<std::int64_t>(x.size()) - 2 || grid[0] != x[0])
      fail(ErrorCode::kInvalidModel, "GridSample of {} at {}", to_string(x), to_string(grid));
    batch_ = static_cast<std::size_t>(x[0]);
    channels_ = static_cast<std::size_t>(x[1]);
    pixels_ = static_cast<std::size_t>(product(x, 2, x.size()));
    points_ = static_cast<std::size_t>(product(grid, 1, grid.size() - 1));
    if (pixels_ > INT32_MAX) fail(ErrorCode::kUnsupported, "GridSample of {} pixels", pixels_);
  }

  void run(const RunContext& context) override {
    float* y = context.out<float>(0);
    if (context.outputs[0]->size() == 0) return;
    if (pixels_ == 0) return std::fill_n(y, context.outputs[0]->size(), 0.0f), void();
    const float* x = context.in<float>(0);
    const float* grid = context.in<float>(1);
    const std::size_t rank = context.inputs[0]->shape().size() - 2, each = sampler_.each();
    const std::size_t blocks = (points_ + kPoints - 1) / kPoints;
    context.pool->parallel_for(batch_ * blocks, [&](std::size_t task) {
      const std::size_t n = task / blocks, first = task % blocks * kPoints, count = std::min(kPoints, points_ - first);
      std::vector<std::int32_t> index(each * count);
      std::vector<float> weight(each * count);
      std::vector<std::int64_t> offsets(each);
      std::vector<double> at(rank), weights(each);
      for (std::size_t i = 0; i < count; ++i) {
        const float* point = grid + (n * points_ + first + i) * rank;
        std::reverse_copy(point, point + rank, at.begin());  // the grid names the last axis first
        sampler_.taps(at, offsets.data(), weights.data());
        for (std::size_t k = 0; k < each; ++k) {
          index[k * count + i] = static_cast<std::int32_t>(offsets[k]);
          weight[k * count + i] = static_cast<float>(weights[k]);
        }
      }
      for (std::size_t c = n * channels_; c < (n + 1) * channels_; ++c)
        resample::weigh(x + c * pixels_, index.data(), weight.data(), each, count, y + c * points_ + first, count);
    });
  }

 private:
  GridSampler sampler_;
  std::size_t batch_ = 0, channels_ = 0, pixels_ = 0, points_ = 0;
};

class GridSampleKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundGridSample>(context);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_grid_sample_kernel(const Graph& graph, const Node& node) {
  if (node.op != "GridSample" || !input_is(graph, node, 0, DType::kF32) || !input_is(graph, node, 1, DType::kF32))
    return nullptr;
  const TensorType& x = graph.value(node.inputs[0]).type;
  return x.shape && x.shape->size() > 2 ? std::make_unique<GridSampleKernel>() : nullptr;
}

}  // namespace weft::runtime
