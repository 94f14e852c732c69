// Attention and rotary embeddings of the standard operator sets (23 and newer).
#include <cmath>

#include "importers/onnx/lower.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

// 0, 1, 2, ... as long as axis `axis` of x.
Expr positions(Builder& b, Expr x, std::int64_t axis) {
  const Expr zero = b.constant(Tensor::scalar<std::int64_t>(0));
  const Expr one = b.constant(Tensor::scalar<std::int64_t>(1));
  return b.make("Range", {zero.id(), b.squeeze(b.extent_of(x, axis), {0}).id(), one.id()});
}

Expr both(Builder& b, Expr x, Expr y) { return x ? b.make("And", {x.id(), y.id()}) : y; }

// Which keys each query may attend, [S, T] or [B, 1, S, T] with lengths per batch row; invalid: all.
Expr allowed_positions(Lowering& l, Expr q, Expr k) {
  Builder& b = l.builder();
  const bool causal = l.integer("is_causal", 0) != 0;
  const std::int64_t left = l.integer("left_window_size", -1), right = l.integer("right_window_size", -1);
  const Expr lengths = l.maybe(6);
  if (!causal && left < 0 && right < 0 && !lengths) return {};
  const Expr key = positions(b, k, 2);                // [T]
  Expr query = b.unsqueeze(positions(b, q, 2), {1});  // [S, 1]
  if (l.has(4)) {
    query = query + b.squeeze(b.extent_of(l.input(4), 2), {0});
  } else if (lengths) {
    const Expr first = lengths - b.squeeze(b.extent_of(q, 2), {0});
    query = query + b.unsqueeze(first, {1, 2, 3});  // [B, 1, S, 1]
  }
  Expr allowed;
  if (causal) allowed = b.make("LessOrEqual", {key.id(), query.id()});
  if (left >= 0)
    allowed = both(b, allowed, b.make("GreaterOrEqual", {key.id(), (query - static_cast<double>(left)).id()}));
  if (right >= 0)
    allowed = both(b, allowed, b.make("LessOrEqual", {key.id(), (query + static_cast<double>(right)).id()}));
  if (lengths) allowed = both(b, allowed, b.make("Less", {key.id(), b.unsqueeze(lengths, {1, 2, 3}).id()}));
  return allowed;
}

// Our own exporter says so where the graph it wrote did not.
constexpr std::string_view kZeroMaskedRows = "weft.zero_masked_rows";

bool zeroes_empty_rows(const Lowering& l, bool has_mask) {
  const auto said = l.node().metadata.find(kZeroMaskedRows);
  return said == l.node().metadata.end() ? has_mask : said->second != "0";
}

// The mask as it was before our own exporter raised its lowest numbers, and perhaps spread it after that.
Expr without_floor(Lowering& l, Expr mask) {
  if (!l.node().metadata.contains("weft.mask_has_floor")) return mask;
  const Graph& graph = l.builder().graph();
  ValueId id = mask.id();
  for (const std::string_view op : {"Expand", "Max"}) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kResult && graph.node(value.producer).op == op)
      id = graph.node(value.producer).inputs[0];
  }
  return l.builder().wrap(id);
}

// Whether both are some past and the same new tokens. Caches of layers have lengths of their own names in exports,
// which every run makes equal: a mask that is padded there would hide the newest keys.
bool are_pasts_of(const Dim& queries, const Dim& a, const Dim& b) {
  return (a - queries).symbol_name().has_value() && (b - queries).symbol_name().has_value();
}

// A mask whose last axis is shorter than the keys hides the rest.
Expr full_mask(Lowering& l, Expr q, Expr k) {
  Builder& b = l.builder();
  Expr mask = l.maybe(3);
  if (!mask) return mask;
  mask = without_floor(l, mask);
  const Dim& given = b.dim(mask, -1);
  const Dim& wanted = b.dim(k, 2);
  const bool boolean = b.dtype(mask) == DType::kBool;
  if (!boolean && !is_float(b.dtype(mask))) mask = b.cast(mask, b.dtype(l.input(0)));
  const bool own = l.node().metadata.contains(kZeroMaskedRows);  // our own masks are as long as the keys
  if (own || given == wanted || given.is(1)) return mask;
  if (are_pasts_of(b.dim(q, b.rank(q) == 4 ? 2 : 1), given, wanted)) return mask;
  const Expr missing = b.extent_of(k, 2) - b.extent_of(mask, -1);
  const ValueId pads[] = {b.ints({0}).id(), missing.id()};
  const Expr filler = boolean ? b.constant(Tensor::scalar<bool>(false)) : b.scalar(b.dtype(mask), -INFINITY);
  return b.make("Pad", {mask.id(), b.concat(pads, 0).id(), filler.id(), b.ints({-1}).id()});
}

