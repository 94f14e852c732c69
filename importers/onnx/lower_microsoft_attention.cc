// Attention and rotary embeddings of com.microsoft.
#include <cmath>

#include "importers/onnx/lower_microsoft.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

Expr range(Builder& b, Expr length) {
  const Expr zero = b.constant(Tensor::scalar<std::int64_t>(0)), one = b.constant(Tensor::scalar<std::int64_t>(1));
  return b.make("Range", {zero.id(), length.id(), one.id()});
}
Expr extent(Builder& b, Expr x, std::int64_t axis) { return b.squeeze(b.extent_of(x, axis), {0}); }

// [B, S, H * D] <-> [B, H, S, D]
Expr split_heads(Builder& b, Expr x, std::int64_t heads) {
  return b.transpose(b.reshape(x, std::vector<std::int64_t>{0, 0, heads, -1}), {0, 2, 1, 3});
}
Expr merge_heads(Builder& b, Expr x) {
  return b.reshape(b.transpose(x, {0, 2, 1, 3}), std::vector<std::int64_t>{0, 0, -1});
}

// num_heads and kv_num_heads, of a size that arithmetic on them cannot overflow.
std::int64_t heads_of(Lowering& l, std::string_view name) {
  const std::int64_t heads = l.integer(name, 0);
  constexpr std::int64_t kMost = 1 << 20;
  if (heads <= 0 || heads > kMost) fail(ErrorCode::kInvalidModel, "{} with {} = {}", l.op(), name, heads);
  return heads;
}

Expr added(Expr x, Expr y) { return x && y ? x + y : (x ? x : y); }

// cos and sin: [positions, D / 2], full after lookup and doubling; x: [B, H, S, D].
Expr rotate(Builder& b, Expr x, Expr positions, Expr cos, Expr sin, bool interleaved) {
  const Dim& half = b.dim(cos, -1);
  const auto table = [&](Expr cache) {
    const Expr rows = b.make("Gather", {cache.id(), positions.id()}, {{"axis", std::int64_t{0}}});  // [B, S, D / 2]
    if (!interleaved) {
      const ValueId twice[] = {rows.id(), rows.id()};
      return b.unsqueeze(b.concat(twice, -1), {1});
    }
    const Expr one = b.unsqueeze(rows, {-1});
    const ValueId twice[] = {one.id(), one.id()};
    return b.unsqueeze(b.reshape(b.concat(twice, -1), std::vector<std::int64_t>{0, 0, -1}), {1});
  };
  const Attributes attributes = {{"interleaved", std::int64_t{interleaved}}};
  const Dim& size = b.dim(x, -1);
  const bool whole = !half.is_constant() || (half * Dim(2)) == size;
  if (whole) return b.make("Rotary", {x.id(), table(cos).id(), table(sin).id()}, attributes);
  constexpr std::int64_t kWidest = 1 << 20;
  if (half.value() > kWidest) fail(ErrorCode::kInvalidModel, "rotary tables of width {}", half.value());
  const std::int64_t width = half.value() * 2;
  const Expr turned = b.make("Rotary", {b.slice(x, -1, 0, width).id(), table(cos).id(), table(sin).id()}, attributes);
  const ValueId parts[] = {turned.id(), b.slice(x, -1, width, INT64_MAX).id()};
  return b.concat(parts, -1);
}

// input 3-D or [B, N, S, D]; position_ids [B, S], or [1]: where the sequence starts.
Values rotary_embedding(Lowering& l) {
  Builder& b = l.builder();
  if (l.integer("is_packed_batching", 0) != 0) fail(ErrorCode::kUnsupported, "RotaryEmbedding of packed batches");
  const double scale = l.number("scale", 1.0);
  if (scale != 1.0) fail(ErrorCode::kUnsupported, "RotaryEmbedding with scale {}", scale);
  const std::int64_t width = l.integer("rotary_embedding_dim", 0);
  std::int64_t heads = l.integer("num_heads", 0);
  Expr x = l.input(0);
  const bool flat = b.rank(x) == 3;
  if (flat) {
    const Dim& half = b.dim(l.input(2), -1);
    const Dim& hidden = b.dim(x, -1);
    if (heads == 0 && width == 0 && half.is_constant() && hidden.is_constant() && half.value() > 0 &&
        half.value() <= hidden.value() / 2) {
      heads = hidden.value() / (half.value() * 2);
    }
    if (heads <= 0) fail(ErrorCode::kInvalidModel, "RotaryEmbedding of rank 3 needs num_heads");
    x = split_heads(b, x, heads);
  }
  Expr positions = l.input(1);
  if (b.rank(positions) == 1) positions = b.unsqueeze(positions + range(b, extent(b, x, 2)), {0});
  const Expr y = rotate(b, x, positions, l.input(2), l.input(3), l.integer("interleaved", 0) != 0);
  return {(flat ? merge_heads(b, y) : y).id()};
}

