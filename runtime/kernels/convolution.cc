// Conv in one or two dimensions with constant f32 weights on XNNPACK, which wants channels last: the
// kernel transposes on the way in and out.
#include <algorithm>
#include <limits>

#include "runtime/kernels/kernel.h"
#include "runtime/kernels/xnnpack.h"

namespace weft::runtime {
namespace {

struct Window {
  std::uint32_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  std::uint32_t stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1;
};

struct PackedConvolution {
  Window window;
  std::uint32_t height = 1, width = 1, groups = 1;
  std::size_t group_inputs = 0, outputs = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  xnn::PackedWeights weights;
  // XNNPACK packs depthwise weights anew for each operator: they stay.
  std::vector<float> depthwise_weight;
  Tensor depthwise_bias;

  bool depthwise() const { return group_inputs == 1 && outputs == groups; }

  xnn::Operator create() const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    xnn_operator_t op = nullptr;
    xnn::check(xnn_create_convolution2d_nhwc_f32(window.pad_top, window.pad_right, window.pad_bottom, window.pad_left,
                                                 height, width, window.stride_y, window.stride_x, window.dilation_y,
                                                 window.dilation_x, groups, group_inputs, outputs / groups,
                                                 group_inputs * groups, outputs, weight, bias, -kInfinity, kInfinity, 0,
                                                 nullptr, depthwise() ? nullptr : weights.cache(), &op),
               "xnn_create_convolution2d_nhwc_f32");
    return xnn::Operator(op);
  }
};

// [batch, a, b] -> [batch, b, a]
void swap_axes(const float* from, float* to, std::size_t batch, std::size_t a, std::size_t b) {
  for (std::size_t n = 0; n < batch; ++n) {
    for (std::size_t i = 0; i < a; ++i) {
      for (std::size_t j = 0; j < b; ++j) to[(n * b + j) * a + i] = from[(n * a + i) * b + j];
    }
  }
}

class BoundConvolution final : public BoundKernel {
 public:
  BoundConvolution(std::shared_ptr<const PackedConvolution> convolution, const BindContext& context)
      : convolution_(std::move(convolution)), operator_(convolution_->create()) {
    const Extents& x = context.inputs[0];
    batch_ = static_cast<std::size_t>(x[0]);
    channels_ = static_cast<std::size_t>(x[1]);
    const auto height = x.size() == 4 ? static_cast<std::size_t>(x[2]) : 1;
    const auto width = static_cast<std::size_t>(x.back());
    pixels_ = height * width;
    std::size_t bytes = 0, alignment = 0, out_height = 0, out_width = 0;
    xnn::check(xnn_reshape_convolution2d_nhwc_f32(operator_.get(), batch_, height, width, &bytes, &alignment,
                                                  &out_height, &out_width, context.pool->native()),
               "xnn_reshape_convolution2d_nhwc_f32");
    out_pixels_ = out_height * out_width;
    const auto extent = [](std::size_t n) { return Extents{static_cast<std::int64_t>(n)}; };
    workspace_ = Tensor::uninitialized(DType::kU8, extent(bytes));
    input_ = Tensor::uninitialized(DType::kF32, extent(batch_ * channels_ * pixels_));
    output_ = Tensor::uninitialized(DType::kF32, extent(batch_ * convolution_->outputs * out_pixels_));
    if (static_cast<std::int64_t>(batch_ * convolution_->outputs * out_pixels_) != element_count(context.outputs[0])) {
      fail(ErrorCode::kInternal, "XNNPACK and inference disagree about the shape of a convolution");
    }
  }

  void run(const RunContext& context) override {
    float* input = input_.mutable_data<float>().data();
    float* output = output_.mutable_data<float>().data();
    swap_axes(context.in<float>(0), input, batch_, channels_, pixels_);
    xnn::check(xnn_setup_convolution2d_nhwc_f32(operator_.get(), workspace_.mutable_bytes().data(), input, output),
               "xnn_setup_convolution2d_nhwc_f32");
    xnn::check(xnn_run_operator(operator_.get(), context.pool->native()), "xnn_run_operator");
    swap_axes(output, context.out<float>(0), batch_, out_pixels_, convolution_->outputs);
  }