// Both conditions in one mask.
Expr join(Builder& b, Expr mask, Expr allowed) {
  if (!mask || !allowed) return mask ? mask : allowed;
  if (b.dtype(mask) == DType::kBool) return b.make("And", {mask.id(), allowed.id()});
  return b.where(allowed, mask, b.scalar(b.dtype(mask), -INFINITY));
}

struct Operands {
  Expr q, k, v;  // [B, heads, length, size]
};

// Of rank 3: heads share the last axis.
void check_heads(Builder& b, Expr x, std::int64_t heads) {
  if (b.rank(x) == 4) return;
  if (heads <= 0) fail(ErrorCode::kInvalidModel, "Attention of rank 3 needs its numbers of heads");
  const Dim& width = b.dim(x, -1);
  if (width.is_constant() && width.value() % heads != 0) {
    fail(ErrorCode::kInvalidModel, "Attention of width {} with {} heads", width.value(), heads);
  }
}

Expr split_heads(Builder& b, Expr x, std::int64_t heads) {
  if (b.rank(x) == 4) return x;
  return b.transpose(b.reshape(x, std::vector<std::int64_t>{0, 0, heads, -1}), {0, 2, 1, 3});
}

Expr repeat_heads(Builder& b, Expr x, std::int64_t group) {
  if (group == 1) return x;
  const Expr shape = b.shape_of(x);
  const auto extent = [&](std::int64_t axis) { return b.slice(shape, 0, axis, axis + 1); };
  const ValueId wide[] = {b.slice(shape, 0, 0, 2).id(), b.ints({group}).id(), b.slice(shape, 0, 2, 4).id()};
  const ValueId merged[] = {extent(0).id(), (extent(1) * static_cast<double>(group)).id(),
                            b.slice(shape, 0, 2, 4).id()};
  return b.reshape(b.make("Expand", {b.unsqueeze(x, {2}).id(), b.concat(wide, 0).id()}), b.concat(merged, 0));
}

// Written out: the fused operator does not give its scores.
Values spelled_out(Lowering& l, const Operands& given, Expr mask, double softcap) {
  Builder& b = l.builder();
  const DType dtype = b.dtype(given.q);
  const DType wide = dtype == DType::kF16 || dtype == DType::kBF16 ? DType::kF32 : dtype;
  const Dim query_heads = b.dim(given.q, 1), key_heads = b.dim(given.k, 1);
  if (!query_heads.is_constant() || !key_heads.is_constant() || key_heads.value() <= 0 ||
      query_heads.value() % key_heads.value() != 0) {
    fail(ErrorCode::kUnsupported, "Attention with {} query and {} key heads", query_heads.to_string(),
         key_heads.to_string());
  }
  const std::int64_t group = query_heads.value() / key_heads.value();
  const Expr q = b.cast(given.q, wide), k = b.cast(repeat_heads(b, given.k, group), wide);
  Expr scores = b.matmul(q, b.transpose(k, {0, 1, 3, 2}));
  if (l.find("scale") != nullptr) {
    scores = scores * l.number("scale", 0);
  } else {
    scores = scores / b.sqrt(b.squeeze(b.cast(b.extent_of(q, 3), wide), {0}));
  }
  const Expr raw = scores;
  if (softcap != 0) scores = b.tanh(scores / softcap) * softcap;
  const Expr capped = scores;
  if (mask) {
    scores =
        b.dtype(mask) == DType::kBool ? b.where(mask, scores, b.scalar(wide, -INFINITY)) : scores + b.cast(mask, wide);
  }
  const Expr masked = scores;
  Expr weights = b.softmax(scores, -1);
  if (mask) {  // a row without any key is a row of zeros
    const Expr highest = b.make("ReduceMax", {scores.id(), b.ints({-1}).id()});
    const Expr empty = b.make("Equal", {highest.id(), b.scalar(wide, -INFINITY).id()});
    weights = b.where(empty, b.scalar(wide, 0.0), weights);
  }
  const Expr v = repeat_heads(b, given.v, group);
  Expr y = b.cast(b.matmul(weights, b.cast(v, wide)), dtype);
  if (b.rank(l.input(0)) == 3) y = b.reshape(b.transpose(y, {0, 2, 1, 3}), std::vector<std::int64_t>{0, 0, -1});
  const Expr stages[] = {raw, capped, masked, weights};
  const std::int64_t stage = l.integer("qk_matmul_output_mode", 0);
  if (stage < 0 || stage > 3) fail(ErrorCode::kInvalidModel, "qk_matmul_output_mode {}", stage);
  return {y.id(), given.k.id(), given.v.id(), b.cast(stages[stage], dtype).id()};
}

