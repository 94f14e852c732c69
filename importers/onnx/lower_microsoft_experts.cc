// Mixtures of experts of com.microsoft. Every expert sees every token; the weights of those not chosen are 0.
#include <cmath>

#include "importers/onnx/lower_microsoft.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

// One layer of all experts: weights [E, N, K], bias [E, N] or none.
struct Layer {
  Expr weights, bias;
};

// x: [1 or E, T, K] -> [E, T, N]
Expr apply(Builder& b, const Layer& layer, Expr x) {
  const Expr y = b.matmul(x, b.transpose(layer.weights, {0, 2, 1}));
  return layer.bias ? y + b.unsqueeze(layer.bias, {1}) : y;
}

// Each token's weight for each expert, [T, E].
Expr routing(Lowering& l, Expr logits, Expr mixing) {
  Builder& b = l.builder();
  if (l.integer("use_sparse_mixer", 0) != 0) fail(ErrorCode::kUnsupported, "{} with the sparse mixer", l.op());
  const Expr scores = mixing ? b.cast(logits, DType::kF32) : b.softmax(b.cast(logits, DType::kF32), -1);
  const ValueId inputs[] = {scores.id(), b.ints({l.integer("k", 1)}).id()};
  const std::vector<Expr> top = b.make_many("TopK", inputs, 2, {{"axis", std::int64_t{-1}}});
  Expr chosen = top[0];
  if (mixing) {
    chosen = b.make("GatherElements", {b.cast(mixing, DType::kF32).id(), top[1].id()}, {{"axis", std::int64_t{-1}}});
  }
  if (l.integer("normalize_routing_weights", 0) != 0) chosen = chosen / b.sum(chosen, {-1});
  const Expr none = b.make("Expand", {b.scalar(DType::kF32, 0.0).id(), b.shape_of(scores).id()});
  return b.make("ScatterElements", {none.id(), top[1].id(), chosen.id()}, {{"axis", std::int64_t{-1}}});
}

// linear, when given, is the other projection of a gated unit.
Expr activated(Lowering& l, Expr h, Expr linear) {
  Builder& b = l.builder();
  const std::string kind = l.text("activation_type", "relu");
  const std::int64_t fusion = l.integer("swiglu_fusion", 0);
  const double alpha = l.number("activation_alpha", 1.0), beta = l.number("activation_beta", 0.0);
  const double limit = l.number("swiglu_limit", INFINITY);
  if (l.integer("swiglu_limit_after_activation", 0) != 0) {
    fail(ErrorCode::kUnsupported, "{} with a limit after the activation", l.op());
  }
  if (kind == "swiglu") {
    Expr gate = h;
    if (fusion == 1) {  // gate and linear alternate
      const Expr pairs = b.reshape(h, std::vector<std::int64_t>{0, 0, -1, 2});
      gate = b.squeeze(b.slice(pairs, 3, 0, 1), {3});
      linear = b.squeeze(b.slice(pairs, 3, 1, 2), {3});
    } else if (fusion == 2) {
      const ValueId inputs[] = {h.id()};
      const std::vector<Expr> halves =
          b.make_many("Split", inputs, 2, {{"axis", std::int64_t{-1}}, {"num_outputs", std::int64_t{2}}});
      gate = halves[0];
      linear = halves[1];
    }
    if (!linear) fail(ErrorCode::kInvalidModel, "{} with swiglu and neither fc3 nor swiglu_fusion", l.op());
    if (std::isfinite(limit)) {
      gate = b.make("Min", {gate.id(), b.scalar_like(gate, limit).id()});
      linear = b.make("Clip", {linear.id(), b.scalar_like(linear, -limit).id(), b.scalar_like(linear, limit).id()});
    }
    return gate * b.sigmoid(gate * alpha) * (linear + beta);
  }
  Expr y = h;
  if (kind == "relu") {
    y = b.unary("Relu", h);
  } else if (kind == "gelu") {
    y = b.make("Gelu", {h.id()}, {{"approximate", std::string("tanh")}});
  } else if (kind == "silu") {
    y = h * b.sigmoid(h);
  } else if (kind != "identity") {
    fail(ErrorCode::kUnsupported, "{} with the activation {}", l.op(), kind);
  }
  return linear ? y * linear : y;
}

