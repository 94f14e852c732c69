// Operators that passes introduce, each defined by smaller ones (docs/operators.md).
#include <cmath>

#include "ops/builder.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

constexpr double kSqrt2OverPi = 0.79788456080286535588;

Expr gelu(Expansion& e, Expr x, bool approximate) {
  if (!approximate) return x * 0.5 * (e.erf(x / std::sqrt(2.0)) + 1.0);
  return x * 0.5 * (e.tanh((x + x * x * x * 0.044715) * kSqrt2OverPi) + 1.0);
}

Expr activate(Expansion& e, Expr x, const std::string& name) {
  if (name == "none") return x;
  if (name == "relu") return e.unary("Relu", x);
  if (name == "gelu") return gelu(e, x, false);
  if (name == "gelu_tanh") return gelu(e, x, true);
  if (name == "silu") return x * e.sigmoid(x);
  if (name == "tanh") return e.tanh(x);
  if (name == "sigmoid") return e.sigmoid(x);
  fail(ErrorCode::kInvalidModel, "Linear has no activation \"{}\"", name);
}

void decompose_linear(Expansion& e) {
  Expr y = e.matmul(e.input(0), e.input(1));
  if (e.has(2)) y = y + e.input(2);
  e.set_output(0, activate(e, y, e.attributes().text("activation")));
}

void infer_linear(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape shape = context.shape(0);
  const Shape& weight = context.shape(1);
  if (shape.empty() || weight.size() != 2) {
    fail(ErrorCode::kInvalidModel, "Linear of {} and {}", to_string(shape), to_string(weight));
  }
  if (shape.back().is_constant() && weight[0].is_constant() && !(shape.back() == weight[0])) {
    fail(ErrorCode::kInvalidModel, "Linear of {} and {}", to_string(shape), to_string(weight));
  }
  shape.back() = weight[1];
  context.set_shape(0, std::move(shape));
}

void decompose_gelu(Expansion& e) {
  e.set_output(0, gelu(e, e.input(0), e.attributes().text("approximate") == "tanh"));
}

void decompose_swish(Expansion& e) {
  const Expr x = e.input(0);
  const double alpha = e.number("alpha");
  e.set_output(0, x * e.sigmoid(alpha == 1.0 ? x : x * alpha));
}

// --- Attention -------------------------------------------------------------------------------------

// [B, length, heads * size] -> [B, heads, length, size]; rank 4 stays.
Expr split_heads(Expansion& e, Expr x, std::int64_t heads) {
  if (e.rank(x) == 4) return x;
  if (heads == 0) fail(ErrorCode::kInvalidModel, "Attention of rank 3 needs its number of heads");
  return e.transpose(e.reshape(x, std::vector<std::int64_t>{0, 0, heads, -1}), {0, 2, 1, 3});
}

// Each key head serves `group` query heads: [B, H, T, D] -> [B, H * group, T, D].
Expr repeat_heads(Expansion& e, Expr x, std::int64_t group) {
  if (group == 1) return x;
  const Expr shape = e.shape_of(x);
  const auto extent = [&](std::int64_t axis) { return e.slice(shape, 0, axis, axis + 1).id(); };
  const ValueId wide[] = {extent(0), extent(1), e.ints({group}).id(), extent(2), extent(3)};
  const Expr expanded = e.make("Expand", {e.unsqueeze(x, {2}).id(), e.concat(wide, 0).id()});
  const ValueId merged[] = {extent(0), (e.slice(shape, 0, 1, 2) * static_cast<double>(group)).id(), extent(2),
                            extent(3)};
  return e.reshape(expanded, e.concat(merged, 0));
}

