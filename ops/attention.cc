// Attention: softmax(cap(scale q k^T) + mask) v, with the masks that positions give as attributes
// (docs/operators.md). A superset of ONNX's Attention of operator set 25.
#include "ops/attention.h"

#include <cmath>

#include "ops/families.h"

namespace weft {
namespace {

constexpr std::size_t kMask = 3, kKeyPadding = 4, kAlibiSlopes = 5, kSinks = 6;

// --- Masks -----------------------------------------------------------------------------------------

struct Positions {
  Expr query;  // i64[S, 1]
  Expr key;    // i64[T]
};

Positions positions(Expansion& e, Expr q, Expr k) {
  const Expr one = e.constant(Tensor::scalar<std::int64_t>(1));
  const auto length = [&](Expr x) { return e.squeeze(e.extent_of(x, 2), {0}); };
  const auto range = [&](Expr from, Expr to) { return e.make("Range", {from.id(), to.id(), one.id()}); };
  const Expr zero = e.constant(Tensor::scalar<std::int64_t>(0));
  const Expr keys = length(k);
  const std::string& placed = e.attributes().text("query_position");
  if (placed != "start" && placed != "end") {
    fail(ErrorCode::kInvalidModel, "Attention has no query_position \"{}\"", placed);
  }
  const Expr query = placed == "end" ? range(keys - length(q), keys) : range(zero, length(q));
  return {e.unsqueeze(query, {1}), range(zero, keys)};
}

Expr both(Expansion& e, Expr x, Expr y) { return x && y ? e.make("And", {x.id(), y.id()}) : (x ? x : y); }

// bool[S, T]: what causality, window and chunks let a query attend; nothing where they let it attend all.
Expr allowed_by_position(Expansion& e, Expr q, Expr k) {
  const bool causal = e.integer("is_causal") != 0;
  const std::int64_t left = e.integer("left_window_size"), right = e.integer("right_window_size");
  const std::int64_t chunk = e.integer("chunk_size");
  if (left < -1 || right < -1 || chunk < 0) {
    fail(ErrorCode::kInvalidModel, "Attention with window sizes {} and {}, chunk size {}", left, right, chunk);
  }
  if (!causal && left < 0 && right < 0 && chunk == 0) return {};
  const Positions at = positions(e, q, k);
  Expr allowed;
  if (causal) allowed = e.make("LessOrEqual", {at.key.id(), at.query.id()});
  if (left >= 0) {
    allowed = both(e, allowed, e.make("GreaterOrEqual", {at.key.id(), (at.query - static_cast<double>(left)).id()}));
  }
  if (right >= 0) {
    allowed = both(e, allowed, e.make("LessOrEqual", {at.key.id(), (at.query + static_cast<double>(right)).id()}));
  }
  if (chunk > 0) {
    // Positions before the first key are in no chunk of a key: Mod keeps the divisor's sign.
    const auto start_of_chunk = [&](Expr x) {
      return x - e.make("Mod", {x.id(), e.constant(Tensor::scalar<std::int64_t>(chunk)).id()});
    };
    allowed = both(e, allowed, e.make("Equal", {start_of_chunk(at.key).id(), start_of_chunk(at.query).id()}));
  }
  return allowed;
}

// bool[B, 1, 1, T]
Expr allowed_by_padding(Expansion& e) {
  if (!e.has(kKeyPadding)) return {};
  return e.unsqueeze(e.cast(e.input(kKeyPadding), DType::kBool), {1, 2});
}

// f32[H, S, T]: slope[h] * (t - p)
Expr alibi(Expansion& e, Expr q, Expr k) {
  const Positions at = positions(e, q, k);
  const Expr slopes = e.unsqueeze(e.cast(e.input(kAlibiSlopes), e.dtype(q)), {1, 2});
  return slopes * e.cast(at.key - at.query, e.dtype(q));
}

}  // namespace

Expr attention_bias(Expansion& e, Expr q, Expr k) {
  Expr bias;
  const auto add = [&](Expr more) { bias = bias ? bias + more : more; };
  if (e.has(kMask)) {
    const Expr mask = e.input(kMask);
    add(e.dtype(mask) == DType::kBool ? e.where(mask, e.scalar_like(q, 0.0), e.scalar_like(q, -INFINITY)) : mask);
  }
  if (e.has(kAlibiSlopes)) add(alibi(e, q, k));
  const auto exclude = [&](Expr allowed) {
    if (allowed) add(e.where(allowed, e.scalar_like(q, 0.0), e.scalar_like(q, e.number("masked_fill"))));
  };
  const Expr by_position = allowed_by_position(e, q, k), by_padding = allowed_by_padding(e);
  if (e.integer("fill_per_condition") != 0) {
    exclude(by_position);
    exclude(by_padding);
  } else {
    exclude(both(e, by_position, by_padding));
  }
  return bias;
}

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
  // No key at all is an extent of 0, not "as before".
  return e.make("Reshape", {expanded.id(), e.concat(merged, 0).id()}, {{"allowzero", std::int64_t{1}}});
}

