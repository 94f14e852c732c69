// ConvInteger and QLinearConv: exact sums of products of bytes, on the same lattice as the convolutions of f32. Weights
// are the rows of the product, shifted images its panels; those of one channel each go as f32, where they are exact.
#include <algorithm>
#include <optional>

#include "ops/convolution.h"
#include "ops/op_def.h"
#include "runtime/kernels/channel_convolution.h"
#include "runtime/kernels/constants.h"
#include "runtime/kernels/convert.h"
#include "runtime/kernels/integer_product.h"
#include "runtime/kernels/lattice.h"
#include "runtime/kernels/parallel.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kPixels = 128;  // grid points of a task
constexpr std::size_t kOutputs = 96;  // output channels of a task

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kI8; }
const std::uint8_t* bytes_of(const Tensor& tensor) {
  return reinterpret_cast<const std::uint8_t*>(tensor.bytes().data());
}
std::span<const std::int64_t> spatial(const Extents& shape) { return std::span(shape).subspan(2); }

// Where the inputs of an operator are; kNone where it has none.
constexpr std::size_t kNone = SIZE_MAX;
struct Places {
  std::size_t x, w, x_zero, w_zero, x_scale = kNone, w_scale = kNone, y_scale = kNone, y_zero = kNone, bias = kNone;
};
constexpr Places kInteger{0, 1, 2, 3};
constexpr Places kLinear{0, 3, 2, 5, 1, 4, 6, 7, 8};

Window window_of(const BindContext& context, const Places& places) {
  const Extents& w = context.inputs[places.w];
  return {AttributeReader(get_op(context.node->op), context.node->attributes),
          {w.begin() + 2, w.end()},
          spatial(context.inputs[places.x])};
}

class BoundIntegerConvolution final : public BoundKernel {
 public:
  BoundIntegerConvolution(const Places& places, bool constant_weights, const BindContext& context)
      : places_(places),
        constant_weights_(constant_weights),
        lattice_(window_of(context, places), spatial(context.inputs[places.x]), spatial(context.outputs[0])) {
    const Extents &x = context.inputs[places.x], &w = context.inputs[places.w];
    const std::int64_t groups = AttributeReader(get_op(context.node->op), context.node->attributes).integer("group");
    const bool biased = places.bias < context.inputs.size() && has_input(*context.node, places.bias);
    if (!groups_fit(groups, x[1], w) || (biased && context.inputs[places.bias] != Extents{w[0]})) {
      fail(ErrorCode::kInvalidModel, "{} of {} by {} in {} groups", context.node->op, to_string(x), to_string(w),
           groups);
    }
    batch_ = static_cast<std::size_t>(x[0]);
    channels_ = static_cast<std::size_t>(x[1]);
    outputs_ = static_cast<std::size_t>(w[0]);
    groups_ = static_cast<std::size_t>(groups);
    pixels_ = static_cast<std::size_t>(element_count(spatial(x)));
    // Sums of so few products of differences of bytes are exact in f32.
    constexpr std::size_t kExact = (1 << 24) / (255 * 255);
    if (groups_ > 1 && channels_ == groups_ && lattice_.taps().size() <= kExact) {
      channel_.emplace(window_of(context, places), spatial(x), spatial(context.outputs[0]));
      workers_ = Workers(*context.pool, pixels_ + channel_->output_size() * 2 + channel_->scratch_size());
      depth_ = lattice_.taps().size();
      return;
    }
    plane_ = lattice_.is_plain() ? pixels_ : lattice_.plane_size();
    for (std::size_t c = 0; c < channels_ / groups_; ++c) {
      for (const std::ptrdiff_t tap : lattice_.taps()) rows_.push_back(static_cast<std::ptrdiff_t>(c * plane_) + tap);
    }
    depth_ = (rows_.size() + 3) / 4 * 4;
    if (!lattice_.is_plain()) {
      check_size(DType::kU8, Extents{x[1], static_cast<std::int64_t>(plane_)});
      planes_.resize(channels_ * plane_);
    }
    // Of a task, in units of four bytes: panels, sums of their columns, zero points, products, floats.
    panel_words_ = depth_ / 4 * tile::padded_columns(kPixels);
    workers_ = Workers(*context.pool, panel_words_ + kPixels * (kOutputs + 4));
  }

