// Softmax-attention: softmax(scale q k^T + mask) v as one Attention, in two, three or four dimensions.
#include <cmath>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Adding a finite number of this magnitude to a score gives that number itself: the score is gone.
constexpr double kAbsorbing = -1e30;

struct Handles {
  Pattern q = any("q"), keys = any("transposed k"), v = any("v");
  Pattern mask = any("mask"), more_mask = any("second mask"), kept = any("condition"), dropped = any("condition");
  Pattern flat_mask = any("mask"), spread, merged, capped;
  Scalar q_scale = scalar("scale of q"), k_scale = scalar("scale of k"), scale = scalar("scale of the scores"),
         cap = scalar("soft cap");
  Scalar kept_fill = scalar("fill"), dropped_fill = scalar("fill");
  Pattern guarded;
};

bool is_excluding(double fill) { return fill <= kAbsorbing; }

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

bool check_mask(Match& m, const Handles& h) {
  const std::int64_t rank = m.has(h.spread) ? m.rank(h.spread) : m.rank(h.q);
  const auto fits = [&](const Pattern& mask) { return m.rank(mask) <= rank && m.rank(mask) >= 0; };
  for (const Pattern& mask : {h.mask, h.more_mask}) {
    if (m.has(mask) && !fits(mask)) return m.refuse("the mask has more axes than the scores");
  }
  if (m.has(h.capped) && !(m.number(h.cap) > 0)) return m.refuse("the soft cap is not positive");
  if (m.has(h.kept) && !fits(h.kept)) return m.refuse("the condition has more axes than the scores");
  if (m.has(h.dropped) && !fits(h.dropped)) return m.refuse("the condition has more axes than the scores");
  for (const Scalar& fill : {h.kept_fill, h.dropped_fill}) {
    if (m.has(fill) && !is_excluding(m.number(fill))) {
      return m.refuse(fmt::format("a fill of {:.6g} lowers scores but does not exclude them", m.number(fill)));
    }
  }
  return true;
}

// Where masks: -inf excludes as a bool mask does; a huge finite number acts like an additive mask, in place of one
// that was added before.
Expr where_mask(Builder& b, Expr condition, Expr added, double fill, bool keeps, DType dtype) {
  if (std::isinf(fill) && !added) return keeps ? condition : b.unary("Not", condition);
  if (added && b.dtype(added) == DType::kBool) added = b.where(added, b.scalar(dtype, 0.0), b.scalar(dtype, -INFINITY));
  const Expr zero = added ? added : b.scalar(dtype, 0.0);
  const Expr low = b.scalar(dtype, fill);
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
  if (m.has(h.kept)) mask = where_mask(b, b.wrap(m[h.kept]), mask, m.number(h.kept_fill), true, dtype);
  if (m.has(h.dropped)) mask = where_mask(b, b.wrap(m[h.dropped]), mask, m.number(h.dropped_fill), false, dtype);
  return both_masks(b, mask, m.has(h.more_mask) ? b.wrap(m[h.more_mask]) : Expr());
}

Attributes attributes_of(const Match& m, const Handles& h) {
  const double cap = m.has(h.capped) ? m.number(h.cap) : 0.0;
  Attributes attributes = {
      {"scale", m.number(h.q_scale) * m.number(h.k_scale) * m.number(h.scale) * (cap != 0 ? cap : 1.0)}};
  if (cap != 0) attributes["softcap"] = cap;
  if (m.has(h.guarded)) attributes["zero_masked_rows"] = std::int64_t{1};
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
  const Pattern once =
      either({where(h.kept, inner, h.kept_fill), where(h.dropped, h.dropped_fill, inner), scores + h.mask, scores});
  return either({once + h.more_mask, once});
}

Rule attention() {
  Handles h;
  const Pattern weights = softmax_last(masked(h, scores_of(h)));
  h.guarded = zero_where_nan(weights);
  return {"fuse-attention", matmul(either({h.guarded, weights}), h.v),
          [=](Match& m) { return check_operands(m, h) && check_mask(m, h); },
          [=](Builder& b, const Match& m) { return build_attention(b, m, h); }};
}

// --- Heads folded into the batch -------------------------------------------------------------------------

// [B * H, S, T] scores that become [B, H, S, T] for the mask and the softmax, and go back.
bool check_flat(Match& m, const Handles& h) {
  if (m.rank(h.q) != 3 || m.rank(h.spread) != 4 || m.rank(h.merged) != 3) {
    return m.refuse("scores are not spread from rank 3 to 4 and back");
  }
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys), &spread = m.shape(h.spread), &merged = m.shape(h.merged);
  if (!spread[1].is_constant() || !(spread[0] * spread[1] == q[0]) || !(spread[2] == q[1]) || !(spread[3] == keys[2]) ||
      !(merged[0] == q[0]) || !(merged[1] == q[1]) || !(merged[2] == keys[2])) {
    return m.refuse(fmt::format("{} are not the heads of {}", to_string(spread), to_string(q)));
  }
  if (m.has(h.flat_mask) && (m.rank(h.flat_mask) != 3 || !(m.shape(h.flat_mask)[0] == q[0]))) {
    return m.refuse("the mask of the flat scores is not one per head");
  }
  return true;
}

Expr build_flat(Builder& b, const Match& m, const Handles& h) {
  const std::int64_t heads = m.shape(h.spread)[1].value();
  const auto apart = [&](Expr x) {  // [B * H, a, b] -> [B, H, a, b]
    const ValueId shape[] = {b.ints({-1, heads}).id(), b.slice(b.shape_of(x), 0, 1, 3).id()};
    return b.reshape(x, b.concat(shape, 0));
  };
  const Expr q = apart(b.wrap(m[h.q])), k = apart(b.transpose(b.wrap(m[h.keys]), {0, 2, 1})), v = apart(b.wrap(m[h.v]));
  Expr mask = whole_mask(b, m, h);
  if (m.has(h.flat_mask)) mask = both_masks(b, apart(b.wrap(m[h.flat_mask])), mask);
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id()}, attributes_of(m, h));
  const ValueId together[] = {b.ints({-1}).id(), b.slice(b.shape_of(y), 0, 2, 4).id()};
  return b.reshape(y, b.concat(together, 0));
}

Rule flat_attention() {
  Handles h;
  const Pattern scores = scores_of(h);
  h.spread = reshape(either({scores + h.flat_mask, scores}));
  const Pattern weights = softmax_last(masked(h, h.spread));
  h.guarded = zero_where_nan(weights);
  h.merged = reshape(either({h.guarded, weights}));
  return {"fuse-attention-flat-heads", matmul(h.merged, h.v),
          [=](Match& m) { return check_operands(m, h) && check_flat(m, h) && check_mask(m, h); },
          [=](Builder& b, const Match& m) { return build_flat(b, m, h); }};
}

}  // namespace

int fuse_attention(Graph& graph, PassContext& context) {
  return run_rules(graph, {attention(), flat_attention()}, context);
}

}  // namespace weft
