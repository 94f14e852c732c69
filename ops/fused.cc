// Operators that passes introduce, each defined by smaller ones (docs/operators.md).
#include "ops/fused.h"

#include <algorithm>
#include <cmath>

#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

constexpr double kSqrt2OverPi = 0.79788456080286535588;

Expr gelu(Expansion& e, Expr x, bool approximate) {
  if (!approximate) return x * 0.5 * (e.erf(x / std::sqrt(2.0)) + 1.0);
  return x * 0.5 * (e.tanh((x + x * x * x * 0.044715) * kSqrt2OverPi) + 1.0);
}

Expr activate(Expansion& e, Expr x, const std::string& name) {
  if (name == "none") return x;
  if (name == "relu") return e.unary("Relu", x);
  if (name == "gelu") return gelu(e, x, false);
  if (name == "gelu_tanh") return gelu(e, x, true);
  if (name == "silu") return x * e.sigmoid(x);
  if (name == "tanh") return e.tanh(x);
  if (name == "sigmoid") return e.sigmoid(x);
  fail(ErrorCode::kInvalidModel, "Linear has no activation \"{}\"", name);
}

void decompose_linear(Expansion& e) {
  Expr y = e.matmul(e.input(0), e.input(1));
  if (e.has(2)) y = y + e.input(2);
  y = activate(e, y, e.attributes().text("activation"));
  if (e.has(3)) y = y + e.input(3);
  e.set_output(0, y);
}

void infer_linear(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape shape = context.shape(0);
  const Shape& weight = context.shape(1);
  if (shape.empty() || weight.size() != 2) {
    fail(ErrorCode::kInvalidModel, "Linear of {} and {}", to_string(shape), to_string(weight));
  }
  if (shape.back().is_constant() && weight[0].is_constant() && !(shape.back() == weight[0])) {
    fail(ErrorCode::kInvalidModel, "Linear of {} and {}", to_string(shape), to_string(weight));
  }
  shape.back() = weight[1];
  context.set_shape(0, std::move(shape));
}

void decompose_linear_split(Expansion& e) {
  Expr y = e.matmul(e.input(0), e.input(1));
  if (e.has(2)) y = y + e.input(2);
  cut_and_activate(e, y);
}

void infer_linear_split(InferContext& context) {
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_dtype(i, context.dtype(0));
  Shape shape = context.shape(0);
  const Shape& weight = context.shape(1);
  if (shape.empty() || weight.size() != 2) {
    fail(ErrorCode::kInvalidModel, "LinearSplit of {} and {}", to_string(shape), to_string(weight));
  }
  shape.back() = weight[1];
  set_cut_shapes(context, std::move(shape));
}

void decompose_gelu(Expansion& e) {
  e.set_output(0, gelu(e, e.input(0), e.attributes().text("approximate") == "tanh"));
}

void decompose_swish(Expansion& e) {
  const Expr x = e.input(0);
  const double alpha = e.number("alpha");
  e.set_output(0, x * e.sigmoid(alpha == 1.0 ? x : x * alpha));
}

// --- Rotary and caches -----------------------------------------------------------------------------

void decompose_rotary(Expansion& e) {
  const Expr x = e.input(0);
  const auto pieces = [&](Expr value, std::int64_t axis) {
    return e.make_many("Split", std::vector<ValueId>{value.id()}, 2,
                       {{"axis", axis}, {"num_outputs", std::int64_t{2}}});
  };
  Expr rotated;
  if (e.integer("interleaved") == 0) {
    const std::vector<Expr> halves = pieces(x, -1);
    const ValueId swapped[] = {(-halves[1]).id(), halves[0].id()};
    rotated = e.concat(swapped, -1);
  } else {
    const Expr shape = e.shape_of(x);
    const std::int64_t rank = e.rank(x);
    const Dim& size = e.shape(x).back();
    const ValueId paired[] = {e.slice(shape, 0, 0, rank - 1).id(),
                              e.ints({size.is_constant() ? size.value() / 2 : -1, 2}).id()};
    const std::vector<Expr> parts = pieces(e.reshape(x, e.concat(paired, 0)), -1);
    const ValueId swapped[] = {(-parts[1]).id(), parts[0].id()};
    rotated = e.reshape(e.concat(swapped, -1), shape);
  }
  e.set_output(0, x * e.input(1) + rotated * e.input(2));
}

