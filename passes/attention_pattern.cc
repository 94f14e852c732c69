#include "passes/attention_pattern.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

#include "passes/mask_classes.h"
#include "passes/node_util.h"

namespace weft {
namespace {

// Adding a finite number of this magnitude to a score gives that number itself: the score is gone.
constexpr double kAbsorbing = -1e30;
// Adding this even to such a number does: half of the distance of floats there is more than kAbsorbing.
constexpr double kDrowning = -2e37;
// A score of this much has no weight beside those of models, which differ by hundreds at most.
constexpr double kWeightless = -1000;

// What stands in place of scores excludes them where nothing as low is added to those that stay.
bool is_excluding(double fill, bool alone) { return fill <= kAbsorbing || (alone && fill <= kWeightless); }

// Ones and zeros, however they were cut and laid out.
bool holds_ones_and_zeros(const Graph& graph, ValueId id) {
  for (int step = 0; step < 16; ++step) {
    const Value& value = graph.value(id);
    if (value.type.dtype == DType::kBool) return true;
    if (value.kind == ValueKind::kConstant) {
      const Tensor whole = value.tensor->aligned();
      return visit_dtype(whole.dtype(), [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (std::is_arithmetic_v<T>) {
          return std::all_of(whole.data<T>().begin(), whole.data<T>().end(),
                             [](T x) { return x == T(0) || x == T(1); });
        }
        return false;
      });
    }
    if (value.kind != ValueKind::kResult) return false;
    const Node& node = graph.node(value.producer);
    static constexpr std::string_view kMoving[] = {"Slice",   "Cast",   "Unsqueeze", "Squeeze",
                                                   "Reshape", "Expand", "Gather",    "Transpose"};
    if (std::find(std::begin(kMoving), std::end(kMoving), node.op) == std::end(kMoving)) return false;
    id = node.inputs[0];
  }
  return false;
}

// May a mask be as low as a fill? It is not where no such number is among what it is added up and picked from.
bool may_exclude(const Graph& graph, ValueId mask) {
  constexpr std::size_t kMostValues = 400;
  static constexpr std::string_view kMixing[] = {
      "MatMul", "Linear", "Conv", "Softmax", "Attention", "LayerNormalization", "RMSNormalization", "Tanh", "Sigmoid"};
  std::vector<ValueId> pending = {mask};
  std::set<ValueId> seen;
  while (!pending.empty()) {
    const ValueId id = pending.back();
    pending.pop_back();
    if (!id.valid() || !seen.insert(id).second) continue;
    if (seen.size() > kMostValues) return true;
    const Value& value = graph.value(id);
    const auto number = value.kind == ValueKind::kConstant ? known_number(graph, id) : std::nullopt;
    if (number && is_float(value.type.dtype) && *number <= kWeightless) return true;
    if (value.kind != ValueKind::kResult) continue;
    const auto& [op, inputs] = std::tie(graph.node(value.producer).op, graph.node(value.producer).inputs);
    if (std::find(std::begin(kMixing), std::end(kMixing), op) != std::end(kMixing)) continue;
    pending.insert(pending.end(), inputs.begin(), inputs.end());
  }
  return false;
}

// Does the mask add either nothing at all, or a number that drowns even what drowns a score?
bool adds_nothing_or_all(const Match& m, const AttentionHandles& h, const Pattern& mask) {
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys);
  if (q.size() != 4 || keys.size() != 4 || m.dtype(h.q) != DType::kF32) return false;
  std::string reason;
  const auto samples = sample_mask(m.graph(), {m[mask], q[0], q[1], q[2], keys[3]}, reason);
  const auto meaning = samples ? classify_mask(*samples, reason) : std::nullopt;
  return meaning && meaning->slopes.empty() && (meaning->fill == 0 || meaning->fill <= kDrowning);
}

// A fill that lowers scores far enough for keys that may be attended to have all the weight, beside masks that are
// either 0 or drown it: a row of which these leave only filled keys weighs all of them alike, whatever the fill.
bool is_between(const Match& m, const AttentionHandles& h, double fill, int fills) {
  if (fill > kWeightless || m.has(h.zeroed)) return false;
  int masks = 0;
  for (const Pattern& mask : {h.mask, h.more_mask}) {
    if (!m.has(mask)) continue;
    if (!adds_nothing_or_all(m, h, mask)) return false;
    ++masks;
  }
  return masks + 1 == fills;
}

bool check_fills(Match& m, const AttentionHandles& h) {
  const int fills = static_cast<int>(m.has(h.kept)) + m.has(h.dropped) + m.has(h.early_kept) + m.has(h.early_dropped) +
                    m.has(h.ones) + m.has(h.mask) + m.has(h.more_mask) + m.has(h.flat_mask) + m.has(h.early_mask) +
                    m.has(h.minus_mask);
  for (const Scalar& fill : {h.kept_fill, h.dropped_fill, h.early_kept_fill, h.early_dropped_fill, h.ones_fill}) {
    if (m.has(fill) && !is_excluding(m.number(fill), fills == 1) && !is_between(m, h, m.number(fill), fills)) {
      return m.refuse(fmt::format("a fill of {:.6g} lowers scores but does not exclude them", m.number(fill)));
    }
  }
  if (m.has(h.zeroed)) {
    for (const Pattern& mask : {h.mask, h.more_mask, h.flat_mask, h.early_mask}) {
      if (m.has(mask) && may_exclude(m.graph(), m[mask]))
        return m.refuse("what else is added may exclude all the rest");
    }
  }
  if (m.has(h.ones) && !holds_ones_and_zeros(m.graph(), m[h.ones])) return m.refuse("the mask is not ones and zeros");
  return true;
}

// What drowns scores as the fill does where the match has another mask, if that is not low enough to be added to them.
double drowning(const Match& m, const AttentionHandles& h, double fill) {
  return m.has(h.mask) || m.has(h.more_mask) ? std::min(fill, kAbsorbing) : fill;
}

double lowest(DType dtype) { return dtype == DType::kF16 ? -65504.0 : std::numeric_limits<float>::lowest(); }

// Where masks: -inf excludes as a bool mask does; a huge finite number acts like an additive mask, in place of one
// that was added before.
Expr where_mask(Builder& b, Expr condition, Expr added, double fill, bool keeps, DType dtype) {
  if (std::isinf(fill) && !added) return keeps ? condition : b.unary("Not", condition);
  if (added && b.dtype(added) == DType::kBool) added = b.where(added, b.scalar(dtype, 0.0), b.scalar(dtype, -INFINITY));
  const Expr zero = added ? added : b.scalar(dtype, 0.0);
  // In place of a score a number is all there is; added to one it has to drown it.
  const Expr low = b.scalar(dtype, fill <= kAbsorbing ? fill : lowest(dtype));
  return keeps ? b.where(condition, zero, low) : b.where(condition, low, zero);
}

// Scores with up to two masks and a condition.
Pattern masked(AttentionHandles& h, const Pattern& scores) {
  const Pattern inner = either({scores + h.mask, where(h.early_kept, scores, h.early_kept_fill),
                                where(h.early_dropped, h.early_dropped_fill, scores), scores});
  const Pattern rest = ((number(1) - h.ones).shareable() * h.ones_fill).shareable();
  const Pattern once = either({where(h.kept, inner, h.kept_fill), where(h.dropped, h.dropped_fill, inner),
                               scores * h.ones + rest, scores + h.mask, scores});
  const Pattern twice = either({once + h.more_mask, once});
  const Pattern all = either({twice, twice - h.minus_mask});
  h.floored = op("Max", {all, h.floor});
  return either({h.floored, op("Max", {h.floor, all}), all});
}

}  // namespace

