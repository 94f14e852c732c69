// The products of all weights with a block of pixels, then each is added where its tap lies. A task has output channels
// of its own, so every output is summed by one thread, in one order.
#include "runtime/kernels/transposed_convolution.h"

#include <algorithm>
#include <optional>

#include "ops/convolution.h"
#include "ops/op_def.h"
#include "runtime/kernels/parallel.h"
#include "runtime/kernels/strided_copy.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kPixels = 128;   // multiplied at a time
constexpr std::size_t kProducts = 96;  // rows of products of a task, at least one channel's
constexpr std::size_t kDepth = 256;

std::span<const std::int64_t> spatial(const Extents& shape) { return std::span(shape).subspan(2); }

class BoundTransposedConvolution final : public BoundKernel {
 public:
  BoundTransposedConvolution(bool constant_weights, const BindContext& context)
      : constant_weights_(constant_weights),
        input_(spatial(context.inputs[0]).begin(), spatial(context.inputs[0]).end()),
        output_(spatial(context.outputs[0]).begin(), spatial(context.outputs[0]).end()) {
    const Extents &x = context.inputs[0], &w = context.inputs[1];
    const AttributeReader attributes(get_op(context.node->op), context.node->attributes);
    kernel_.assign(w.begin() + 2, w.end());
    const TransposedExtents extents = transposed_extents(attributes, input_, kernel_);
    const std::int64_t groups = attributes.integer("group");
    if (w[0] != x[1] || groups < 1 || x[1] % groups != 0 || extents.output != output_) {
      fail(ErrorCode::kInvalidModel, "ConvTranspose of {} by {}", to_string(x), to_string(w));
    }
    pads_ = extents.pads_begin;
    const auto list = [&](std::string_view name) {
      return attributes.has(name) ? attributes.integers(name) : Extents(input_.size(), 1);
    };
    strides_ = list("strides");
    dilations_ = list("dilations");
    batch_ = static_cast<std::size_t>(x[0]);
    groups_ = static_cast<std::size_t>(groups);
    depth_ = static_cast<std::size_t>(x[1]) / groups_;
    channels_ = static_cast<std::size_t>(w[1]);
    taps_ = static_cast<std::size_t>(element_count(kernel_));
    pixels_ = static_cast<std::size_t>(element_count(input_));
    out_pixels_ = static_cast<std::size_t>(element_count(output_));
    together_ = std::clamp<std::size_t>(kProducts / taps_, 1, std::max<std::size_t>(channels_, 1));
    for (std::size_t k = 0; k < depth_; ++k) rows_.push_back(static_cast<std::ptrdiff_t>(k * pixels_));
    phases_ = static_cast<std::size_t>(std::min(strides_.back(), output_.back()));
    phase_width_ = (static_cast<std::size_t>(output_.back()) + phases_ - 1) / phases_;
  }

  void run(const RunContext& context) override {
    if (!workers_) {  // not before the outputs have their memory, which may be refused
      workers_.emplace(*context.pool, kDepth * tile::padded_columns(kPixels) + together_ * taps_ * kPixels +
                                          (phases_ > 1 ? together_ * plane_size() : 0));
    }
    if (!constant_weights_ || weights_.empty()) transpose(context.in<float>(1), *context.pool);
    const float* bias = context.inputs.size() > 2 && context.inputs[2] != nullptr ? context.in<float>(2) : nullptr;
    const std::size_t blocks = (channels_ + together_ - 1) / together_;
    workers_->run(*context.pool, batch_ * groups_ * blocks, [&](std::size_t task, float* scratch) {
      const std::size_t block = task % blocks, group = task / blocks % groups_, n = task / blocks / groups_;
      const std::size_t first = block * together_, count = std::min(together_, channels_ - first);
      float* y = context.out<float>(0) + ((n * groups_ + group) * channels_ + first) * out_pixels_;
      float* planes = y;
      if (phases_ > 1) {
        planes = scratch;
        scratch += together_ * plane_size();
      }
      for (std::size_t m = 0; m < count; ++m) {
        const float start = bias != nullptr ? bias[group * channels_ + first + m] : 0.0f;
        std::fill_n(planes + m * plane_size(), plane_size(), start);
      }
      multiply(context.in<float>(0) + (n * groups_ + group) * depth_ * pixels_,
               weights_.data() + (group * channels_ + first) * taps_ * depth_, count * taps_, scratch, planes);
      if (phases_ > 1) interleave(planes, count * out_pixels_ / static_cast<std::size_t>(output_.back()), y);
    });
  }

 private:
  // Sums of one channel: each row of the output as its phases, the elements that are a stride apart beside each other.
  std::size_t plane_size() const {
    return out_pixels_ / static_cast<std::size_t>(output_.back()) * phases_ * phase_width_;
  }

