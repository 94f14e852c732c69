// Rotary embedding: x * cos + rotated * sin, where what is rotated are the two halves of x, concat(-x2, x1), or its
// pairs, [-x1, x0, -x3, x2, ...].
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// The half of x that a value is: 0 the first, 1 the second; -1 neither. By Slice or Split of the last axis.
int half_of(const Graph& graph, ValueId value, ValueId x) {
  const Value& result = graph.value(value);
  const Shape* whole = shape_of(graph, x);
  const Shape* part = shape_of(graph, value);
  if (result.kind != ValueKind::kResult || whole == nullptr || part == nullptr || whole->empty() ||
      part->size() != whole->size() || !(part->back() * Dim(2) == whole->back())) {
    return -1;
  }
  const Node& node = graph.node(result.producer);
  if (node.inputs.empty() || node.inputs[0] != x) return -1;
  const auto last = static_cast<std::int64_t>(whole->size()) - 1;
  if (node.op == "Split") {
    const std::int64_t axis = attributes_of(node).integer("axis");
    return (axis == -1 || axis == last) && node.outputs.size() == 2 ? static_cast<int>(result.output_index) : -1;
  }
  if (node.op != "Slice" || node.inputs.size() < 4) return -1;
  const auto axes = known_integers(graph, node.inputs[3]);
  const auto starts = known_integers(graph, node.inputs[1]);
  if (!axes || !starts || axes->size() != 1 || (axes->front() != -1 && axes->front() != last)) return -1;
  if (node.inputs.size() > 4) {
    const auto steps = known_integers(graph, node.inputs[4]);
    if (!steps || steps->front() != 1) return -1;
  }
  // The extents say it is half as long: where it starts says which half.
  if (starts->front() == 0) return 0;
  return part->back().is_constant() && starts->front() == part->back().value() ? 1 : -1;
}

// Every second element of the last axis of x: 0 from the first on, 1 from the second; -1 for anything else.
int parity_of(const Graph& graph, ValueId value, ValueId x) {
  const Node* slice = producer(graph, value, "Slice");
  const Shape* whole = shape_of(graph, x);
  const Shape* part = shape_of(graph, value);
  if (slice == nullptr || slice->inputs[0] != x || slice->inputs.size() != 5 || whole == nullptr || whole->empty() ||
      part == nullptr || !(part->back() * Dim(2) == whole->back())) {
    return -1;
  }
  const auto starts = known_integers(graph, slice->inputs[1]), axes = known_integers(graph, slice->inputs[3]),
             steps = known_integers(graph, slice->inputs[4]);
  if (!starts || !axes || !steps || axes->size() != 1 || steps->front() != 2) return -1;
  if (absolute_axis(graph, x, axes->front()) != rank_of(graph, x) - 1) return -1;
  // The extents say that it is half as long.
  return starts->front() == 0 ? 0 : starts->front() == 1 ? 1 : -1;
}

// cos and sin broadcast to x without changing its shape.
bool fits_tables(Match& m, const Pattern& x, const Pattern& whole) {
  return same_type(m.graph(), m[whole], m[x]) || m.refuse("cos or sin may change the shape of the input");
}

Rule rotary_halves() {
  const Pattern x = any("x"), cos = any("cos"), sin = any("sin"), first = any("first half"),
                second = any("second half");
  const Pattern rotated = concat_last({-second, first}), whole = x * cos + rotated * sin;
  return {"fuse-rotary", whole,
          [=](Match& m) {
            if (m.rank(x) < 1) return m.refuse("the rank of the input is not known");
            if (half_of(m.graph(), m[first], m[x]) != 0 || half_of(m.graph(), m[second], m[x]) != 1) {
              return m.refuse("the parts that change places are not the halves of the input");
            }
            return fits_tables(m, x, whole);
          },
          [=](Builder& b, const Match& m) { return b.make("Rotary", {m[x], m[cos], m[sin]}); }};
}