// Past keys and values are concatenated; conditions on positions become a mask unless they are just causal.
Values attention(Lowering& l) {
  Builder& b = l.builder();
  l.ignore("softmax_precision");  // at least f32 always
  const double softcap = l.number("softcap", 0);
  const std::int64_t query_heads = l.integer("q_num_heads", 0), key_heads = l.integer("kv_num_heads", 0);
  const bool causal = l.integer("is_causal", 0) != 0;
  const bool plain_positions =
      !l.has(4) && !l.has(6) && l.integer("left_window_size", -1) < 0 && l.integer("right_window_size", -1) < 0;
  const bool cached = l.has(4) || l.has(5) || l.wants(1) || l.wants(2);
  const bool fused = !l.wants(3);
  Operands o = {l.input(0), l.input(1), l.input(2)};
  check_heads(b, o.q, query_heads);
  check_heads(b, o.k, key_heads);
  check_heads(b, o.v, key_heads);
  if (l.has(6) && l.has(4)) fail(ErrorCode::kInvalidModel, "Attention with nonpad_kv_seqlen and past keys");
  const bool heads_apart = cached || !fused || !plain_positions || l.has(3);
  if (heads_apart) {
    o.k = split_heads(b, o.k, key_heads);
    o.v = split_heads(b, o.v, key_heads);
  }
  if (l.has(4) != l.has(5)) fail(ErrorCode::kInvalidModel, "Attention with past keys or values alone");
  if (l.has(4)) {
    const ValueId keys[] = {l.input(4).id(), o.k.id()}, values[] = {l.input(5).id(), o.v.id()};
    o.k = b.concat(keys, 2);
    o.v = b.concat(values, 2);
  }
  if (!fused) {
    o.q = split_heads(b, o.q, query_heads);
    return spelled_out(l, o, join(b, full_mask(l, o.q, o.k), allowed_positions(l, o.q, o.k)), softcap);
  }
  l.ignore("qk_matmul_output_mode");
  Expr mask = l.has(3) ? full_mask(l, o.q, o.k) : Expr();
  if (!plain_positions) {
    mask = join(b, mask, allowed_positions(l, b.rank(o.q) == 4 ? o.q : split_heads(b, o.q, query_heads), o.k));
  }
  Attributes attributes;
  if (b.rank(o.q) == 3) attributes["q_num_heads"] = query_heads;
  if (b.rank(o.k) == 3) attributes["kv_num_heads"] = key_heads;
  if (causal && plain_positions) attributes["is_causal"] = std::int64_t{1};
  if (zeroes_empty_rows(l, static_cast<bool>(mask))) attributes["zero_masked_rows"] = std::int64_t{1};
  if (mask && is_float(b.dtype(mask)) && b.dtype(mask) != b.dtype(o.q)) mask = b.cast(mask, b.dtype(o.q));
  if (softcap != 0) attributes["softcap"] = softcap;
  if (l.find("scale") != nullptr) attributes["scale"] = l.number("scale", 0);
  const Expr y = b.make("Attention", {o.q.id(), o.k.id(), o.v.id(), mask.id()}, std::move(attributes));
  return {y.id(), o.k.id(), o.v.id()};
}

