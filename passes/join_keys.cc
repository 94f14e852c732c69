// A softmax over the scores of several groups of keys, each with a product of its own, is one over all of them.
#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "ops/builder.h"
#include "passes/attention_joins.h"
#include "passes/node_util.h"
#include "passes/rule.h"

namespace weft {
namespace {

constexpr std::string_view kName = "join-keys-of-one-attention";

const Node* maker_of(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  return value.kind == ValueKind::kResult ? &graph.node(value.producer) : nullptr;
}

// The only reader of a value that nobody else asks for; null if there is none.
const Use* only_use(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  return value.uses.size() == 1 && !graph.is_output(id) ? &value.uses[0] : nullptr;
}

// [.., N * S, X] where `apart` is [.., N, S, X].
bool merges_rows(const Shape& merged, const Shape& apart) {
  const std::size_t rank = apart.size();
  return rank >= 3 && merged.size() + 1 == rank && std::equal(merged.begin(), merged.end() - 2, apart.begin()) &&
         merged[rank - 3] == apart[rank - 3] * apart[rank - 2] && merged.back() == apart.back();
}

// A product whose second operand is one group's: scale * q keys + mask, or weights values.
struct Group {
  ValueId first, second;  // q and keys [.., D, T], or weights and values [.., T, V]
  bool merged = false;    // the product is of rows of two axes as one
  ValueId mask;           // invalid without
  double scale = 1;
};

// The factor of x * factor; nullopt if it is something else. `value` becomes x.
std::optional<double> take_factor(const Graph& graph, ValueId& value) {
  const Node* node = maker_of(graph, value);
  if (node == nullptr || (node->op != "Mul" && node->op != "Div")) return std::nullopt;
  for (std::size_t side = 0; side < (node->op == "Mul" ? 2u : 1u); ++side) {
    const auto number = known_number(graph, node->inputs[1 - side]);
    if (!number || *number == 0 || !same_type(graph, node->inputs[side], value)) continue;
    const double factor = node->op == "Mul" ? *number : 1 / *number;
    value = node->inputs[side];
    return factor;
  }
  return std::nullopt;
}

// A product, or its rows spread over two axes.
std::optional<Group> read_product(const Graph& graph, ValueId value) {
  const Node* node = maker_of(graph, value);
  if (node == nullptr || only_use(graph, value) == nullptr) return std::nullopt;
  const Shape whole = *shape_of(graph, value);
  Group group;
  if (node->op == "Reshape") {
    const Shape* merged = shape_of(graph, node->inputs[0]);
    if (merged == nullptr || !merges_rows(*merged, whole) || only_use(graph, node->inputs[0]) == nullptr) return {};
    group.merged = true;
    node = maker_of(graph, node->inputs[0]);
    if (node == nullptr) return std::nullopt;
  }
  if (node->op != "MatMul") return std::nullopt;
  group.first = node->inputs[0];
  group.second = node->inputs[1];
  const std::int64_t rank = static_cast<std::int64_t>(whole.size()) - (group.merged ? 1 : 0);
  if (rank < 3 || rank_of(graph, group.first) != rank || rank_of(graph, group.second) != rank) return std::nullopt;
  return group;
}

std::optional<Group> read_scores(const Graph& graph, ValueId value) {
  if (shape_of(graph, value) == nullptr || only_use(graph, value) == nullptr) return std::nullopt;
  const Node* sum = producer(graph, value, "Add");
  if (sum != nullptr) {
    for (std::size_t side = 0; side < 2; ++side) {
      if (!same_type(graph, sum->inputs[side], value)) continue;
      ValueId product = sum->inputs[side];
      const bool unshared = only_use(graph, product) != nullptr;
      const double scale = unshared ? take_factor(graph, product).value_or(1) : 1;
      auto group = read_product(graph, product);
      if (!unshared || !group) continue;
      group->scale = scale;
      group->mask = sum->inputs[1 - side];
      return group;
    }
    return std::nullopt;
  }
  const double scale = take_factor(graph, value).value_or(1);
  auto group = read_product(graph, value);
  if (group) group->scale = scale;
  return group;
}

// All of it: the scores, side by side, the weights and the sum of what they weigh.
struct Core {
  NodeId concat;
  ValueId q, weights, sum;
  std::vector<Group> scores, values;
};

// Columns [start, end) of the weights.
struct Columns {
  ValueId value;
  Dim start, end;
};

// A bound of Slice, counted from the front.
Dim bound(const Dim& given, const Dim& length) {
  if (!given.is_constant()) return given;
  if (given.value() > std::numeric_limits<std::int32_t>::max()) return length;
  return given.value() < 0 ? length + given : given;
}

bool is_last(std::int64_t axis, std::int64_t rank) { return axis == -1 || axis == rank - 1; }

// What a Slice of the last axis takes.
std::optional<Columns> sliced(const Graph& graph, const Node& slice, const Dim& length, std::int64_t rank) {
  const auto axes = slice.inputs.size() > 3 ? known_integers(graph, slice.inputs[3]) : std::nullopt;
  const auto &starts = graph.value(slice.inputs[1]).elements, &ends = graph.value(slice.inputs[2]).elements;
  const bool steps = slice.inputs.size() > 4 && slice.inputs[4].valid() &&
                     known_integers(graph, slice.inputs[4]) != std::vector<std::int64_t>{1};
  if (!axes || axes->size() != 1 || !is_last((*axes)[0], rank) || !starts || !ends || steps) return std::nullopt;
  const Columns columns{slice.outputs[0], bound((*starts)[0], length), bound((*ends)[0], length)};
  const Shape* shape = shape_of(graph, slice.outputs[0]);
  // Nothing was clamped.
  return shape != nullptr && shape->back() == columns.end - columns.start ? std::optional(columns) : std::nullopt;
}

// The weights, cut into columns; empty unless all of them are there, once.
std::vector<Columns> columns_of(const Graph& graph, ValueId weights) {
  const Shape& shape = *shape_of(graph, weights);
  const auto rank = static_cast<std::int64_t>(shape.size());
  std::vector<Columns> columns;
  if (graph.is_output(weights)) return {};
  for (const Use& use : graph.value(weights).uses) {
    const Node& node = graph.node(use.node);
    if (use.input != 0) return {};
    if (node.op == "Split" && is_last(attributes_of(node).integer("axis"), rank)) {
      Dim start;
      for (const ValueId output : node.outputs) {
        if (!output.valid()) return {};
        const Dim width = shape_of(graph, output)->back();
        columns.push_back({output, start, start + width});
        start = start + width;
      }
    } else if (node.op == "Slice") {
      const auto cut = sliced(graph, node, shape.back(), rank);
      if (!cut) return {};
      columns.push_back(*cut);
    } else {
      return {};
    }
  }
  Dim place;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const auto next = std::find_if(columns.begin() + static_cast<std::ptrdiff_t>(i), columns.end(),
                                   [&](const Columns& c) { return c.start == place; });
    if (next == columns.end()) return {};
    std::swap(columns[i], *next);
    place = columns[i].end;
  }
  return place == shape.back() ? columns : std::vector<Columns>();
}

// weights values of some columns, and where the product comes out.
std::optional<std::pair<Group, ValueId>> weighed(const Graph& graph, ValueId columns) {
  const Use* use = only_use(graph, columns);
  if (use == nullptr) return std::nullopt;
  const Shape whole = *shape_of(graph, columns);
  const bool merged = graph.node(use->node).op == "Reshape";
  if (merged) {
    const ValueId rows = graph.node(use->node).outputs[0];
    const Shape* shape = shape_of(graph, rows);
    use = only_use(graph, rows);
    if (shape == nullptr || !merges_rows(*shape, whole) || use == nullptr) return std::nullopt;
  }
  const Node& product = graph.node(use->node);
  if (product.op != "MatMul" || use->input != 0) return std::nullopt;
  ValueId result = product.outputs[0];
  if (merged) {
    const Use* spread = only_use(graph, result);
    if (spread == nullptr || graph.node(spread->node).op != "Reshape" || shape_of(graph, result) == nullptr)
      return std::nullopt;
    const Shape rows = *shape_of(graph, result);
    result = graph.node(spread->node).outputs[0];
    const Shape* shape = shape_of(graph, result);
    if (shape == nullptr || !merges_rows(rows, *shape) || !((*shape)[shape->size() - 2] == whole[whole.size() - 2]))
      return std::nullopt;
  }
  const std::int64_t rank = static_cast<std::int64_t>(whole.size()) - (merged ? 1 : 0);
  if (rank_of(graph, product.inputs[1]) != rank) return std::nullopt;
  return std::pair(Group{columns, product.inputs[1], merged, {}, 1}, result);
}

// The value that all of these are added up to; invalid if there is none.
ValueId sum_of(const Graph& graph, std::vector<ValueId> terms) {
  while (terms.size() > 1) {
    const auto added = [&](ValueId term) -> NodeId {
      const Use* use = only_use(graph, term);
      if (use == nullptr || graph.node(use->node).op != "Add") return {};
      const ValueId other = graph.node(use->node).inputs[1 - use->input];
      return other != term && std::find(terms.begin(), terms.end(), other) != terms.end() ? use->node : NodeId();
    };
    const auto first = std::find_if(terms.begin(), terms.end(), [&](ValueId term) { return added(term).valid(); });
    if (first == terms.end()) return {};
    const Node& add = graph.node(added(*first));
    if (only_use(graph, add.inputs[0]) == nullptr || only_use(graph, add.inputs[1]) == nullptr) return {};
    std::erase_if(terms, [&](ValueId term) { return term == add.inputs[0] || term == add.inputs[1]; });
    terms.push_back(add.outputs[0]);
  }
  return terms.empty() ? ValueId() : terms[0];
}

// Axes before the last two are those of `q`, or 1.
bool has_batches_of(const Graph& graph, const Group& group, const Shape& q) {
  Shape own = *shape_of(graph, group.second);
  if (group.merged) own.insert(own.end() - 2, Dim(1));
  for (std::size_t i = 0; i + 2 < q.size(); ++i) {
    if (!own[i].is(1) && !(own[i] == q[i])) return false;
  }
  return own.size() == q.size();
}

// The query that every group's scores are of, of all axes; invalid if there is none.
ValueId common_query(const Graph& graph, const std::vector<Group>& groups) {
  const auto apart = std::find_if(groups.begin(), groups.end(), [](const Group& group) { return !group.merged; });
  if (apart == groups.end()) return {};
  const ValueId q = apart->first;
  const Shape* shape = shape_of(graph, q);
  const bool same = shape != nullptr && std::all_of(groups.begin(), groups.end(), [&](const Group& group) {
                      const Shape* own = shape_of(graph, group.first);
                      return own != nullptr && without_views(graph, group.first) == without_views(graph, q) &&
                             (group.merged ? merges_rows(*own, *shape) : *own == *shape) &&
                             has_batches_of(graph, group, *shape) && group.scale == groups[0].scale;
                    });
  return same ? q : ValueId();
}

bool read_values(const Graph& graph, Core& core) {
  const std::vector<Columns> columns = columns_of(graph, core.weights);
  std::vector<ValueId> terms;
  for (const Columns& part : columns) {
    const auto found = weighed(graph, part.value);
    if (!found || !has_batches_of(graph, found->first, *shape_of(graph, core.q))) return false;
    core.values.push_back(found->first);
    terms.push_back(found->second);
  }
  core.sum = sum_of(graph, terms);
  return core.sum.valid() && rank_of(graph, core.sum) == rank_of(graph, core.weights);
}

std::optional<Core> read_core(const Graph& graph, NodeId concat, RuleReport& report) {
  const Node& node = graph.node(concat);
  const ValueId scores = node.outputs[0];
  const std::int64_t rank = rank_of(graph, scores);
  if (rank < 3 || node.inputs.size() < 2 || !is_last(attributes_of(node).integer("axis"), rank)) return std::nullopt;
  const NodeId softmax = softmax_below(graph, scores);
  if (!softmax.valid()) return std::nullopt;
  const auto refuse = [&](NodeId at, std::string reason) -> std::optional<Core> {
    record_near_miss(report, graph, at, 2, std::move(reason));
    return std::nullopt;
  };
  Core core{concat, {}, graph.node(softmax).outputs[0], {}, {}, {}};
  for (const ValueId part : node.inputs) {
    const auto group = read_scores(graph, part);
    if (!group) return std::nullopt;  // a sink, a null key
    core.scores.push_back(*group);
  }
  core.q = common_query(graph, core.scores);
  if (!core.q.valid()) return refuse(concat, "scores side by side are not of the same queries");
  if (!read_values(graph, core)) return refuse(softmax, "the weights do not weigh all groups of keys for one sum");
  return core;
}

// x [.., T, V] of a group with the batches of all of `like`.
Expr spread(Builder& b, const Group& group, Expr x, Expr like) {
  const std::int64_t rank = b.rank(like);
  if (group.merged) x = b.unsqueeze(x, {rank - 3});
  const bool same = std::equal(b.shape(x).begin(), b.shape(x).end() - 2, b.shape(like).begin());
  if (same) return x;
  const ValueId shape[] = {b.slice(b.shape_of(like), 0, 0, rank - 2).id(), b.ints({1, 1}).id()};
  return b.make("Expand", {x.id(), b.concat(shape, 0).id()});
}

Expr all_keys(Builder& b, const std::vector<Group>& groups, Expr like) {
  std::vector<ValueId> parts;
  for (const Group& group : groups)
    parts.push_back(spread(b, group, swap_last_two(b, b.wrap(group.second)), like).id());
  return swap_last_two(b, b.concat(parts, -2));
}

Expr all_values(Builder& b, const std::vector<Group>& groups, Expr like) {
  std::vector<ValueId> parts;
  for (const Group& group : groups) parts.push_back(spread(b, group, b.wrap(group.second), like).id());
  return b.concat(parts, -2);
}

// Masks of the groups side by side, 0 where there is none; axes on which all are 1 stay 1.
Expr whole_mask(Builder& b, const Core& core) {
  if (std::none_of(core.scores.begin(), core.scores.end(), [](const Group& g) { return g.mask.valid(); })) return {};
  const Expr q = b.wrap(core.q);
  const std::int64_t rank = b.rank(q);
  std::vector<ValueId> extents;
  for (std::int64_t i = 0; i + 1 < rank; ++i) {
    const bool one = std::all_of(core.scores.begin(), core.scores.end(), [&](const Group& g) {
      const std::int64_t own = g.mask.valid() ? i - rank + b.rank(g.mask) : -1;
      return own < 0 || b.dim(g.mask, own).is(1);
    });
    extents.push_back(one ? b.ints({1}).id() : b.extent_of(q, i).id());
  }
  std::vector<ValueId> parts;
  for (const Group& group : core.scores) {
    std::vector<ValueId> own = extents;
    own.push_back(b.extent_of(b.wrap(group.second), -1).id());
    const ValueId mask = group.mask.valid() ? group.mask : b.scalar(b.dtype(q), 0.0).id();
    parts.push_back(b.make("Expand", {mask, b.concat(own, 0).id()}).id());
  }
  return b.wrap(b.concat(parts, -1).id());
}

void join(Graph& graph, const Core& core) {
  const ValueId scores = graph.node(core.concat).outputs[0];
  {
    Builder b(graph, core.concat, graph.node(core.concat).origin);
    const Expr q = b.wrap(core.q);
    Expr whole = b.matmul(q, all_keys(b, core.scores, q));
    if (core.scores[0].scale != 1) whole = whole * core.scores[0].scale;
    if (const Expr mask = whole_mask(b, core)) whole = whole + mask;
    replace_value(graph, scores, whole, kName);
  }
  const NodeId last = graph.value(core.sum).producer;
  Builder b(graph, last, graph.node(last).origin);
  const Expr values = all_values(b, core.values, b.wrap(core.q));
  replace_value(graph, core.sum, b.matmul(b.wrap(core.weights), values), kName);
}

}  // namespace

