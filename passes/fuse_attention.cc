// Softmax-attention: softmax(scale q k^T + mask) v as one Attention, in two, three or four dimensions.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Adding a finite number of this magnitude to a score gives that number itself: the score is gone.
constexpr double kAbsorbing = -1e30;
// A score of this much has no weight beside those of models, which differ by hundreds at most.
constexpr double kWeightless = -1000;

struct Handles {
  Pattern q = any("q"), keys = any("transposed k"), v = any("v");
  Pattern mask = any("mask"), more_mask = any("second mask"), kept = any("condition"), dropped = any("condition");
  Pattern flat_mask = any("mask"), spread, merged, capped;
  Scalar q_scale = scalar("scale of q"), k_scale = scalar("scale of k"), scale = scalar("scale of the scores"),
         cap = scalar("soft cap");
  Scalar kept_fill = scalar("fill"), dropped_fill = scalar("fill");
  Pattern ones = any("mask of ones and zeros");  // scores * ones + (1 - ones) * fill
  Scalar ones_fill = scalar("fill");
  Pattern guarded, zeroed;
};

// What stands in place of scores excludes them where nothing as low is added to those that stay.
bool is_excluding(double fill, bool alone) { return fill <= kAbsorbing || (alone && fill <= kWeightless); }

// q, k^T and v are matrices, or batches of them: equal leading axes, or one key head for all query heads.
bool check_operands(Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  if (rank < 2 || rank > 4 || m.rank(h.keys) != rank || m.rank(h.v) != rank) {
    return m.refuse(fmt::format("q, k and v have ranks {}, {} and {}", rank, m.rank(h.keys), m.rank(h.v)));
  }
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys), &v = m.shape(h.v);
  for (std::size_t i = 0; i + 2 < q.size(); ++i) {
    const bool one_head = i == 1 && q.size() == 4 && q[i].is_constant() && keys[i].is(1) && v[i].is(1);
    if (one_head) continue;
    if (!(q[i] == keys[i]) || !(q[i] == v[i])) {
      return m.refuse(
          fmt::format("batch axes of q {}, k^T {} and v {} differ", to_string(q), to_string(keys), to_string(v)));
    }
  }
  if (!is_float(m.dtype(h.q))) return m.refuse("q is no float");
  return true;
}

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

bool check_fills(Match& m, const Handles& h) {
  const int fills = static_cast<int>(m.has(h.kept)) + m.has(h.dropped) + m.has(h.ones) + m.has(h.mask) +
                    m.has(h.more_mask) + m.has(h.flat_mask);
  for (const Scalar& fill : {h.kept_fill, h.dropped_fill, h.ones_fill}) {
    if (m.has(fill) && !is_excluding(m.number(fill), fills == 1)) {
      return m.refuse(fmt::format("a fill of {:.6g} lowers scores but does not exclude them", m.number(fill)));
    }
  }
  if (m.has(h.zeroed)) {
    for (const Pattern& mask : {h.mask, h.more_mask, h.flat_mask}) {
      if (m.has(mask) && may_exclude(m.graph(), m[mask]))
        return m.refuse("what else is added may exclude all the rest");
    }
  }
  if (m.has(h.ones) && !holds_ones_and_zeros(m.graph(), m[h.ones])) return m.refuse("the mask is not ones and zeros");
  return true;
}

