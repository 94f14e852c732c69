// Conv and ConvTranspose in any number of spatial dimensions.
#include "ops/convolution.h"

#include <algorithm>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"
#include "ops/window.h"

namespace weft {
namespace {

std::vector<std::int64_t> spatial(const Extents& shape) {
  if (shape.size() < 3) fail(ErrorCode::kInvalidModel, "a convolution of rank {}", shape.size());
  return {shape.begin() + 2, shape.end()};
}

bool bias_fits(const KernelContext& context, std::int64_t channels) {
  return !context.has(2) || (context.input(2).rank() == 1 && context.input(2).extent(0) == channels);
}

// Of a bias that is known, too.
void check_bias(const InferContext& context, const Dim& channels) {
  if (!context.has(2) || !context.has_shape(2)) return;
  const Shape& bias = context.shape(2);
  const bool differs = bias.size() == 1 && bias[0].is_constant() && channels.is_constant() && !(bias[0] == channels);
  if (bias.size() == 1 && !differs) return;
  fail(ErrorCode::kInvalidModel, "a convolution of {} channels with bias {}", channels.to_string(), to_string(bias));
}

void check_group(std::int64_t group) {
  if (group < 1) fail(ErrorCode::kInvalidModel, "a convolution in {} groups", group);
}

void conv_kernel(KernelContext& context) {
  const DType dtype = context.input(0).dtype();
  const Tensor x = cast(context.input(0), DType::kF64);
  const Tensor w = cast(context.input(1), DType::kF64);
  const std::int64_t groups = context.integer("group");
  const std::vector<std::int64_t> input = spatial(x.shape());
  const Window window(context.attributes(), spatial(w.shape()), input);
  const std::int64_t outputs = w.extent(0);
  const std::int64_t group_inputs = w.extent(1);
  if (!groups_fit(groups, x.extent(1), w.shape())) {
    fail(ErrorCode::kInvalidModel, "Conv of {} by {} in {} groups", to_string(x.shape()), to_string(w.shape()), groups);
  }
  Extents out_spatial;
  for (std::size_t i = 0; i < input.size(); ++i) out_spatial.push_back(window.output_extent(i, input[i], false));
  Extents shape = {x.extent(0), outputs};
  shape.insert(shape.end(), out_spatial.begin(), out_spatial.end());
  Tensor y = Tensor::zeros(DType::kF64, shape);
  const std::int64_t pixels = element_count(input), out_pixels = element_count(out_spatial),
                     taps = element_count(window.kernel);
  const double* from = x.data<double>().data();
  const double* weight = w.data<double>().data();
  double* to = y.mutable_data<double>().data();
  for (std::int64_t o = 0; y.size() > 0 && o < out_pixels; ++o) {
    for_each_tap(window, input, out_spatial, o, [&](std::int64_t k, std::int64_t offset) {
      for (std::int64_t n = 0; n < x.extent(0); ++n) {
        for (std::int64_t m = 0; m < outputs; ++m) {
          const std::int64_t first = m / (outputs / groups) * group_inputs;
          double sum = 0;
          for (std::int64_t c = 0; c < group_inputs; ++c) {
            sum += from[(n * x.extent(1) + first + c) * pixels + offset] * weight[(m * group_inputs + c) * taps + k];
          }
          to[(n * outputs + m) * out_pixels + o] += sum;
        }
      }
    });
  }
  if (!bias_fits(context, outputs))
    fail(ErrorCode::kInvalidModel, "Conv with bias {}", to_string(context.input(2).shape()));
  if (context.has(2)) {
    const Tensor bias = cast(context.input(2), DType::kF64);
    for (std::int64_t i = 0; i < y.size(); ++i)
      to[i] += bias.data<double>()[static_cast<std::size_t>(i / out_pixels % outputs)];
  }
  context.set_output(0, cast(y, dtype));
}

// What is known of x's channels and the filters fits together.
void check_channels(const InferContext& context, const Dim& channels, const Shape& w) {
  const std::int64_t groups = context.integer("group");
  check_group(groups);
  const bool known = channels.is_constant() && w[0].is_constant() && w[1].is_constant();
  if (known && !groups_fit(groups, channels.value(), Extents{w[0].value(), w[1].value()})) {
    fail(ErrorCode::kInvalidModel, "Conv of {} channels by {} in {} groups", channels.to_string(), to_string(w),
         groups);
  }
  check_bias(context, w[0]);
  if (!context.attributes().has("kernel_shape")) return;
  const std::vector<std::int64_t>& declared = context.attributes().integers("kernel_shape");
  for (std::size_t i = 0; i < declared.size(); ++i) {
    if (i + 2 >= w.size() || (w[i + 2].is_constant() && w[i + 2].value() != declared[i])) {
      fail(ErrorCode::kInvalidModel, "Conv by {} with kernel_shape {}", to_string(w), to_string(declared));
    }
  }
}

void infer_conv(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const Shape& w = context.shape(1);
  if (x.size() < 3 || w.size() != x.size())
    fail(ErrorCode::kInvalidModel, "Conv of {} by {}", to_string(x), to_string(w));
  check_channels(context, x[1], w);
  std::vector<std::int64_t> kernel;
  for (std::size_t i = 2; i < w.size(); ++i) {
    if (!w[i].is_constant()) return;
    kernel.push_back(w[i].value());
  }
  Shape result = {x[0], w[0]};
  for (Dim& dim : infer_window(context, Shape(x.begin() + 2, x.end()), kernel, false)) result.push_back(std::move(dim));
  context.set_shape(0, std::move(result));
}

// --- ConvTranspose -----------------------------------------------------------------------------------

}  // namespace

bool groups_fit(std::int64_t groups, std::int64_t channels, std::span<const std::int64_t> weights) {
  return groups >= 1 && channels % groups == 0 && channels / groups == weights[1] && weights[0] % groups == 0;
}

TransposedExtents transposed_extents(const AttributeReader& attributes, const std::vector<std::int64_t>& input,
                                     const std::vector<std::int64_t>& kernel) {
  const std::size_t rank = input.size();
  constexpr std::int64_t kMost = std::int64_t{1} << 30;  // so that arithmetic does not overflow
  const auto list = [&](std::string_view name, std::size_t count, std::int64_t fallback) {
    auto values = attributes.has(name) ? attributes.integers(name) : std::vector<std::int64_t>(count, fallback);
    const bool wild = std::any_of(values.begin(), values.end(), [](auto n) { return n < -kMost || n > kMost; });
    if (wild || values.size() != count)
      fail(ErrorCode::kInvalidModel, "ConvTranspose with {} {}", name, to_string(values));
    return values;
  };
  const auto strides = list("strides", rank, 1), dilations = list("dilations", rank, 1);
  const auto pads = list("pads", 2 * rank, 0), extra = list("output_padding", rank, 0);
  const std::string& mode = attributes.text("auto_pad");
  TransposedExtents result;
  const auto output_shape =
      attributes.has("output_shape") ? list("output_shape", rank, 0) : std::vector<std::int64_t>();
  for (std::size_t i = 0; i < rank; ++i) {
    if (strides[i] < 1 || dilations[i] < 1 || kernel[i] < 1 || kernel[i] > kMost || input[i] > kMost) {
      fail(ErrorCode::kInvalidModel, "ConvTranspose of {} by {} with strides {} and dilations {}", to_string(input),
           to_string(kernel), to_string(strides), to_string(dilations));
    }
    const std::int64_t full = strides.at(i) * (input[i] - 1) + extra.at(i) + (kernel[i] - 1) * dilations.at(i) + 1;
    std::int64_t begin = pads.at(i), end = pads.at(i + rank);
    const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
    if (!output_shape.empty() || same) {
      const std::int64_t wanted = output_shape.empty() ? input[i] * strides[i] : output_shape[i];
      const std::int64_t total = full - wanted;
      const std::int64_t half = total >= 0 ? total / 2 : -((1 - total) / 2);  // floor
      begin = mode == "SAME_UPPER" ? half : total - half;
      end = total - begin;
    }
    result.pads_begin.push_back(begin);
    result.output.push_back(full - begin - end);
  }
  return result;
}

namespace {

void conv_transpose_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64);
  const Tensor w = cast(context.input(1), DType::kF64);
  const std::int64_t groups = context.integer("group");
  const std::vector<std::int64_t> input = spatial(x.shape()), kernel = spatial(w.shape());
  check_group(groups);
  const TransposedExtents t = transposed_extents(context.attributes(), input, kernel);
  Window window(context.attributes(), kernel, input);
  window.pads_begin = t.pads_begin;
  const std::int64_t group_outputs = w.extent(1), group_inputs = x.extent(1) / groups;
  if (w.extent(0) != x.extent(1) || x.extent(1) % groups != 0)
    fail(ErrorCode::kInvalidModel, "ConvTranspose of {} by {}", to_string(x.shape()), to_string(w.shape()));
  Extents shape = {x.extent(0), group_outputs * groups};
  shape.insert(shape.end(), t.output.begin(), t.output.end());
  Tensor y = Tensor::zeros(DType::kF64, shape);
  const std::int64_t pixels = element_count(input), out_pixels = element_count(t.output), taps = element_count(kernel);
  double* to = y.mutable_data<double>().data();
  // The transpose of Conv: what Conv would read is written.
  for (std::int64_t i = 0; y.size() > 0 && i < pixels; ++i) {
    for_each_tap(window, t.output, input, i, [&](std::int64_t k, std::int64_t offset) {
      for (std::int64_t n = 0; n < x.extent(0); ++n) {
        for (std::int64_t c = 0; c < x.extent(1); ++c) {
          const double value = x.data<double>()[static_cast<std::size_t>((n * x.extent(1) + c) * pixels + i)];
          for (std::int64_t m = 0; m < group_outputs; ++m) {
            const std::int64_t channel = c / group_inputs * group_outputs + m;
            to[(n * shape[1] + channel) * out_pixels + offset] +=
                value * w.data<double>()[static_cast<std::size_t>((c * group_outputs + m) * taps + k)];
          }
        }
      }
    });
  }
  if (!bias_fits(context, shape[1]))
    fail(ErrorCode::kInvalidModel, "ConvTranspose with bias {}", to_string(context.input(2).shape()));
  if (context.has(2)) {
    const Tensor bias = cast(context.input(2), DType::kF64);
    for (std::int64_t i = 0; i < y.size(); ++i)
      to[i] += bias.data<double>()[static_cast<std::size_t>(i / out_pixels % shape[1])];
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

void infer_conv_transpose(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const Shape& w = context.shape(1);
  if (x.size() < 3 || w.size() != x.size())
    fail(ErrorCode::kInvalidModel, "ConvTranspose of {} by {}", to_string(x), to_string(w));
  check_group(context.integer("group"));
  if (x[1].is_constant() && (x[1].value() % context.integer("group") != 0 || !(x[1] == w[0]))) {
    fail(ErrorCode::kInvalidModel, "ConvTranspose of {} channels by {} in {} groups", x[1].to_string(), to_string(w),
         context.integer("group"));
  }
  Shape result = {x[0], w[1] * Dim(context.integer("group"))};
  check_bias(context, result[1]);
  for (std::size_t i = 2; i < x.size(); ++i) {
    if (!x[i].is_constant() || !w[i].is_constant()) {
      result.push_back(context.unknown_dim());
      continue;
    }
    std::vector<std::int64_t> input(x.size() - 2, 1), kernel(x.size() - 2, 1);
    input[i - 2] = x[i].value();
    kernel[i - 2] = w[i].value();
    result.emplace_back(transposed_extents(context.attributes(), input, kernel).output[i - 2]);
  }
  context.set_shape(0, std::move(result));
}

AttributeDef group() { return {"group", AttributeKind::kInt, false, Attribute(std::int64_t{1})}; }

}  // namespace

std::span<const OpDef> convolution_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Conv",
       .inputs = {{"X"}, {"W"}, {"B", Arity::kOptional}},
       .outputs = {{"Y"}},
       .attributes = window_attributes({group()}),
       .infer = infer_conv,
       .reference = conv_kernel},
      {.name = "ConvTranspose",
       .inputs = {{"X"}, {"W"}, {"B", Arity::kOptional}},
       .outputs = {{"Y"}},
       .attributes = window_attributes(
           {group(), {"output_padding", AttributeKind::kInts}, {"output_shape", AttributeKind::kInts}}),
       .infer = infer_conv_transpose,
       .reference = conv_transpose_kernel},
  };
  return ops;
}

}  // namespace weft