void infer_rotary(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const auto differ = [](const Dim& a, const Dim& b) { return a.is_constant() && b.is_constant() && !(a == b); };
  const auto fits = [&](const Shape& table) {
    if (table.empty() || table.size() > x.size() || differ(table.back(), x.back())) return false;
    for (std::size_t i = 0; i + 1 < table.size(); ++i) {
      if (!table[i].is(1) && differ(table[i], x[x.size() - table.size() + i])) return false;
    }
    return true;
  };
  const bool odd = !x.empty() && x.back().is_constant() && x.back().value() % 2 != 0;
  if (x.empty() || odd || !fits(context.shape(1)) || !fits(context.shape(2))) {
    fail(ErrorCode::kInvalidModel, "Rotary of {} by {} and {}", to_string(x), to_string(context.shape(1)),
         to_string(context.shape(2)));
  }
  context.set_shape(0, x);
}

void decompose_cache_append(Expansion& e) {
  const ValueId parts[] = {e.input(0).id(), e.input(1).id()};
  e.set_output(0, e.concat(parts, e.integer("axis")));
}

void infer_cache_append(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape shape = context.shape(0);
  if (context.rank(1) != context.rank(0)) {
    fail(ErrorCode::kInvalidModel, "CacheAppend of {} and {}", to_string(shape), to_string(context.shape(1)));
  }
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), context.rank(0)));
  shape[axis] = shape[axis] + context.shape(1)[axis];
  context.set_shape(0, std::move(shape));
}

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}

}  // namespace

std::vector<AttributeDef> cut_attributes() {
  return {{"widths", AttributeKind::kInts, false, Attribute(std::vector<std::int64_t>())},
          {"activations", AttributeKind::kStrings, false, Attribute(std::vector<std::string>())}};
}

void set_cut_shapes(InferContext& context, Shape whole) {
  const std::vector<std::int64_t>& widths = context.attributes().integers("widths");
  const std::size_t activations = context.attributes().texts("activations").size();
  const std::size_t outputs = context.output_count();
  const bool one = widths.empty() && outputs == 1;
  const bool parts = widths.size() == outputs && outputs > 0 &&
                     (!whole.back().is_constant() || is_partition(widths, whole.back().value())) &&
                     std::all_of(widths.begin(), widths.end(), [](std::int64_t width) { return width > 0; });
  if ((!one && !parts) || (activations != 0 && activations != outputs)) {
    fail(ErrorCode::kInvalidModel, "{} in {} outputs of {} widths and {} activations", to_string(whole), outputs,
         widths.size(), activations);
  }
  for (std::size_t i = 0; i < outputs; ++i) {
    if (parts) whole.back() = Dim(widths[i]);
    context.set_shape(i, whole);
  }
}

void cut_and_activate(Expansion& e, Expr y, Expr residual) {
  const std::vector<std::int64_t>& widths = e.attributes().integers("widths");
  std::vector<Expr> pieces = {y};
  if (!widths.empty()) {
    const std::vector<ValueId> inputs = {y.id(), e.ints(widths).id()};
    pieces = e.make_many("Split", inputs, e.output_count(), {{"axis", std::int64_t{-1}}});
  }
  const std::vector<std::string>& activations = e.attributes().texts("activations");
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Expr piece = activations.empty() ? pieces[i] : activate(e, pieces[i], activations[i]);
    e.set_output(i, residual ? piece + residual : piece);
  }
}

std::span<const OpDef> fused_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Linear",
       .inputs = {{"x"}, {"weight"}, {"bias", Arity::kOptional}, {"residual", Arity::kOptional}},
       .outputs = {{"y"}},
       .attributes = {{"activation", AttributeKind::kString, false, Attribute(std::string("none"))}},
       .infer = infer_linear,
       .decompose = decompose_linear},
      {.name = "LinearSplit",
       .inputs = {{"x"}, {"weight"}, {"bias", Arity::kOptional}},
       .outputs = {{"outputs", Arity::kVariadic}},
       .attributes = {{"widths", AttributeKind::kInts, true}, cut_attributes().back()},
       .infer = infer_linear_split,
       .decompose = decompose_linear_split},
      {.name = "Gelu",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .attributes = {{"approximate", AttributeKind::kString, false, Attribute(std::string("none"))}},
       .infer = infer_same_as_first,
       .decompose = decompose_gelu},
      {.name = "Swish",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .attributes = {{"alpha", AttributeKind::kFloat, false, Attribute(1.0)}},
       .infer = infer_same_as_first,
       .decompose = decompose_swish},
      {.name = "Rotary",
       .inputs = {{"x"}, {"cos"}, {"sin"}},
       .outputs = {{"y"}},
       .attributes = {integer("interleaved", 0)},
       .infer = infer_rotary,
       .decompose = decompose_rotary},
      {.name = "CacheAppend",
       .inputs = {{"past"}, {"new"}},
       .outputs = {{"present"}},
       .attributes = {integer("axis", 2)},
       .infer = infer_cache_append,
       .decompose = decompose_cache_append},
  };
  return ops;
}

}  // namespace weft
