// Softmax-attention: softmax(scale q k^T + mask) v as one Attention, in two to six dimensions.
#include <algorithm>
#include <numeric>

#include "passes/attention_joins.h"
#include "passes/attention_pattern.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

using Handles = AttentionHandles;

// q, k^T and v are matrices, or batches of them: equal leading axes, or one key head for all query heads.
bool check_operands(Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  if (rank < 2 || rank > 6 || m.rank(h.keys) != rank || m.rank(h.v) != rank) {
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

// Of more than four axes all before the heads are batches, and of masks those that are not 1 have to be as long.
bool check_batches(Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  if (rank <= 4) return true;
  const Shape& q = m.shape(h.q);
  for (const Pattern& mask : masks_of(h)) {
    if (!m.has(mask)) continue;
    const Shape& shape = m.shape(mask);
    const std::size_t skipped = q.size() - shape.size();
    for (std::size_t i = 0; i + 3 < shape.size(); ++i) {
      if (!shape[i].is(1) && !(shape[i] == q[i + skipped]))
        return m.refuse(fmt::format("the mask {} is not one of batches {}", to_string(shape), to_string(q)));
    }
  }
  return true;
}

// [B1, B2, ..., H, a, b] -> [B1 * B2 * ..., H, a, b]
Expr one_batch(Builder& b, Expr x) {
  const std::int64_t rank = b.rank(x);
  Expr count = b.extent_of(x, 0);  // no -1, which is nothing beside an extent of 0
  for (std::int64_t i = 1; i + 3 < rank; ++i) count = count * b.extent_of(x, i);
  const ValueId shape[] = {count.id(), b.slice(b.shape_of(x), 0, rank - 3, rank).id()};
  return b.make("Reshape", {x.id(), b.concat(shape, 0).id()}, {{"allowzero", std::int64_t{1}}});
}

// A mask [.., B2 or 1, H, S, T] of scores with the batches of q as one of all of them.
Expr mask_of_one_batch(Builder& b, Expr mask, Expr q) {
  const std::int64_t batches = b.rank(q) - 3;
  const std::int64_t own = b.rank(mask) - 3;
  bool same = true;
  for (std::int64_t i = 0; i < own; ++i) same = same && b.dim(mask, i).is(1);
  if (same) {
    std::vector<std::int64_t> ones(static_cast<std::size_t>(own - 1));
    std::iota(ones.begin(), ones.end(), 0);
    return ones.empty() ? mask : b.squeeze(mask, ones);
  }
  const ValueId shape[] = {b.slice(b.shape_of(q), 0, 0, batches).id(), b.ints({1, 1, 1}).id()};
  return one_batch(b, b.make("Expand", {mask.id(), b.concat(shape, 0).id()}));
}

// Attention of more than four axes.
Expr build_batches(Builder& b, const Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  const Expr q = query_of(b, m, h), k = swap_last_two(b, b.wrap(m[h.keys])), v = b.wrap(m[h.v]);
  Expr mask = whole_mask(b, m, h);
  if (mask && b.rank(mask) >= 4) mask = mask_of_one_batch(b, mask, q);
  const Expr y = b.make("Attention", {one_batch(b, q).id(), one_batch(b, k).id(), one_batch(b, v).id(), mask.id()},
                        attention_attributes(m, h));
  const ValueId shape[] = {b.slice(b.shape_of(q), 0, 0, rank - 1).id(), b.slice(b.shape_of(v), 0, rank - 1, rank).id()};
  return b.reshape(y, b.concat(shape, 0));
}

// [B * H, a, b] -> [B, H, a, b]
Expr unfolded(Builder& b, Expr x, std::int64_t heads) {
  if (b.rank(x) == 4) return x;
  const ValueId shape[] = {b.ints({-1, heads}).id(), b.slice(b.shape_of(x), 0, 1, 3).id()};
  return b.reshape(x, b.concat(shape, 0));
}

// [B, H, a, b] -> [B * H, a, b]
Expr folded(Builder& b, Expr x) {
  const ValueId shape[] = {b.ints({-1}).id(), b.slice(b.shape_of(x), 0, 2, 4).id()};
  return b.reshape(x, b.concat(shape, 0));
}

// H of a mask [B * H, S or 1, T] that was one of batch rows and heads somewhere; 0 if it does not tell.
std::int64_t heads_in_mask(const Graph& graph, ValueId mask) {
  constexpr int kMaxSteps = 12;
  for (int step = 0; step < kMaxSteps; ++step) {
    const Value& value = graph.value(mask);
    if (value.kind != ValueKind::kResult || !value.type.shape || value.type.shape->size() != 3) return 0;
    const Node& node = graph.node(value.producer);
    const Shape* from = shape_of(graph, node.inputs[0]);
    if (node.op == "Reshape" && from != nullptr && from->size() == 4) {
      const Shape& to = *value.type.shape;
      const bool folds =
          (*from)[1].is_constant() && (*from)[0] * (*from)[1] == to[0] && (*from)[2] == to[1] && (*from)[3] == to[2];
      return folds ? (*from)[1].value() : 0;
    }
    // Through what gives one element for one.
    const bool by_element =
        node.op == "Where" || node.op == "Cast" || node.op == "Not" || node.op == "Mul" || node.op == "Neg";
    if (!by_element || from == nullptr || !(*from == *value.type.shape)) return 0;
    mask = node.inputs[0];
  }
  return 0;
}

// Heads folded into the batch, as the mask tells: key padding is found again then.
Expr build_folded(Builder& b, const Match& m, const Handles& h, Expr mask, std::int64_t heads) {
  const Expr q = unfolded(b, query_of(b, m, h), heads), v = unfolded(b, b.wrap(m[h.v]), heads);
  const Expr k = unfolded(b, b.transpose(b.wrap(m[h.keys]), {0, 2, 1}), heads);
  const ValueId all[] = {q, k, v, unfolded(b, mask, heads)};
  return folded(b, b.make("Attention", {all[0], all[1], all[2], all[3]}, attention_attributes(m, h)));
}

Expr build_attention(Builder& b, const Match& m, const Handles& h) {
  const std::int64_t rank = m.rank(h.q);
  if (rank > 4) return build_batches(b, m, h);
  Expr mask = rank == 3 ? whole_mask(b, m, h) : Expr();
  if (mask && b.rank(mask) == 3 && m.shape(h.q)[0] == b.dim(mask, 0)) {
    const std::int64_t heads = heads_in_mask(b.graph(), mask);
    if (heads > 1) return build_folded(b, m, h, mask, heads);
  }
  Expr q = query_of(b, m, h), k = swap_last_two(b, b.wrap(m[h.keys])), v = b.wrap(m[h.v]);
  if (rank != 3) mask = whole_mask(b, m, h);
  // Batches of matrices are heads of one batch.
  std::vector<std::int64_t> added;
  for (std::int64_t i = 0; i < 4 - rank; ++i) added.push_back(i);
  if (!added.empty()) {
    q = b.unsqueeze(q, added);
    k = b.unsqueeze(k, added);
    v = b.unsqueeze(v, added);
  }
  const ValueId sinks = m.has(h.sinks) ? sink_row(b, sinks_of(m, h, b.dim(q, 1))).id() : ValueId();
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id(), {}, {}, sinks}, attention_attributes(m, h));
  return added.empty() ? y : b.squeeze(y, added);
}

