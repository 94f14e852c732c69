// Conv of f32 in any number of dimensions, on tiles of matrix products: weights by a lattice of the
// input (lattice.h), so that nothing is copied per tap but the panel in use. Convolutions of one channel each: see
// channel_convolution.h.
#include "ops/convolution.h"

#include <algorithm>

#include "ops/op_def.h"
#include "runtime/kernels/channel_convolution.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/lattice.h"
#include "runtime/kernels/parallel.h"
#include "runtime/kernels/tile.h"
#include "runtime/kernels/transposed_convolution.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kPixels = 128;  // grid points of a task
constexpr std::size_t kOutputs = 96;  // output channels of a task
constexpr std::size_t kDepth = 256;   // taps times channels packed at a time

std::int64_t group_count(const Node& node) {
  return AttributeReader(get_op(node.op), node.attributes).integer("group");
}

std::span<const std::int64_t> spatial(const Extents& shape) { return std::span(shape).subspan(2); }

Window window_of(const BindContext& context) {
  const Extents& w = context.inputs[1];
  return {AttributeReader(get_op(context.node->op), context.node->attributes),
          {w.begin() + 2, w.end()},
          spatial(context.inputs[0])};
}

// Extents of a convolution.
struct Sizes {
  std::size_t batch, channels, outputs, groups, pixels;

  explicit Sizes(const BindContext& context) {
    const Extents& x = context.inputs[0];
    const Extents& w = context.inputs[1];
    const std::int64_t given = group_count(*context.node);
    if (!groups_fit(given, x[1], w)) {
      fail(ErrorCode::kInvalidModel, "Conv of {} by {} in {} groups", to_string(x), to_string(w), given);
    }
    batch = static_cast<std::size_t>(x[0]);
    channels = static_cast<std::size_t>(x[1]);
    outputs = static_cast<std::size_t>(w[0]);
    groups = static_cast<std::size_t>(given);
    pixels = static_cast<std::size_t>(element_count(spatial(x)));
  }
};

const float* bias_of(const RunContext& context) {
  return context.inputs.size() > 2 && context.inputs[2] != nullptr ? context.in<float>(2) : nullptr;
}

// One input channel to a group.
class BoundChannelConvolution final : public BoundKernel {
 public:
  BoundChannelConvolution(const BindContext& context, const Sizes& sizes)
      : sizes_(sizes),
        convolution_(window_of(context), spatial(context.inputs[0]), spatial(context.outputs[0])),
        workers_(*context.pool, convolution_.scratch_size()) {}

  void run(const RunContext& context) override {
    const float *x = context.in<float>(0), *w = context.in<float>(1), *bias = bias_of(context);
    float* y = context.out<float>(0);
    const std::size_t each = sizes_.outputs / sizes_.groups, size = convolution_.output_size();
    const std::size_t all = sizes_.batch * sizes_.channels, together = convolution_.together();
    workers_.run(*context.pool, (all + together - 1) / together, [&](std::size_t task, float* scratch) {
      for (std::size_t n = task * together; n < std::min(all, (task + 1) * together); ++n) {
        const std::size_t first = n % sizes_.channels * each;
        convolution_.run(x + n * sizes_.pixels, w + first * convolution_.taps(),
                         bias != nullptr ? bias + first : nullptr, each, y + n * each * size, scratch);
      }
    });
  }

 private:
  Sizes sizes_;
  ChannelConvolution convolution_;
  Workers workers_;
};

class BoundConvolution final : public BoundKernel {
 public:
  BoundConvolution(const BindContext& context, const Sizes& sizes)
      : lattice_(window_of(context), spatial(context.inputs[0]), spatial(context.outputs[0])),
        batch_(sizes.batch),
        channels_(sizes.channels),
        outputs_(sizes.outputs),
        groups_(sizes.groups),
        pixels_(sizes.pixels),
        group_inputs_(channels_ / groups_),
        group_outputs_(outputs_ / groups_) {
    for (std::size_t c = 0; c < group_inputs_; ++c) {
      for (const std::ptrdiff_t tap : lattice_.taps()) {
        rows_.push_back(static_cast<std::ptrdiff_t>(c * plane_size()) + tap);
      }
    }
    if (!lattice_.is_plain()) {
      planes_ =
          Tensor::uninitialized(DType::kF32, {context.inputs[0][1], static_cast<std::int64_t>(lattice_.plane_size())});
    }
    workers_ = Workers(*context.pool, kDepth * tile::padded_columns(kPixels) + kOutputs * kPixels);
  }

