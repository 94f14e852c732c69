// Softmax and the norms that are operators of ONNX.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/builder.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// Calls body(x, y, count, stride) for each run along `axis`, on doubles.
template <class Body>
void along_axis(KernelContext& context, const Body& body) {
  const Tensor x = cast(context.input(0), DType::kF64);
  const std::int64_t axis = normalize_axis(context.integer("axis"), x.rank());
  Tensor y = Tensor::uninitialized(DType::kF64, x.shape());
  const std::int64_t count = x.extent(axis);
  const std::int64_t stride = row_major_strides(x.shape())[static_cast<std::size_t>(axis)];
  const std::int64_t runs = count == 0 ? 0 : x.size() / count;
  const double* in = x.data<double>().data();
  double* out = y.mutable_data<double>().data();
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::int64_t base = run / stride * stride * count + run % stride;
    body(in + base, out + base, count, stride);
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

double maximum(const double* x, std::int64_t count, std::int64_t stride) {
  double best = -std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < count; ++i) {
    if (std::isnan(x[i * stride])) return x[i * stride];
    best = std::max(best, x[i * stride]);
  }
  return best;
}

void softmax_kernel(KernelContext& context) {
  along_axis(context, [](const double* x, double* y, std::int64_t count, std::int64_t stride) {
    const double top = maximum(x, count, stride);
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) total += y[i * stride] = std::exp(x[i * stride] - top);
    for (std::int64_t i = 0; i < count; ++i) y[i * stride] /= total;
  });
}

void log_softmax_kernel(KernelContext& context) {
  along_axis(context, [](const double* x, double* y, std::int64_t count, std::int64_t stride) {
    const double top = maximum(x, count, stride);
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) total += std::exp(x[i * stride] - top);
    const double shift = top + std::log(total);
    for (std::int64_t i = 0; i < count; ++i) y[i * stride] = x[i * stride] - shift;
  });
}

void hardmax_kernel(KernelContext& context) {
  along_axis(context, [](const double* x, double* y, std::int64_t count, std::int64_t stride) {
    std::int64_t best = 0;
    for (std::int64_t i = 1; i < count; ++i) {
      if (x[i * stride] > x[best * stride]) best = i;
    }
    for (std::int64_t i = 0; i < count; ++i) y[i * stride] = i == best;
  });
}

void lp_normalization_kernel(KernelContext& context) {
  const std::int64_t p = context.integer("p");
  along_axis(context, [&](const double* x, double* y, std::int64_t count, std::int64_t stride) {
    double norm = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      norm += p == 1 ? std::abs(x[i * stride]) : x[i * stride] * x[i * stride];
    }
    if (p != 1) norm = std::sqrt(norm);
    for (std::int64_t i = 0; i < count; ++i) y[i * stride] = norm == 0 ? 0 : x[i * stride] / norm;
  });
}

OpDef axis_op(std::string_view name, void (*reference)(KernelContext&)) {
  return {.name = name,
          .inputs = {{"input"}},
          .outputs = {{"output"}},
          .attributes = {{"axis", AttributeKind::kInt, false, Attribute(std::int64_t{-1})}},
          .infer = infer_same_as_first,
          .reference = reference};
}

std::vector<std::int64_t> axes_from(std::int64_t axis, std::int64_t rank) {
  std::vector<std::int64_t> axes(static_cast<std::size_t>(rank - axis));
  std::iota(axes.begin(), axes.end(), axis);
  return axes;
}

// Everything in f32 at least, in f64 where the data are; rounded once, at the end.
Expr widened(Expansion& e, Expr x) { return e.cast(x, e.dtype(e.input(0)) == DType::kF64 ? DType::kF64 : DType::kF32); }

// ONNX 17: y = (x - mean) / sqrt(var + epsilon) * scale + bias, over axes [axis, rank).
void decompose_layer_normalization(Expansion& e) {
  const Expr input = e.input(0);
  const std::int64_t rank = e.rank(input);
  const std::vector<std::int64_t> axes = axes_from(normalize_axis(e.integer("axis"), rank), rank);
  const Expr x = widened(e, input);
  const Expr mean = e.mean(x, axes);
  const Expr centred = x - mean;
  const Expr variance = e.mean(centred * centred, axes);
  const Expr inverse = 1.0 / e.sqrt(variance + e.number("epsilon"));
  Expr y = centred * inverse * widened(e, e.input(1));
  if (e.has(2)) y = y + widened(e, e.input(2));
  e.set_output(0, e.cast(y, e.dtype(input)));
  e.set_output(1, mean);
  e.set_output(2, inverse);
}