struct Core {
  Expr q, k, v;  // [B, heads, length, size]
  Expr bias;     // additive, or none
  Expr allowed;  // boolean, or none
  std::optional<double> scale;
  double softcap = 0;
};

Expr attend(Builder& b, const Core& core) {
  Expr mask = core.bias;
  if (mask && core.allowed) {
    mask = b.where(core.allowed, mask, b.scalar(b.dtype(mask), -INFINITY));
  } else if (core.allowed) {
    mask = core.allowed;
  }
  Attributes attributes;
  if (core.allowed) attributes["zero_masked_rows"] = std::int64_t{1};
  if (core.scale) attributes["scale"] = *core.scale;
  if (core.softcap != 0) attributes["softcap"] = core.softcap;
  return b.make("Attention", {core.q.id(), core.k.id(), core.v.id(), mask.id()}, std::move(attributes));
}

std::optional<double> scale_of(Lowering& l) {
  const double scale = l.number("scale", 0.0);
  return scale == 0 ? std::nullopt : std::optional(scale);
}

// Queries are the last S of T positions.
Expr causal(Builder& b, Expr q, Expr k) {
  const Expr past = extent(b, k, 2) - extent(b, q, 2);
  const Expr query = b.unsqueeze(range(b, extent(b, q, 2)) + past, {1});
  return b.make("LessOrEqual", {range(b, extent(b, k, 2)).id(), query.id()});
}

// The int32 masks of the older operators, as what is added to the scores [B, 1, S, T]: [B] counts of keys, [2 B] ends
// and starts, [B, T] or [B, S, T] of 0 and 1.
Expr padding_bias(Lowering& l, Expr mask, Expr q, Expr k, double fill) {
  Builder& b = l.builder();
  const DType dtype = b.dtype(q);
  Expr kept;
  if (b.rank(mask) == 1) {
    const Dim& given = b.dim(mask, 0);
    const Dim& batch = b.dim(q, 0);
    const Expr key = range(b, extent(b, k, 2));
    const auto row = [&](Expr x) { return b.unsqueeze(b.cast(x, DType::kI64), {1, 2, 3}); };
    if (given == batch * Dim(2) && !(given == batch)) {
      const Expr count = b.extent_of(q, 0);
      const Expr ends = b.make("Slice", {mask.id(), b.ints({0}).id(), count.id()});
      const Expr starts = b.make("Slice", {mask.id(), count.id(), (count * 2.0).id()});
      kept = b.make("And", {b.make("Less", {key.id(), row(ends).id()}).id(),
                            b.make("GreaterOrEqual", {key.id(), row(starts).id()}).id()});
    } else if (given == batch || !given.is_constant() || !batch.is_constant()) {
      kept = b.make("Less", {key.id(), row(mask).id()});
    } else {
      fail(ErrorCode::kUnsupported, "{} with a mask of {} for a batch of {}", l.op(), given.to_string(),
           batch.to_string());
    }
  } else if (b.rank(mask) == 2) {
    kept = b.cast(b.unsqueeze(mask, {1, 2}), DType::kBool);
  } else if (b.rank(mask) == 3) {
    kept = b.cast(b.unsqueeze(mask, {1}), DType::kBool);
  } else {
    fail(ErrorCode::kUnsupported, "{} with a mask of rank {}", l.op(), b.rank(mask));
  }
  return b.where(kept, b.scalar(dtype, 0.0), b.scalar(dtype, fill));
}

Expr joined(Builder& b, Expr past, Expr now) {
  const ValueId parts[] = {past.id(), now.id()};
  return b.concat(parts, 2);
}

// --- MultiHeadAttention ------------------------------------------------------------------------------------

// The pieces of [B, S, N, pieces, D] as [B, N, S, D].
Expr piece_of(Builder& b, Expr packed, std::int64_t index) {
  return b.transpose(b.squeeze(b.slice(packed, 3, index, index + 1), {3}), {0, 2, 1, 3});
}