Rule rotary_pairs() {
  const Pattern x = any("x"), cos = any("cos"), sin = any("sin"), even = any("even elements"),
                odd = any("odd elements");
  const Pattern first = op("Unsqueeze", {-odd, any("axis of the negative")}),
                second = op("Unsqueeze", {even, any("axis")});
  const Pattern pairs = concat_last({first, second}), rotated = reshape(pairs);
  const Pattern whole = x * cos + rotated * sin;
  return {"fuse-rotary-pairs", whole,
          [=](Match& m) {
            const Graph& graph = m.graph();
            if (m.rank(x) < 1) return m.refuse("the rank of the input is not known");
            if (parity_of(graph, m[even], m[x]) != 0 || parity_of(graph, m[odd], m[x]) != 1) {
              return m.refuse("the parts that change places are not the even and odd elements of the input");
            }
            for (const Pattern& part : {first, second}) {
              if (m.rank(part) != m.rank(x) + 1 || !m.shape(part).back().is(1)) {
                return m.refuse("the pairs do not lie along the last axis");
              }
            }
            if (!same_type(graph, m[rotated], m[x])) return m.refuse("the pairs do not get the shape of the input");
            return fits_tables(m, x, whole);
          },
          [=](Builder& b, const Match& m) {
            return b.make("Rotary", {m[x], m[cos], m[sin]}, {{"interleaved", std::int64_t{1}}});
          }};
}

// --- Written out by parts ------------------------------------------------------------------------------

// The element of each pair that a value is; x is what they are pairs of: [..., D / 2, 2] by Squeeze of Split, Slice or
// Gather, or [..., D] by Slice in steps of two.
int pair_element(const Graph& graph, ValueId value, ValueId& x) {
  if (const Node* slice = producer(graph, value, "Slice")) {
    x = slice->inputs[0];
    return parity_of(graph, value, x);
  }
  const Node *squeeze = producer(graph, value, "Squeeze"), *gather = producer(graph, value, "Gather");
  const ValueId part = squeeze != nullptr ? squeeze->inputs[0] : ValueId();
  int which = -1;
  ValueId spread;
  if (gather != nullptr) {
    const auto index = known_integers(graph, gather->inputs[1]);
    spread = gather->inputs[0];
    const std::int64_t axis = absolute_axis(graph, spread, attributes_of(*gather).integer("axis"));
    if (index && index->size() == 1 && axis == rank_of(graph, spread) - 1) which = static_cast<int>(index->front());
  } else if (part.valid() && graph.value(part).kind == ValueKind::kResult && shape_of(graph, part) != nullptr &&
             shape_of(graph, part)->back().is(1) && rank_of(graph, value) == rank_of(graph, part) - 1) {
    spread = graph.node(graph.value(part).producer).inputs[0];
    which = half_of(graph, part, spread);
  }
  const Shape *pairs = spread.valid() ? shape_of(graph, spread) : nullptr, *own = shape_of(graph, value);
  if (which < 0 || pairs == nullptr || own == nullptr || pairs->size() != own->size() + 1 || !pairs->back().is(2))
    return -1;
  x = spread;
  return std::equal(own->begin(), own->end(), pairs->begin()) ? which : -1;
}

// [..., D] of what a part [..., D / 2] holds elements of.
Expr whole_of(Builder& b, ValueId x, ValueId part) {
  if (b.rank(x) == b.rank(part)) return b.wrap(x);
  Shape expected = b.shape(part);
  expected.back() = expected.back() * Dim(2);
  const Node* parting = producer(b.graph(), x, "Reshape");
  if (parting != nullptr && b.shape(parting->inputs[0]) == expected) return b.wrap(parting->inputs[0]);
  std::vector<std::int64_t> shape(expected.size(), 0);
  shape.back() = expected.back().value();
  return b.reshape(b.wrap(x), shape);
}

struct RotatedParts {
  Pattern a = any("first part"), b = any("second part"), cos = any("cos"), sin = any("sin");
  Pattern first = either({a * cos - b * sin, a* cos + (-b) * sin}), second = a * sin + b * cos;

  // Tables of half the width, as wide as the parts.
  bool check(Match& m) const {
    if (!same_type(m.graph(), m[first], m[a]) || !same_type(m.graph(), m[second], m[a])) {
      return m.refuse("cos or sin may change the shape of the input");
    }
    if (!m.shape(a).back().is_constant()) return m.refuse("how wide the parts are is not known");
    for (const Pattern& table : {cos, sin}) {
      if (m.rank(table) < 1 || m.rank(table) > m.rank(a)) return m.refuse("cos or sin has more axes than the input");
    }
    return true;
  }

  Expr table(Builder& builder, const Match& m, const Pattern& half) const {
    const Expr given = builder.wrap(m[half]);
    if (m.shape(half).back() == m.shape(a).back()) return given;
    std::vector<std::int64_t> shape(static_cast<std::size_t>(builder.rank(given)), 1);
    shape.back() = m.shape(a).back().value();
    return builder.make("Expand", {given.id(), builder.ints(shape).id()});
  }
};

