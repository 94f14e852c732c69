// LayerNormalization over an axis that is not the last, or with parameters of more axes than one.
#include <numeric>

#include "passes/channels.h"
#include "passes/node_util.h"
#include "passes/normalization_rules.h"

namespace weft {
namespace {

// The one axis that a reduction folds; -1 if there are more or it is not known.
std::int64_t folded_axis(const Match& m, const Pattern& reduced) {
  const Node& node = m.node(reduced);
  const auto axes = node.inputs.size() > 1 ? known_integers(m.graph(), node.inputs[1]) : std::nullopt;
  return axes && axes->size() == 1 ? absolute_axis(m.graph(), node.inputs[0], axes->front()) : -1;
}

// The axis comes last, and back to its place.
std::vector<std::int64_t> last_from(std::int64_t rank, std::int64_t axis) {
  std::vector<std::int64_t> perm(static_cast<std::size_t>(rank));
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin() + axis, perm.begin() + axis + 1, perm.end());
  return perm;
}
std::vector<std::int64_t> inverse(const std::vector<std::int64_t>& perm) {
  std::vector<std::int64_t> result(perm.size());
  for (std::size_t i = 0; i < perm.size(); ++i)
    result[static_cast<std::size_t>(perm[i])] = static_cast<std::int64_t>(i);
  return result;
}

// The mean along an axis and the root of the mean of squares of what is left.
class AxisNormalization {
 public:
  std::vector<Rule> rules() const { return {rule(norm_ * scale_ + bias_), rule(norm_ * scale_), rule(norm_)}; }

 private:
  Rule rule(const Pattern& root) const {
    const AxisNormalization self = *this;
    return {"fuse-axis-normalization", root, [self](Match& m) { return self.accept(m); },
            [self](Builder& b, const Match& m) { return self.build(b, m); }};
  }

  std::optional<std::vector<double>> parameter(const Match& m, const Pattern& p, double absent) const {
    const std::int64_t axis = folded_axis(m, mean_), count = m.shape(x_)[static_cast<std::size_t>(axis)].value();
    return per_channel_or(m.graph(), m.maybe(p), m.rank(x_), axis, count, absent);
  }

  bool accept(Match& m) const {
    if (m.number(epsilon_) <= 0) return m.refuse("epsilon is not positive");
    if (m.rank(x_) < 1 || m.dtype(x_) != DType::kF32) return m.refuse("the input is none of f32 of a known rank");
    const std::int64_t axis = folded_axis(m, mean_);
    if (axis < 0 || folded_axis(m, square_) != axis) return m.refuse("the means are not along one and the same axis");
    const Dim& extent = m.shape(x_)[static_cast<std::size_t>(axis)];
    if (!extent.is_constant() || extent.is(0)) return m.refuse("how long the axis is is not known");
    return (parameter(m, scale_, 1) && parameter(m, bias_, 0)) ||
           m.refuse("scale and bias are not constants along the axis of the means");
  }

  Expr build(Builder& b, const Match& m) const {
    const auto vector = [&](const Pattern& p, double absent) {
      const std::vector<double> values = parameter(m, p, absent).value();
      return b.constant(Tensor::vector<float>(std::vector<float>(values.begin(), values.end()))).id();
    };
    const std::int64_t rank = m.rank(x_), axis = folded_axis(m, mean_);
    const ValueId scale = vector(scale_, 1), bias = m.has(bias_) ? vector(bias_, 0) : ValueId();
    const Attributes attributes = {{"axis", std::int64_t{-1}}, {"epsilon", m.number(epsilon_)}};
    const Expr x = b.wrap(m[x_]);
    if (axis == rank - 1) return b.make("LayerNormalization", {x.id(), scale, bias}, attributes);
    const std::vector<std::int64_t> perm = last_from(rank, axis);
    const Expr y = b.make("LayerNormalization", {b.transpose(x, perm).id(), scale, bias}, attributes);
    return b.transpose(y, inverse(perm));
  }

  Pattern x_ = any("x"), scale_ = constant("scale"), bias_ = constant("bias");
  Scalar epsilon_ = scalar("epsilon");
  Pattern mean_ = kept_mean(x_), centred_ = x_ - mean_, square_ = kept_mean(centred_ * centred_);
  Pattern norm_ = over_root(centred_, square_ + epsilon_);
};

}  // namespace

std::vector<Rule> axis_normalization_rules() { return AxisNormalization().rules(); }

}  // namespace weft