bool check_mask(Match& m, const Handles& h) {
  const std::int64_t rank = m.has(h.spread) ? m.rank(h.spread) : m.rank(h.q);
  const auto fits = [&](const Pattern& mask) { return m.rank(mask) <= rank && m.rank(mask) >= 0; };
  for (const Pattern& mask : {h.mask, h.more_mask}) {
    if (m.has(mask) && !fits(mask)) return m.refuse("the mask has more axes than the scores");
  }
  if (m.has(h.capped) && !(m.number(h.cap) > 0)) return m.refuse("the soft cap is not positive");
  for (const Pattern& condition : {h.kept, h.dropped, h.ones}) {
    if (m.has(condition) && !fits(condition)) return m.refuse("the condition has more axes than the scores");
  }
  return check_fills(m, h);
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

// The sum of two masks, either of which may be boolean or absent.
Expr both_masks(Builder& b, Expr x, Expr y) {
  if (!x || !y) return x ? x : y;
  if (b.dtype(x) == DType::kBool && b.dtype(y) == DType::kBool) return b.make("And", {x.id(), y.id()});
  if (b.dtype(x) == DType::kBool) return b.where(x, y, b.scalar(b.dtype(y), -INFINITY));
  if (b.dtype(y) == DType::kBool) return b.where(y, x, b.scalar(b.dtype(x), -INFINITY));
  return x + y;
}

Expr whole_mask(Builder& b, const Match& m, const Handles& h) {
  const DType dtype = m.dtype(h.q);
  Expr mask;
  if (m.has(h.mask)) mask = b.wrap(m[h.mask]);
  // Weights that are set to 0 where scores were filled are those of a fill of -inf, rows of nothing else 0.
  const auto fill_of = [&](const Scalar& fill) { return m.has(h.zeroed) ? -INFINITY : m.number(fill); };
  if (m.has(h.kept)) mask = where_mask(b, b.wrap(m[h.kept]), mask, fill_of(h.kept_fill), true, dtype);
  if (m.has(h.dropped)) mask = where_mask(b, b.wrap(m[h.dropped]), mask, fill_of(h.dropped_fill), false, dtype);
  if (m.has(h.ones)) {
    mask = where_mask(b, b.cast(b.wrap(m[h.ones]), DType::kBool), mask, m.number(h.ones_fill), true, dtype);
  }
  return both_masks(b, mask, m.has(h.more_mask) ? b.wrap(m[h.more_mask]) : Expr());
}

Attributes attributes_of(const Match& m, const Handles& h) {
  const double cap = m.has(h.capped) ? m.number(h.cap) : 0.0;
  Attributes attributes = {
      {"scale", m.number(h.q_scale) * m.number(h.k_scale) * m.number(h.scale) * (cap != 0 ? cap : 1.0)}};
  if (cap != 0) attributes["softcap"] = cap;
  if (m.has(h.guarded) || m.has(h.zeroed)) attributes["zero_masked_rows"] = std::int64_t{1};
  return attributes;
}

Expr build_attention(Builder& b, const Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  std::vector<std::int64_t> swap = {0, 1, 2, 3};
  swap.resize(static_cast<std::size_t>(rank));
  std::swap(swap[swap.size() - 1], swap[swap.size() - 2]);
  Expr q = b.wrap(m[h.q]), k = b.transpose(b.wrap(m[h.keys]), swap), v = b.wrap(m[h.v]);
  const Expr mask = whole_mask(b, m, h);
  // Batches of matrices are heads of one batch.
  std::vector<std::int64_t> added;
  for (std::int64_t i = 0; i < 4 - rank; ++i) added.push_back(i);
  if (!added.empty()) {
    q = b.unsqueeze(q, added);
    k = b.unsqueeze(k, added);
    v = b.unsqueeze(v, added);
  }
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id()}, attributes_of(m, h));
  return added.empty() ? y : b.squeeze(y, added);
}

// The scores, scaled and perhaps capped: softcap * tanh(score / softcap).
Pattern scores_of(Handles& h) {
  const Pattern product = matmul(scaled(h.q, h.q_scale), scaled(h.keys, h.k_scale));
  h.capped = tanh(scaled(product, h.scale));
  return either({scaled(h.capped, h.cap), scaled(product, h.scale)});
}

// Scores with up to two masks and a condition.
Pattern masked(const Handles& h, const Pattern& scores) {
  const Pattern inner = either({scores + h.mask, scores});
  const Pattern rest = ((number(1) - h.ones).shareable() * h.ones_fill).shareable();
  const Pattern once = either({where(h.kept, inner, h.kept_fill), where(h.dropped, h.dropped_fill, inner),
                               scores * h.ones + rest, scores + h.mask, scores});
  return either({once + h.more_mask, once});
}

// The weights, perhaps guarded against rows of nothing, or set to 0 where scores had been filled.
Pattern weights_of(Handles& h, const Pattern& scores) {
  const Pattern weights = softmax_last(masked(h, scores));
  const Pattern inner = either({scores + h.mask, scores});
  h.guarded = zero_where_nan(weights);
  h.zeroed = either({where(h.dropped, number(0), softmax_last(where(h.dropped, h.dropped_fill, inner))),
                     where(h.kept, softmax_last(where(h.kept, inner, h.kept_fill)), number(0))});
  return either({h.zeroed, h.guarded, weights});
}