 private:
  std::shared_ptr<const PackedConvolution> convolution_;
  xnn::Operator operator_;
  std::size_t batch_ = 0, channels_ = 0, pixels_ = 0, out_pixels_ = 0;
  Tensor workspace_, input_, output_;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class ConvolutionKernel final : public Kernel {
 public:
  explicit ConvolutionKernel(std::shared_ptr<const PackedConvolution> convolution)
      : convolution_(std::move(convolution)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundConvolution>(convolution_, context);
  }

  bool packs_constants() const override { return true; }

 private:
  std::shared_ptr<const PackedConvolution> convolution_;
};

std::vector<std::int64_t> integers(const Node& node, std::string_view name, std::vector<std::int64_t> fallback) {
  const auto found = node.attributes.find(name);
  return found == node.attributes.end() ? fallback : std::get<std::vector<std::int64_t>>(found->second);
}

// One dimension is two with a height of 1.
Window window_of(const Node& node, std::size_t dims) {
  std::vector<std::int64_t> strides = integers(node, "strides", std::vector<std::int64_t>(dims, 1));
  std::vector<std::int64_t> dilations = integers(node, "dilations", std::vector<std::int64_t>(dims, 1));
  std::vector<std::int64_t> pads = integers(node, "pads", std::vector<std::int64_t>(2 * dims, 0));
  if (dims == 1) {
    strides.insert(strides.begin(), 1);
    dilations.insert(dilations.begin(), 1);
    pads = {0, pads[0], 0, pads[1]};
  }
  const auto narrow = [](std::int64_t value) { return static_cast<std::uint32_t>(value); };
  return {narrow(pads[0]),    narrow(pads[1]),    narrow(pads[2]),      narrow(pads[3]),
          narrow(strides[0]), narrow(strides[1]), narrow(dilations[0]), narrow(dilations[1])};
}

}  // namespace

std::unique_ptr<Kernel> make_convolution_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Conv" || !input_is(graph, node, 0, DType::kF32)) return nullptr;
  const Tensor* weight = constant_input(graph, node, 1);
  if (weight == nullptr || weight->size() == 0 || (weight->rank() != 3 && weight->rank() != 4)) {
    return nullptr;
  }
  if (const auto found = node.attributes.find("auto_pad");
      found != node.attributes.end() && std::get<std::string>(found->second) != "NOTSET") {
    return nullptr;
  }
  const Tensor* bias = nullptr;
  if (has_input(node, 2) && (bias = constant_input(graph, node, 2)) == nullptr) return nullptr;
  xnn::initialize();
  auto packed = std::make_shared<PackedConvolution>();
  const auto dims = static_cast<std::size_t>(weight->rank() - 2);
  packed->window = window_of(node, dims);
  packed->height = dims == 2 ? static_cast<std::uint32_t>(weight->extent(2)) : 1;
  packed->width = static_cast<std::uint32_t>(weight->extent(weight->rank() - 1));
  if (const auto found = node.attributes.find("group"); found != node.attributes.end()) {
    packed->groups = static_cast<std::uint32_t>(std::get<std::int64_t>(found->second));
  }
  packed->group_inputs = static_cast<std::size_t>(weight->extent(1));
  packed->outputs = static_cast<std::size_t>(weight->extent(0));
  const Tensor aligned = weight->aligned();
  std::vector<float> channels_last(static_cast<std::size_t>(weight->size()));
  swap_axes(aligned.data<float>().data(), channels_last.data(), packed->outputs, packed->group_inputs,
            packed->height * packed->width);
  packed->weight = channels_last.data();
  Tensor aligned_bias;
  if (bias != nullptr) {
    aligned_bias = bias->aligned();
    packed->bias = aligned_bias.data<float>().data();
  }
  if (packed->depthwise()) {
    packed->depthwise_weight = std::move(channels_last);
    packed->depthwise_bias = aligned_bias;
    return std::make_unique<ConvolutionKernel>(std::move(packed));
  }
  packed->create();  // packs
  packed->weights.seal();
  return std::make_unique<ConvolutionKernel>(std::move(packed));
}

}  // namespace weft::runtime