Rule attention() {
  Handles h;
  const Pattern weights = weights_of(h, scores_of(h));
  return {"fuse-attention", matmul(weights, h.v),
          [=](Match& m) { return check_operands(m, h) && check_mask(m, h, m.rank(h.q)) && check_batches(m, h); },
          [=](Builder& b, const Match& m) { return build_attention(b, m, h); }};
}

// Of scores beside one more of each row, a sink.
Rule attention_with_sinks() {
  Handles h;
  const Pattern weights = weights_beside_sinks(h, scores_of(h));
  return {"fuse-attention-sinks", matmul(weights, h.v),
          [=](Match& m) {
            if (!check_operands(m, h) || !check_mask(m, h, m.rank(h.q))) return false;
            const bool known = m.rank(h.q) == 4 && sinks_of(m, h, m.shape(h.q)[1]).valid();
            return known || m.refuse("the score beside the others is not one of each head");
          },
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
  const auto apart = [&](Expr x) { return unfolded(b, x, heads); };
  const Expr q = apart(query_of(b, m, h)), k = apart(b.transpose(b.wrap(m[h.keys]), {0, 2, 1})),
             v = apart(b.wrap(m[h.v]));
  Expr mask = whole_mask(b, m, h);
  if (m.has(h.flat_mask)) mask = both_masks(b, apart(b.wrap(m[h.flat_mask])), mask);
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id()}, attention_attributes(m, h));
  if (!m.has(h.merged)) return y;
  return folded(b, y);
}