Values multi_head_attention(Lowering& l) {
  Builder& b = l.builder();
  const std::int64_t heads = heads_of(l, "num_heads");
  const double fill = l.number("mask_filter_value", -10000.0);
  const bool unidirectional = l.integer("unidirectional", 0) != 0;
  Core core;
  core.scale = scale_of(l);
  const Expr query = l.input(0);
  const auto with_bias = [&](Expr x, std::int64_t part) {
    if (!l.has(3)) return x;
    // q, k and v follow each other; v may be of another width.
    const Dim& width = b.dim(query, -1);
    if (!width.is_constant()) fail(ErrorCode::kUnsupported, "MultiHeadAttention with bias and unknown width");
    return x + b.slice(l.input(3), 0, part * width.value(), part == 2 ? INT64_MAX : (part + 1) * width.value());
  };
  if (b.rank(query) == 5) {
    core.q = piece_of(b, query, 0);
    core.k = piece_of(b, query, 1);
    core.v = piece_of(b, query, 2);
    if (l.has(3)) fail(ErrorCode::kUnsupported, "MultiHeadAttention with packed QKV and bias");
  } else {
    core.q = split_heads(b, with_bias(query, 0), heads);
    const Expr key = l.input(1);
    if (b.rank(key) == 5) {
      core.k = piece_of(b, key, 0);
      core.v = piece_of(b, key, 1);
    } else if (b.rank(key) == 4) {  // keys and values of a cross-attention, projected before
      core.k = key;
      core.v = l.input(2);
    } else {
      core.k = split_heads(b, with_bias(key, 1), heads);
      core.v = split_heads(b, with_bias(l.input(2), 2), heads);
    }
  }
  if (l.has(6)) core.k = joined(b, l.input(6), core.k);
  if (l.has(7)) core.v = joined(b, l.input(7), core.v);
  for (std::size_t i = 8; i < l.input_count(); ++i) {
    if (l.has(i)) fail(ErrorCode::kUnsupported, "MultiHeadAttention with input {}", i);
  }
  if (l.has(4)) core.bias = padding_bias(l, l.input(4), core.q, core.k, fill);
  core.bias = added(core.bias, l.maybe(5));
  if (unidirectional) core.allowed = causal(b, core.q, core.k);
  return {merge_heads(b, attend(b, core)).id(), core.k.id(), core.v.id()};
}

// --- Attention ------------------------------------------------------------------------------------------------

// projected: [B, S, q + k + v]; inputs from `at` on: mask_index, past, attention_bias.
Values packed_attention(Lowering& l, Expr projected, std::size_t mask_at, std::size_t past_at, std::size_t bias_at) {
  Builder& b = l.builder();
  const std::int64_t heads = heads_of(l, "num_heads");
  if (l.integer("do_rotary", 0) != 0) fail(ErrorCode::kUnsupported, "{} with rotary embeddings inside", l.op());
  if (l.integer("past_present_share_buffer", 0) != 0) fail(ErrorCode::kUnsupported, "{} with a shared buffer", l.op());
  l.ignore("rotary_embedding_dim");
  const double fill = l.number("mask_filter_value", -10000.0);
  const bool unidirectional = l.integer("unidirectional", 0) != 0;
  Core core;
  core.scale = scale_of(l);
  std::vector<Expr> parts;
  if (const auto sizes = l.integers("qkv_hidden_sizes"); sizes && sizes->size() == 3) {
    const ValueId inputs[] = {projected.id(), b.ints(*sizes).id()};
    parts = b.make_many("Split", inputs, 3, {{"axis", std::int64_t{-1}}});
  } else {
    const ValueId inputs[] = {projected.id()};
    parts = b.make_many("Split", inputs, 3, {{"axis", std::int64_t{-1}}, {"num_outputs", std::int64_t{3}}});
  }
  core.q = split_heads(b, parts[0], heads);
  core.k = split_heads(b, parts[1], heads);
  core.v = split_heads(b, parts[2], heads);
  if (l.has(past_at)) {  // [2, B, N, P, D]
    const Expr past = l.input(past_at);
    core.k = joined(b, b.squeeze(b.slice(past, 0, 0, 1), {0}), core.k);
    core.v = joined(b, b.squeeze(b.slice(past, 0, 1, 2), {0}), core.v);
  }
  if (l.has(mask_at)) core.bias = padding_bias(l, l.input(mask_at), core.q, core.k, fill);
  if (bias_at != 0) core.bias = added(core.bias, l.maybe(bias_at));
  if (unidirectional) core.allowed = causal(b, core.q, core.k);
  const Expr y = merge_heads(b, attend(b, core));
  Expr present;
  if (l.wants(1)) {
    const ValueId both[] = {b.unsqueeze(core.k, {0}).id(), b.unsqueeze(core.v, {0}).id()};
    present = b.concat(both, 0);
  }
  return {y.id(), present.id()};
}