// Cosines and sines of half the rotated width, looked up by position and doubled, then Rotary.
Values rotary_embedding(Lowering& l) {
  Builder& b = l.builder();
  const std::int64_t heads = l.integer("num_heads", 0), interleaved = l.integer("interleaved", 0);
  const std::int64_t width = l.integer("rotary_embedding_dim", 0);
  Expr x = l.input(0);
  const bool flat = b.rank(x) == 3;
  if (flat) {
    if (heads <= 0) fail(ErrorCode::kInvalidModel, "RotaryEmbedding of rank 3 needs num_heads");
    x = b.reshape(x, std::vector<std::int64_t>{0, 0, heads, -1});  // [B, S, H, D]
  }
  const auto table = [&](std::size_t index) {
    Expr half = l.input(index);
    if (width > 0 && !b.dim(half, -1).is(width / 2)) half = b.slice(half, -1, 0, width / 2);
    if (l.has(3)) half = b.make("Gather", {half.id(), l.input(3).id()}, {{"axis", std::int64_t{0}}});
    Expr full;
    if (interleaved == 0) {
      const ValueId twice[] = {half.id(), half.id()};
      full = b.concat(twice, -1);
    } else {
      const Expr one = b.unsqueeze(half, {-1});
      const ValueId twice[] = {one.id(), one.id()};
      full = b.reshape(b.concat(twice, -1), std::vector<std::int64_t>{0, 0, -1});
    }
    return b.cast(b.unsqueeze(full, {flat ? 2 : 1}), b.dtype(x));
  };
  const auto rotate = [&](Expr part) {
    return b.make("Rotary", {part.id(), table(1).id(), table(2).id()}, {{"interleaved", interleaved}});
  };
  Expr y;
  if (width > 0) {
    constexpr std::int64_t kEnd = INT64_MAX;
    const ValueId parts[] = {rotate(b.slice(x, -1, 0, width)).id(), b.slice(x, -1, width, kEnd).id()};
    y = b.concat(parts, -1);
  } else {
    y = rotate(x);
  }
  if (flat) y = b.reshape(y, b.shape_of(l.input(0)));
  return {y.id()};
}

// score_mod and prob_mod are graphs from a tensor of scores [B, H, S, T] to one.
Values flex_attention(Lowering& l) {
  Builder& b = l.builder();
  const Expr q = l.input(0);
  const bool modified = l.find("score_mod") != nullptr || l.find("prob_mod") != nullptr;
  l.ignore("softmax_precision");
  if (!modified) {
    Attributes attributes;
    if (l.find("scale") != nullptr) attributes["scale"] = l.number("scale", 0);
    return {b.make("Attention", {q.id(), l.input(1).id(), l.input(2).id()}, std::move(attributes)).id()};
  }
  const Dim query_heads = b.dim(q, 1), key_heads = b.dim(l.input(1), 1);
  const bool grouped = !(query_heads == key_heads);
  if (grouped && (!query_heads.is_constant() || !key_heads.is_constant() || key_heads.value() <= 0 ||
                  query_heads.value() % key_heads.value() != 0)) {
    fail(ErrorCode::kUnsupported, "FlexAttention with {} query and {} key heads", query_heads.to_string(),
         key_heads.to_string());
  }
  const std::int64_t group = grouped ? query_heads.value() / key_heads.value() : 1;
  const Expr k = repeat_heads(b, l.input(1), group), v = repeat_heads(b, l.input(2), group);
  Expr scores = b.matmul(q, b.transpose(k, {0, 1, 3, 2}));
  if (l.find("scale") != nullptr) {
    scores = scores * l.number("scale", 0);
  } else {
    scores = scores / b.sqrt(b.squeeze(b.cast(b.extent_of(q, 3), b.dtype(q)), {0}));
  }
  const auto apply = [&](std::string_view name, Expr x) {
    if (l.find(name) == nullptr) return x;
    const ValueId inputs[] = {x.id()};
    const std::vector<Expr> outputs = l.inline_graph(name, inputs);
    if (outputs.size() != 1) fail(ErrorCode::kInvalidModel, "{} has {} outputs", name, outputs.size());
    return outputs[0];
  };
  const Expr weights = apply("prob_mod", b.softmax(apply("score_mod", scores), -1));
  return {b.matmul(b.cast(weights, b.dtype(v)), v).id()};
}

Values linear_attention(Lowering& l) {
  l.ignore("chunk_size");  // how it may be computed, not what
  return l.pass("LinearAttention", l.inputs());
}

}  // namespace

std::span<const LoweringEntry> attention_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"Attention", attention},
      {"RotaryEmbedding", rotary_embedding},
      {"FlexAttention", flex_attention},
      {"LinearAttention", linear_attention},
  };
  return kEntries;
}

}  // namespace weft::onnx