  void run(const RunContext& context) override {
    read(context);
    const Tensor& x = *context.inputs[places_.x];
    if (channel_) return run_channels(context);
    const std::size_t group_outputs = outputs_ / groups_;
    const std::size_t columns = (lattice_.grid_size() + kPixels - 1) / kPixels;
    const std::size_t strips = (group_outputs + kOutputs - 1) / kOutputs;
    for (std::size_t n = 0; n < batch_; ++n) {
      const std::uint8_t* planes = bytes_of(x) + n * channels_ * pixels_;
      if (!lattice_.is_plain()) {
        context.pool->parallel_for(channels_, [&](std::size_t c) {
          lattice_.lay_out(planes + c * pixels_, fill_, planes_.data() + c * plane_);
        });
        planes = planes_.data();
      }
      workers_.run(*context.pool, groups_ * columns * strips, [&](std::size_t task, float* scratch) {
        const std::size_t strip = task % strips, column = task / strips % columns, group = task / strips / columns;
        const std::size_t first = column * kPixels, output = group * group_outputs + strip * kOutputs;
        multiply(context, n, planes + group * (channels_ / groups_) * plane_ + first, first,
                 std::min(kPixels, lattice_.grid_size() - first), output,
                 std::min(kOutputs, group_outputs - strip * kOutputs), reinterpret_cast<std::int32_t*>(scratch));
      });
    }
  }

 private:
  const Tensor* input(const RunContext& context, std::size_t i) const {
    return i < context.inputs.size() ? context.inputs[i] : nullptr;
  }

  // Zero points, scales and shifted weights.
  void read(const RunContext& context) {
    const Tensor &x = *context.inputs[places_.x], &w = *context.inputs[places_.w];
    const std::vector<std::int32_t> zero = zero_points(input(context, places_.x_zero));
    if (zero.size() != 1) fail(ErrorCode::kInvalidModel, "{} zero points of a convolution's input", zero.size());
    fill_ = static_cast<std::uint8_t>(zero[0]);
    flip_ = x.dtype() == DType::kU8 ? 0x80 : 0;
    x_zero_ = zero[0] - (flip_ != 0 ? 128 : 0);
    if (places_.y_scale != kNone) {
      scales_ = per_output(std::vector<float>(context.inputs[places_.w_scale]->data<float>().begin(),
                                              context.inputs[places_.w_scale]->data<float>().end()));
      for (float& scale : scales_) scale = static_cast<float>(context.inputs[places_.x_scale]->item()) * scale;
    }
    if (constant_weights_ && !(weights_.empty() && real_weights_.empty())) return;
    w_zeros_ = per_output(zero_points(input(context, places_.w_zero)));
    if (channel_) return read_channels(w);
    weights_.assign(outputs_ * depth_, 0);
    w_sums_.assign(outputs_, 0);
    const std::uint8_t flip = w.dtype() == DType::kI8 ? 0x80 : 0;
    for (std::size_t m = 0; m < outputs_; ++m) {
      if (flip != 0) w_zeros_[m] += 128;
      for (std::size_t k = 0; k < rows_.size(); ++k) {
        weights_[m * depth_ + k] = bytes_of(w)[m * rows_.size() + k] ^ flip;
        w_sums_[m] += weights_[m * depth_ + k] - w_zeros_[m];
      }
    }
  }

  void read_channels(const Tensor& w) {
    real_weights_.resize(outputs_ * depth_);
    for (std::size_t m = 0; m < outputs_; ++m) {
      convert::dequantize(bytes_of(w) + m * depth_, w.dtype() == DType::kI8, w_zeros_[m], 1.0f,
                          real_weights_.data() + m * depth_, depth_);
    }
  }

  void run_channels(const RunContext& context) {
    const Tensor& x = *context.inputs[places_.x];
    const std::size_t each = outputs_ / groups_, size = channel_->output_size(), together = channel_->together();
    const std::size_t all = batch_ * channels_;
    const tile::Run whole = {0, 0, size};
    workers_.run(*context.pool, (all + together - 1) / together, [&](std::size_t task, float* scratch) {
      float *plane = scratch, *real = plane + pixels_, *space = real + 2 * size;
      auto* sums = reinterpret_cast<std::int32_t*>(real + size);
      for (std::size_t n = task * together; n < std::min(all, (task + 1) * together); ++n) {
        convert::dequantize(bytes_of(x) + n * pixels_, x.dtype() == DType::kI8, x_zero_ + (flip_ != 0 ? 128 : 0), 1.0f,
                            plane, pixels_);
        for (std::size_t m = 0; m < each; ++m) {
          const std::size_t output = n % channels_ * each + m;
          channel_->run(plane, real_weights_.data() + output * depth_, nullptr, 1, real, space);
          for (std::size_t i = 0; i < size; ++i) sums[i] = static_cast<std::int32_t>(real[i]);
          store(context, sums, {&whole, 1}, n * each + m, output, size, real);
        }
      }
    });
  }

  template <class T>
  std::vector<T> per_output(std::vector<T> values) const {
    if (values.size() == 1) values.assign(outputs_, values[0]);
    if (values.size() != outputs_) fail(ErrorCode::kInvalidModel, "{} values for {} channels", values.size(), outputs_);
    return values;
  }