void infer_layer_normalization(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const DType wide = context.dtype(0) == DType::kF64 ? DType::kF64 : DType::kF32;
  context.set_dtype(1, wide);
  context.set_dtype(2, wide);
  const Shape& x = context.shape(0);
  context.set_shape(0, x);
  Shape reduced = x;
  for (const std::int64_t axis : axes_from(normalize_axis(context.integer("axis"), context.rank(0)), context.rank(0))) {
    reduced[static_cast<std::size_t>(axis)] = Dim(1);
  }
  context.set_shape(1, reduced);
  context.set_shape(2, std::move(reduced));
}

// ONNX 23: y = x / sqrt(mean(x^2) + epsilon) * scale, over axes [axis, rank); of the type of scale.
void decompose_rms_normalization(Expansion& e) {
  const Expr input = e.input(0);
  const std::int64_t rank = e.rank(input);
  const std::vector<std::int64_t> axes = axes_from(normalize_axis(e.integer("axis"), rank), rank);
  const Expr x = widened(e, input);
  const Expr inverse = 1.0 / e.sqrt(e.mean(x * x, axes) + e.number("epsilon"));
  e.set_output(0, e.cast(x * inverse * widened(e, e.input(1)), e.dtype(e.input(1))));
}

void infer_rms_normalization(InferContext& context) {
  context.set_dtype(0, context.dtype(1));
  context.set_shape(0, context.shape(0));
}

// [C] -> [C, 1, 1...] so that it lines up with [N, C, spatial...].
Expr per_channel(Expansion& e, Expr parameter, std::int64_t rank) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(std::max<std::int64_t>(rank - 1, 1)), 1);
  shape[0] = -1;
  return e.reshape(parameter, std::move(shape));
}

// Inference: y = (x - mean) / sqrt(variance + epsilon) * scale + bias per channel.
void decompose_batch_normalization(Expansion& e) {
  const Expr x = widened(e, e.input(0));
  const std::int64_t rank = e.rank(x);
  const Expr factor = widened(e, e.input(1)) / e.sqrt(widened(e, e.input(4)) + e.number("epsilon"));
  const Expr shift = widened(e, e.input(2)) - widened(e, e.input(3)) * factor;
  e.set_output(0, e.cast(x * per_channel(e, factor, rank) + per_channel(e, shift, rank), e.dtype(e.input(0))));
}

void decompose_instance_normalization(Expansion& e) {
  const Expr x = widened(e, e.input(0));
  const std::int64_t rank = e.rank(x);
  const std::vector<std::int64_t> axes = axes_from(2, rank);
  const Expr centred = x - e.mean(x, axes);
  const Expr y = centred / e.sqrt(e.mean(centred * centred, axes) + e.number("epsilon"));
  const auto parameter = [&](std::size_t i) { return per_channel(e, widened(e, e.input(i)), rank); };
  e.set_output(0, e.cast(y * parameter(1) + parameter(2), e.dtype(e.input(0))));
}

// ONNX 21: scale and bias per channel; statistics over [C / groups, spatial...].
void decompose_group_normalization(Expansion& e) {
  const Expr input = e.input(0);
  const std::int64_t rank = e.rank(input);
  const std::int64_t groups = e.integer("num_groups");
  const Dim channels = rank > 1 ? e.shape(input)[1] : Dim(1);
  if (groups < 1 || (channels.is_constant() && channels.value() % groups != 0)) {
    fail(ErrorCode::kInvalidModel, "a normalization of {} channels in {} groups", channels.to_string(), groups);
  }
  const Expr x = widened(e, e.reshape(input, std::vector<std::int64_t>{0, groups, -1}));
  const Expr centred = x - e.mean(x, {2});
  const Expr y = centred / e.sqrt(e.mean(centred * centred, {2}) + e.number("epsilon"));
  const Expr shaped = e.reshape(y, e.shape_of(input));
  const auto parameter = [&](std::size_t i) { return per_channel(e, widened(e, e.input(i)), rank); };
  e.set_output(0, e.cast(shaped * parameter(1) + parameter(2), e.dtype(input)));
}

// A vector as a tensor that varies along this axis.
Expr along(Expansion& e, Expr vector, std::int64_t axis, std::int64_t rank) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(rank - axis), 1);
  shape[0] = -1;
  return e.reshape(vector, std::move(shape));
}

