// MaxPool, AveragePool and their global forms.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"
#include "ops/window.h"

namespace weft {
namespace {

// Calls body(channel, output, first input offset of the channel, list of (offset inside it, valid)).
template <class Body>
void for_each_window(KernelContext& context, const Tensor& x, bool ceil_mode, Extents& out_shape, const Body& body) {
  const Extents input(x.shape().begin() + 2, x.shape().end());
  const Window window(context.attributes(), context.attributes().integers("kernel_shape"), input);
  Extents output;
  for (std::size_t i = 0; i < input.size(); ++i) output.push_back(window.output_extent(i, input[i], ceil_mode));
  out_shape = {x.extent(0), x.extent(1)};
  out_shape.insert(out_shape.end(), output.begin(), output.end());
  const Extents strides = row_major_strides(input);
  const std::int64_t outputs = element_count(output), taps = element_count(window.kernel);
  for (std::int64_t o = 0; o < outputs; ++o) {
    std::vector<std::int64_t> inside;
    std::int64_t padded = 0;  // taps on the input or its padding
    for (std::int64_t k = 0; k < taps; ++k) {
      std::int64_t rest_o = o, rest_k = k, offset = 0;
      bool valid = true, in_padding = true;
      for (std::size_t i = input.size(); i-- > 0;) {
        const std::int64_t at = rest_o % output[i] * window.strides[i] - window.pads_begin[i] +
                                rest_k % window.kernel[i] * window.dilations[i];
        rest_o /= output[i];
        rest_k /= window.kernel[i];
        valid = valid && at >= 0 && at < input[i];
        in_padding = in_padding && at < input[i] + window.pads_end[i];
        offset += at * strides[i];
      }
      padded += in_padding;
      if (valid) inside.push_back(offset);
    }
    body(o, outputs, inside, padded);
  }
}

void check_rank(const Tensor& x) {
  if (x.rank() < 3) fail(ErrorCode::kInvalidModel, "pooling of rank {}", x.rank());
}

void max_pool_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64);
  check_rank(x);
  const std::int64_t pixels = element_count(std::span<const std::int64_t>(x.shape()).subspan(2));
  const std::int64_t planes = x.extent(0) * x.extent(1);
  const bool column_major = context.integer("storage_order") != 0;
  std::vector<double> values;
  std::vector<std::int64_t> indices;
  Extents shape;
  for_each_window(context, x, context.integer("ceil_mode") != 0, shape,
                  [&](std::int64_t o, std::int64_t outputs, const std::vector<std::int64_t>& inside, std::int64_t) {
                    values.resize(static_cast<std::size_t>(planes * outputs));
                    indices.resize(values.size());
                    for (std::int64_t plane = 0; plane < planes; ++plane) {
                      const double* from = x.data<double>().data() + plane * pixels;
                      double best = -std::numeric_limits<double>::infinity();
                      std::int64_t at = inside.empty() ? 0 : inside[0];
                      for (const std::int64_t offset : inside) {
                        if (std::isnan(best)) break;
                        if (from[offset] > best || std::isnan(from[offset])) {
                          best = from[offset];
                          at = offset;
                        }
                      }
                      if (column_major && x.rank() == 4) at = at % x.extent(3) * x.extent(2) + at / x.extent(3);
                      values[static_cast<std::size_t>(plane * outputs + o)] = best;
                      indices[static_cast<std::size_t>(plane * outputs + o)] = plane * pixels + at;
                    }
                  });
  context.set_output(0, cast(Tensor::of<double>(shape, values), context.input(0).dtype()));
  context.set_output(1, Tensor::of<std::int64_t>(shape, indices));
}

void average_pool_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64);
  check_rank(x);
  const bool count_padding = context.integer("count_include_pad") != 0;
  const std::int64_t pixels = element_count(std::span<const std::int64_t>(x.shape()).subspan(2));
  const std::int64_t planes = x.extent(0) * x.extent(1);
  std::vector<double> values;
  Extents shape;
  for_each_window(
      context, x, context.integer("ceil_mode") != 0, shape,
      [&](std::int64_t o, std::int64_t outputs, const std::vector<std::int64_t>& inside, std::int64_t padded) {
        values.resize(static_cast<std::size_t>(planes * outputs));
        const auto count = static_cast<double>(count_padding ? padded : static_cast<std::int64_t>(inside.size()));
        for (std::int64_t plane = 0; plane < planes; ++plane) {
          double total = 0;
          for (const std::int64_t offset : inside)
            total += x.data<double>()[static_cast<std::size_t>(plane * pixels + offset)];
          values[static_cast<std::size_t>(plane * outputs + o)] = total / count;
        }
      });
  context.set_output(0, cast(Tensor::of<double>(shape, values), context.input(0).dtype()));
}

void infer_pool(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  context.set_dtype(1, DType::kI64);
  const Shape& x = context.shape(0);
  if (x.size() < 3) fail(ErrorCode::kInvalidModel, "pooling of {}", to_string(x));
  Shape result = {x[0], x[1]};
  for (Dim& dim : infer_window(context, Shape(x.begin() + 2, x.end()), context.attributes().integers("kernel_shape"),
                               context.integer("ceil_mode") != 0)) {
    result.push_back(std::move(dim));
  }
  context.set_shape(0, result);
  context.set_shape(1, std::move(result));
}

template <bool kMaximum>
void global_pool_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64);
  check_rank(x);
  Extents shape(x.shape().size(), 1);
  shape[0] = x.extent(0);
  shape[1] = x.extent(1);
  Tensor y = Tensor::uninitialized(DType::kF64, shape);
  const std::int64_t planes = x.extent(0) * x.extent(1);
  const std::int64_t pixels = planes == 0 ? 0 : x.size() / planes;
  for (std::int64_t plane = 0; plane < planes; ++plane) {
    const double* from = x.data<double>().data() + plane * pixels;
    double total = kMaximum ? -std::numeric_limits<double>::infinity() : 0;
    for (std::int64_t i = 0; i < pixels; ++i) {
      if constexpr (kMaximum)
        total = std::isnan(total) || total > from[i] ? total : from[i];
      else
        total += from[i];
    }
    y.mutable_data<double>()[static_cast<std::size_t>(plane)] = kMaximum ? total : total / static_cast<double>(pixels);
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

void infer_global_pool(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape result = context.shape(0);
  for (std::size_t i = 2; i < result.size(); ++i) result[i] = Dim(1);
  context.set_shape(0, std::move(result));
}

AttributeDef flag(std::string_view name) { return {name, AttributeKind::kInt, false, Attribute(std::int64_t{0})}; }

}  // namespace

std::span<const OpDef> pooling_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "MaxPool",
       .inputs = {{"X"}},
       .outputs = {{"Y"}, {"Indices", Arity::kOptional}},
       .attributes = window_attributes({flag("ceil_mode"), flag("storage_order")}),
       .infer = infer_pool,
       .reference = max_pool_kernel},
      {.name = "AveragePool",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .attributes = window_attributes({flag("ceil_mode"), flag("count_include_pad")}),
       .infer = infer_pool,
       .reference = average_pool_kernel},
      {.name = "GlobalAveragePool",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .infer = infer_global_pool,
       .reference = global_pool_kernel<false>},
      {.name = "GlobalMaxPool",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .infer = infer_global_pool,
       .reference = global_pool_kernel<true>},
  };
  return ops;
}

}  // namespace weft
