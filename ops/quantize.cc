// Quantization: affine maps between real numbers and narrow integers or floats, and integer arithmetic on them.
#include <cmath>
#include <limits>

#include "ops/builder.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"
#include "ops/window.h"

namespace weft {
namespace {

// Which scale applies to which element: one for all, one per index of `axis`, or one per block along it.
struct Granularity {
  std::int64_t outer = 1, extent = 1, inner = 1;  // of x around the axis
  std::int64_t scales = 1;                        // along the axis
  std::int64_t block = 0;                         // elements of the axis that share one; 0: no blocks
  bool single = true;

  std::int64_t scale_of(std::int64_t i) const {
    if (single) return 0;
    const std::int64_t at = i / inner % extent;
    if (block == 0) return at;
    return (i / inner / extent * scales + at / block) * inner + i % inner;
  }
};

Granularity granularity(const KernelContext& context, const Tensor& x, const Tensor& scale) {
  Granularity g;
  if (scale.size() == 1 && scale.rank() <= 1) return g;
  const std::int64_t axis = normalize_axis(context.integer("axis"), x.rank());
  g.single = false;
  for (std::int64_t i = 0; i < axis; ++i) g.outer *= x.extent(i);
  for (std::int64_t i = axis + 1; i < x.rank(); ++i) g.inner *= x.extent(i);
  g.extent = x.extent(axis);
  if (scale.rank() == 1) {
    if (scale.extent(0) != g.extent) {
      fail(ErrorCode::kInvalidModel, "{} scales for an axis of {}", scale.extent(0), g.extent);
    }
    return g;
  }
  if (scale.rank() != x.rank()) fail(ErrorCode::kInvalidModel, "scales of {}", to_string(scale.shape()));
  g.scales = scale.extent(axis);
  if (g.scales <= 0) fail(ErrorCode::kInvalidModel, "scales of {}", to_string(scale.shape()));
  g.block = context.integer("block_size");
  if (g.block < 0) fail(ErrorCode::kInvalidModel, "blocks of {}", g.block);
  if (g.block == 0) g.block = std::max<std::int64_t>((g.extent + g.scales - 1) / g.scales, 1);
  Extents expected = x.shape();
  expected[static_cast<std::size_t>(axis)] = g.extent == 0 ? 0 : (g.extent - 1) / g.block + 1;
  if (scale.shape() != expected) {
    fail(ErrorCode::kInvalidModel, "scales of {} for {} in blocks of {}", to_string(scale.shape()),
         to_string(x.shape()), g.block);
  }
  return g;
}

Tensor zero_points(const KernelContext& context, const Tensor& scale) {
  if (!context.has(2)) return Tensor::zeros(DType::kF64, scale.shape());
  const Tensor& zero = context.input(2);
  if (zero.size() != scale.size()) {
    fail(ErrorCode::kInvalidModel, "zero points of {} for scales of {}", to_string(zero.shape()),
         to_string(scale.shape()));
  }
  return cast(zero, DType::kF64);
}

std::pair<double, double> range_of(DType dtype) {
  if (is_narrow(dtype)) return narrow_range(dtype);
  switch (dtype) {
    case DType::kI8: return {-128, 127};
    case DType::kU8: return {0, 255};
    case DType::kI16: return {-32768, 32767};
    case DType::kU16: return {0, 65535};
    case DType::kI32: return {std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
    default: fail(ErrorCode::kInvalidModel, "quantization to {}", to_string(dtype));
  }
}

bool is_narrow_float(DType dtype) { return is_narrow(dtype) && dtype >= DType::kF4E2M1; }

// --- QuantizeLinear, DequantizeLinear (ONNX 25) --------------------------------------------------------------

DType quantized_type(const AttributeReader& attributes, std::optional<DType> zero_point) {
  if (zero_point) return *zero_point;
  return attributes.has("output_dtype") ? attributes.type("output_dtype") : DType::kU8;
}

void infer_quantize(InferContext& context) {
  const auto zero = context.has(2) ? std::optional<DType>(context.dtype(2)) : std::nullopt;
  context.set_dtype(0, quantized_type(context.attributes(), zero));
  context.set_shape(0, context.shape(0));
}

// y = saturate(round(x / scale) + zero_point), rounding half to even; of floats: the cast of x / scale.
void quantize_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const Tensor scale = cast(context.input(1), DType::kF32);
  const auto zero_type = context.has(2) ? std::optional<DType>(context.input(2).dtype()) : std::nullopt;
  const DType dtype = quantized_type(context.attributes(), zero_type);
  const Granularity g = granularity(context, x, scale);
  const Tensor zero = zero_points(context, scale);
  const Tensor wide = cast(x, DType::kF32);
  Tensor y = Tensor::uninitialized(DType::kF64, x.shape());
  const auto [low, high] = range_of(dtype);
  const bool to_float = is_narrow_float(dtype);
  const auto in = wide.data<float>();
  const auto out = y.mutable_data<double>();
  for (std::size_t i = 0; i < in.size(); ++i) {
    const auto k = static_cast<std::size_t>(g.scale_of(static_cast<std::int64_t>(i)));
    const float scaled = in[i] / scale.data<float>()[k];
    out[i] = to_float ? static_cast<double>(scaled) + zero.data<double>()[k]
                      : std::clamp(static_cast<double>(std::nearbyint(scaled)) + zero.data<double>()[k], low, high);
  }
  CastOptions options;
  options.saturate = context.integer("saturate") != 0;
  context.set_output(0, cast(y, dtype, options));
}

void infer_dequantize(InferContext& context) {
  if (context.has(2) && context.dtype(2) != context.dtype(0)) {
    fail(ErrorCode::kInvalidModel, "{} with a zero point of {}", to_string(context.dtype(0)),
         to_string(context.dtype(2)));
  }
  context.set_dtype(
      0, context.attributes().has("output_dtype") ? context.attributes().type("output_dtype") : context.dtype(1));
  context.set_shape(0, context.shape(0));
}

// y = (x - zero_point) * scale
void dequantize_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const Tensor scale = cast(context.input(1), DType::kF32);
  const Granularity g = granularity(context, x, scale);
  const Tensor zero = zero_points(context, scale);
  const Tensor wide = cast(x, DType::kF64);
  Tensor y = Tensor::uninitialized(DType::kF32, x.shape());
  const auto in = wide.data<double>();
  const auto out = y.mutable_data<float>();
  for (std::size_t i = 0; i < in.size(); ++i) {
    const auto k = static_cast<std::size_t>(g.scale_of(static_cast<std::int64_t>(i)));
    out[i] = static_cast<float>(in[i] - zero.data<double>()[k]) * scale.data<float>()[k];
  }
  const AttributeReader& attributes = context.attributes();
  context.set_output(
      0, cast(y, attributes.has("output_dtype") ? attributes.type("output_dtype") : context.input(1).dtype()));
}

// --- Compositions ---------------------------------------------------------------------------------------------

// u8 over the range of x and zero (ONNX 11).
void decompose_dynamic_quantize(Expansion& e) {
  const Expr x = e.input(0);
  const Expr zero = e.scalar_like(x, 0.0);
  const auto reduced = [&](std::string_view op, std::string_view with_zero) {
    const Expr all = e.make(op, {x.id()}, {{"keepdims", std::int64_t{0}}});
    return e.make(with_zero, {all.id(), zero.id()});
  };
  const Expr low = reduced("ReduceMin", "Min");
  const Expr scale = (reduced("ReduceMax", "Max") - low) / 255.0;
  const Expr exact = e.make("Clip", {(-low / scale).id(), zero.id(), e.scalar_like(x, 255.0).id()});
  const Expr point = e.cast(e.unary("Round", exact), DType::kU8);
  e.set_output(0, e.make("QuantizeLinear", {x.id(), scale.id(), point.id()}));
  e.set_output(1, scale);
  e.set_output(2, point);
}

void infer_dynamic_quantize(InferContext& context) {
  if (context.output_count() > 1) context.set(1, DType::kF32, {});
  if (context.output_count() > 2) context.set(2, DType::kU8, {});
  context.set_dtype(0, DType::kU8);
  context.set_shape(0, context.shape(0));
}

// x - zero_point as i32. A vector of zero points runs along the axis that is `from_back` from the last.
Expr centered(Expansion& e, Expr x, Expr zero, std::int64_t from_back) {
  const Expr wide = e.cast(x, DType::kI32);
  if (!zero) return wide;
  Expr point = e.cast(zero, DType::kI32);
  if (e.rank(point) == 1) {
    std::vector<std::int64_t> axes;
    for (std::int64_t i = 0; i < from_back; ++i) axes.push_back(i + 1);
    if (!axes.empty()) point = e.unsqueeze(point, axes);
  }
  return wide - point;
}

Expr maybe(Expansion& e, std::size_t index) { return e.has(index) ? e.input(index) : Expr(); }

// Zero points of A are per row, of B per column (ONNX 10).
void decompose_matmul_integer(Expansion& e) {
  const std::int64_t row_axis = e.rank(e.input(0)) > 1 ? 1 : 0;
  e.set_output(0, e.matmul(centered(e, e.input(0), maybe(e, 2), row_axis), centered(e, e.input(1), maybe(e, 3), 0)));
}

// Zero points are numbers of the tensor's type.
void check_zero_point(const InferContext& context, std::size_t tensor, std::size_t zero) {
  if (!context.has(zero) || context.dtype(zero) == context.dtype(tensor)) return;
  fail(ErrorCode::kInvalidModel, "{} with a zero point of {}", to_string(context.dtype(tensor)),
       to_string(context.dtype(zero)));
}

void infer_matmul_integer(InferContext& context) {
  check_zero_point(context, 0, 2);
  check_zero_point(context, 1, 3);
  context.set_dtype(0, DType::kI32);
  Shape a = context.shape(0), b = context.shape(1);
  if (a.empty() || b.empty()) fail(ErrorCode::kInvalidModel, "MatMulInteger of a scalar");
  const bool row = a.size() == 1, column = b.size() == 1;
  if (row) a.insert(a.begin(), Dim(1));
  if (column) b.emplace_back(1);
  Shape result = broadcast_shapes(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2));
  if (!row) result.push_back(a[a.size() - 2]);
  if (!column) result.push_back(b.back());
  context.set_shape(0, std::move(result));
}