// Query heads per key head: 1 for equal (perhaps unknown) numbers of heads.
std::int64_t heads_per_key(Expansion& e, Expr q, Expr k) {
  const auto heads = [&](Expr x, std::string_view attribute) {
    return e.rank(x) == 4 ? e.shape(x)[1] : Dim(e.integer(attribute));
  };
  const Dim query = heads(q, "q_num_heads");
  const Dim key = heads(k, "kv_num_heads");
  if (query == key) return 1;
  if (!query.is_constant() || !key.is_constant() || key.is(0) || query.value() % key.value() != 0) {
    fail(ErrorCode::kInvalidModel, "Attention with {} query and {} key heads", query.to_string(), key.to_string());
  }
  return query.value() / key.value();
}

// 0 where query s may attend key t (t <= s), -inf elsewhere.
Expr causal_mask(Expansion& e, Expr q, Expr k) {
  const Expr zero = e.constant(Tensor::scalar<std::int64_t>(0));
  const Expr one = e.constant(Tensor::scalar<std::int64_t>(1));
  const auto positions = [&](Expr x, std::int64_t axis) {
    const Expr length = e.squeeze(e.extent_of(x, 2), {0});
    return e.unsqueeze(e.make("Range", {zero.id(), length.id(), one.id()}), {axis});
  };
  const Expr allowed = e.make("LessOrEqual", {positions(k, 0).id(), positions(q, 1).id()});
  return e.where(allowed, e.scalar_like(q, 0.0), e.scalar_like(q, -INFINITY));
}

void decompose_attention(Expansion& e) {
  const std::int64_t group = heads_per_key(e, e.input(0), e.input(1));
  const Expr q = split_heads(e, e.input(0), e.integer("q_num_heads"));
  const Expr k = repeat_heads(e, split_heads(e, e.input(1), e.integer("kv_num_heads")), group);
  const Expr v = repeat_heads(e, split_heads(e, e.input(2), e.integer("kv_num_heads")), group);
  Expr scores = e.matmul(q, e.transpose(k, {0, 1, 3, 2}));
  if (e.attributes().has("scale")) {
    scores = scores * e.number("scale");
  } else {
    const Expr size = e.squeeze(e.cast(e.extent_of(q, 3), e.dtype(q)), {0});
    scores = scores / e.sqrt(size);
  }
  if (const double cap = e.number("softcap"); cap != 0) scores = e.tanh(scores / cap) * cap;
  if (e.has(3)) {
    Expr mask = e.input(3);
    if (e.dtype(mask) == DType::kBool) {
      mask = e.where(mask, e.scalar_like(q, 0.0), e.scalar_like(q, -INFINITY));
    }
    scores = scores + mask;
  }
  if (e.integer("is_causal") != 0) scores = scores + causal_mask(e, q, k);
  Expr weights = e.softmax(scores, -1);
  if (e.integer("zero_masked_rows") != 0) {
    weights = e.where(e.unary("IsNaN", weights), e.scalar_like(weights, 0.0), weights);
  }
  Expr y = e.matmul(weights, v);
  if (e.rank(e.input(0)) == 3) {
    y = e.reshape(e.transpose(y, {0, 2, 1, 3}), std::vector<std::int64_t>{0, 0, -1});
  }
  e.set_output(0, y);
}

void infer_attention(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& q = context.shape(0);
  const Shape& v = context.shape(2);
  if (q.size() < 3 || q.size() > 4 || v.size() < 3 || v.size() > 4) {
    fail(ErrorCode::kInvalidModel, "Attention of {} and {}", to_string(q), to_string(v));
  }
  Dim size = v.back();
  if (v.size() == 3) {
    const std::int64_t heads = context.integer("kv_num_heads");
    if (heads <= 0) fail(ErrorCode::kInvalidModel, "Attention of rank 3 needs kv_num_heads");
    size = Dim::floor_div(size, Dim(heads));
  }
  Shape result = q;
  result.back() = q.size() == 4 ? size : size * Dim(context.integer("q_num_heads"));
  context.set_shape(0, std::move(result));
}

// --- Rotary and caches -----------------------------------------------------------------------------