enum class Beside : std::uint8_t { kNothing, kBefore, kBehind };

// Also of pairs whose even and odd elements end up in different halves, and where the halves are put together with
// what is not turned at once.
Rule rotary_of_halves(Beside beside) {
  const RotatedParts parts;
  const Pattern kept = any("what is not turned");
  std::vector<Pattern> joined = {parts.first, parts.second};
  if (beside != Beside::kNothing) joined.insert(beside == Beside::kBefore ? joined.begin() : joined.end(), kept);
  // Whose parts they are: halves, or (`of_pairs`) even and odd elements.
  const auto input = [=](const Match& m, bool& of_pairs) {
    ValueId x, other;
    of_pairs = pair_element(m.graph(), m[parts.a], x) == 0 && pair_element(m.graph(), m[parts.b], other) == 1;
    if (of_pairs) return x == other ? x : ValueId();
    const Value& half = m.graph().value(m[parts.a]);
    if (half.kind != ValueKind::kResult) return ValueId();
    x = m.graph().node(half.producer).inputs[0];
    return half_of(m.graph(), m[parts.a], x) == 0 && half_of(m.graph(), m[parts.b], x) == 1 ? x : ValueId();
  };
  return {beside == Beside::kNothing ? "fuse-rotary-of-halves" : "fuse-rotary-of-halves-beside", concat_last(joined),
          [=](Match& m) {
            bool of_pairs = false;
            return input(m, of_pairs).valid() ? parts.check(m) : m.refuse("the parts are not the halves of one input");
          },
          [=](Builder& b, const Match& m) {
            const auto join = [&](const Expr& first, const Expr& second) {
              const ValueId both[] = {first.id(), second.id()};
              return b.concat(both, -1);
            };
            const Expr cos = parts.table(b, m, parts.cos), sin = parts.table(b, m, parts.sin);
            bool of_pairs = false;
            const ValueId x = input(m, of_pairs);
            const Expr halves = of_pairs ? join(b.wrap(m[parts.a]), b.wrap(m[parts.b])) : b.wrap(x);
            const Expr turned = b.make("Rotary", {halves, join(cos, cos), join(sin, sin)});
            if (beside == Beside::kNothing) return turned;
            const Expr other = b.wrap(m[kept]);
            return beside == Beside::kBefore ? join(other, turned) : join(turned, other);
          }};
}

Rule rotary_of_pairs() {
  const RotatedParts parts;
  const Pattern pairs =
      concat_last({op("Unsqueeze", {parts.first, any("axis")}), op("Unsqueeze", {parts.second, any("axis")})});
  const Pattern whole = reshape(pairs);
  return {"fuse-rotary-of-pairs", whole,
          [=](Match& m) {
            ValueId x, other;
            const bool elements = pair_element(m.graph(), m[parts.a], x) == 0 &&
                                  pair_element(m.graph(), m[parts.b], other) == 1 && x == other;
            if (!elements) return m.refuse("the parts are not the even and odd elements of one input");
            if (m.rank(pairs) != m.rank(parts.a) + 1) return m.refuse("the pairs do not lie along the last axis");
            Shape expected = m.shape(parts.a);
            expected.back() = expected.back() * Dim(2);
            if (m.rank(whole) < 0 || !(m.shape(whole) == expected))
              return m.refuse("the parts are not put together as the input was");
            return parts.check(m);
          },
          [=](Builder& b, const Match& m) {
            ValueId x;
            pair_element(m.graph(), m[parts.a], x);
            const auto interleaved = [&](const Pattern& table) {
              const Expr half = parts.table(b, m, table);
              const ValueId column = b.unsqueeze(half, {-1}).id();
              const ValueId twice[] = {column, column};
              std::vector<std::int64_t> shape(static_cast<std::size_t>(b.rank(half)), 0);
              shape.back() = 2 * m.shape(parts.a).back().value();
              return b.reshape(b.concat(twice, -1), shape);
            };
            const Expr input = whole_of(b, x, m[parts.a]);
            return b.make("Rotary", {input.id(), interleaved(parts.cos).id(), interleaved(parts.sin).id()},
                          {{"interleaved", std::int64_t{1}}});
          }};
}

}  // namespace

int fuse_rotary(Graph& graph, PassContext& context) {
  return run_rules(graph,
                   {rotary_halves(), rotary_pairs(), rotary_of_halves(Beside::kNothing),
                    rotary_of_halves(Beside::kBefore), rotary_of_halves(Beside::kBehind), rotary_of_pairs()},
                   context);
}

}  // namespace weft
