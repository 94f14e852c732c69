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
  for (const auto table :
       {microsoft_layer_lowerings(), microsoft_quantized_lowerings(), microsoft_attention_lowerings()}) {
    for (const LoweringEntry& entry : table) {
      if (entry.op == op) return entry.lower;
    }
  }
  return nullptr;
}

}  // namespace weft::onnx
