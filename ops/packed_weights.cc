// Products with weights of few bits, as com.microsoft has them: MatMulNBits, of 2, 4 or 8 bits in blocks;
// MatMulIntegerToFloat and DynamicQuantizeMatMul, of bytes on both sides.
#include "ops/builder.h"
#include "ops/families.h"
#include "ops/fused.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

struct Layout {
  std::int64_t k, n, bits, block, blocks;

  explicit Layout(const AttributeReader& attributes)
      : k(attributes.integer("K")),
        n(attributes.integer("N")),
        bits(attributes.integer("bits")),
        block(attributes.integer("block_size")) {
    constexpr std::int64_t kLargest = std::int64_t{1} << 31;
    if (bits != 2 && bits != 4 && bits != 8) fail(ErrorCode::kUnsupported, "MatMulNBits of {} bits", bits);
    if (k <= 0 || n <= 0 || k > kLargest || n > kLargest || block < 16 || block > kLargest ||
        (block & (block - 1)) != 0) {
      fail(ErrorCode::kInvalidModel, "MatMulNBits with K = {}, N = {}, block_size = {}", k, n, block);
    }
    blocks = (k + block - 1) / block;
  }
  std::int64_t zero_bytes() const { return (blocks * bits + 7) / 8; }  // of one output
};

// u8[..., n] of packed elements, low bits first -> u8[..., n * 8 / bits].
Expr unpacked(Expansion& e, Expr packed, std::int64_t bits) {
  if (bits == 8) return packed;
  const Expr mask = e.scalar(DType::kU8, static_cast<double>((1 << bits) - 1));
  std::vector<ValueId> pieces;
  for (std::int64_t shift = 0; shift < 8; shift += bits) {
    const Expr moved = e.make("BitShift", {packed.id(), e.scalar(DType::kU8, static_cast<double>(shift)).id()},
                              {{"direction", std::string("RIGHT")}});
    pieces.push_back(e.unsqueeze(e.make("BitwiseAnd", {moved.id(), mask.id()}), {-1}).id());
  }
  std::vector<std::int64_t> shape(static_cast<std::size_t>(e.rank(packed)), 0);
  shape.back() = -1;
  return e.reshape(e.concat(pieces, -1), shape);
}

// Y = A W' + bias, W[n, k] = (q[n, k] - zero_point) * scale, one of each for a block of k.
void decompose_matmul_nbits(Expansion& e) {
  const Layout l(e.attributes());
  const Expr a = e.input(0);
  Expr q = unpacked(e, e.reshape(e.input(1), {l.n, l.blocks, l.block * l.bits / 8}), l.bits);  // [N, blocks, block]
  const Expr scale = e.cast(e.reshape(e.input(2), {l.n, l.blocks}), DType::kF32);
  Expr zero = e.scalar(DType::kF32, static_cast<double>(1 << (l.bits - 1)));
  if (e.has(3) && e.dtype(e.input(3)) == DType::kU8) {
    const Expr rows = unpacked(e, e.reshape(e.input(3), {l.n, l.zero_bytes()}), l.bits);
    zero = e.cast(e.slice(rows, 1, 0, l.blocks), DType::kF32);
  } else if (e.has(3)) {
    zero = e.cast(e.reshape(e.input(3), {l.n, l.blocks}), DType::kF32);
  }
  Expr weight;
  if (e.has(4)) {  // g_idx: the block of each k
    const auto of_group = [&](Expr x) {
      return e.rank(x) == 0 ? x : e.make("Gather", {x.id(), e.input(4).id()}, {{"axis", std::int64_t{1}}});
    };
    const Expr flat = e.slice(e.reshape(q, {l.n, l.blocks * l.block}), 1, 0, l.k);
    weight = (e.cast(flat, DType::kF32) - of_group(zero)) * of_group(scale);
  } else {
    const auto per_block = [&](Expr x) { return e.rank(x) == 0 ? x : e.unsqueeze(x, {2}); };
    weight = (e.cast(q, DType::kF32) - per_block(zero)) * per_block(scale);
    weight = e.slice(e.reshape(weight, {l.n, l.blocks * l.block}), 1, 0, l.k);
  }
  const Expr y = e.matmul(a, e.cast(e.transpose(weight, {1, 0}), e.dtype(a)));
  e.set_output(0, e.has(5) ? y + e.input(5) : y);
}