// Sums of products of 9-bit numbers are exact in f64.
Expr exact_convolution(Expansion& e, Expr x, Expr x_zero, Expr w, Expr w_zero, Expr bias) {
  const auto real = [&](Expr value) { return e.cast(value, DType::kF64); };
  const Expr input = real(centered(e, x, x_zero, 0));
  const Expr weight = real(centered(e, w, w_zero, e.rank(w) - 1));
  Attributes attributes;
  for (const std::string_view name : {"strides", "dilations", "pads", "kernel_shape"}) {
    if (e.attributes().has(name)) attributes[std::string(name)] = e.attributes().integers(name);
  }
  attributes["auto_pad"] = e.attributes().text("auto_pad");
  attributes["group"] = e.integer("group");
  return e.make("Conv", {input.id(), weight.id(), bias ? real(bias).id() : ValueId()}, std::move(attributes));
}

void decompose_conv_integer(Expansion& e) {
  const Expr y = exact_convolution(e, e.input(0), maybe(e, 2), e.input(1), maybe(e, 3), Expr());
  e.set_output(0, e.cast(y, DType::kI32));
}

template <std::size_t kWeight>
void infer_convolution(InferContext& context, DType dtype) {
  context.set_dtype(0, dtype);
  const Shape& x = context.shape(0);
  const Shape& w = context.shape(kWeight);
  if (x.size() < 3 || w.size() != x.size()) {
    fail(ErrorCode::kInvalidModel, "a convolution of {} by {}", to_string(x), to_string(w));
  }
  std::vector<std::int64_t> kernel;
  for (std::size_t i = 2; i < w.size(); ++i) {
    if (!w[i].is_constant()) return;
    kernel.push_back(w[i].value());
  }
  Shape result = {x[0], w[0]};
  for (Dim& dim : infer_window(context, Shape(x.begin() + 2, x.end()), kernel, false)) result.push_back(std::move(dim));
  context.set_shape(0, std::move(result));
}