Rule flat_attention() {
  Handles h;
  const Pattern scores = scores_of(h);
  h.spread = reshape(either({scores + h.flat_mask, scores}));
  const Pattern weights = weights_of(h, scaled(h.spread, h.late_scale));
  h.merged = reshape(weights);
  return {"fuse-attention-flat-heads", matmul(either({h.merged, weights}), h.v),
          [=](Match& m) { return check_flat(m, h) && check_mask(m, h, 4); },
          [=](Builder& b, const Match& m) { return build_flat(b, m, h); }};
}

// --- Heads of one key head folded into the queries --------------------------------------------------------

// [B, K, G * S, T] scores, K key heads that serve G queries heads each, spread to [B, K, G, S, T] for masks.
bool check_grouped(Match& m, const Handles& h) {
  if (m.rank(h.q) != 4 || m.rank(h.keys) != 4 || m.rank(h.v) != 4 || m.rank(h.spread) != 5 || m.rank(h.merged) != 4) {
    return m.refuse("rows of scores are not spread from rank 4 to 5 and back");
  }
  if (!is_float(m.dtype(h.q))) return m.refuse("q is no float");
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys), &v = m.shape(h.v), &spread = m.shape(h.spread);
  const Shape scores = {q[0], q[1], q[2], keys[3]};
  const bool fits = spread[0] == q[0] && spread[1] == q[1] && spread[2] * spread[3] == q[2] && spread[4] == keys[3] &&
                    m.shape(h.merged) == scores && keys[0] == q[0] && keys[1] == q[1] && v[0] == q[0] && v[1] == q[1] &&
                    v[2] == keys[3];
  const bool known = q[1].is_constant() && spread[2].is_constant() && q[3].is_constant() && v[3].is_constant();
  if (!fits || !known) return m.refuse(fmt::format("{} are not the groups of {}", to_string(spread), to_string(q)));
  if (m.has(h.head_factor)) return m.refuse("a factor of the scores is not one of each head");
  for (const Pattern& mask : masks_of(h)) {
    if (!m.has(mask) || m.rank(mask) <= 2) continue;
    const Shape& shape = m.shape(mask);
    if (!shape[shape.size() - 3].is(1) || (shape.size() > 3 && !shape[shape.size() - 4].is(1))) {
      return m.refuse("the mask differs between heads");
    }
  }
  return true;
}

Expr build_grouped(Builder& b, const Match& m, const Handles& h) {
  const Shape q_shape = m.shape(h.q), spread = m.shape(h.spread);
  const std::int64_t key_heads = q_shape[1].value(), heads = key_heads * spread[2].value();
  const std::int64_t value_size = m.shape(h.v)[3].value();
  const Expr q = b.reshape(b.wrap(m[h.q]), std::vector<std::int64_t>{0, heads, -1, q_shape[3].value()});
  const Expr k = b.transpose(b.wrap(m[h.keys]), {0, 1, 3, 2});
  Expr mask = whole_mask(b, m, h);
  if (mask && b.rank(mask) == 5) mask = b.squeeze(mask, {2});
  const Expr y = b.make("Attention", {q.id(), k.id(), m[h.v], mask.id()}, attention_attributes(m, h));
  return b.reshape(y, std::vector<std::int64_t>{0, key_heads, -1, value_size});
}

