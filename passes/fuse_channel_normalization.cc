// GroupNormalization and InstanceNormalization out of reshaped channels, means and roots.
#include <algorithm>
#include <set>

#include "passes/channels.h"
#include "passes/node_util.h"
#include "passes/normalization_rules.h"

namespace weft {
namespace {

bool is_filled(const Graph& graph, ValueId id, std::int64_t count, double number) {
  const auto values = per_channel(graph, id, 1, 0, count);
  return values && std::all_of(values->begin(), values->end(), [&](double v) { return v == number; });
}

// Are these the means over all axes behind the second?
bool folds_positions(const Match& m, const Pattern& reduced) {
  const Node& node = m.node(reduced);
  const std::int64_t rank = rank_of(m.graph(), node.inputs[0]);
  const auto axes = node.inputs.size() > 1 ? known_integers(m.graph(), node.inputs[1]) : std::nullopt;
  if (rank < 3 || !axes || static_cast<std::int64_t>(axes->size()) != rank - 2) return false;
  std::set<std::int64_t> folded;
  for (const std::int64_t axis : *axes) folded.insert(absolute_axis(m.graph(), node.inputs[0], axis));
  return static_cast<std::int64_t>(folded.size()) == rank - 2 && *folded.begin() == 2;
}

// Numbers of each channel of x, of constants that vary along its second axis; where they take no part, `absent`.
std::optional<std::vector<double>> parameter(const Match& m, const Pattern& x, const Pattern& p, double absent) {
  const std::int64_t channels = m.shape(x)[1].value();
  return per_channel_or(m.graph(), m.maybe(p), m.rank(x), 1, channels, absent);
}

ValueId vector_of(Builder& b, const Match& m, const Pattern& x, const Pattern& p, double absent) {
  const std::vector<double> values = parameter(m, x, p, absent).value();
  return b.constant(Tensor::vector<float>(std::vector<float>(values.begin(), values.end()))).id();
}

bool has_channels(Match& m, const Pattern& x) {
  const bool known = m.rank(x) >= 3 && m.shape(x)[1].is_constant() && !m.shape(x)[1].is(0) && m.dtype(x) == DType::kF32;
  return known || m.refuse("the channels are not known");
}

// (x - mean) / sqrt(mean of squares + epsilon), over all axes behind the second.
struct WrittenOut {
  explicit WrittenOut(const Pattern& x)
      : mean(kept_mean(x)),
        centred(x - mean),
        square(kept_mean(centred * centred)),
        norm(over_root(centred, square + epsilon)) {}

  bool check(Match& m) const {
    if (m.number(epsilon) <= 0) return m.refuse("epsilon is not positive");
    return (folds_positions(m, mean) && folds_positions(m, square)) ||
           m.refuse("the means are not over all positions of a channel");
  }

  Scalar epsilon = scalar("epsilon");
  Pattern mean, centred, square, norm;
};

// Channels in groups, normalized as if each group were one, and scale and bias of the channels after.
class GroupNormalization {
 public:
  std::vector<Rule> rules() const { return {rule(back_ * scale_ + bias_), rule(back_ * scale_), rule(back_)}; }

 private:
  Rule rule(const Pattern& root) const {
    const GroupNormalization self = *this;
    return {"fuse-group-normalization", root, [self](Match& m) { return self.accept(m); },
            [self, root](Builder& b, const Match& m) { return self.build(b, m); }};
  }

  bool accept(Match& m) const {
    if (!has_channels(m, x_)) return false;
    if (m.rank(flat_) < 3) return m.refuse("the channels are in no groups");
    const Dim &channels = m.shape(x_)[1], &groups = m.shape(flat_)[1];
    if (!(m.shape(flat_)[0] == m.shape(x_)[0]) || !groups.is_constant() || groups.is(0) ||
        channels.value() % groups.value() != 0)
      return m.refuse("the axes are not those of groups of channels");
    if (!same_type(m.graph(), m[back_], m[x_])) return m.refuse("the result does not get the shape of the input");
    if (m.has(instance_)) {
      if (!is_filled(m.graph(), m[ones_], groups.value(), 1) || !is_filled(m.graph(), m[zeros_], groups.value(), 0))
        return m.refuse("groups have parameters of their own");
    } else if (!written_.check(m)) {
      return false;
    }
    return (parameter(m, x_, scale_, 1) && parameter(m, x_, bias_, 0)) ||
           m.refuse("there is not one parameter for each channel");
  }

  Expr build(Builder& b, const Match& m) const {
    const double epsilon =
        m.has(instance_) ? attributes_of(m.node(instance_)).number("epsilon") : m.number(written_.epsilon);
    return b.make("GroupNormalization", {m[x_], vector_of(b, m, x_, scale_, 1), vector_of(b, m, x_, bias_, 0)},
                  {{"epsilon", epsilon}, {"num_groups", m.shape(flat_)[1].value()}});
  }

  Pattern x_ = any("x"), ones_ = constant("ones"), zeros_ = constant("zeros"), scale_ = constant("scale"),
          bias_ = constant("bias");
  Pattern flat_ = reshape(x_), instance_ = op("InstanceNormalization", {flat_, ones_, zeros_});
  WrittenOut written_ = WrittenOut(flat_);
  Pattern back_ = reshape(either({instance_, written_.norm}));
};

class InstanceNormalization {
 public:
  std::vector<Rule> rules() const {
    const Pattern& norm = written_.norm;
    return {rule(norm * scale_ + bias_), rule(norm * scale_), rule(norm)};
  }

 private:
  Rule rule(const Pattern& root) const {
    const InstanceNormalization self = *this;
    return {"fuse-instance-normalization", root,
            [self](Match& m) {
              if (!has_channels(m, self.x_) || !self.written_.check(m)) return false;
              return (parameter(m, self.x_, self.scale_, 1) && parameter(m, self.x_, self.bias_, 0)) ||
                     m.refuse("there is not one parameter for each channel");
            },
            [self](Builder& b, const Match& m) {
              const Pattern& x = self.x_;
              return b.make("InstanceNormalization",
                            {m[x], vector_of(b, m, x, self.scale_, 1), vector_of(b, m, x, self.bias_, 0)},
                            {{"epsilon", m.number(self.written_.epsilon)}});
            }};
  }

  Pattern x_ = any("x"), scale_ = constant("scale"), bias_ = constant("bias");
  WrittenOut written_ = WrittenOut(x_);
};

}  // namespace

std::vector<Rule> group_normalization_rules() { return GroupNormalization().rules(); }
std::vector<Rule> instance_normalization_rules() { return InstanceNormalization().rules(); }

}  // namespace weft
