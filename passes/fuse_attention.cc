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
  Pattern mask = any("mask"), kept = any("condition"), dropped = any("condition");
  Scalar q_scale = scalar("scale of q"), k_scale = scalar("scale of k"), scale = scalar("scale of the scores");
  Scalar kept_fill = scalar("fill"), dropped_fill = scalar("fill");
  Pattern guarded;
};

bool is_excluding(double fill) { return fill <= kAbsorbing; }

// q, k^T and v are matrices, or batches of them: equal leading axes.
bool check_operands(Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  if (rank < 2 || rank > 4 || m.rank(h.keys) != rank || m.rank(h.v) != rank) {
    return m.refuse(fmt::format("q, k and v have ranks {}, {} and {}", rank, m.rank(h.keys), m.rank(h.v)));
  }
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys), &v = m.shape(h.v);
  for (std::size_t i = 0; i + 2 < q.size(); ++i) {
    if (!(q[i] == keys[i]) || !(q[i] == v[i])) {
      return m.refuse(
          fmt::format("batch axes of q {}, k^T {} and v {} differ", to_string(q), to_string(keys), to_string(v)));
    }
  }
  if (!is_float(m.dtype(h.q))) return m.refuse("q is no float");
  return true;
}

bool check_mask(Match& m, const Handles& h) {
  const auto fits = [&](const Pattern& mask) { return m.rank(mask) <= m.rank(h.q) && m.rank(mask) >= 0; };
  if (m.has(h.mask) && !fits(h.mask)) return m.refuse("the mask has more axes than the scores");
  if (m.has(h.kept) && !fits(h.kept)) return m.refuse("the condition has more axes than the scores");
  if (m.has(h.dropped) && !fits(h.dropped)) return m.refuse("the condition has more axes than the scores");
  for (const Scalar& fill : {h.kept_fill, h.dropped_fill}) {
    if (m.has(fill) && !is_excluding(m.number(fill))) {
      return m.refuse(fmt::format("a fill of {:.6g} lowers scores but does not exclude them", m.number(fill)));
    }
  }
  return true;
}

// Where masks: -inf excludes as a bool mask does; a huge finite number acts like an additive mask.
Expr where_mask(Builder& b, Expr condition, double fill, bool keeps, DType dtype) {
  if (std::isinf(fill)) return keeps ? condition : b.unary("Not", condition);
  const Expr zero = b.scalar(dtype, 0.0);
  const Expr low = b.scalar(dtype, fill);
  return keeps ? b.where(condition, zero, low) : b.where(condition, low, zero);
}

Expr build_attention(Builder& b, const Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  const DType dtype = m.dtype(h.q);
  std::vector<std::int64_t> swap = {0, 1, 2, 3};
  swap.resize(static_cast<std::size_t>(rank));
  std::swap(swap[swap.size() - 1], swap[swap.size() - 2]);
  Expr q = b.wrap(m[h.q]), k = b.transpose(b.wrap(m[h.keys]), swap), v = b.wrap(m[h.v]);
  Expr mask;
  if (m.has(h.mask)) mask = b.wrap(m[h.mask]);
  if (m.has(h.kept)) mask = where_mask(b, b.wrap(m[h.kept]), m.number(h.kept_fill), true, dtype);
  if (m.has(h.dropped)) mask = where_mask(b, b.wrap(m[h.dropped]), m.number(h.dropped_fill), false, dtype);
  // Batches of matrices are heads of one batch.
  std::vector<std::int64_t> added;
  for (std::int64_t i = 0; i < 4 - rank; ++i) added.push_back(i);
  if (!added.empty()) {
    q = b.unsqueeze(q, added);
    k = b.unsqueeze(k, added);
    v = b.unsqueeze(v, added);
  }
  Attributes attributes = {{"scale", m.number(h.q_scale) * m.number(h.k_scale) * m.number(h.scale)}};
  if (m.has(h.guarded)) attributes["zero_masked_rows"] = std::int64_t{1};
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id()}, std::move(attributes));
  return added.empty() ? y : b.squeeze(y, added);
}

Rule attention() {
  Handles h;
  const Pattern scores = scaled(matmul(scaled(h.q, h.q_scale), scaled(h.keys, h.k_scale)), h.scale);
  const Pattern masked =
      either({where(h.kept, scores, h.kept_fill), where(h.dropped, h.dropped_fill, scores), scores + h.mask, scores});
  const Pattern weights = softmax_last(masked);
  h.guarded = zero_where_nan(weights);
  return {"fuse-attention", matmul(either({h.guarded, weights}), h.v),
          [=](Match& m) { return check_operands(m, h) && check_mask(m, h); },
          [=](Builder& b, const Match& m) { return build_attention(b, m, h); }};
}

}  // namespace

int fuse_attention(Graph& graph, std::vector<RuleReport>& reports, bool verify_rewrites) {
  return run_rules(graph, {attention()}, reports, verify_rewrites);
}

}  // namespace weft