std::vector<Pattern> masks_of(const AttentionHandles& h) {
  return {h.mask, h.more_mask, h.minus_mask, h.early_mask, h.kept, h.dropped, h.early_kept, h.early_dropped, h.ones};
}

bool check_mask(Match& m, const AttentionHandles& h, std::int64_t rank) {
  const auto fits = [&](const Pattern& mask) { return m.rank(mask) <= rank && m.rank(mask) >= 0; };
  for (const Pattern& mask : {h.mask, h.more_mask, h.minus_mask, h.early_mask}) {
    if (m.has(mask) && !fits(mask)) return m.refuse("the mask has more axes than the scores");
  }
  if (m.has(h.floor) && m.number(h.floor) > kAbsorbing) return m.refuse("scores have a floor");
  if (m.has(h.capped) && !(m.number(h.cap) > 0)) return m.refuse("the soft cap is not positive");
  for (const Pattern& condition : {h.kept, h.dropped, h.early_kept, h.early_dropped, h.ones}) {
    if (m.has(condition) && !fits(condition)) return m.refuse("the condition has more axes than the scores");
  }
  const bool adds_before = m.has(h.flat_mask) || m.has(h.early_mask) || m.has(h.capped);
  if (adds_before && m.number(h.late_scale) != 1) return m.refuse("scores are scaled after something was added");
  if (m.has(h.head_factor)) {
    const Shape* factor = shape_of(m.graph(), m[h.head_factor]);
    const Shape& q = m.shape(h.q);
    const bool of_rows = factor != nullptr && factor->size() >= 2 && factor->size() <= q.size() &&
                         factor->back().is(1) && broadcasts_to(*factor, q);
    if (!of_rows) return m.refuse("a factor of the scores is not one of each head or query");
  }
  return check_fills(m, h);
}

