// x divided by its length along an axis, which is at least epsilon.
#include <cmath>

#include "passes/channels.h"
#include "passes/node_util.h"
#include "passes/normalization_rules.h"

namespace weft {
namespace {

// x / max(|x|, epsilon), times up to two constants that vary along the axis of the length at most.
class L2Normalization {
 public:
  std::vector<Rule> rules() const { return {rule(norm_ * first_ * second_), rule(norm_ * first_), rule(norm_)}; }

 private:
  Rule rule(const Pattern& root) const {
    const L2Normalization self = *this;
    return {"fuse-l2-normalization", root, [self](Match& m) { return self.accept(m); },
            [self](Builder& b, const Match& m) { return self.build(b, m); }};
  }

  const Node& reduction(const Match& m) const {
    return m.node(m.has(length_) ? length_ : m.has(sum_) ? sum_ : squares_);
  }
  std::int64_t axis_of(const Match& m) const {
    const Node& node = reduction(m);
    const auto axes = node.inputs.size() > 1 ? known_integers(m.graph(), node.inputs[1]) : std::nullopt;
    return axes && axes->size() == 1 ? absolute_axis(m.graph(), m[x_], axes->front()) : -1;
  }

  std::optional<std::vector<double>> factors(const Match& m, const Pattern& p) const {
    const std::int64_t axis = axis_of(m), count = m.shape(x_)[static_cast<std::size_t>(axis)].value();
    return per_channel_or(m.graph(), m.maybe(p), m.rank(x_), axis, count, 1.0);
  }

  bool accept(Match& m) const {
    if (m.rank(x_) < 1 || m.dtype(x_) != DType::kF32) return m.refuse("the input is none of f32 of a known rank");
    if (m.number(epsilon_) <= 0 || m.number(unit_) <= 0) return m.refuse("the least length is not positive");
    const std::int64_t axis = axis_of(m);
    if (axis < 0) return m.refuse("the length is not along one axis");
    const bool scales = m.has(first_) || m.number(unit_) != 1;
    const Dim& extent = m.shape(x_)[static_cast<std::size_t>(axis)];
    if (scales && (!extent.is_constant() || extent.is(0))) return m.refuse("how long the axis is is not known");
    return !scales || (factors(m, first_) && factors(m, second_)) ||
           m.refuse("the factors are not constants along the axis of the length");
  }

  // With u |x| for the length, x / max(u |x|, epsilon) is x / max(|x|, epsilon / u) / u.
  Expr build(Builder& b, const Match& m) const {
    const std::int64_t axis = axis_of(m), rank = m.rank(x_);
    const double unit = m.number(unit_);
    const Attributes attributes = {{"axis", axis == rank - 1 ? std::int64_t{-1} : axis},
                                   {"epsilon", m.number(epsilon_) / unit}};
    if (!m.has(first_) && unit == 1) return b.make("L2Normalization", {m[x_]}, attributes);
    const std::vector<double> first = factors(m, first_).value(), second = factors(m, second_).value();
    std::vector<float> scale(first.size());
    for (std::size_t i = 0; i < scale.size(); ++i) scale[i] = static_cast<float>(first[i] * second[i] / unit);
    return b.make("L2Normalization", {m[x_], b.constant(Tensor::vector<float>(scale)).id()}, attributes);
  }

  static Pattern folded(std::string_view reduction, const Pattern& x) {
    return open_op(reduction, {x}).with("keepdims", std::int64_t{1});
  }

  Pattern x_ = any("x"), first_ = constant("factor"), second_ = constant("second factor");
  Scalar epsilon_ = scalar("epsilon"), unit_ = scalar("factor of the length");
  Pattern length_ = folded("ReduceL2", x_), sum_ = folded("ReduceSum", x_* x_),
          squares_ = folded("ReduceSumSquare", x_);
  Pattern unbounded_ = scaled(either({length_, sqrt(sum_), sqrt(squares_)}), unit_);
  Pattern bounded_ = either(
      {op("Clip", {unbounded_, epsilon_}), op("Max", {unbounded_, epsilon_}), op("Max", {epsilon_, unbounded_})});
  Pattern norm_ = either({x_ / bounded_, x_*(number(1) / bounded_)});
};

// A factor that came to light later.
Rule l2_normalization_scale() {
  const Pattern x = any("x"), factor = constant("factor");
  const Pattern norm = open_op("L2Normalization", {x});
  const auto values = [=](const Match& m) {
    const std::int64_t axis = absolute_axis(m.graph(), m[x], attributes_of(m.node(norm)).integer("axis"));
    return per_channel(m.graph(), m[factor], m.rank(x), axis, m.shape(x)[static_cast<std::size_t>(axis)].value());
  };
  return {"absorb-l2-normalization-scale", norm * factor,
          [=](Match& m) {
            const std::vector<ValueId>& inputs = m.node(norm).inputs;
            const std::int64_t axis = absolute_axis(m.graph(), m[x], attributes_of(m.node(norm)).integer("axis"));
            if (axis < 0 || !m.shape(x)[static_cast<std::size_t>(axis)].is_constant() ||
                m.shape(x)[static_cast<std::size_t>(axis)].is(0))
              return m.refuse("how long the axis is is not known");
            if (inputs.size() > 1 && !is_constant(m.graph(), inputs[1])) return m.refuse("the scale is no constant");
            return values(m).has_value() || m.refuse("the factor is not constant along the axis of the length");
          },
          [=](Builder& b, const Match& m) {
            const std::vector<double> factors = values(m).value();
            const std::vector<ValueId> inputs = m.node(norm).inputs;
            const Attributes attributes = m.node(norm).attributes;
            Tensor scale = Tensor::full(DType::kF32, {static_cast<std::int64_t>(factors.size())}, 1.0);
            if (inputs.size() > 1) scale = *m.graph().value(inputs[1]).tensor;
            return b.make("L2Normalization", {m[x], b.constant(scale_along(scale, 0, factors)).id()}, attributes);
          }};
}

}  // namespace

std::vector<Rule> l2_normalization_rules() {
  std::vector<Rule> rules = L2Normalization().rules();
  rules.push_back(l2_normalization_scale());
  return rules;
}

}  // namespace weft