Values attention(Lowering& l) {
  Expr projected = l.builder().matmul(l.input(0), l.input(1));
  if (l.has(2)) projected = projected + l.input(2);
  if (l.has(6)) fail(ErrorCode::kUnsupported, "Attention with past_sequence_length");
  return packed_attention(l, projected, 3, 4, 5);
}

// Inputs: x, weight, bias, their scales, mask_index, their zero points, past.
Values quantized_attention(Lowering& l) {
  Builder& b = l.builder();
  const Expr sums = b.make("MatMulInteger", {l.input(0).id(), l.input(1).id(), l.maybe(6).id(), l.maybe(7).id()});
  const Expr projected = b.cast(sums, DType::kF32) * (l.input(3) * l.input(4)) + l.input(2);
  return packed_attention(l, projected, 5, 8, 0);
}

// --- GroupQueryAttention -----------------------------------------------------------------------------------------

// Where each row's new tokens start: valid keys (seqlens_k + 1) less S, and 0 for a prompt padded on the right.
Expr past_lengths(Lowering& l, Expr q) {
  Builder& b = l.builder();
  const Expr last = b.reshape(b.cast(l.input(5), DType::kI64), std::vector<std::int64_t>{-1});
  const Expr start = last + 1.0 - extent(b, q, 2);
  return b.make("Max", {start.id(), b.constant(Tensor::scalar<std::int64_t>(0)).id()});
}

// Cache of max(P, total) positions per row, with the new ones written where the row's past ends.
Expr written(Lowering& l, std::size_t past_at, Expr now, Expr starts) {
  Builder& b = l.builder();
  const Expr total = b.reshape(b.cast(l.input(6), DType::kI64), std::vector<std::int64_t>{1});
  Expr past;
  if (l.has(past_at)) {
    past = l.input(past_at);
    const Expr missing = b.make("Max", {(total - b.extent_of(past, 2)).id(), b.ints({0}).id()});
    const ValueId pads[] = {b.ints({0}).id(), missing.id()};
    past = b.make("Pad", {past.id(), b.concat(pads, 0).id(), ValueId(), b.ints({2}).id()});
  } else {
    const Expr shape = b.shape_of(now);
    const ValueId wanted[] = {b.slice(shape, 0, 0, 2).id(), total.id(), b.slice(shape, 0, 3, 4).id()};
    past = b.make("Expand", {b.scalar_like(now, 0.0).id(), b.concat(wanted, 0).id()});
  }
  return b.make("TensorScatter", {past.id(), now.id(), starts.id()}, {{"axis", std::int64_t{2}}});
}

// A key that only takes a share of each row's weight.
void add_sink(Builder& b, Core& core, Expr sink) {
  const auto zero_key = [&](Expr x) {
    const Expr shape = b.shape_of(x);
    const ValueId wanted[] = {b.slice(shape, 0, 0, 2).id(), b.ints({1}).id(), b.slice(shape, 0, 3, 4).id()};
    return joined(b, x, b.make("Expand", {b.scalar_like(x, 0.0).id(), b.concat(wanted, 0).id()}));
  };
  const Expr zero = b.scalar_like(core.q, 0.0), never = b.scalar_like(core.q, -INFINITY);
  Expr mask = b.where(core.allowed, core.bias ? core.bias : zero, never);
  const Expr queries = b.extent_of(core.q, 2), batch = b.extent_of(core.q, 0), heads = b.extent_of(core.q, 1);
  const auto spread = [&](Expr x, Expr last) {
    const ValueId shape[] = {batch.id(), heads.id(), queries.id(), last.id()};
    return b.make("Expand", {x.id(), b.concat(shape, 0).id()});
  };
  const Expr column = sink ? b.reshape(b.cast(sink, b.dtype(core.q)), std::vector<std::int64_t>{1, -1, 1, 1})
                           : b.reshape(zero, std::vector<std::int64_t>{1, 1, 1, 1});
  const ValueId columns[] = {spread(mask, b.extent_of(core.k, 2)).id(), spread(column, b.ints({1})).id()};
  core.bias = b.concat(columns, 3);
  core.allowed = Expr();
  core.k = zero_key(core.k);
  core.v = zero_key(core.v);
}