void decompose_rotary(Expansion& e) {
  const Expr x = e.input(0);
  const auto pieces = [&](Expr value, std::int64_t axis) {
    return e.make_many("Split", std::vector<ValueId>{value.id()}, 2,
                       {{"axis", axis}, {"num_outputs", std::int64_t{2}}});
  };
  Expr rotated;
  if (e.integer("interleaved") == 0) {
    const std::vector<Expr> halves = pieces(x, -1);
    const ValueId swapped[] = {(-halves[1]).id(), halves[0].id()};
    rotated = e.concat(swapped, -1);
  } else {
    const Expr shape = e.shape_of(x);
    const std::int64_t rank = e.rank(x);
    const Dim& size = e.shape(x).back();
    const ValueId paired[] = {e.slice(shape, 0, 0, rank - 1).id(),
                              e.ints({size.is_constant() ? size.value() / 2 : -1, 2}).id()};
    const std::vector<Expr> parts = pieces(e.reshape(x, e.concat(paired, 0)), -1);
    const ValueId swapped[] = {(-parts[1]).id(), parts[0].id()};
    rotated = e.reshape(e.concat(swapped, -1), shape);
  }
  e.set_output(0, x * e.input(1) + rotated * e.input(2));
}

void infer_rotary(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const auto fits = [&](const Shape& table) {
    return !table.empty() && table.size() <= x.size() &&
           (!table.back().is_constant() || !x.back().is_constant() || table.back() == x.back());
  };
  const bool odd = !x.empty() && x.back().is_constant() && x.back().value() % 2 != 0;
  if (x.empty() || odd || !fits(context.shape(1)) || !fits(context.shape(2))) {
    fail(ErrorCode::kInvalidModel, "Rotary of {} by {} and {}", to_string(x), to_string(context.shape(1)),
         to_string(context.shape(2)));
  }
  context.set_shape(0, x);
}

void decompose_cache_append(Expansion& e) {
  const ValueId parts[] = {e.input(0).id(), e.input(1).id()};
  e.set_output(0, e.concat(parts, e.integer("axis")));
}

void infer_cache_append(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape shape = context.shape(0);
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), context.rank(0)));
  shape[axis] = shape[axis] + context.shape(1)[axis];
  context.set_shape(0, std::move(shape));
}

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}

}  // namespace

std::span<const OpDef> fused_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Linear",
       .inputs = {{"x"}, {"weight"}, {"bias", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = {{"activation", AttributeKind::kString, false, Attribute(std::string("none"))}},
       .infer = infer_linear,
       .decompose = decompose_linear},
      {.name = "Gelu",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .attributes = {{"approximate", AttributeKind::kString, false, Attribute(std::string("none"))}},
       .infer = infer_same_as_first,
       .decompose = decompose_gelu},
      {.name = "Swish",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .attributes = {{"alpha", AttributeKind::kFloat, false, Attribute(1.0)}},
       .infer = infer_same_as_first,
       .decompose = decompose_swish},
      {.name = "Attention",
       .inputs = {{"Q"}, {"K"}, {"V"}, {"attn_mask", Arity::kOptional}},
       .outputs = {{"Y"}},
       .attributes = {{"scale", AttributeKind::kFloat},
                      integer("is_causal", 0),
                      integer("q_num_heads", 0),
                      integer("kv_num_heads", 0),
                      integer("zero_masked_rows", 0),
                      {"softcap", AttributeKind::kFloat, false, Attribute(0.0)}},
       .infer = infer_attention,
       .decompose = decompose_attention},
      {.name = "Rotary",
       .inputs = {{"x"}, {"cos"}, {"sin"}},
       .outputs = {{"y"}},
       .attributes = {integer("interleaved", 0)},
       .infer = infer_rotary,
       .decompose = decompose_rotary},
      {.name = "CacheAppend",
       .inputs = {{"past"}, {"new"}},
       .outputs = {{"present"}},
       .attributes = {integer("axis", 2)},
       .infer = infer_cache_append,
       .decompose = decompose_cache_append},
  };
  return ops;
}

}  // namespace weft
