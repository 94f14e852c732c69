// Quantized products and tables of com.microsoft.
#include "importers/onnx/lower_microsoft.h"
#include "ops/shape_util.h"

namespace weft::onnx {

Expr unpack_bits(Builder& b, Expr packed, std::int64_t bits) {
  if (bits == 8) return packed;
  const Expr mask = b.scalar(DType::kU8, static_cast<double>((1 << bits) - 1));
  std::vector<ValueId> pieces;
  for (std::int64_t shift = 0; shift < 8; shift += bits) {
    const Expr moved = b.make("BitShift", {packed.id(), b.scalar(DType::kU8, static_cast<double>(shift)).id()},
                              {{"direction", std::string("RIGHT")}});
    pieces.push_back(b.unsqueeze(b.make("BitwiseAnd", {moved.id(), mask.id()}), {-1}).id());
  }
  std::vector<std::int64_t> shape(static_cast<std::size_t>(b.rank(packed)), 0);
  shape.back() = -1;
  return b.reshape(b.concat(pieces, -1), shape);
}

namespace {

using Values = std::vector<ValueId>;

Values matmul_nbits(Lowering& l) {
  l.ignore("accuracy_level");
  if (l.integer("weight_prepacked", 0) != 0) fail(ErrorCode::kUnsupported, "MatMulNBits with prepacked weights");
  Attributes attributes = {{"bits", l.integer("bits", 4)}};
  for (const std::string_view name : {"K", "N", "block_size"}) attributes[std::string(name)] = l.integer(name, 0);
  return {l.builder().make("MatMulNBits", l.inputs(), std::move(attributes)).id()};
}

// Rows of a quantized table, dequantized after they are gathered.
Values gather_block_quantized(Lowering& l) {
  Builder& b = l.builder();
  const std::int64_t rank = b.rank(l.input(0)), block = l.integer("block_size", 128), bits = l.integer("bits", 4);
  const std::int64_t axis = normalize_axis(l.integer("gather_axis", 0), rank);
  const std::int64_t quantized = normalize_axis(l.integer("quantize_axis", 1), rank);
  const bool bytes = b.dtype(l.input(0)) == DType::kU8;
  if (axis == quantized || (bytes && bits < 8 && quantized != rank - 1)) {
    fail(ErrorCode::kUnsupported, "GatherBlockQuantized along axis {}, quantized along {}", axis, quantized);
  }
  if ((bits != 2 && bits != 4 && bits != 8) || block < 16 || (block & (block - 1)) != 0) {
    fail(ErrorCode::kInvalidModel, "GatherBlockQuantized of {} bits in blocks of {}", bits, block);
  }
  const auto rows = [&](std::size_t index) {
    return b.make("Gather", {l.input(index).id(), l.input(1).id()}, {{"axis", axis}});
  };
  Expr data = rows(0), zero;
  const Expr scale = rows(2);
  if (bytes) data = unpack_bits(b, data, bits);
  if (l.has(3)) {
    zero = rows(3);
    if (bytes) zero = unpack_bits(b, zero, bits);
    const Dim& wanted = b.dim(scale, -1);
    if (wanted.is_constant() && !(b.dim(zero, -1) == wanted)) zero = b.slice(zero, -1, 0, wanted.value());
  } else if (bytes) {
    const Tensor middle = Tensor::full(DType::kU8, {1}, static_cast<double>(1 << (bits - 1)));
    zero = b.make("Expand", {b.constant(middle).id(), b.shape_of(scale).id()});
  }
  const std::int64_t moved = quantized < axis ? quantized : quantized - 1 + b.rank(l.input(1));
  return {
      b.make("DequantizeLinear", {data.id(), scale.id(), zero.id()}, {{"axis", moved}, {"block_size", block}}).id()};
}

Expr integer_product(Lowering& l, Expr a, Expr w, Expr a_zero, Expr w_zero) {
  return l.builder().make("MatMulInteger", {a.id(), w.id(), a_zero.id(), w_zero.id()});
}

// A is quantized here, u8 over its range.
Values dynamic_quantize_matmul(Lowering& l) {
  Builder& b = l.builder();
  const std::vector<Expr> a = b.make_many("DynamicQuantizeLinear", std::vector<ValueId>{l.input(0).id()}, 3);
  const Expr sums = integer_product(l, a[0], l.input(1), a[2], l.maybe(3));
  Expr y = b.cast(sums, DType::kF32) * (a[1] * l.input(2));
  if (l.has(4)) y = y + l.input(4);
  return {y.id()};
}

Values matmul_integer_to_float(Lowering& l) {
  Builder& b = l.builder();
  const Expr sums = integer_product(l, l.input(0), l.input(1), l.maybe(4), l.maybe(5));
  Expr y = b.cast(sums, DType::kF32) * (l.input(2) * l.input(3));
  if (l.has(6)) y = y + l.input(6);
  return {y.id()};
}

// The real operator between dequantized inputs and a quantized output.
Expr dequantized(Lowering& l, std::size_t at) {
  return l.builder().make("DequantizeLinear", {l.input(at).id(), l.input(at + 1).id(), l.maybe(at + 2).id()});
}
Values quantized(Lowering& l, Expr y, std::size_t at) {
  return {l.builder().make("QuantizeLinear", {y.id(), l.input(at).id(), l.maybe(at + 1).id()}).id()};
}

Values qlinear_binary(Lowering& l) {
  const Expr a = dequantized(l, 0), c = dequantized(l, 3);
  return quantized(l, l.op() == "QLinearAdd" ? a + c : a * c, 6);
}
Values qlinear_sigmoid(Lowering& l) { return quantized(l, l.builder().sigmoid(dequantized(l, 0)), 3); }
Values qlinear_leaky_relu(Lowering& l) {
  const Expr y = l.builder().make("LeakyRelu", {dequantized(l, 0).id()}, {{"alpha", l.number("alpha", 0.01)}});
  return quantized(l, y, 3);
}

// Inputs: y_scale, y_zero_point, and each tensor with its own.
Values qlinear_concat(Lowering& l) {
  std::vector<ValueId> parts;
  for (std::size_t i = 2; i < l.input_count(); i += 3) parts.push_back(dequantized(l, i).id());
  return quantized(l, l.builder().concat(parts, l.integer("axis", 0)), 0);
}
// "opset" says whether the axis is the only one (13) or the first of those that are one.
Values qlinear_softmax(Lowering& l) {
  Builder& b = l.builder();
  const Expr x = dequantized(l, 0);
  const bool single = l.integer("opset", 13) >= 13;
  const std::int64_t axis = normalize_axis(l.integer("axis", single ? -1 : 1), b.rank(x));
  if (single) return quantized(l, b.softmax(x, axis), 3);
  const Expr flat = b.softmax(b.make("Flatten", {x.id()}, {{"axis", axis}}), -1);
  return quantized(l, b.reshape(flat, b.shape_of(x)), 3);
}
Values qlinear_where(Lowering& l) {
  return quantized(l, l.builder().where(l.input(0), dequantized(l, 1), dequantized(l, 4)), 7);
}
Values qlinear_reduce_mean(Lowering& l) {
  Builder& b = l.builder();
  const auto axes = l.integers("axes");
  const Expr x = dequantized(l, 0);
  return quantized(
      l,
      b.make("ReduceMean", {x.id(), axes ? b.ints(*axes).id() : ValueId()}, {{"keepdims", l.integer("keepdims", 1)}}),
      3);
}
Values qlinear_average_pool(Lowering& l) {
  Builder& b = l.builder();
  if (l.integer("channels_last", 0) != 0) fail(ErrorCode::kUnsupported, "{} with channels last", l.op());
  const std::string_view op = l.op() == "QLinearAveragePool" ? "AveragePool" : "GlobalAveragePool";
  return quantized(l, b.make(op, {dequantized(l, 0).id()}, l.schema_attributes(op)), 3);
}
// A and B are u8 or i8, C i32 in units of their scales. Without y_scale the result is real.
Values qgemm(Lowering& l) {
  Builder& b = l.builder();
  const auto operand = [&](std::size_t at, std::string_view swap) {
    const bool turned = l.integer(swap, 0) != 0;
    const Expr x = l.input(at);
    return turned ? b.transpose(x, {1, 0}) : x;
  };
  const Expr sums = integer_product(l, operand(0, "transA"), operand(3, "transB"), l.maybe(2), l.maybe(5));
  const Expr total = l.has(6) ? sums + l.input(6) : sums;
  const Expr y = b.cast(total, DType::kF32) * (l.input(1) * l.input(4)) * l.number("alpha", 1.0);
  if (!l.has(7)) return {y.id()};
  return quantized(l, y, 7);
}

}  // namespace

std::span<const LoweringEntry> microsoft_quantized_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"MatMulNBits", matmul_nbits},
      {"GatherBlockQuantized", gather_block_quantized},
      {"DynamicQuantizeMatMul", dynamic_quantize_matmul},
      {"MatMulIntegerToFloat", matmul_integer_to_float},
      {"QLinearAdd", qlinear_binary},
      {"QLinearMul", qlinear_binary},
      {"QLinearSigmoid", qlinear_sigmoid},
      {"QLinearLeakyRelu", qlinear_leaky_relu},
      {"QLinearConcat", qlinear_concat},
      {"QLinearSoftmax", qlinear_softmax},
      {"QLinearWhere", qlinear_where},
      {"QLinearReduceMean", qlinear_reduce_mean},
      {"QLinearAveragePool", qlinear_average_pool},
      {"QLinearGlobalAveragePool", qlinear_average_pool},
      {"QGemm", qgemm},
  };
  return kEntries;
}

}  // namespace weft::onnx