Rule attention() {
  Handles h;
  const Pattern weights = weights_of(h, scores_of(h));
  return {"fuse-attention", matmul(weights, h.v), [=](Match& m) { return check_operands(m, h) && check_mask(m, h); },
          [=](Builder& b, const Match& m) { return build_attention(b, m, h); }};
}

// --- Heads folded into the batch -------------------------------------------------------------------------

// [B * H, S, T] scores that become [B, H, S, T] for the mask and the softmax. The weights go back, or meet v of four
// axes.
bool check_flat(Match& m, const Handles& h) {
  const std::int64_t v_rank = m.has(h.merged) ? 3 : 4;
  if (m.rank(h.q) != 3 || m.rank(h.keys) != 3 || m.rank(h.spread) != 4 || m.rank(h.v) != v_rank) {
    return m.refuse("scores are not spread from rank 3 to 4");
  }
  if (!is_float(m.dtype(h.q))) return m.refuse("q is no float");
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys), &spread = m.shape(h.spread), &v = m.shape(h.v);
  const Shape heads = m.has(h.merged) ? Shape{q[0]} : Shape{spread[0], spread[1]};
  const bool fits = spread[1].is_constant() && spread[0] * spread[1] == q[0] && spread[2] == q[1] &&
                    spread[3] == keys[2] && keys[0] == q[0] && std::equal(heads.begin(), heads.end(), v.begin()) &&
                    v[v.size() - 2] == keys[2];
  if (!fits) return m.refuse(fmt::format("{} are not the heads of {}", to_string(spread), to_string(q)));
  if (m.has(h.merged) && !(m.rank(h.merged) == 3 && m.shape(h.merged) == Shape{q[0], q[1], keys[2]})) {
    return m.refuse(fmt::format("weights of {} for scores of {}", to_string(m.shape(h.merged)), to_string(q)));
  }
  if (m.has(h.flat_mask) && (m.rank(h.flat_mask) != 3 || !(m.shape(h.flat_mask)[0] == q[0]))) {
    return m.refuse("the mask of the flat scores is not one per head");
  }
  return true;
}

Expr build_flat(Builder& b, const Match& m, const Handles& h) {
  const std::int64_t heads = m.shape(h.spread)[1].value();
  const auto apart = [&](Expr x) {  // [B * H, a, b] -> [B, H, a, b]
    if (b.rank(x) == 4) return x;
    const ValueId shape[] = {b.ints({-1, heads}).id(), b.slice(b.shape_of(x), 0, 1, 3).id()};
    return b.reshape(x, b.concat(shape, 0));
  };
  const Expr q = apart(b.wrap(m[h.q])), k = apart(b.transpose(b.wrap(m[h.keys]), {0, 2, 1})), v = apart(b.wrap(m[h.v]));
  Expr mask = whole_mask(b, m, h);
  if (m.has(h.flat_mask)) mask = both_masks(b, apart(b.wrap(m[h.flat_mask])), mask);
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id()}, attributes_of(m, h));
  if (!m.has(h.merged)) return y;
  const ValueId together[] = {b.ints({-1}).id(), b.slice(b.shape_of(y), 0, 2, 4).id()};
  return b.reshape(y, b.concat(together, 0));
}

Rule flat_attention() {
  Handles h;
  const Pattern scores = scores_of(h);
  h.spread = reshape(either({scores + h.flat_mask, scores}));
  const Pattern weights = weights_of(h, h.spread);
  h.merged = reshape(weights);
  return {"fuse-attention-flat-heads", matmul(either({h.merged, weights}), h.v),
          [=](Match& m) { return check_flat(m, h) && check_mask(m, h); },
          [=](Builder& b, const Match& m) { return build_flat(b, m, h); }};
}

}  // namespace

int fuse_attention(Graph& graph, PassContext& context) {
  return run_rules(graph, {attention(), flat_attention()}, context);
}

}  // namespace weft
