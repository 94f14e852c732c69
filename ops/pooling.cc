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

void check_rank(const Tensor& x) {
  if (x.rank() < 3) fail(ErrorCode::kInvalidModel, "pooling of rank {}", x.rank());
}

// A pooled tensor: planes of pixels to planes of outputs.
struct Pool {
  Tensor x;
  Extents input, output, shape;  // spatial; of the result
  Window window;
  std::int64_t planes, pixels, outputs;

  explicit Pool(KernelContext& context)
      : x(checked(context.input(0))),
        input(x.shape().begin() + 2, x.shape().end()),
        window(context.attributes(), context.attributes().integers("kernel_shape"), input) {
    const bool ceil_mode = context.integer("ceil_mode") != 0;
    for (std::size_t i = 0; i < input.size(); ++i) output.push_back(window.output_extent(i, input[i], ceil_mode));
    shape = {x.extent(0), x.extent(1)};
    shape.insert(shape.end(), output.begin(), output.end());
    planes = x.extent(0) * x.extent(1);
    pixels = element_count(input);
    outputs = element_count(shape) == 0 ? 0 : element_count(output);
  }

  // The pixels that an output looks at.
  std::vector<std::int64_t> inside(std::int64_t at) const {
    std::vector<std::int64_t> positions;
    for_each_tap(window, input, output, at, [&](std::int64_t, std::int64_t pixel) { positions.push_back(pixel); });
    return positions;
  }
  // How many of its taps lie on the input or its padding.
  std::int64_t padded(std::int64_t at) const {
    std::int64_t count = 1;
    for (std::size_t i = input.size(); i-- > 0; at /= output[i]) {
      const std::int64_t o = at % output[i], first = o * window.strides[i] - window.pads_begin[i];
      count *= window.taps_inside(i, o, std::min<std::int64_t>(first, 0), input[i] + window.pads_end[i]).second;
    }
    return count;
  }

 private:
  static Tensor checked(const Tensor& given) {
    check_rank(given);
    return cast(given, DType::kF64);
  }
};

void max_pool_kernel(KernelContext& context) {
  const Pool pool(context);
  const bool column_major = context.integer("storage_order") != 0 && pool.x.rank() == 4;
  Tensor values = Tensor::uninitialized(DType::kF64, pool.shape);
  Tensor indices = Tensor::uninitialized(DType::kI64, pool.shape);
  const auto best_of = values.mutable_data<double>();
  const auto at_of = indices.mutable_data<std::int64_t>();
  for (std::int64_t o = 0; o < pool.outputs; ++o) {
    const std::vector<std::int64_t> inside = pool.inside(o);
    for (std::int64_t plane = 0; plane < pool.planes; ++plane) {
      const double* from = pool.x.data<double>().data() + plane * pool.pixels;
      double best = -std::numeric_limits<double>::infinity();
      std::int64_t at = inside.empty() ? 0 : inside[0];
      for (const std::int64_t offset : inside) {
        if (std::isnan(best)) break;
        if (from[offset] > best || std::isnan(from[offset])) {
          best = from[offset];
          at = offset;
        }
      }
      if (column_major && pool.pixels > 0) at = at % pool.input[1] * pool.input[0] + at / pool.input[1];
      best_of[static_cast<std::size_t>(plane * pool.outputs + o)] = best;
      at_of[static_cast<std::size_t>(plane * pool.outputs + o)] = plane * pool.pixels + at;
    }
  }
  context.set_output(0, cast(values, context.input(0).dtype()));
  context.set_output(1, std::move(indices));
}

void average_pool_kernel(KernelContext& context) {
  const Pool pool(context);
  const bool count_padding = context.integer("count_include_pad") != 0;
  Tensor values = Tensor::uninitialized(DType::kF64, pool.shape);
  const auto mean_of = values.mutable_data<double>();
  for (std::int64_t o = 0; o < pool.outputs; ++o) {
    const std::vector<std::int64_t> inside = pool.inside(o);
    const auto count = static_cast<double>(count_padding ? pool.padded(o) : static_cast<std::int64_t>(inside.size()));
    for (std::int64_t plane = 0; plane < pool.planes; ++plane) {
      const double* from = pool.x.data<double>().data() + plane * pool.pixels;
      double total = 0;
      for (const std::int64_t offset : inside) total += from[offset];
      mean_of[static_cast<std::size_t>(plane * pool.outputs + o)] = total / count;
    }
  }
  context.set_output(0, cast(values, context.input(0).dtype()));
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
  if (result.size() < 2) fail(ErrorCode::kInvalidModel, "pooling of {}: no batch and channels", to_string(result));
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