  void interleave(const float* planes, std::size_t rows, float* y) const {
    const auto width = static_cast<std::size_t>(output_.back());
    for (std::size_t r = 0; r < rows; ++r, planes += phases_ * phase_width_, y += width) {
      for (std::size_t phase = 0; phase < phases_; ++phase) {
        const float* from = planes + phase * phase_width_;
        for (std::size_t i = phase; i < width; i += phases_) y[i] = *from++;
      }
    }
  }

  // [group, depth, channel, tap] -> [group, channel, tap, depth]
  void transpose(const float* w, ThreadPool& pool) {
    const auto depth = static_cast<std::int64_t>(depth_), rows = static_cast<std::int64_t>(channels_ * taps_);
    weights_.resize(groups_ * depth_ * channels_ * taps_);
    strided_copy(
        pool, {{static_cast<std::int64_t>(groups_), rows, depth}, {depth * rows, 1, rows}, {depth * rows, depth, 1}, 4},
        reinterpret_cast<const std::byte*>(w), reinterpret_cast<std::byte*>(weights_.data()));
  }

  void multiply(const float* x, const float* w, std::size_t rows, float* scratch, float* y) const {
    const std::size_t panel = kDepth * tile::panel_columns();
    float* products = scratch + kDepth * tile::padded_columns(kPixels);
    for (std::size_t first = 0; first < pixels_; first += kPixels) {
      const std::size_t count = std::min(kPixels, pixels_ - first);
      for (std::size_t k = 0; k < depth_; k += kDepth) {
        const std::size_t depth = std::min(kDepth, depth_ - k);
        tile::pack_rows(x + first, std::span(rows_).subspan(k, depth), count, scratch, panel);
        tile::multiply(tile::Product{w + k, depth_, rows, depth, scratch, tile::panel_columns(), panel, products,
                                     kPixels, count, k > 0});
      }
      for (std::size_t r = 0; r < rows; ++r) {
        add(products + r * kPixels, r % taps_, first, count, y + r / taps_ * plane_size());
      }
    }
  }

  // Products of one tap with pixels [first, first + count), row by row of the input.
  void add(const float* products, std::size_t tap, std::size_t first, std::size_t count, float* y) const {
    const std::size_t last = input_.size() - 1;
    const auto width = static_cast<std::size_t>(input_[last]);
    std::size_t rest = tap;
    Extents shift(input_.size());  // of the tap along each axis
    for (std::size_t i = input_.size(); i-- > 0; rest /= static_cast<std::size_t>(kernel_[i])) {
      shift[i] = static_cast<std::int64_t>(rest % static_cast<std::size_t>(kernel_[i])) * dilations_[i] - pads_[i];
    }
    for (std::size_t at = first; at < first + count;) {
      const std::size_t begin = at % width, end = std::min(width, begin + first + count - at);
      std::int64_t row = static_cast<std::int64_t>(at / width), offset = 0;
      auto pitch = static_cast<std::int64_t>(phases_ * phase_width_);
      bool inside = true;
      for (std::size_t i = last; i-- > 0; row /= input_[i]) {
        const std::int64_t to = row % input_[i] * strides_[i] + shift[i];
        inside = inside && to >= 0 && to < output_[i];
        offset += to * pitch;
        pitch *= output_[i];
      }
      if (inside) add_row(products + (at - first), begin, end, shift[last], y + offset);
      at += end - begin;
    }
  }

  void add_row(const float* products, std::size_t begin, std::size_t end, std::int64_t shift, float* y) const {
    const std::int64_t stride = strides_.back();
    const std::int64_t phase = ((shift % stride) + stride) % stride, moved = (shift - phase) / stride;
    const std::int64_t width = (output_.back() - phase + stride - 1) / stride;  // of the phase
    const auto first = std::max(static_cast<std::int64_t>(begin), -moved);
    const auto last = std::min(static_cast<std::int64_t>(end), width - moved);
    if (first >= last) return;
    float* to = y + phase * static_cast<std::int64_t>(phase_width_) + moved;
    for (std::int64_t i = first; i < last; ++i) to[i] += products[i - static_cast<std::int64_t>(begin)];
  }

  bool constant_weights_;
  Extents input_, output_, kernel_, strides_, dilations_, pads_;
  std::size_t batch_ = 0, groups_ = 1, depth_ = 0, channels_ = 0, taps_ = 1, pixels_ = 0, out_pixels_ = 0,
              together_ = 1, phases_ = 1, phase_width_ = 0;
  std::vector<std::ptrdiff_t> rows_;
  std::vector<float> weights_;
  std::optional<Workers> workers_;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class TransposedConvolutionKernel final : public Kernel {
 public:
  explicit TransposedConvolutionKernel(bool constant_weights) : constant_weights_(constant_weights) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundTransposedConvolution>(constant_weights_, context);
  }

 private:
  bool constant_weights_;
};

}  // namespace

std::unique_ptr<Kernel> make_transposed_convolution_kernel(bool constant_weights) {
  return std::make_unique<TransposedConvolutionKernel>(constant_weights);
}

}  // namespace weft::runtime
