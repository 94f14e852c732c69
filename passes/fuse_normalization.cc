// LayerNormalization and RMSNormalization out of means, squares and roots; GroupNormalization out of
// InstanceNormalization.
#include <algorithm>

#include "passes/channels.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// x / sqrt(v), or x * (1 / sqrt(v)).
Pattern over_root(const Pattern& x, const Pattern& v) {
  const Pattern root = sqrt(v);
  return either({x / root, x * (number(1) / root)});
}

// Scale and bias are vectors as long as the last axis.
bool is_row(Match& m, const Pattern& x, const Pattern& parameter, std::string_view what) {
  if (!m.has(parameter)) return true;
  const Shape* shape = shape_of(m.graph(), m[parameter]);
  const Shape* input = shape_of(m.graph(), m[x]);
  if (shape == nullptr || input == nullptr || input->empty()) return m.refuse("a rank is not known");
  if (shape->size() != 1 || !((*shape)[0] == input->back())) {
    return m.refuse(fmt::format("the {} of shape {} is no vector over the last axis", what, to_string(*shape)));
  }
  return true;
}

Rule layer_normalization() {
  const Pattern x = any("x"), scale = any("scale"), bias = any("bias");
  const Scalar epsilon = scalar("epsilon");
  const Pattern centred = x - mean_last(x);
  const Pattern variance = mean_last(centred * centred) + epsilon;
  const Pattern scaled_norm = either({over_root(centred, variance) * scale, over_root(centred * scale, variance)});
  return {"fuse-layer-normalization", either({scaled_norm + bias, scaled_norm}),
          [=](Match& m) {
            if (m.number(epsilon) <= 0) return m.refuse("epsilon is not positive");
            return is_row(m, x, scale, "scale") && is_row(m, x, bias, "bias");
          },
          [=](Builder& b, const Match& m) {
            return b.make("LayerNormalization", {m[x], m[scale], m.maybe(bias)},
                          {{"axis", std::int64_t{-1}}, {"epsilon", m.number(epsilon)}});
          }};
}

// A sum that came to light only after the norm was fused (or that the exporter left outside).
Rule layer_normalization_bias() {
  const Pattern x = any("x"), scale = any("scale"), bias = constant("bias");
  const Pattern norm = op("LayerNormalization", {x, scale});
  return {"absorb-layer-normalization-bias", norm + bias, [=](Match& m) { return is_row(m, x, bias, "bias"); },
          [=](Builder& b, const Match& m) {
            const Graph& g = b.graph();
            const Attributes attributes = g.node(g.value(m[norm]).producer).attributes;
            return b.make("LayerNormalization", {m[x], m[scale], m[bias]}, attributes);
          }};
}

// Exporters take an epsilon of 1e-8 for 0 and leave it out.
Rule rms_normalization() {
  const Pattern x = any("x"), scale = any("scale");
  const Scalar epsilon = scalar("epsilon");
  const Pattern square = mean_last(x * x);
  const Pattern root = either({square + epsilon, square});
  return {"fuse-rms-normalization", either({over_root(x, root) * scale, over_root(x * scale, root)}),
          [=](Match& m) {
            if (m.has(epsilon) && m.number(epsilon) <= 0) return m.refuse("epsilon is not positive");
            return is_row(m, x, scale, "scale");
          },
          [=](Builder& b, const Match& m) {
            return b.make("RMSNormalization", {m[x], m[scale]},
                          {{"axis", std::int64_t{-1}}, {"epsilon", m.has(epsilon) ? m.number(epsilon) : 0.0}});
          }};
}

// Without parameters: a scale of ones.
Rule plain_normalization(std::string_view name, std::string_view op, bool is_centred) {
  const Pattern x = any("x");
  const Scalar epsilon = scalar("epsilon");
  const Pattern centred = is_centred ? x - mean_last(x) : x;
  const Pattern norm = over_root(centred, mean_last(centred * centred) + epsilon);
  return {std::string(name), norm,
          [=](Match& m) {
            if (m.number(epsilon) <= 0) return m.refuse("epsilon is not positive");
            const Shape* shape = shape_of(m.graph(), m[x]);
            const bool known = shape != nullptr && !shape->empty() && shape->back().is_constant();
            return (known && m.dtype(x) == DType::kF32) || m.refuse("how long the last axis is is not known");
          },
          [=](Builder& b, const Match& m) {
            const Expr ones = b.constant(Tensor::full(DType::kF32, {b.dim(m[x], -1).value()}, 1.0));
            return b.make(op, {m[x], ones.id()}, {{"axis", std::int64_t{-1}}, {"epsilon", m.number(epsilon)}});
          }};
}

bool is_filled(const Graph& graph, ValueId id, std::int64_t count, double number) {
  const auto values = per_channel(graph, id, 1, 0, count);
  return values && std::all_of(values->begin(), values->end(), [&](double v) { return v == number; });
}

// Groups of channels laid out as the channels of an InstanceNormalization without parameters, and scale and bias after.
Rule group_normalization() {
  const Pattern x = any("x"), ones = constant("ones"), zeros = constant("zeros"), scale = constant("scale"),
                bias = constant("bias");
  const Pattern flat = reshape(x);
  const Pattern instance = op("InstanceNormalization", {flat, ones, zeros});
  const Pattern norm = reshape(instance), whole = norm * scale + bias;
  const auto parameter = [=](const Match& m, const Pattern& p) {
    const std::int64_t rank = m.rank(x);
    return per_channel(m.graph(), m[p], rank, 1, m.shape(x)[1].value());
  };
  return {"fuse-group-normalization", whole,
          [=](Match& m) {
            if (m.rank(x) < 3 || m.rank(flat) != 3 || !m.shape(x)[1].is_constant() || m.dtype(x) != DType::kF32)
              return m.refuse("the channels are not known");
            const Dim &channels = m.shape(x)[1], &groups = m.shape(flat)[1];
            if (!(m.shape(flat)[0] == m.shape(x)[0]) || !groups.is_constant() || groups.is(0) || channels.is(0) ||
                channels.value() % groups.value() != 0)
              return m.refuse("the axes are not those of groups of channels");
            if (!same_type(m.graph(), m[norm], m[x]) || !same_type(m.graph(), m[whole], m[x]))
              return m.refuse("the result does not get the shape of the input");
            if (!is_filled(m.graph(), m[ones], groups.value(), 1) || !is_filled(m.graph(), m[zeros], groups.value(), 0))
              return m.refuse("groups have parameters of their own");
            return (parameter(m, scale) && parameter(m, bias)) ||
                   m.refuse("there is not one parameter for each channel");
          },
          [=](Builder& b, const Match& m) {
            const auto vector = [&](const Pattern& p) {
              const std::vector<double> values = parameter(m, p).value();
              return b.constant(Tensor::vector<float>(std::vector<float>(values.begin(), values.end()))).id();
            };
            const double epsilon = attributes_of(m.node(instance)).number("epsilon");
            const std::int64_t groups = m.shape(flat)[1].value();
            return b.make("GroupNormalization", {m[x], vector(scale), vector(bias)},
                          {{"epsilon", epsilon}, {"num_groups", groups}});
          }};
}

}  // namespace

int fuse_normalization(Graph& graph, PassContext& context) {
  return run_rules(
      graph,
      {layer_normalization(), layer_normalization_bias(), rms_normalization(),
       plain_normalization("fuse-plain-layer-normalization", "LayerNormalization", true),
       plain_normalization("fuse-plain-rms-normalization", "RMSNormalization", false), group_normalization()},
      context);
}

}  // namespace weft
