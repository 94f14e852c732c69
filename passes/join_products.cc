// Scores that are a sum of two products are one product of queries and keys side by side.
#include <algorithm>
#include <set>

#include "ops/builder.h"
#include "passes/attention_joins.h"
#include "passes/node_util.h"
#include "passes/rule.h"

namespace weft {
namespace {

struct Product {
  Pattern q, keys;  // keys transposed
  Scalar scale;
  Pattern whole;
};

Product product(std::string_view q, std::string_view keys, std::string_view scale) {
  Product p{any(q), any(keys), scalar(scale), {}};
  p.whole = scaled(matmul(p.q, p.keys), p.scale);
  return p;
}

// Is the value made of what an input or a state holds, with something behind?
bool extends_input(const Graph& graph, ValueId id) {
  static constexpr std::string_view kMoving[] = {"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Expand"};
  for (int step = 0; step < 16; ++step) {
    const Value& value = graph.value(id);
    if (value.kind != ValueKind::kResult) return value.kind == ValueKind::kInput;
    const Node& node = graph.node(value.producer);
    if (node.op == "Concat" || node.op == "CacheAppend") {
      return std::any_of(node.inputs.begin(), node.inputs.end(),
                         [&](ValueId input) { return graph.value(input).kind == ValueKind::kInput; });
    }
    if (std::find(std::begin(kMoving), std::end(kMoving), node.op) == std::end(kMoving)) return false;
    id = node.inputs[0];
  }
  return false;
}

bool check(Match& m, const Product& a, const Product& b) {
  const std::int64_t rank = m.rank(a.q);
  if (rank < 3 || m.rank(a.keys) != rank || m.rank(b.q) != rank || m.rank(b.keys) != rank)
    return m.refuse("the products have other ranks than their operands");
  for (const Pattern& operand : {a.q, a.keys, b.q, b.keys}) {
    if (is_constant(m.graph(), m[operand])) return m.refuse("an operand is a constant");
  }
  const Shape &q = m.shape(a.q), &keys = m.shape(a.keys);
  for (const Pattern& operand : {a.keys, b.q, b.keys}) {
    const Shape& shape = m.shape(operand);
    if (!std::equal(shape.begin(), shape.end() - 2, q.begin()))
      return m.refuse(fmt::format("batch axes of {} and {} differ", to_string(q), to_string(shape)));
  }
  if (!(m.shape(b.q)[q.size() - 2] == q[q.size() - 2]) || !(m.shape(b.keys).back() == keys.back()))
    return m.refuse("one product is spread over the other");
  for (const Pattern& operand : {a.keys, b.keys}) {
    if (extends_input(m.graph(), m[operand])) return m.refuse("keys of a cache would be copied at every step");
  }
  return true;
}

Rule sum_of_products() {
  const Product a = product("q", "keys", "scale"), b = product("other q", "other keys", "other scale");
  const Pattern rest = any("mask"), more = any("second mask");
  const Pattern root = either({a.whole + b.whole, a.whole + b.whole + rest, a.whole + b.whole + rest + more});
  return {"join-products-of-scores", root,
          [=](Match& m) {
            return (softmax_below(m.graph(), m[root]).valid() || m.refuse("no softmax weighs the sum")) &&
                   check(m, a, b);
          },
          [=](Builder& builder, const Match& m) {
            const std::int64_t last = m.rank(a.q) - 1;
            const double scale = m.number(a.scale), ratio = m.number(b.scale) / scale;
            Expr other = builder.wrap(m[b.q]);
            if (ratio != 1) other = other * ratio;
            const auto keys_of = [&](const Product& p) { return swap_last_two(builder, builder.wrap(m[p.keys])).id(); };
            const ValueId queries[] = {m[a.q], other.id()}, keys[] = {keys_of(a), keys_of(b)};
            const Expr scores =
                builder.matmul(builder.concat(queries, last), swap_last_two(builder, builder.concat(keys, last)));
            Expr whole = scale == 1 ? scores : scores * scale;
            for (const Pattern& mask : {rest, more}) {
              if (m.has(mask)) whole = whole + builder.wrap(m[mask]);
            }
            return whole;
          }};
}

}  // namespace

int join_products(Graph& graph, PassContext& context) { return apply_rule(graph, sum_of_products(), context); }

}  // namespace weft