Rule grouped_attention() {
  Handles h;
  h.spread = reshape(scores_of(h));
  h.merged = reshape(weights_of(h, scaled(h.spread, h.late_scale)));
  return {"fuse-attention-grouped-rows", matmul(h.merged, h.v),
          [=](Match& m) { return check_grouped(m, h) && check_mask(m, h, 5); },
          [=](Builder& b, const Match& m) { return build_grouped(b, m, h); }};
}

// --- Heads behind the queries -----------------------------------------------------------------------------

// [B, S * H, T] scores of H query heads and one key head, spread to [B, S, H, T] for masks.
bool check_heads_behind(Match& m, const Handles& h) {
  if (m.rank(h.q) != 3 || m.rank(h.keys) != 3 || m.rank(h.v) != 3 || m.rank(h.spread) != 4 || m.rank(h.merged) != 3) {
    return m.refuse("rows of scores are not spread from rank 3 to 4 and back");
  }
  if (!is_float(m.dtype(h.q)) || m.has(h.head_factor) || m.has(h.flat_mask)) return m.refuse("q is no float");
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys), &v = m.shape(h.v), &spread = m.shape(h.spread);
  const Shape scores = {q[0], q[1], keys[2]};
  const bool fits = spread[0] == q[0] && spread[2].is_constant() && spread[1] * spread[2] == q[1] &&
                    spread[3] == keys[2] && m.shape(h.merged) == scores && keys[0] == q[0] && v[0] == q[0] &&
                    v[1] == keys[2] && q[2].is_constant() && v[2].is_constant();
  return fits || m.refuse(fmt::format("{} are not the queries and heads of {}", to_string(spread), to_string(q)));
}

Expr build_heads_behind(Builder& b, const Match& m, const Handles& h) {
  const std::int64_t heads = m.shape(h.spread)[2].value(), size = m.shape(h.q)[2].value();
  const std::vector<std::int64_t> swap = {0, 2, 1, 3};
  const Expr q = b.transpose(b.reshape(b.wrap(m[h.q]), std::vector<std::int64_t>{0, -1, heads, size}), swap);
  const Expr k = b.unsqueeze(b.transpose(b.wrap(m[h.keys]), {0, 2, 1}), {1}), v = b.unsqueeze(b.wrap(m[h.v]), {1});
  Expr mask = whole_mask(b, m, h);
  if (mask && b.rank(mask) > 1) {
    std::vector<std::int64_t> added;
    for (std::int64_t i = 0; i < 4 - b.rank(mask); ++i) added.push_back(i);
    mask = b.transpose(added.empty() ? mask : b.unsqueeze(mask, added), swap);
  }
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id()}, attention_attributes(m, h));
  return b.reshape(b.transpose(y, swap), std::vector<std::int64_t>{0, -1, m.shape(h.v)[2].value()});
}

Rule attention_of_heads_behind() {
  Handles h;
  h.spread = reshape(scores_of(h));
  h.merged = reshape(weights_of(h, scaled(h.spread, h.late_scale)));
  return {"fuse-attention-heads-behind", matmul(h.merged, h.v),
          [=](Match& m) { return check_heads_behind(m, h) && check_mask(m, h, 4); },
          [=](Builder& b, const Match& m) { return build_heads_behind(b, m, h); }};
}

// --- Windows folded into the batch -------------------------------------------------------------------------