Expr both_masks(Builder& b, Expr x, Expr y) {
  if (!x || !y) return x ? x : y;
  if (b.dtype(x) == DType::kBool && b.dtype(y) == DType::kBool) return b.make("And", {x.id(), y.id()});
  if (b.dtype(x) == DType::kBool) return b.where(x, y, b.scalar(b.dtype(y), -INFINITY));
  if (b.dtype(y) == DType::kBool) return b.where(y, x, b.scalar(b.dtype(x), -INFINITY));
  return x + y;
}

Expr whole_mask(Builder& b, const Match& m, const AttentionHandles& h) {
  const DType dtype = m.dtype(h.q);
  Expr mask;
  if (m.has(h.mask)) mask = b.wrap(m[h.mask]);
  if (m.has(h.early_mask)) mask = both_masks(b, b.wrap(m[h.early_mask]) * m.number(h.sum_scale), mask);
  // Weights that are set to 0 where scores were filled are those of a fill of -inf, rows of nothing else 0.
  const auto fill_of = [&](const Scalar& fill) { return m.has(h.zeroed) ? -INFINITY : drowning(m, h, m.number(fill)); };
  if (m.has(h.early_kept)) {
    mask = where_mask(b, b.wrap(m[h.early_kept]), mask, m.number(h.early_kept_fill), true, dtype);
  }
  if (m.has(h.early_dropped)) {
    mask = where_mask(b, b.wrap(m[h.early_dropped]), mask, m.number(h.early_dropped_fill), false, dtype);
  }
  if (m.has(h.kept)) mask = where_mask(b, b.wrap(m[h.kept]), mask, fill_of(h.kept_fill), true, dtype);
  if (m.has(h.dropped)) mask = where_mask(b, b.wrap(m[h.dropped]), mask, fill_of(h.dropped_fill), false, dtype);
  if (m.has(h.ones)) {
    mask = where_mask(b, b.cast(b.wrap(m[h.ones]), DType::kBool), mask, fill_of(h.ones_fill), true, dtype);
  }
  if (m.has(h.minus_mask)) mask = both_masks(b, mask, -b.wrap(m[h.minus_mask]));
  mask = both_masks(b, mask, m.has(h.more_mask) ? b.wrap(m[h.more_mask]) : Expr());
  if (!mask || !m.has(h.floor)) return mask;
  if (b.dtype(mask) == DType::kBool) mask = b.where(mask, b.scalar(dtype, 0.0), b.scalar(dtype, -INFINITY));
  return b.make("Max", {mask.id(), b.scalar(dtype, m.number(h.floor)).id()});
}

Expr query_of(Builder& b, const Match& m, const AttentionHandles& h) {
  const Expr q = b.wrap(m[h.q]);
  return m.has(h.head_factor) ? q * b.wrap(m[h.head_factor]) : q;
}

Attributes attention_attributes(const Match& m, const AttentionHandles& h) {
  const double cap = m.has(h.capped) ? m.number(h.cap) : 0.0;
  Attributes attributes = {{"scale", m.number(h.q_scale) * m.number(h.k_scale) * m.number(h.scale) *
                                         m.number(h.inner_scale) * m.number(h.sum_scale) * m.number(h.late_scale) *
                                         (cap != 0 ? cap : 1.0)}};
  if (cap != 0) attributes["softcap"] = cap;
  if (m.has(h.guarded) || m.has(h.zeroed)) attributes["zero_masked_rows"] = std::int64_t{1};
  return attributes;
}

