// MaxPool, AveragePool and their global forms of f32 in any number of dimensions: windows are folds over shifted
// planes.
#include "ops/op_def.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/lattice.h"
#include "runtime/kernels/parallel.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {
namespace {

std::span<const std::int64_t> spatial(const Extents& shape) { return std::span(shape).subspan(2); }

class BoundPool final : public BoundKernel {
 public:
  BoundPool(const BindContext& context, const AttributeReader& attributes, const Window& window)
      : maximum_(context.node->op == "MaxPool"),
        lattice_(window, spatial(context.inputs[0]), spatial(context.outputs[0])) {
    const Extents& x = context.inputs[0];
    planes_ = static_cast<std::size_t>(x[0] * x[1]);
    pixels_ = static_cast<std::size_t>(element_count(spatial(x)));
    runs_ = lattice_.runs(0, lattice_.grid_size());
    workers_ = Workers(*context.pool, lattice_.plane_size() + lattice_.grid_size());
    if (!maximum_)
      count_taps(window, spatial(x), spatial(context.outputs[0]), attributes.integer("count_include_pad") != 0);
  }

  void run(const RunContext& context) override {
    workers_.run(*context.pool, planes_, [&](std::size_t plane, float* scratch) {
      pool_plane(context.in<float>(0) + plane * pixels_, context.out<float>(0) + plane * lattice_.output_size(),
                 scratch);
    });
  }

 private:
  void pool_plane(const float* x, float* y, float* scratch) const {
    float* grid = scratch + lattice_.plane_size();
    if (!lattice_.is_plain()) {
      lattice_.lay_out(x, maximum_ ? -std::numeric_limits<float>::infinity() : 0.0f, scratch);
      x = scratch;
    }
    (maximum_ ? tile::largest : tile::total)(x, lattice_.taps(), grid, lattice_.grid_size());
    tile::copy_runs(grid, runs_, -0.0f, y);
    for (std::size_t i = 0; i < taps_.size(); ++i) y[i] /= taps_[i];
  }

  // How many taps of each output lie on the input, or on it and its padding.
  void count_taps(const Window& window, std::span<const std::int64_t> input, std::span<const std::int64_t> output,
                  bool with_padding) {
    taps_ = {1.0f};
    for (std::size_t axis = 0; axis < input.size(); ++axis) {
      std::vector<float> counts;
      for (const float before : taps_) {
        for (std::int64_t o = 0; o < output[axis]; ++o) {
          const std::int64_t start = o * window.strides[axis] - window.pads_begin[axis];
          const auto [first, last] = with_padding ? window.taps_inside(axis, o, std::min<std::int64_t>(start, 0),
                                                                       input[axis] + window.pads_end[axis])
                                                  : window.taps_inside(axis, o, 0, input[axis]);
          counts.push_back(before * static_cast<float>(last - first));
        }
      }
      taps_ = std::move(counts);
    }
  }

  bool maximum_;
  Lattice lattice_;
  std::size_t planes_ = 0, pixels_ = 0;
  std::vector<tile::Run> runs_;
  std::vector<float> taps_;  // of each output; of a maximum none
  Workers workers_;
};

class BoundGlobalPool final : public BoundKernel {
 public:
  explicit BoundGlobalPool(const BindContext& context) : maximum_(context.node->op == "GlobalMaxPool") {
    planes_ = static_cast<std::size_t>(context.inputs[0][0] * context.inputs[0][1]);
    pixels_ = static_cast<std::size_t>(element_count(spatial(context.inputs[0])));
  }
  void run(const RunContext& context) override {
    context.pool->parallel_for(planes_, [&](std::size_t plane) {
      const float* x = context.in<float>(0) + plane * pixels_;
      context.out<float>(0)[plane] =
          maximum_ ? tile::largest_of(x, pixels_) : tile::sum_of(x, pixels_) / static_cast<float>(pixels_);
    });
  }

 private:
  bool maximum_;
  std::size_t planes_ = 0, pixels_ = 0;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class PoolKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    if (context.node->op.starts_with("Global")) return std::make_unique<BoundGlobalPool>(context);
    const AttributeReader attributes(get_op(context.node->op), context.node->attributes);
    const Window window(attributes, attributes.integers("kernel_shape"), spatial(context.inputs[0]));
    return std::make_unique<BoundPool>(context, attributes, window);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_pooling_kernel(const Graph& graph, const Node& node) {
  if (!input_is(graph, node, 0, DType::kF32)) return nullptr;
  const bool known =
      node.op == "MaxPool" || node.op == "AveragePool" || node.op == "GlobalAveragePool" || node.op == "GlobalMaxPool";
  const bool indices = node.outputs.size() > 1 && node.outputs[1].valid();
  return known && !indices ? std::make_unique<PoolKernel>() : nullptr;
}

}  // namespace weft::runtime