  // Outputs [output, output + rows) at `count` grid points of image n; x is where the first lies.
  void multiply(const RunContext& context, std::size_t n, const std::uint8_t* x, std::size_t first, std::size_t count,
                std::size_t output, std::size_t rows, std::int32_t* scratch) const {
    auto* panels = reinterpret_cast<std::int8_t*>(scratch);
    std::int32_t* column_sums = scratch + panel_words_;
    std::int32_t* zeros = column_sums + kPixels;
    std::int32_t* products = zeros + kPixels;
    const std::size_t panel = depth_ * tile::panel_columns();
    tile::pack_rows(x, rows_, flip_, count, panels, panel, column_sums);
    std::fill_n(zeros, count, x_zero_);
    tile::multiply(tile::IntegerProduct{
        {weights_.data() + output * depth_, depth_, rows, depth_, panels, panel}, products, kPixels, count});
    const std::vector<tile::Run> runs = lattice_.runs(first, count);
    for (std::size_t r = 0; r < rows; ++r) {
      std::int32_t* row = products + r * kPixels;
      tile::subtract_products(w_zeros_[output + r], column_sums, w_sums_[output + r], zeros, row, count);
      store(context, row, runs, n * outputs_ + output + r, output + r, count,
            reinterpret_cast<float*>(products + rows * kPixels));
    }
  }

  void store(const RunContext& context, std::int32_t* sums, std::span<const tile::Run> runs, std::size_t plane,
             std::size_t output, std::size_t count, float* real) const {
    Tensor& y = *context.outputs[0];
    if (places_.y_scale == kNone) {
      std::int32_t* to = y.mutable_data<std::int32_t>().data() + plane * lattice_.output_size();
      for (const tile::Run& run : runs) std::copy_n(sums + run.from, run.count, to + run.to);
      return;
    }
    const Tensor* bias = input(context, places_.bias);
    const std::int32_t added = bias != nullptr ? bias->data<std::int32_t>()[output] : 0;
    convert::dequantize(sums, -added, scales_[output], real, count);
    auto* quantized = reinterpret_cast<std::uint8_t*>(sums);
    convert::quantize(real, static_cast<float>(context.inputs[places_.y_scale]->item()),
                      static_cast<std::int32_t>(context.inputs[places_.y_zero]->item()), y.dtype() == DType::kI8,
                      quantized, count);
    auto* to = reinterpret_cast<std::uint8_t*>(y.mutable_bytes().data()) + plane * lattice_.output_size();
    for (const tile::Run& run : runs) std::copy_n(quantized + run.from, run.count, to + run.to);
  }

  Places places_;
  bool constant_weights_;
  Lattice lattice_;
  std::size_t batch_ = 0, channels_ = 0, outputs_ = 0, groups_ = 1, pixels_ = 0, plane_ = 0, depth_ = 0,
              panel_words_ = 0;
  std::vector<std::ptrdiff_t> rows_;
  std::vector<std::uint8_t> planes_, weights_;  // of one image; [output, depth_]
  std::vector<std::int32_t> w_zeros_, w_sums_;  // of each output; sums less zero points
  std::vector<float> scales_;                   // x_scale times w_scale
  std::uint8_t fill_ = 0, flip_ = 0;
  std::int32_t x_zero_ = 0;
  std::optional<ChannelConvolution> channel_;  // where each has one input channel
  std::vector<float> real_weights_;            // its weights less zero points
  Workers workers_;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class IntegerConvolutionKernel final : public Kernel {
 public:
  IntegerConvolutionKernel(const Places& places, bool constant_weights)
      : places_(places), constant_weights_(constant_weights) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundIntegerConvolution>(places_, constant_weights_, context);
  }

 private:
  Places places_;
  bool constant_weights_;
};

}  // namespace

std::unique_ptr<Kernel> make_integer_convolution_kernel(const Graph& graph, const Node& node) {
  if (node.op != "ConvInteger" && node.op != "QLinearConv") return nullptr;
  const bool linear = node.op == "QLinearConv";
  const Places& places = linear ? kLinear : kInteger;
  const auto type = [&](std::size_t i) -> const TensorType& { return graph.value(node.inputs[i]).type; };
  for (const std::size_t i : {places.x, places.w}) {
    if (!is_byte(type(i).dtype) || !type(i).shape || type(i).shape->size() < 3) return nullptr;
  }
  if (linear) {
    for (const std::size_t i : {places.x_scale, places.w_scale, places.y_scale}) {
      if (type(i).dtype != DType::kF32) return nullptr;
    }
    for (const std::size_t i : {places.x_scale, places.y_scale, places.y_zero}) {
      if (!type(i).shape || !(element_count(*type(i).shape) == Dim(1))) return nullptr;
    }
    if (!is_byte(type(places.y_zero).dtype)) return nullptr;
  }
  // Shapes that inference leaves open are bound when they are known.
  const bool constant = constant_input(graph, node, places.w) != nullptr &&
                        (!has_input(node, places.w_zero) || constant_input(graph, node, places.w_zero) != nullptr);
  return std::make_unique<IntegerConvolutionKernel>(places, constant);
}

}  // namespace weft::runtime
