// Layers of networks whose signature or meaning changed, or that weft writes with others.
#include <array>
#include <cmath>

#include "importers/onnx/lower.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

Values batch_normalization(Lowering& l) {
  l.ignore("momentum");
  if (l.integer("training_mode", 0) != 0) fail(ErrorCode::kUnsupported, "BatchNormalization in training mode");
  if (l.integer("spatial", 1) != 1) fail(ErrorCode::kUnsupported, "BatchNormalization with spatial = 0");
  const auto epsilon = l.number("epsilon", 1e-5);
  return {l.builder().make("BatchNormalization", std::span(l.inputs()).first(5), {{"epsilon", epsilon}}).id()};
}

// Opset 18 has one scale and bias per group, 21 one per channel.
Values group_normalization(Lowering& l) {
  if (l.opset() >= 21) return l.pass("GroupNormalization", l.inputs());
  Builder& b = l.builder();
  const std::int64_t groups = l.integer("num_groups", 1);
  const Shape& x = b.shape(l.input(0));
  const Dim per_group = Dim::floor_div(x.at(1), Dim(groups));
  if (!per_group.is_constant()) fail(ErrorCode::kUnsupported, "GroupNormalization of unknown channels");
  const auto spread = [&](Expr parameter) {
    const Expr wide = b.make("Expand", {b.unsqueeze(parameter, {1}).id(), b.ints({groups, per_group.value()}).id()});
    return b.reshape(wide, std::vector<std::int64_t>{-1}).id();
  };
  return {b.make("GroupNormalization", {l.input(0).id(), spread(l.input(1)), spread(l.input(2))},
                 {{"epsilon", l.number("epsilon", 1e-5)}, {"num_groups", groups}})
              .id()};
}

// Attention of opset 23: past keys and values are concatenated, head counts and scale are written out.
Values attention(Lowering& l) {
  Builder& b = l.builder();
  l.ignore("softmax_precision");
  if (l.number("softcap", 0) != 0) fail(ErrorCode::kUnsupported, "Attention with softcap");
  if (l.wants(3)) fail(ErrorCode::kUnsupported, "Attention with the output qk_matmul_output");
  l.ignore("qk_matmul_output_mode");
  if (l.has(6)) fail(ErrorCode::kUnsupported, "Attention with nonpad_kv_seqlen");
  const std::int64_t query_heads = l.integer("q_num_heads", 0);
  const std::int64_t key_heads = l.integer("kv_num_heads", 0);
  Expr k = l.input(1);
  Expr v = l.input(2);
  const bool cached = l.has(4) || l.wants(1) || l.wants(2);
  if (cached && b.rank(k) == 3) {
    const auto split = [&](Expr x) {
      return b.transpose(b.reshape(x, std::vector<std::int64_t>{0, 0, key_heads, -1}), {0, 2, 1, 3});
    };
    k = split(k);
    v = split(v);
  }
  Attributes attributes = {{"q_num_heads", b.rank(l.input(0)) == 3 ? query_heads : 0},
                           {"kv_num_heads", b.rank(k) == 3 ? key_heads : 0}};
  Expr mask = l.maybe(3);
  const bool causal = l.integer("is_causal", 0) != 0;
  if (l.has(4)) {
    const auto join = [&](Expr past, Expr added) {
      const ValueId parts[] = {past.id(), added.id()};
      return b.concat(parts, 2);
    };
    const Expr past_length = b.squeeze(b.extent_of(l.input(4), 2), {0});
    k = join(l.input(4), k);
    v = join(l.input(5), v);
    if (causal) {  // query s is at position P + s
      const Expr zero = b.constant(Tensor::scalar<std::int64_t>(0));
      const Expr one = b.constant(Tensor::scalar<std::int64_t>(1));
      const auto range = [&](Expr n) { return b.make("Range", {zero.id(), n.id(), one.id()}); };
      const Expr queries = range(b.squeeze(b.extent_of(l.input(0), b.rank(l.input(0)) - 2), {0})) + past_length;
      const Expr keys = range(b.squeeze(b.extent_of(k, 2), {0}));
      const Expr allowed = b.make("LessOrEqual", {b.unsqueeze(keys, {0}).id(), b.unsqueeze(queries, {1}).id()});
      if (!mask) {
        mask = allowed;
      } else if (b.dtype(mask) == DType::kBool) {
        mask = b.make("And", {mask.id(), allowed.id()});
      } else {
        mask = b.where(allowed, mask, b.scalar(b.dtype(mask), -INFINITY));
      }
    }
  } else if (causal) {
    attributes["is_causal"] = std::int64_t{1};
  }
  if (const AttributeProto* scale = l.find("scale")) attributes["scale"] = static_cast<double>(scale->f);
  const Expr y = b.make("Attention", {l.input(0).id(), k.id(), v.id(), mask.id()}, std::move(attributes));
  return {y.id(), k.id(), v.id()};
}

Values upsample(Lowering& l) {
  Builder& b = l.builder();
  ValueId scales = l.maybe(1).id();
  if (const AttributeProto* given = l.find("scales")) {
    scales = b.constant(Tensor::vector<float>(given->floats)).id();
  }
  return {b.make("Resize", {l.input(0).id(), ValueId(), scales},
                 {{"mode", l.text("mode", "nearest")},
                  {"coordinate_transformation_mode", std::string("asymmetric")},
                  {"nearest_mode", std::string("floor")}})
              .id()};
}

Values resize(Lowering& l) {
  if (l.opset() >= 11) return l.pass("Resize", l.inputs());
  return {l.builder()
              .make("Resize", {l.input(0).id(), ValueId(), l.input(1).id()},
                    {{"mode", l.text("mode", "nearest")},
                     {"coordinate_transformation_mode", std::string("asymmetric")},
                     {"nearest_mode", std::string("floor")}})
              .id()};
}

Values scatter(Lowering& l) { return l.pass("ScatterElements", l.inputs()); }

}  // namespace

std::span<const LoweringEntry> network_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"BatchNormalization", batch_normalization},
      {"GroupNormalization", group_normalization},
      {"Attention", attention},
      {"Upsample", upsample},
      {"Resize", resize},
      {"Scatter", scatter},
  };
  return kEntries;
}

}  // namespace weft::onnx
