// GroupQueryAttention of com.microsoft: rotary embedding, a cache that may be quantized, and attention in one.
#include <cmath>

#include "importers/onnx/lower_microsoft_attention.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

// How a cache holds keys or values: as they are (0 bits), as i8, or as two numbers of 4 bits in a u8, offset by 8 and
// the first in the low bits; in units of `scale`, which broadcasts to [B, heads, length, size].
struct CacheCode {
  std::int64_t bits = 0;
  Expr scale;
};

CacheCode cache_code(Lowering& l, std::string_view type, std::size_t scale_at, std::int64_t heads) {
  Builder& b = l.builder();
  const std::string kind = l.text(type, "NONE");
  const std::int64_t bits = l.integer("kv_cache_bit_width", 0);
  if (kind == "NONE") {
    if (l.has(scale_at)) fail(ErrorCode::kInvalidModel, "GroupQueryAttention with a scale and {} = NONE", type);
    return {};
  }
  if ((kind != "PER_TENSOR" && kind != "PER_CHANNEL") || (bits != 4 && bits != 8)) {
    fail(ErrorCode::kUnsupported, "GroupQueryAttention with {} = {} and a cache of {} bits", type, kind, bits);
  }
  const Expr scale = b.cast(l.input(scale_at), DType::kF32);
  if (kind == "PER_TENSOR") return {bits, b.reshape(scale, std::vector<std::int64_t>{1})};
  return {bits, b.reshape(scale, {1, heads, 1, -1})};
}

Expr encoded(Builder& b, Expr x, const CacheCode& code) {
  if (code.bits == 0) return x;
  const double most = code.bits == 8 ? 127 : 7;
  const Expr exact = b.cast(x, DType::kF32) / code.scale;
  const Expr whole = b.make(
      "Clip", {b.unary("Round", exact).id(), b.scalar(DType::kF32, -most - 1).id(), b.scalar(DType::kF32, most).id()});
  if (code.bits == 8) return b.cast(whole, DType::kI8);
  const Expr pairs = b.reshape(b.cast(whole + 8.0, DType::kU8), std::vector<std::int64_t>{0, 0, 0, -1, 2});
  const auto half = [&](std::int64_t i) { return b.squeeze(b.slice(pairs, 4, i, i + 1), {4}); };
  return half(0) + half(1) * 16.0;
}

Expr decoded(Builder& b, Expr cache, const CacheCode& code, DType dtype) {
  if (code.bits == 0) return cache;
  Expr whole = b.cast(unpack_bits(b, cache, code.bits), DType::kF32);
  if (code.bits == 4) whole = whole - 8.0;
  return b.cast(whole * code.scale, dtype);
}

// Where each row's new tokens start: valid keys (seqlens_k + 1) less S, and 0 for a prompt padded on the right. A
// negative seqlens_k gives a negative place, which writing refuses.
Expr past_lengths(Lowering& l, Expr q) {
  Builder& b = l.builder();
  const Expr last = b.reshape(b.cast(l.input(5), DType::kI64), std::vector<std::int64_t>{-1});
  const Expr start = last + 1.0 - extent(b, q, 2);
  const Expr least = b.make("Min", {last.id(), b.constant(Tensor::scalar<std::int64_t>(0)).id()});
  return b.make("Max", {start.id(), least.id()});
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

}  // namespace

Values group_query_attention(Lowering& l) {
  Builder& b = l.builder();
  const std::int64_t heads = heads_of(l, "num_heads"), key_heads = heads_of(l, "kv_num_heads");
  if (heads % key_heads != 0) {
    fail(ErrorCode::kInvalidModel, "GroupQueryAttention with {} and {} heads", heads, key_heads);
  }
  const CacheCode key_code = cache_code(l, "k_quant_type", 12, key_heads);
  const CacheCode value_code = cache_code(l, "v_quant_type", 13, key_heads);
  if (l.integer("sliding_window_cache", 0) != 0) {
    fail(ErrorCode::kUnsupported, "GroupQueryAttention with a cache of the window only");
  }
  if (l.integer("qk_output", 0) != 0)
    fail(ErrorCode::kUnsupported, "GroupQueryAttention with the output of its scores");
  if (l.has(16)) fail(ErrorCode::kUnsupported, "GroupQueryAttention with input 16");
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
  const Expr present_key = written(l, 3, encoded(b, k, key_code), starts);
  const Expr present_value = written(l, 4, encoded(b, v, value_code), starts);
  core.k = decoded(b, present_key, key_code, b.dtype(core.q));
  core.v = decoded(b, present_value, value_code, b.dtype(core.q));
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

}  // namespace weft::onnx