// y = x / max(|x|, epsilon) * scale, lengths along one axis.
void decompose_l2_normalization(Expansion& e) {
  const Expr x = e.input(0);
  const std::int64_t rank = e.rank(x), axis = normalize_axis(e.integer("axis"), rank);
  const Expr length = e.make("ReduceL2", {x.id(), e.ints({axis}).id()}, {{"keepdims", std::int64_t{1}}});
  Expr y = x / e.make("Clip", {length.id(), e.scalar_like(x, e.number("epsilon")).id()});
  if (e.has(1)) y = y * (axis == rank - 1 ? e.input(1) : along(e, e.input(1), axis, rank));
  e.set_output(0, y);
}

// LayerNormalization over this axis alone.
void decompose_axis_normalization(Expansion& e) {
  const Expr x = e.input(0);
  const std::int64_t rank = e.rank(x), axis = normalize_axis(e.integer("axis"), rank);
  const Expr centred = x - e.mean(x, {axis});
  Expr y = centred / e.sqrt(e.mean(centred * centred, {axis}) + e.number("epsilon"));
  y = y * along(e, e.input(1), axis, rank);
  if (e.has(2)) y = y + along(e, e.input(2), axis, rank);
  e.set_output(0, y);
}

// Parameters are vectors as long as the axis.
void infer_along_axis(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const Dim& extent = x[static_cast<std::size_t>(normalize_axis(context.integer("axis"), context.rank(0)))];
  for (std::size_t i = 1; i < context.input_count(); ++i) {
    if (!context.has(i) || !context.has_shape(i)) continue;
    const Shape& own = context.shape(i);
    if (own.size() != 1 || (own[0].is_constant() && extent.is_constant() && !(own[0] == extent))) {
      fail(ErrorCode::kInvalidModel, "a normalization of {} with a parameter of {}", to_string(x), to_string(own));
    }
  }
  context.set_shape(0, x);
}

AttributeDef epsilon() { return {"epsilon", AttributeKind::kFloat, false, Attribute(1e-5)}; }
AttributeDef axis(std::int64_t fallback) { return {"axis", AttributeKind::kInt, false, Attribute(fallback)}; }
AttributeDef stash_type() { return {"stash_type", AttributeKind::kInt, false, Attribute(std::int64_t{1})}; }

}  // namespace

std::span<const OpDef> normalization_ops() {
  static const std::vector<OpDef> ops = {
      axis_op("Softmax", softmax_kernel),
      axis_op("LogSoftmax", log_softmax_kernel),
      axis_op("Hardmax", hardmax_kernel),
      {.name = "LpNormalization",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {axis(-1), {"p", AttributeKind::kInt, false, Attribute(std::int64_t{2})}},
       .infer = infer_same_as_first,
       .reference = lp_normalization_kernel},
      {.name = "LayerNormalization",
       .inputs = {{"X"}, {"Scale"}, {"B", Arity::kOptional}},
       .outputs = {{"Y"}, {"Mean", Arity::kOptional}, {"InvStdDev", Arity::kOptional}},
       .attributes = {axis(-1), epsilon(), stash_type()},
       .infer = infer_layer_normalization,
       .decompose = decompose_layer_normalization},
      {.name = "RMSNormalization",
       .inputs = {{"X"}, {"scale"}},
       .outputs = {{"Y"}},
       .attributes = {axis(-1), epsilon(), stash_type()},
       .infer = infer_rms_normalization,
       .decompose = decompose_rms_normalization},
      {.name = "L2Normalization",
       .inputs = {{"x"}, {"scale", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = {axis(-1), {"epsilon", AttributeKind::kFloat, false, Attribute(1e-12)}},
       .infer = infer_along_axis,
       .decompose = decompose_l2_normalization},
      {.name = "AxisNormalization",
       .inputs = {{"x"}, {"scale"}, {"bias", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = {{"axis", AttributeKind::kInt, true}, epsilon()},
       .infer = infer_along_axis,
       .decompose = decompose_axis_normalization},
      {.name = "BatchNormalization",
       .inputs = {{"X"}, {"scale"}, {"B"}, {"input_mean"}, {"input_var"}},
       .outputs = {{"Y"}},
       .attributes = {epsilon()},
       .infer = infer_same_as_first,
       .decompose = decompose_batch_normalization},
      {.name = "InstanceNormalization",
       .inputs = {{"input"}, {"scale"}, {"B"}},
       .outputs = {{"output"}},
       .attributes = {epsilon()},
       .infer = infer_same_as_first,
       .decompose = decompose_instance_normalization},
      {.name = "GroupNormalization",
       .inputs = {{"X"}, {"scale"}, {"bias"}},
       .outputs = {{"Y"}},
       .attributes = {epsilon(), {"num_groups", AttributeKind::kInt, true}, stash_type()},
       .infer = infer_same_as_first,
       .decompose = decompose_group_normalization},
  };
  return ops;
}

}  // namespace weft
