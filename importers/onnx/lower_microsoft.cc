// Activations, normalizations, embeddings and products of com.microsoft.
#include "importers/onnx/lower_microsoft.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

Expr plus(Lowering& l, Expr x, std::size_t index) { return l.has(index) ? x + l.input(index) : x; }

Values bias_gelu(Lowering& l) { return {l.builder().make("Gelu", {plus(l, l.input(0), 1).id()}).id()}; }

Values fast_gelu(Lowering& l) {
  const Expr x = plus(l, l.input(0), 1);
  return {l.builder().make("Gelu", {x.id()}, {{"approximate", std::string("tanh")}}).id()};
}

Values quick_gelu(Lowering& l) {
  return {l.builder().make("Swish", {l.input(0).id()}, {{"alpha", l.number("alpha", 1.702)}}).id()};
}

// mean and inv_std_var, outputs 1 and 2, are for training.
void refuse_statistics(Lowering& l, std::size_t last) {
  for (std::size_t i = 1; i <= last; ++i) {
    if (l.wants(i)) fail(ErrorCode::kUnsupported, "{} with the output of its statistics", l.op());
  }
}

Values simplified_layer_normalization(Lowering& l) {
  l.ignore("stash_type");
  refuse_statistics(l, 1);
  return {l.builder()
              .make("RMSNormalization", {l.input(0).id(), l.input(1).id()},
                    {{"axis", l.integer("axis", -1)}, {"epsilon", l.number("epsilon", 1e-5)}})
              .id()};
}

// The sum of input, skip and bias is output 3.
Values skip_normalization(Lowering& l) {
  const bool simplified = l.op() == "SkipSimplifiedLayerNormalization";
  refuse_statistics(l, 2);
  const Expr sum = plus(l, l.input(0) + l.input(1), simplified ? 3 : 4);
  const Attributes attributes = {{"axis", std::int64_t{-1}},
                                 {"epsilon", l.number("epsilon", simplified ? 1e-6 : 1e-12)}};
  Expr y;
  if (simplified) {
    y = l.builder().make("RMSNormalization", {sum.id(), l.input(2).id()}, attributes);
  } else {
    y = l.builder().make("LayerNormalization", {sum.id(), l.input(2).id(), l.maybe(3).id()}, attributes);
  }
  return {y.id(), {}, {}, sum.id()};
}

// Inputs: ids, segments?, tables of words, positions and segments?, gamma, beta, mask?, position_ids?.
Values embed_layer_normalization(Lowering& l) {
  Builder& b = l.builder();
  l.ignore("mask_index_type");
  const auto rows = [&](std::size_t table, Expr ids) {
    return b.make("Gather", {l.input(table).id(), ids.id()}, {{"axis", std::int64_t{0}}});
  };
  const Expr ids = l.input(0);
  Expr sum = rows(2, ids);
  if (l.has(8)) {
    sum = sum + rows(3, l.input(8));
  } else {
    const Expr zero = b.constant(Tensor::scalar<std::int64_t>(0)), one = b.constant(Tensor::scalar<std::int64_t>(1));
    const Expr length = b.squeeze(b.extent_of(ids, 1), {0});
    sum = sum + rows(3, b.make("Range", {zero.id(), length.id(), one.id()}));
  }
  if (l.has(1) && l.has(4)) sum = sum + rows(4, l.input(1));
  const Expr y = b.make("LayerNormalization", {sum.id(), l.input(5).id(), l.input(6).id()},
                        {{"axis", std::int64_t{-1}}, {"epsilon", l.number("epsilon", 1e-12)}});
  Expr count;
  if (l.wants(1)) {
    count = l.has(7) ? b.sum(b.cast(l.input(7), DType::kI32), {1}, false)
                     : b.make("ConstantOfShape", {b.extent_of(ids, 0).id()},
                              {{"value", Tensor::of<std::int32_t>({1}, {0})}});
  }
  return {y.id(), count.id(), sum.id()};
}