// Query heads per key head: 1 for equal (perhaps unknown) numbers of heads.
std::int64_t heads_per_key(Expansion& e, Expr q, Expr k) {
  const auto heads = [&](Expr x, std::string_view attribute) {
    return e.rank(x) == 4 ? e.shape(x)[1] : Dim(e.integer(attribute));
  };
  const Dim query = heads(q, "q_num_heads");
  const Dim key = heads(k, "kv_num_heads");
  if (query == key) return 1;
  if (!query.is_constant() || !key.is_constant() || key.value() <= 0 || query.value() < 0 ||
      query.value() % key.value() != 0) {
    fail(ErrorCode::kInvalidModel, "Attention with {} query and {} key heads", query.to_string(), key.to_string());
  }
  return query.value() / key.value();
}

namespace {

// --- The operator ----------------------------------------------------------------------------------

// Softmax over the keys and one more score per head that only takes its share.
Expr softmax_with_sinks(Expansion& e, Expr scores) {
  const Expr shape = e.shape_of(scores);
  const ValueId one_column[] = {e.slice(shape, 0, 0, 3).id(), e.ints({1}).id()};
  const Expr sinks = e.unsqueeze(e.cast(e.input(kSinks), e.dtype(scores)), {1, 2});
  const Expr column = e.make("Expand", {sinks.id(), e.concat(one_column, 0).id()});
  const ValueId parts[] = {scores.id(), column.id()};
  return e.slice(e.softmax(e.concat(parts, -1), -1), -1, 0, -1);
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
  if (const Expr bias = attention_bias(e, q, k)) scores = scores + bias;
  Expr weights = e.has(kSinks) ? softmax_with_sinks(e, scores) : e.softmax(scores, -1);
  if (e.integer("zero_masked_rows") != 0) {
    weights = e.where(e.unary("IsNaN", weights), e.scalar_like(weights, 0.0), weights);
  }
  Expr y = e.matmul(weights, v);
  if (e.rank(e.input(0)) == 3) {
    y = e.reshape(e.transpose(y, {0, 2, 1, 3}), std::vector<std::int64_t>{0, 0, -1});
  }
  e.set_output(0, y);
}

void check_side_inputs(InferContext& context) {
  const auto check = [&](std::size_t input, std::size_t rank, std::string_view what) {
    if (!context.has(input) || !context.has_shape(input) || context.shape(input).size() == rank) return;
    fail(ErrorCode::kInvalidModel, "Attention with {} of {}", what, to_string(context.shape(input)));
  };
  check(kKeyPadding, 2, "key_padding");
  check(kAlibiSlopes, 1, "alibi_slopes");
  check(kSinks, 1, "sinks");
}

void infer_attention(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& q = context.shape(0);
  const Shape& v = context.shape(2);
  if (q.size() < 3 || q.size() > 4 || v.size() < 3 || v.size() > 4) {
    fail(ErrorCode::kInvalidModel, "Attention of {} and {}", to_string(q), to_string(v));
  }
  check_side_inputs(context);
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

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}

AttributeDef number(std::string_view name, double fallback) {
  return {name, AttributeKind::kFloat, false, Attribute(fallback)};
}

}  // namespace

std::span<const OpDef> attention_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Attention",
       .inputs = {{"Q"},
                  {"K"},
                  {"V"},
                  {"attn_mask", Arity::kOptional},
                  {"key_padding", Arity::kOptional},
                  {"alibi_slopes", Arity::kOptional},
                  {"sinks", Arity::kOptional}},
       .outputs = {{"Y"}},
       .attributes = {{"scale", AttributeKind::kFloat},
                      number("softcap", 0.0),
                      integer("q_num_heads", 0),
                      integer("kv_num_heads", 0),
                      integer("is_causal", 0),
                      {"query_position", AttributeKind::kString, false, Attribute(std::string("start"))},
                      integer("left_window_size", -1),
                      integer("right_window_size", -1),
                      integer("chunk_size", 0),
                      number("masked_fill", -INFINITY),
                      integer("fill_per_condition", 0),
                      integer("zero_masked_rows", 0)},
       .infer = infer_attention,
       .decompose = decompose_attention},
  };
  return ops;
}

}  // namespace weft