namespace {

// All but the last of the last axis.
bool leaves_last_out(const Graph& graph, const Node& slice) {
  const Shape *whole = shape_of(graph, slice.inputs[0]), *part = shape_of(graph, slice.outputs[0]);
  if (whole == nullptr || part == nullptr || whole->empty() || whole->size() != part->size()) return false;
  for (std::size_t i = 0; i + 1 < whole->size(); ++i) {
    if (!((*whole)[i] == (*part)[i])) return false;
  }
  if (!(part->back() + Dim(1) == whole->back())) return false;
  const auto starts = known_integers(graph, slice.inputs[1]);
  return starts && std::all_of(starts->begin(), starts->end(), [](std::int64_t start) { return start == 0; });
}

// Is this shape [1, ..., H, ..., 1] with as many as there are heads, or of all shapes that spread to the scores
// [B, H, S, 1] one that tells heads apart only?
bool is_of_heads(const Shape& shape, const Dim& heads, std::size_t axis) {
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (!(i == axis ? shape[i] == heads : shape[i].is(1))) return false;
  }
  return axis < shape.size();
}

}  // namespace

ValueId sinks_of(const Match& m, const AttentionHandles& h, const Dim& heads) {
  const Graph& graph = m.graph();
  if (!m.has(h.sinks) || m.rank(h.sinks) != 4) return {};
  ValueId id = m[h.sinks];
  std::size_t axis = 1;  // of the heads
  for (int step = 0; step < 8; ++step) {
    const Shape* shape = shape_of(graph, id);
    if (shape == nullptr) return {};
    if (is_of_heads(*shape, heads, axis)) {
      if (heads.is(1) || shape->size() == 1 || is_constant(graph, id)) return id;
    }
    const Value& value = graph.value(id);
    if (value.kind != ValueKind::kResult) return is_of_heads(*shape, heads, axis) ? id : ValueId();
    const Node& node = graph.node(value.producer);
    const Shape* from = node.inputs.empty() ? nullptr : shape_of(graph, node.inputs[0]);
    if (from == nullptr) return {};
    if (node.op == "Expand") {
      const std::size_t added = shape->size() - std::min(from->size(), shape->size());
      if (axis < added) return {};
      axis -= added;
    } else if (node.op == "Reshape" || node.op == "Unsqueeze" || node.op == "Squeeze") {
      // Axes of extent 1 come and go.
      if (!is_of_heads(*shape, heads, axis)) return {};
      const auto place = std::find(from->begin(), from->end(), heads);
      axis = static_cast<std::size_t>(place - from->begin());
      if (!is_of_heads(*from, heads, axis)) return {};
    } else if (node.op != "Cast") {
      return is_of_heads(*shape, heads, axis) ? id : ValueId();
    }
    id = node.inputs[0];
  }
  return {};
}

Expr sink_row(Builder& b, ValueId sinks) {
  const Expr row = b.cast(b.wrap(sinks), DType::kF32);
  return b.rank(row) == 1 ? row : b.reshape(row, std::vector<std::int64_t>{-1});
}

Pattern weights_beside_sinks(AttentionHandles& h, const Pattern& scores) {
  h.with_sinks = softmax_last(concat_last({masked(h, scores), h.sinks}));
  h.without_sinks = open_op("Slice", {h.with_sinks}).when(leaves_last_out, "more than the last weight is left out");
  return h.without_sinks;
}

Pattern scores_of(AttentionHandles& h) {
  const Pattern plain = matmul(scaled(h.q, h.q_scale), scaled(h.keys, h.k_scale));
  const Pattern product = either({plain, scaled(plain, h.inner_scale) * h.head_factor});
  h.capped = tanh(scaled(product, h.scale));
  const Pattern sum = scaled(plain + h.early_mask, h.sum_scale);
  return either({scaled(h.capped, h.cap), scaled(product, h.scale), sum});
}

Pattern weights_of(AttentionHandles& h, const Pattern& scores) {
  const Pattern weights = softmax_last(masked(h, scores));
  const Pattern inner = either({scores + h.mask, scores});
  h.guarded = zero_where_nan(weights);
  h.zeroed = either({where(h.dropped, number(0), softmax_last(where(h.dropped, h.dropped_fill, inner))),
                     where(h.kept, softmax_last(where(h.kept, inner, h.kept_fill)), number(0))});
  return either({h.zeroed, h.guarded, weights});
}

}  // namespace weft