// [B * W, H, S, T] scores spread to [B, W, H, S, T], where masks tell one of the W windows of an image from another.
bool check_windows(Match& m, const Handles& h) {
  if (m.rank(h.q) != 4 || m.rank(h.keys) != 4 || m.rank(h.v) != 4 || m.rank(h.spread) != 5 || m.rank(h.merged) != 4) {
    return m.refuse("scores are not spread from rank 4 to 5 and back");
  }
  if (!is_float(m.dtype(h.q))) return m.refuse("q is no float");
  const Shape &q = m.shape(h.q), &keys = m.shape(h.keys), &v = m.shape(h.v), &spread = m.shape(h.spread);
  const Shape scores = {q[0], q[1], q[2], keys[3]};
  const bool fits = spread[0] * spread[1] == q[0] && spread[2] == q[1] && spread[3] == q[2] && spread[4] == keys[3] &&
                    m.shape(h.merged) == scores && keys[0] == q[0] && keys[1] == q[1] && v[0] == q[0] && v[1] == q[1];
  const bool known = q[1].is_constant() && spread[1].is_constant() && is_static(Shape(q.begin() + 1, q.end())) &&
                     is_static(Shape(keys.begin() + 1, keys.end())) && v[3].is_constant();
  if (!fits || !known) return m.refuse(fmt::format("{} are not the windows of {}", to_string(spread), to_string(q)));
  for (const Pattern& mask : masks_of(h)) {
    if (m.has(mask) && m.rank(mask) == 5 && !m.shape(mask)[0].is(1)) return m.refuse("the mask differs between images");
  }
  if (m.has(h.flat_mask) && (m.rank(h.flat_mask) > 4 || (m.rank(h.flat_mask) == 4 && !m.shape(h.flat_mask)[0].is(1)))) {
    return m.refuse("the mask of the flat scores differs between windows");
  }
  return true;
}

// Windows as heads: masks are those of one image.
Expr build_windows(Builder& b, const Match& m, const Handles& h) {
  const Shape spread = m.shape(h.spread);
  const std::int64_t windows = spread[1].value(), heads = spread[2].value(), together = windows * heads;
  const auto as_heads = [&](Expr x) {
    return b.reshape(x, std::vector<std::int64_t>{-1, together, b.dim(x, 2).value(), b.dim(x, 3).value()});
  };
  const Expr q = as_heads(query_of(b, m, h)), k = as_heads(b.transpose(b.wrap(m[h.keys]), {0, 1, 3, 2}));
  const Expr v = as_heads(b.wrap(m[h.v]));
  Expr mask = whole_mask(b, m, h);
  if (m.has(h.flat_mask)) mask = both_masks(b, b.wrap(m[h.flat_mask]), mask);
  if (mask) {
    const std::int64_t queries = spread[3].value(), keys = spread[4].value();
    mask = b.make("Expand", {mask.id(), b.ints({1, windows, heads, queries, keys}).id()});
    mask = b.reshape(mask, std::vector<std::int64_t>{1, together, queries, keys});
  }
  const Expr y = b.make("Attention", {q.id(), k.id(), v.id(), mask.id()}, attention_attributes(m, h));
  return b.reshape(y, std::vector<std::int64_t>{-1, heads, b.dim(y, 2).value(), b.dim(y, 3).value()});
}

Rule windowed_attention() {
  Handles h;
  const Pattern scores = scores_of(h);
  h.spread = reshape(either({scores + h.flat_mask, scores}));
  h.merged = reshape(weights_of(h, h.spread));
  return {"fuse-attention-windows", matmul(h.merged, h.v),
          [=](Match& m) { return check_windows(m, h) && check_mask(m, h, 5); },
          [=](Builder& b, const Match& m) { return build_windows(b, m, h); }};
}

}  // namespace

int fuse_attention(Graph& graph, PassContext& context) {
  const int joined = join_values(graph, context) + join_keys(graph, context) + join_products(graph, context);
  return joined + run_rules(graph,
                            {attention(), attention_with_sinks(), flat_attention(), grouped_attention(),
                             attention_of_heads_behind(), windowed_attention()},
                            context);
}

}  // namespace weft