Values mixture(Lowering& l, const Layer& first, const Layer& second, const Layer& third, Expr mixing) {
  Builder& b = l.builder();
  const Expr x = l.input(0);
  const Dim& width = b.dim(x, -1);
  if (!width.is_constant()) fail(ErrorCode::kUnsupported, "{} of unknown width", l.op());
  const Expr tokens = b.reshape(x, std::vector<std::int64_t>{-1, width.value()});
  const Expr weights = routing(l, l.input(1), mixing);
  const Expr shared = b.unsqueeze(tokens, {0});  // [1, T, H]
  const Expr linear = third.weights ? apply(b, third, shared) : Expr();
  const Expr y = apply(b, second, activated(l, apply(b, first, shared), linear));         // [E, T, H]
  const Expr share = b.cast(b.unsqueeze(b.transpose(weights, {1, 0}), {2}), b.dtype(x));  // [E, T, 1]
  return {b.reshape(b.sum(y * share, {0}, false), b.shape_of(x)).id()};
}

// Releases of ONNX Runtime before 2025 stored [E, K, N].
Expr out_major(Lowering& l, std::size_t index, const Dim& in) {
  Builder& b = l.builder();
  const Expr w = l.input(index);
  if (b.rank(w) != 3) fail(ErrorCode::kInvalidModel, "{} with weights of rank {}", l.op(), b.rank(w));
  return b.dim(w, 2) == in || !(b.dim(w, 1) == in) ? w : b.transpose(w, {0, 2, 1});
}

Values moe(Lowering& l) {
  Builder& b = l.builder();
  const Dim hidden = b.dim(l.input(0), -1);
  const Layer first{out_major(l, 2, hidden), l.maybe(3)};
  // fc2 is [E, H, I] as fc1 is [E, I, H].
  const bool old = first.weights.id() != l.input(2).id();
  const Layer second{old ? b.transpose(l.input(4), {0, 2, 1}) : l.input(4), l.maybe(5)};
  const Layer third{l.has(6) ? out_major(l, 6, hidden) : Expr(), l.maybe(7)};
  return mixture(l, first, second, third, {});
}

// Packed integers [E, N, K * bits / 8] with scales [E, N] or [E, N, K / block] and zero points packed alike.
Expr dequantized(Lowering& l, std::size_t weight, std::size_t scale, std::size_t zero, std::string_view bits_name) {
  Builder& b = l.builder();
  const std::int64_t bits = l.integer(bits_name, l.integer("expert_weight_bits", 4));
  if (bits != 2 && bits != 4 && bits != 8) fail(ErrorCode::kUnsupported, "{} of {} bits", l.op(), bits);
  const Expr q = unpack_bits(b, l.input(weight), bits), s = b.cast(l.input(scale), DType::kF32);
  const bool blocks = b.rank(s) == 3;
  Expr points = b.scalar(DType::kF32, static_cast<double>(1 << (bits - 1)));
  if (l.has(zero)) {
    points = unpack_bits(b, l.input(zero), bits);
    const Dim& wanted = b.dim(s, -1);
    if (wanted.is_constant() && !(b.dim(points, -1) == wanted)) points = b.slice(points, -1, 0, wanted.value());
    points = b.unsqueeze(b.cast(points, DType::kF32), {-1});
  }
  const Dim& count = b.dim(s, -1);
  if (blocks && !count.is_constant()) fail(ErrorCode::kUnsupported, "{} with unknown blocks", l.op());
  // [E, N, blocks, block] where there are blocks, else [E, N, K].
  Expr wide = b.cast(q, DType::kF32);
  if (blocks) wide = b.reshape(wide, std::vector<std::int64_t>{0, 0, count.value(), -1});
  const Expr real = (wide - points) * b.unsqueeze(s, {-1});
  return b.cast(blocks ? b.reshape(real, std::vector<std::int64_t>{0, 0, -1}) : real, b.dtype(l.input(0)));
}

Values qmoe(Lowering& l) {
  l.ignore("accuracy_level");
  l.ignore("block_size");
  if (l.text("quant_type", "int") != "int") fail(ErrorCode::kUnsupported, "QMoE of {}", l.text("quant_type", ""));
  if (l.integer("weights_prepacked", -1) == 1) fail(ErrorCode::kUnsupported, "QMoE with prepacked weights");
  const Layer first{dequantized(l, 2, 3, 11, "fc1_expert_weight_bits"), l.maybe(4)};
  const Layer second{dequantized(l, 5, 6, 12, "fc2_expert_weight_bits"), l.maybe(7)};
  const Layer third{l.has(8) ? dequantized(l, 8, 9, 13, "fc3_expert_weight_bits") : Expr(), l.maybe(10)};
  return mixture(l, first, second, third, l.maybe(14));
}

}  // namespace

std::span<const LoweringEntry> microsoft_expert_lowerings() {
  static constexpr LoweringEntry kEntries[] = {{"MoE", moe}, {"QMoE", qmoe}};
  return kEntries;
}

}  // namespace weft::onnx