// Each head's queries or keys [B, H, S, D] divided by their root mean square, if there is a weight for it.
Expr normalized(Lowering& l, Expr x, std::size_t weight, std::string_view epsilon) {
  const double shared = l.number("qk_norm_epsilon", 1e-6), own = l.number(epsilon, shared);
  if (!l.has(weight)) return x;
  return l.builder().make("RMSNormalization", {x.id(), l.input(weight).id()},
                          {{"axis", std::int64_t{-1}}, {"epsilon", own}});
}

Values group_query_attention(Lowering& l) {
  Builder& b = l.builder();
  const std::int64_t heads = heads_of(l, "num_heads"), key_heads = heads_of(l, "kv_num_heads");
  if (heads % key_heads != 0) {
    fail(ErrorCode::kInvalidModel, "GroupQueryAttention with {} and {} heads", heads, key_heads);
  }
  for (const std::string_view name : {"k_quant_type", "v_quant_type"}) {
    if (l.text(name, "NONE") != "NONE") fail(ErrorCode::kUnsupported, "GroupQueryAttention with a quantized cache");
  }
  l.ignore("kv_cache_bit_width");
  if (l.integer("sliding_window_cache", 0) != 0) {
    fail(ErrorCode::kUnsupported, "GroupQueryAttention with a cache of the window only");
  }
  if (l.integer("qk_output", 0) != 0)
    fail(ErrorCode::kUnsupported, "GroupQueryAttention with the output of its scores");
  for (const std::size_t i : {12, 13, 16}) {
    if (l.has(i)) fail(ErrorCode::kUnsupported, "GroupQueryAttention with input {}", i);
  }
  Core core;
  core.scale = scale_of(l);
  core.softcap = l.number("softcap", 0.0);
  Expr k, v;
  if (l.has(1)) {
    core.q = split_heads(b, l.input(0), heads);
    k = split_heads(b, l.input(1), key_heads);
    v = split_heads(b, l.input(2), key_heads);
  } else {  // packed
    const Expr all = split_heads(b, l.input(0), heads + 2 * key_heads);
    core.q = b.slice(all, 1, 0, heads);
    k = b.slice(all, 1, heads, heads + key_heads);
    v = b.slice(all, 1, heads + key_heads, heads + 2 * key_heads);
  }
  core.q = normalized(l, core.q, 14, "q_norm_epsilon");
  k = normalized(l, k, 15, "k_norm_epsilon");
  const Expr starts = past_lengths(l, core.q);
  const Expr query = b.unsqueeze(starts, {1}) + b.unsqueeze(range(b, extent(b, core.q, 2)), {0});  // [B, S]
  if (l.integer("do_rotary", 0) != 0) {
    const bool interleaved = l.integer("rotary_interleaved", 0) != 0;
    const Expr positions = l.has(9) ? l.input(9) : query;
    core.q = rotate(b, core.q, positions, l.input(7), l.input(8), interleaved);
    k = rotate(b, k, positions, l.input(7), l.input(8), interleaved);
  } else {
    l.ignore("rotary_interleaved");
  }
  core.k = written(l, 3, k, starts);
  core.v = written(l, 4, v, starts);
  const Expr present_key = core.k, present_value = core.v;
  const Expr row = b.unsqueeze(query, {1, 3});  // [B, 1, S, 1]
  const Expr key = range(b, extent(b, core.k, 2));
  core.allowed = b.make("LessOrEqual", {key.id(), row.id()});
  if (l.integer("causal", 1) == 0) {  // all keys there are
    const Expr last = b.reshape(b.cast(l.input(5), DType::kI64), std::vector<std::int64_t>{-1, 1, 1, 1});
    core.allowed = b.make("LessOrEqual", {key.id(), last.id()});
  }
  if (const std::int64_t window = l.integer("local_window_size", -1); window > 0) {
    const Expr near = b.make("Greater", {key.id(), (row - static_cast<double>(window)).id()});
    core.allowed = b.make("And", {core.allowed.id(), near.id()});
  }
  core.bias = l.maybe(10);
  if (l.integer("smooth_softmax", 0) != 0 || l.has(11)) add_sink(b, core, l.maybe(11));
  return {merge_heads(b, attend(b, core)).id(), present_key.id(), present_value.id()};
}

}  // namespace

std::span<const LoweringEntry> microsoft_attention_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"RotaryEmbedding", rotary_embedding}, {"MultiHeadAttention", multi_head_attention},   {"Attention", attention},
      {"QAttention", quantized_attention},   {"GroupQueryAttention", group_query_attention},
  };
  return kEntries;
}

}  // namespace weft::onnx
