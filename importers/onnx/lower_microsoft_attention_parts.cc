#include <cmath>

#include "importers/onnx/lower_microsoft_attention.h"

namespace weft::onnx {

Expr range(Builder& b, Expr length) {
  const Expr zero = b.constant(Tensor::scalar<std::int64_t>(0)), one = b.constant(Tensor::scalar<std::int64_t>(1));
  return b.make("Range", {zero.id(), length.id(), one.id()});
}
Expr extent(Builder& b, Expr x, std::int64_t axis) { return b.squeeze(b.extent_of(x, axis), {0}); }

Expr split_heads(Builder& b, Expr x, std::int64_t heads) {
  return b.transpose(b.reshape(x, std::vector<std::int64_t>{0, 0, heads, -1}), {0, 2, 1, 3});
}
Expr merge_heads(Builder& b, Expr x) {
  return b.reshape(b.transpose(x, {0, 2, 1, 3}), std::vector<std::int64_t>{0, 0, -1});
}

std::int64_t heads_of(Lowering& l, std::string_view name) {
  const std::int64_t heads = l.integer(name, 0);
  constexpr std::int64_t kMost = 1 << 20;
  if (heads <= 0 || heads > kMost) fail(ErrorCode::kInvalidModel, "{} with {} = {}", l.op(), name, heads);
  return heads;
}

Expr added(Expr x, Expr y) { return x && y ? x + y : (x ? x : y); }

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

Expr joined(Builder& b, Expr past, Expr now) {
  const ValueId parts[] = {past.id(), now.id()};
  return b.concat(parts, 2);
}

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

}  // namespace weft::onnx
