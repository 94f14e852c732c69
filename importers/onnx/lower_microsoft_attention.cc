// Attention and rotary embeddings of com.microsoft.
#include "importers/onnx/lower_microsoft_attention.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

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

}  // namespace

std::span<const LoweringEntry> microsoft_attention_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"RotaryEmbedding", rotary_embedding}, {"MultiHeadAttention", multi_head_attention},   {"Attention", attention},
      {"QAttention", quantized_attention},   {"GroupQueryAttention", group_query_attention},
  };
  return kEntries;
}

}  // namespace weft::onnx