// transBatch moves the first axis before the last; trans then swaps the last two.
Values fused_matmul(Lowering& l) {
  Builder& b = l.builder();
  const auto operand = [&](std::size_t index, std::string_view batch, std::string_view swap) {
    Expr x = l.input(index);
    std::vector<std::int64_t> perm(static_cast<std::size_t>(b.rank(x)));
    std::iota(perm.begin(), perm.end(), 0);
    if (perm.size() < 2) return x;
    if (l.integer(batch, 0) != 0) std::rotate(perm.begin(), perm.begin() + 1, perm.end() - 1);
    if (l.integer(swap, 0) != 0) std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
    return b.transpose(x, perm);
  };
  const Expr y = b.matmul(operand(0, "transBatchA", "transA"), operand(1, "transBatchB", "transB"));
  const double alpha = l.number("alpha", 1.0);
  return {(alpha == 1.0 ? y : y * alpha).id()};
}

Values quantize(Lowering& l) { return l.pass(l.op(), l.inputs()); }
Values gelu(Lowering& l) { return {l.builder().make("Gelu", {l.input(0).id()}).id()}; }

// The activation after FusedConv and FusedGemm.
Expr activated(Lowering& l, Expr y) {
  Builder& b = l.builder();
  const std::string name = l.text("activation", "");
  std::vector<float> numbers;
  if (const AttributeProto* given = l.find("activation_params")) numbers = given->floats;
  for (const char* single : {"activation_alpha", "activation_beta", "activation_gamma"}) {
    if (l.find(single) != nullptr) numbers.push_back(static_cast<float>(l.number(single, 0)));
  }
  const auto number = [&](std::size_t i, double fallback) {
    return i < numbers.size() ? static_cast<double>(numbers[i]) : fallback;
  };
  if (name.empty()) return y;
  if (name == "Relu" || name == "Tanh" || name == "Sigmoid") return b.unary(name, y);
  if (name == "LeakyRelu") return b.make(name, {y.id()}, {{"alpha", number(0, 0.01)}});
  if (name == "HardSigmoid") return b.make(name, {y.id()}, {{"alpha", number(0, 0.2)}, {"beta", number(1, 0.5)}});
  if (name == "Clip") {
    return b.make(name,
                  {y.id(), b.scalar_like(y, number(0, -INFINITY)).id(), b.scalar_like(y, number(1, INFINITY)).id()});
  }
  fail(ErrorCode::kUnsupported, "{} with the activation {}", l.op(), name);
}

// Z is added before the activation.
Values fused_conv(Lowering& l) {
  Expr y = l.builder().make("Conv", {l.input(0).id(), l.input(1).id(), l.maybe(2).id()}, l.schema_attributes("Conv"));
  return {activated(l, plus(l, y, 3)).id()};
}

Values fused_gemm(Lowering& l) {
  const Expr y =
      l.builder().make("Gemm", {l.input(0).id(), l.input(1).id(), l.maybe(2).id()}, l.schema_attributes("Gemm"));
  return {activated(l, y).id()};
}

Values bias_softmax(Lowering& l) {
  l.ignore("is_inner_broadcast");
  Builder& b = l.builder();
  const std::int64_t axis = l.integer("axis", 1);
  const std::int64_t rank = b.rank(l.input(0));
  if (axis != -1 && axis != rank - 1) fail(ErrorCode::kUnsupported, "BiasSoftmax over axis {} of {}", axis, rank);
  return {b.softmax(l.input(0) + l.input(1), -1).id()};
}