void infer_conv_integer(InferContext& context) {
  check_zero_point(context, 0, 2);
  check_zero_point(context, 1, 3);
  infer_convolution<1>(context, DType::kI32);
}

// Requantizes exact sums whose unit is x_scale * w_scale.
Expr requantized(Expansion& e, Expr sums, Expr x_scale, Expr w_scale, Expr y_scale, Expr y_zero) {
  const auto real = [&](Expr x) { return e.cast(x, DType::kF32); };
  const Expr y = real(sums) * (real(x_scale) * real(w_scale));
  return e.make("QuantizeLinear", {y.id(), real(y_scale).id(), y_zero.id()});
}

void decompose_qlinear_matmul(Expansion& e) {
  const std::int64_t row_axis = e.rank(e.input(0)) > 1 ? 1 : 0;
  const Expr sums = e.matmul(centered(e, e.input(0), e.input(2), row_axis), centered(e, e.input(3), e.input(5), 0));
  Expr a_scale = e.input(1);
  if (row_axis == 1 && e.rank(a_scale) == 1) a_scale = e.unsqueeze(a_scale, {1});
  e.set_output(0, requantized(e, sums, a_scale, e.input(4), e.input(6), e.input(7)));
}

void infer_qlinear_matmul(InferContext& context) {
  check_zero_point(context, 0, 2);
  check_zero_point(context, 3, 5);
  context.set_dtype(0, context.dtype(7));
  const Shape& a = context.shape(0);
  const Shape& b = context.shape(3);
  if (a.size() < 2 || b.size() < 2) fail(ErrorCode::kInvalidModel, "QLinearMatMul of vectors");
  Shape result = broadcast_shapes(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2));
  result.push_back(a[a.size() - 2]);
  result.push_back(b.back());
  context.set_shape(0, std::move(result));
}

