// What stands around the weights of attention, moved so that Softmax follows scores directly and its product with the
// values is next: factors and differences of weights, softmax of other axes, sums taken in other axes.
#include "passes/attention_joins.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Softmax, perhaps times factors, without one more score that takes a share.
bool is_weights(const Graph& graph, ValueId id) {
  if (producer(graph, id, "Softmax") != nullptr) return true;
  const Node* product = producer(graph, id, "Mul");
  return product != nullptr && (is_weights(graph, product->inputs[0]) || is_weights(graph, product->inputs[1]));
}

// (P * g) v as (P v) * g, g the same for all keys.
Rule factor_of_weights() {
  const Pattern x = any("x"), v = any("v"), factor = any("factor of the weights");
  const Pattern weights = op("Softmax", {x}), product = weights * factor;
  return {"factor-of-weights", matmul(product, v),
          [=](Match& m) {
            const Shape* shape = shape_of(m.graph(), m[factor]);
            const bool of_rows = shape != nullptr && (shape->empty() || shape->back().is(1));
            if (!of_rows) return m.refuse("the factor differs between keys");
            if (m.rank(weights) < 2 || m.rank(weights) != m.rank(v)) return m.refuse("the ranks differ");
            return same_type(m.graph(), m[product], m[weights]) || m.refuse("the factor adds axes");
          },
          [=](Builder& b, const Match& m) { return b.matmul(b.wrap(m[weights]), b.wrap(m[v])) * b.wrap(m[factor]); }};
}

// (P - Q) v as P v - Q v: each is attention then, and the difference is one of the smaller results.
Rule difference_of_weights() {
  const Pattern p = any("weights"), q = any("other weights"), v = any("v");
  const Pattern difference = p - q, sum = p + q;
  return {"difference-of-weights", matmul(either({difference, sum}), v),
          [=](Match& m) {
            const bool both = is_weights(m.graph(), m[p]) && is_weights(m.graph(), m[q]);
            if (!both) return m.refuse("the two are not weights of attention");
            return same_type(m.graph(), m[p], m[q]) || m.refuse("the weights are of different shapes");
          },
          [=](Builder& b, const Match& m) {
            const Expr values = b.wrap(m[v]), first = b.matmul(b.wrap(m[p]), values),
                       second = b.matmul(b.wrap(m[q]), values);
            return m.has(sum) ? first + second : first - second;
          }};
}

// A product of two computed matrices, perhaps times numbers.
bool is_scores(const Graph& graph, ValueId id) {
  for (int step = 0; step < 8; ++step) {
    const Value& value = graph.value(id);
    if (value.kind != ValueKind::kResult) return false;
    const Node& node = graph.node(value.producer);
    if (node.op == "MatMul") return !is_constant(graph, node.inputs[0]) && !is_constant(graph, node.inputs[1]);
    if (node.op != "Mul" && node.op != "Div") return false;
    const bool first = known_number(graph, node.inputs[1]).has_value();
    if (!first && (node.op == "Div" || !known_number(graph, node.inputs[0]))) return false;
    id = node.inputs[first ? 0 : 1];
  }
  return false;
}

// Scores that are scaled after some were filled: scaled first, with the fill that comes out.
Rule scaled_fill(bool keeps) {
  const Pattern condition = any("condition"), scores = any("scores");
  const Scalar fill = scalar("fill"), factor = scalar("factor");
  const Pattern filled = keeps ? where(condition, scores, fill) : where(condition, fill, scores);
  const Pattern quotient = filled / factor, product = filled * factor;
  return {"scale-before-fill", either({product, quotient}),
          [=](Match& m) {
            if (!is_scores(m.graph(), m[scores])) return m.refuse("what is filled are no scores");
            if (m.dtype(scores) != DType::kF32 || !(m.number(factor) > 0))
              return m.refuse("the factor is not positive");
            const bool keeps_rank = m.rank(m.has(quotient) ? quotient : product) == m.rank(scores);
            return keeps_rank || m.refuse("the condition or a number has more axes than the scores");
          },
          [=](Builder& b, const Match& m) {
            const auto low = static_cast<float>(m.number(fill)), by = static_cast<float>(m.number(factor));
            const Expr x = b.wrap(m[scores]), number = b.scalar(DType::kF32, by);
            const Expr scaled = m.has(quotient) ? x / number : x * number;
            const Expr instead = b.scalar(DType::kF32, m.has(quotient) ? low / by : low * by);
            const Expr given = b.wrap(m[condition]);
            return keeps ? b.where(given, scaled, instead) : b.where(given, instead, scaled);
          }};
}

// Softmax over the rows of (k q^T), where attention has its keys along rows: that of q k^T, turned.
Rule turned_softmax() {
  const Pattern x = any("x");
  const Pattern root = op("Softmax", {x});
  return {"softmax-of-rows", root,
          [=](Match& m) {
            const std::int64_t rank = m.rank(x);
            const std::int64_t axis = absolute_axis(m.graph(), m[x], attributes_of(m.node(root)).integer("axis"));
            if (rank < 2 || axis != rank - 2) return m.refuse("Softmax is not over rows");
            return is_scores(m.graph(), m[x]) || m.refuse("Softmax is not one of scores");
          },
          [=](Builder& b, const Match& m) { return swap_last_two(b, b.softmax(swap_last_two(b, b.wrap(m[x])), -1)); }};
}

// softmax(x - max(x)) is softmax(x).
Rule shifted_softmax() {
  const Pattern x = any("x");
  return {"shifted-softmax", softmax_last(x - reduced_last("ReduceMax", x)), {}, [=](Builder& b, const Match& m) {
            return b.softmax(b.wrap(m[x]), -1);
          }};
}

// Scores spread to more axes for the sake of masks that know them (rows and columns of an image), and merged again:
// the masks are merged instead.
Rule sum_in_other_axes() {
  const Pattern x = any("scores"), a = any("mask"), more = any("second mask");
  const Pattern spread = reshape(x);
  const Pattern sum = either({(spread + a) + more, spread + a});
  const Pattern merged = reshape(sum);
  return {"sum-in-other-axes", softmax_last(merged),
          [=](Match& m) {
            if (m.rank(x) < 2 || m.rank(spread) <= m.rank(x)) return m.refuse("the scores are not spread");
            if (!same_type(m.graph(), m[merged], m[x])) return m.refuse("the scores do not become what they were");
            return same_type(m.graph(), m[sum], m[spread]) || m.refuse("the mask is larger than the scores");
          },
          [=](Builder& b, const Match& m) {
            const Attributes attributes = m.node(merged).attributes;
            const ValueId narrow = m.node(merged).inputs[1];
            Expr mask = b.wrap(m[a]);
            if (m.has(more)) mask = mask + b.wrap(m[more]);
            if (!same_type(b.graph(), mask.id(), m[spread])) {
              mask = b.make("Expand", {mask.id(), b.shape_of(b.wrap(m[spread])).id()});
            }
            return b.softmax(b.wrap(m[x]) + b.make("Reshape", {mask.id(), narrow}, Attributes(attributes)), -1);
          }};
}

}  // namespace

int canonicalize_weights(Graph& graph, PassContext& context) {
  return run_rules(graph,
                   {shifted_softmax(), scaled_fill(true), scaled_fill(false), sum_in_other_axes(), turned_softmax(),
                    factor_of_weights(), difference_of_weights()},
                   context);
}

}  // namespace weft