void infer_matmul_nbits(InferContext& context) {
  const Layout l(context.attributes());
  context.set_dtype(0, context.dtype(0));
  const auto expect = [&](std::size_t input, std::int64_t wanted, std::string_view what) {
    if (!context.has(input) || !context.has_shape(input)) return;
    const Dim count = element_count(context.shape(input));
    if (count.is_constant() && count.value() != wanted) {
      fail(ErrorCode::kInvalidModel, "MatMulNBits: {} elements of {} instead of {}", count.value(), what, wanted);
    }
  };
  expect(1, l.n * l.blocks * (l.block * l.bits / 8), "B");
  expect(2, l.n * l.blocks, "scales");
  expect(3, l.n * (context.has(3) && context.dtype(3) == DType::kU8 ? l.zero_bytes() : l.blocks), "zero_points");
  Shape result = context.shape(0);
  if (result.empty()) fail(ErrorCode::kInvalidModel, "MatMulNBits of a scalar");
  if (result.back().is_constant() && result.back().value() != l.k) {
    fail(ErrorCode::kInvalidModel, "MatMulNBits of {} with K = {}", to_string(result), l.k);
  }
  result.back() = Dim(l.n);
  context.set_shape(0, std::move(result));
}

// --- Products of bytes as floats -------------------------------------------------------------------------------

enum ToFloat : std::size_t { kA, kB, kAScale, kBScale, kAZero, kBZero, kBias, kResidual };

// What becomes of A, quantized, and of B; absent Exprs are absent inputs.
struct Operands {
  Expr a, b, a_scale, b_scale, a_zero, b_zero, bias, residual;
};

// Y = (A - a_zero_point) (B - b_zero_point) * (a_scale * b_scale) + bias
void set_product(Expansion& e, const Operands& o) {
  const Expr sums = e.make("MatMulInteger", {o.a.id(), o.b.id(), o.a_zero.id(), o.b_zero.id()});
  Expr y = e.cast(sums, e.dtype(o.b_scale)) * (o.a_scale * o.b_scale);
  if (o.bias) y = y + o.bias;
  cut_and_activate(e, y, o.residual);
}

Expr maybe(Expansion& e, std::size_t index) { return e.has(index) ? e.input(index) : Expr(); }

void decompose_integer_to_float(Expansion& e) {
  set_product(e, {e.input(kA), e.input(kB), e.input(kAScale), e.input(kBScale), maybe(e, kAZero), maybe(e, kBZero),
                  maybe(e, kBias), maybe(e, kResidual)});
}

// A is quantized to u8 over its range and that of zero.
void decompose_dynamic_quantize_matmul(Expansion& e) {
  const std::vector<Expr> a = e.make_many("DynamicQuantizeLinear", std::vector<ValueId>{e.input(0).id()}, 3);
  set_product(e, {a[0], e.input(1), a[1], e.input(2), a[2], maybe(e, 3), maybe(e, 4), maybe(e, 5)});
}

template <std::size_t kScale, std::size_t kResidual>
void infer_product_of_bytes(InferContext& context) {
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_dtype(i, context.dtype(kScale));
  const Shape &a = context.shape(0), &b = context.shape(1);
  const bool differ = a.size() > 1 && b.size() > 1 && a.back().is_constant() && b[b.size() - 2].is_constant() &&
                      !(a.back() == b[b.size() - 2]);
  if (a.size() < 2 || b.size() < 2 || differ) {
    fail(ErrorCode::kInvalidModel, "a product of {} and {}", to_string(a), to_string(b));
  }
  if (context.has(kResidual) && context.output_count() != 1) {
    fail(ErrorCode::kInvalidModel, "a residual of {} outputs", context.output_count());
  }
  Shape result = broadcast_shapes(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2));
  result.push_back(a[a.size() - 2]);
  result.push_back(b.back());
  set_cut_shapes(context, std::move(result));
}

AttributeDef required(std::string_view name) { return {name, AttributeKind::kInt, true}; }

}  // namespace

std::span<const OpDef> packed_weights_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "MatMulNBits",
       .inputs = {{"A"},
                  {"B"},
                  {"scales"},
                  {"zero_points", Arity::kOptional},
                  {"g_idx", Arity::kOptional},
                  {"bias", Arity::kOptional}},
       .outputs = {{"Y"}},
       .attributes = {required("K"), required("N"), required("bits"), required("block_size")},
       .infer = infer_matmul_nbits,
       .decompose = decompose_matmul_nbits},
      {.name = "MatMulIntegerToFloat",
       .inputs = {{"A"},
                  {"B"},
                  {"a_scale"},
                  {"b_scale"},
                  {"a_zero_point", Arity::kOptional},
                  {"b_zero_point", Arity::kOptional},
                  {"bias", Arity::kOptional},
                  {"residual", Arity::kOptional}},
       .outputs = {{"Y", Arity::kVariadic}},
       .attributes = cut_attributes(),
       .infer = infer_product_of_bytes<kBScale, kResidual>,
       .decompose = decompose_integer_to_float},
      {.name = "DynamicQuantizeMatMul",
       .inputs = {{"A"},
                  {"B"},
                  {"b_scale"},
                  {"b_zero_point", Arity::kOptional},
                  {"bias", Arity::kOptional},
                  {"residual", Arity::kOptional}},
       .outputs = {{"Y", Arity::kVariadic}},
       .attributes = cut_attributes(),
       .infer = infer_product_of_bytes<2, 5>,
       .decompose = decompose_dynamic_quantize_matmul},
  };
  return ops;
}

}  // namespace weft