  void run(const RunContext& context) override {
    const float* bias = bias_of(context);
    const float* w = context.in<float>(1);
    const std::size_t out_size = lattice_.output_size();
    for (std::size_t n = 0; n < batch_; ++n) {
      const float* x = context.in<float>(0) + n * channels_ * pixels_;
      multiply(lattice_.is_plain() ? x : lay_out(x, *context.pool), w, bias,
               context.out<float>(0) + n * outputs_ * out_size, *context.pool);
    }
  }

 private:
  std::size_t plane_size() const { return lattice_.is_plain() ? pixels_ : lattice_.plane_size(); }

  const float* lay_out(const float* x, ThreadPool& pool) {
    float* planes = planes_.mutable_data<float>().data();
    pool.parallel_for(
        channels_, [&](std::size_t c) { lattice_.lay_out(x + c * pixels_, 0.0f, planes + c * lattice_.plane_size()); });
    return planes;
  }

  // One image.
  void multiply(const float* planes, const float* w, const float* bias, float* y, ThreadPool& pool) {
    const std::size_t columns = (lattice_.grid_size() + kPixels - 1) / kPixels;
    const std::size_t strips = (group_outputs_ + kOutputs - 1) / kOutputs;
    workers_.run(pool, groups_ * columns * strips, [&](std::size_t task, float* scratch) {
      const std::size_t strip = task % strips, column = task / strips % columns, group = task / strips / columns;
      const std::size_t first = column * kPixels, count = std::min(kPixels, lattice_.grid_size() - first);
      const std::size_t output = group * group_outputs_ + strip * kOutputs;
      const std::size_t rows = std::min(kOutputs, group_outputs_ - strip * kOutputs);
      float* sums = scratch + kDepth * tile::padded_columns(kPixels);
      multiply_tile(planes + group * group_inputs_ * plane_size() + first, w + output * rows_.size(), rows, count,
                    scratch, sums);
      const std::vector<tile::Run> runs = lattice_.runs(first, count);
      for (std::size_t r = 0; r < rows; ++r) {
        tile::copy_runs(sums + r * kPixels, runs, bias != nullptr ? bias[output + r] : -0.0f,
                        y + (output + r) * lattice_.output_size());
      }
    });
  }

  void multiply_tile(const float* x, const float* w, std::size_t rows, std::size_t count, float* panels,
                     float* sums) const {
    const std::size_t panel = kDepth * tile::panel_columns();
    for (std::size_t k = 0; k < rows_.size(); k += kDepth) {
      const std::size_t depth = std::min(kDepth, rows_.size() - k);
      tile::pack_rows(x, std::span(rows_).subspan(k, depth), count, panels, panel);
      tile::multiply(tile::Product{w + k, rows_.size(), rows, depth, panels, tile::panel_columns(), panel, sums,
                                   kPixels, count, k > 0});
    }
  }

  Lattice lattice_;
  std::size_t batch_ = 0, channels_ = 0, outputs_ = 0, groups_ = 1, pixels_ = 0, group_inputs_ = 0, group_outputs_ = 0;
  std::vector<std::ptrdiff_t> rows_;  // of the matrix that weights multiply: offsets from the planes of a group
  Tensor planes_;                     // of one image
  Workers workers_;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class ConvolutionKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    const Sizes sizes(context);
    if (sizes.groups > 1 && sizes.channels == sizes.groups)
      return std::make_unique<BoundChannelConvolution>(context, sizes);
    return std::make_unique<BoundConvolution>(context, sizes);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_convolution_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Conv" && node.op != "ConvTranspose") return nullptr;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (has_input(node, i) && !input_is(graph, node, i, DType::kF32)) return nullptr;
  }
  if (node.op == "ConvTranspose") return make_transposed_convolution_kernel(constant_input(graph, node, 1) != nullptr);
  return std::make_unique<ConvolutionKernel>();
}

}  // namespace weft::runtime