// Inputs: x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B.
void decompose_qlinear_conv(Expansion& e) {
  const Expr w = e.input(3);
  const Expr sums = exact_convolution(e, e.input(0), e.input(2), w, e.input(5), maybe(e, 8));
  Expr w_scale = e.input(4);
  if (e.rank(w_scale) == 1) {  // per output channel
    std::vector<std::int64_t> axes;
    for (std::int64_t i = 2; i < e.rank(w); ++i) axes.push_back(i - 1);
    w_scale = e.unsqueeze(w_scale, axes);
  }
  e.set_output(0, requantized(e, sums, e.input(1), w_scale, e.input(6), e.input(7)));
}

void infer_qlinear_conv(InferContext& context) {
  check_zero_point(context, 0, 2);
  check_zero_point(context, 3, 5);
  infer_convolution<3>(context, context.dtype(7));
}

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}

std::vector<AttributeDef> convolution_attributes() {
  return {{"auto_pad", AttributeKind::kString, false, Attribute(std::string("NOTSET"))},
          {"dilations", AttributeKind::kInts},
          {"kernel_shape", AttributeKind::kInts},
          {"pads", AttributeKind::kInts},
          {"strides", AttributeKind::kInts},
          integer("group", 1)};
}

}  // namespace

std::span<const OpDef> quantize_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "QuantizeLinear",
       .inputs = {{"x"}, {"y_scale"}, {"y_zero_point", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = {integer("axis", 1),
                      integer("block_size", 0),
                      integer("saturate", 1),
                      {"output_dtype", AttributeKind::kType}},
       .infer = infer_quantize,
       .reference = quantize_kernel},
      {.name = "DequantizeLinear",
       .inputs = {{"x"}, {"x_scale"}, {"x_zero_point", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = {integer("axis", 1), integer("block_size", 0), {"output_dtype", AttributeKind::kType}},
       .infer = infer_dequantize,
       .reference = dequantize_kernel},
      {.name = "DynamicQuantizeLinear",
       .inputs = {{"x"}},
       .outputs = {{"y"}, {"y_scale"}, {"y_zero_point"}},
       .infer = infer_dynamic_quantize,
       .decompose = decompose_dynamic_quantize},
      {.name = "MatMulInteger",
       .inputs = {{"A"}, {"B"}, {"a_zero_point", Arity::kOptional}, {"b_zero_point", Arity::kOptional}},
       .outputs = {{"Y"}},
       .infer = infer_matmul_integer,
       .decompose = decompose_matmul_integer},
      {.name = "ConvInteger",
       .inputs = {{"x"}, {"w"}, {"x_zero_point", Arity::kOptional}, {"w_zero_point", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = convolution_attributes(),
       .infer = infer_conv_integer,
       .decompose = decompose_conv_integer},
      {.name = "QLinearMatMul",
       .inputs =
           {{"a"}, {"a_scale"}, {"a_zero_point"}, {"b"}, {"b_scale"}, {"b_zero_point"}, {"y_scale"}, {"y_zero_point"}},
       .outputs = {{"y"}},
       .infer = infer_qlinear_matmul,
       .decompose = decompose_qlinear_matmul},
      {.name = "QLinearConv",
       .inputs = {{"x"},
                  {"x_scale"},
                  {"x_zero_point"},
                  {"w"},
                  {"w_scale"},
                  {"w_zero_point"},
                  {"y_scale"},
                  {"y_zero_point"},
                  {"B", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = convolution_attributes(),
       .infer = infer_qlinear_conv,
       .decompose = decompose_qlinear_conv},
  };
  return ops;
}

}  // namespace weft