// T5's: buckets for distances, half of them one by one, the others wider and wider. The table is declared
// [buckets, heads] and holds the transpose.
Values relative_position_bias(Lowering& l) {
  Builder& b = l.builder();
  const Dim buckets = b.dim(l.input(0), 0), heads = b.dim(l.input(0), 1);
  const bool both_ways = l.integer("is_bidirectional", 0) != 0;
  if (!buckets.is_constant() || !heads.is_constant()) fail(ErrorCode::kUnsupported, "{} of unknown sizes", l.op());
  const std::int64_t side = both_ways ? buckets.value() / 2 : buckets.value(), exact = side / 2;
  const double furthest = static_cast<double>(l.integer("max_distance", 128));
  if (exact < 1 || furthest <= static_cast<double>(exact)) {
    fail(ErrorCode::kInvalidModel, "{} with {} buckets up to {}", l.op(), buckets.value(), furthest);
  }
  const Expr zero = b.constant(Tensor::scalar<std::int64_t>(0)), one = b.constant(Tensor::scalar<std::int64_t>(1));
  const auto range = [&](std::size_t i) {
    const Expr length = b.reshape(b.cast(l.input(i), DType::kI64), std::vector<std::int64_t>{});
    return b.make("Range", {zero.id(), length.id(), one.id()});
  };
  const Expr ahead = range(2) - b.unsqueeze(range(1), {1});  // key - query, [S, T]
  const Expr distance = both_ways ? b.unary("Abs", ahead) : b.make("Max", {(-ahead).id(), zero.id()});
  const Expr ratio = b.cast(b.make("Max", {distance.id(), one.id()}), DType::kF32) / static_cast<double>(exact);
  const double scale = static_cast<double>(side - exact) / std::log(furthest / static_cast<double>(exact));
  const Expr far = b.cast(b.unary("Log", ratio) * scale, DType::kI64) + static_cast<double>(exact);
  const Expr last = b.constant(Tensor::scalar<std::int64_t>(side - 1));
  const Expr limit = b.constant(Tensor::scalar<std::int64_t>(exact));
  Expr bucket = b.where(b.make("Less", {distance.id(), limit.id()}), distance, b.make("Min", {far.id(), last.id()}));
  if (both_ways) {
    bucket = bucket + b.cast(b.make("Greater", {ahead.id(), zero.id()}), DType::kI64) * static_cast<double>(side);
  }
  const Expr table = b.reshape(l.input(0), std::vector<std::int64_t>{heads.value(), buckets.value()});
  return {b.unsqueeze(b.make("Gather", {table.id(), bucket.id()}, {{"axis", std::int64_t{1}}}), {0}).id()};
}

// WavLM's: the bias scaled by two gates of the query. Inputs: query, its bias, the relative bias, the gates' weight,
// bias and constant.
Values gated_relative_position_bias(Lowering& l) {
  Builder& b = l.builder();
  const std::int64_t heads = l.integer("num_heads", 0);
  if (heads < 1) fail(ErrorCode::kInvalidModel, "{} with num_heads = {}", l.op(), heads);
  if (l.has(6)) fail(ErrorCode::kUnsupported, "{} of packed batches", l.op());
  const Expr query =
      b.transpose(b.reshape(l.input(0) + l.input(1), std::vector<std::int64_t>{0, 0, heads, -1}), {0, 2, 1, 3});
  const Expr projected = b.matmul(query, l.input(3)) + l.input(4);  // [B, N, S, 2 * D]
  const Expr gates = b.sigmoid(b.sum(b.reshape(projected, std::vector<std::int64_t>{0, 0, 0, 2, -1}), {-1}, false));
  const Expr update = b.slice(gates, 3, 0, 1), reset = b.slice(gates, 3, 1, 2);
  return {((update * (reset * l.input(5) - 1.0) + 2.0) * l.input(2)).id()};
}

}  // namespace

std::span<const LoweringEntry> microsoft_layer_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"Gelu", gelu},
      {"BiasGelu", bias_gelu},
      {"FastGelu", fast_gelu},
      {"QuickGelu", quick_gelu},
      {"SimplifiedLayerNormalization", simplified_layer_normalization},
      {"SkipLayerNormalization", skip_normalization},
      {"SkipSimplifiedLayerNormalization", skip_normalization},
      {"EmbedLayerNormalization", embed_layer_normalization},
      {"FusedMatMul", fused_matmul},
      {"TransposeMatMul", fused_matmul},
      {"FusedConv", fused_conv},
      {"FusedGemm", fused_gemm},
      {"BiasSoftmax", bias_softmax},
      {"RelativePositionBias", relative_position_bias},
      {"GatedRelativePositionBias", gated_relative_position_bias},
      {"QuantizeLinear", quantize},
      {"DequantizeLinear", quantize},
  };
  return kEntries;
}

std::span<const LoweringEntry> misplaced_lowerings() {
  static constexpr LoweringEntry kEntries[] = {{"SimplifiedLayerNormalization", simplified_layer_normalization}};
  return kEntries;
}

LowerFunction find_microsoft_lowering(std::string_view op) {
  for (const auto table : {microsoft_layer_lowerings(), microsoft_quantized_lowerings(),
                           microsoft_attention_lowerings(), microsoft_expert_lowerings()}) {
    for (const LoweringEntry& entry : table) {
      if (entry.op == op) return entry.lower;
    }
  }
  return nullptr;
}

}  // namespace weft::onnx