NodeId softmax_below(const Graph& graph, ValueId scores) {
  static constexpr std::string_view kThrough[] = {"Add", "Sub", "Mul", "Div", "Where", "Max", "Cast"};
  for (int step = 0; step < 8; ++step) {
    const Use* use = only_use(graph, scores);
    if (use == nullptr) return {};
    const Node& node = graph.node(use->node);
    if (node.op == "Softmax") {
      const std::int64_t axis = attributes_of(node).integer("axis");
      return axis == -1 || axis == rank_of(graph, scores) - 1 ? use->node : NodeId();
    }
    if (std::find(std::begin(kThrough), std::end(kThrough), node.op) == std::end(kThrough)) return {};
    const Shape *from = shape_of(graph, scores), *to = shape_of(graph, node.outputs[0]);
    if (from == nullptr || to == nullptr || !(*from == *to)) return {};
    scores = node.outputs[0];
  }
  return {};
}

Expr swap_last_two(Builder& b, Expr x) {
  std::vector<std::int64_t> perm(static_cast<std::size_t>(b.rank(x)));
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
  return b.transpose(x, std::move(perm));
}

int join_keys(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of(kName);
  int joined = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "Concat") continue;
    const auto core = read_core(graph, id, report);
    if (!core) continue;
    join(graph, *core);
    context.rewritten(graph, kName);
    ++joined;
  }
  report.applied += joined;
  return joined;
}

}  // namespace weft
