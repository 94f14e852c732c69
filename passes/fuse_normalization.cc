// LayerNormalization and RMSNormalization out of means, squares and roots.
#include <algorithm>
#include <iterator>

#include "passes/node_util.h"
#include "passes/normalization_rules.h"
#include "passes/passes.h"

namespace weft {
namespace {

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

}  // namespace

Pattern over_root(const Pattern& x, const Pattern& v) {
  const Pattern root = sqrt(v);
  return either({x / root, x * (number(1) / root)});
}

Pattern kept_mean(const Pattern& x) { return open_op("ReduceMean", {x}).with("keepdims", std::int64_t{1}); }

int fuse_normalization(Graph& graph, PassContext& context) {
  std::vector<Rule> rules = {layer_normalization(), layer_normalization_bias(), rms_normalization()};
  const auto add = [&](std::vector<Rule> more) { std::move(more.begin(), more.end(), std::back_inserter(rules)); };
  add(group_normalization_rules());
  add(axis_normalization_rules());
  add({plain_normalization("fuse-plain-layer-normalization", "LayerNormalization", true),
       plain_normalization("fuse-plain-rms-normalization", "RMSNormalization", false)});
  add(instance_normalization_rules());
  add(l2_normalization_rules());
  return run_rules(graph, rules, context);
}

}  // namespace weft
