// Rotary embedding: x * cos + rotated * sin, where what is rotated are the two halves of x, concat(-x2, x1), or its
// pairs, [-x1, x0, -x3, x2, ...].
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// One of the two along an axis of two.
struct Element {
  ValueId of;
  int which = -1;     // 0, 1; -1: it is none
  bool kept = false;  // the axis is still there, as 1
};

// Along the axis that is `from_back` from the end: by Gather, or by Slice or Split, and a Squeeze where it is not kept.
Element element_along(const Graph& graph, ValueId value, std::size_t from_back) {
  const Node* squeeze = producer(graph, value, "Squeeze");
  const ValueId part = squeeze != nullptr ? squeeze->inputs[0] : value;
  const Value& cut = graph.value(part);
  if (cut.kind != ValueKind::kResult) return {};
  const Node& node = graph.node(cut.producer);
  if (node.op != "Gather" && node.op != "Slice" && node.op != "Split") return {};
  Element found{node.inputs[0], -1, squeeze == nullptr};
  const Shape *whole = shape_of(graph, found.of), *result = shape_of(graph, value);
  if (whole == nullptr || result == nullptr || whole->size() <= from_back ||
      !(*whole)[whole->size() - from_back].is(2)) {
    return {};
  }
  const std::size_t axis = whole->size() - from_back;
  std::optional<std::int64_t> given, first;
  if (node.op == "Split") {
    given = attributes_of(node).integer("axis");
    first = static_cast<std::int64_t>(cut.output_index);
  } else {
    const auto starts = known_integers(graph, node.inputs[1]);
    if (starts && starts->size() == 1) first = starts->front();
    if (node.op == "Gather") {
      given = attributes_of(node).integer("axis");
      if (shape_of(graph, part) != nullptr && shape_of(graph, part)->size() < whole->size()) found.kept = false;
    } else if (const auto axes = node.inputs.size() > 3 ? known_integers(graph, node.inputs[3]) : std::nullopt;
               axes && axes->size() == 1) {
      given = axes->front();
    }
  }
  Shape expected = *whole;
  expected[axis] = Dim(1);
  if (!found.kept) expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(axis));
  const bool fits = given && first && absolute_axis(graph, found.of, *given) == static_cast<std::int64_t>(axis) &&
                    *result == expected && *first >= -2 && *first < 2;
  if (fits) found.which = static_cast<int>((*first + 2) % 2);
  return found;
}

// The shape of x with its last axis in two: [..., D / 2, 2] or [..., 2, D / 2]; empty if it is not known.
Shape in_two(const Shape& x, bool pairs) {
  if (x.empty() || !x.back().is_constant()) return {};
  Shape result(x.begin(), x.end() - 1);
  const Dim half(x.back().value() / 2);
  for (const Dim& dim : pairs ? Shape{half, Dim(2)} : Shape{Dim(2), half}) result.push_back(dim);
  return result;
}

// Is a value that is cut in two along its last axis a view of x?
bool is_x_in_two(const Graph& graph, ValueId spread, ValueId x, bool pairs) {
  const Shape *own = shape_of(graph, spread), *whole = shape_of(graph, x);
  return own != nullptr && whole != nullptr && !whole->empty() && *own == in_two(*whole, pairs) &&
         without_views(graph, spread) == without_views(graph, x);
}

// The half of x that a value is: 0 the first, 1 the second; -1 neither. By Slice or Split of the last axis, or as one
// of two rows.
int half_of(const Graph& graph, ValueId value, ValueId x) {
  const Value& result = graph.value(value);
  const Shape* whole = shape_of(graph, x);
  const Shape* part = shape_of(graph, value);
  if (result.kind != ValueKind::kResult || whole == nullptr || part == nullptr || whole->empty() ||
      part->size() != whole->size() || !(part->back() * Dim(2) == whole->back())) {
    return -1;
  }
  const Element row = element_along(graph, value, 2);
  if (row.which >= 0 && !row.kept && is_x_in_two(graph, row.of, x, false)) return row.which;
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

// The same by either spelling: a step of two, or an element of [..., D / 2, 2].
int pair_of(const Graph& graph, ValueId value, ValueId x) {
  const Element element = element_along(graph, value, 1);
  if (element.which >= 0 && is_x_in_two(graph, element.of, x, true)) return element.which;
  return parity_of(graph, value, x);
}

// cos and sin broadcast to x without changing its shape.
bool fits_tables(Match& m, const Pattern& x, const Pattern& whole) {
  return same_type(m.graph(), m[whole], m[x]) || m.refuse("cos or sin may change the shape of the input");
}

// backwards: concat(x2, -x1), the other way round, which is the angles' negative.
Rule rotary_halves(bool backwards) {
  const Pattern x = any("x"), cos = any("cos"), sin = any("sin"), first = any("first half"),
                second = any("second half");
  const Pattern rotated = backwards ? concat_last({second, -first}) : concat_last({-second, first});
  const Pattern whole = x * cos + rotated * sin;
  return {backwards ? "fuse-rotary-backwards" : "fuse-rotary", whole,
          [=](Match& m) {
            if (m.rank(x) < 1) return m.refuse("the rank of the input is not known");
            if (half_of(m.graph(), m[first], m[x]) != 0 || half_of(m.graph(), m[second], m[x]) != 1) {
              return m.refuse("the parts that change places are not the halves of the input");
            }
            return fits_tables(m, x, whole);
          },
          [=](Builder& b, const Match& m) {
            const ValueId turned = backwards ? b.unary("Neg", b.wrap(m[sin])).id() : m[sin];
            return b.make("Rotary", {m[x], m[cos], turned});
          }};
}

Rule rotary_pairs() {
  const Pattern x = any("x"), cos = any("cos"), sin = any("sin"), even = any("even elements"),
                odd = any("odd elements");
  // Elements whose axis was kept need none.
  const Pattern negative = -odd, first = either({op("Unsqueeze", {negative, any("axis of the negative")}), negative}),
                second = either({op("Unsqueeze", {even, any("axis")}), even});
  const Pattern pairs = concat_last({first, second}), rotated = reshape(pairs);
  const Pattern whole = x * cos + rotated * sin;
  return {"fuse-rotary-pairs", whole,
          [=](Match& m) {
            const Graph& graph = m.graph();
            if (m.rank(x) < 1) return m.refuse("the rank of the input is not known");
            if (pair_of(graph, m[even], m[x]) != 0 || pair_of(graph, m[odd], m[x]) != 1) {
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

// Where the parts of pairs come from: every second element of x, or elements of [..., D / 2, 2].
struct PairSource {
  ValueId x;
  bool spread = false, kept = false;
};

std::optional<PairSource> pair_source(const Graph& graph, ValueId a, ValueId b) {
  const Element even = element_along(graph, a, 1), odd = element_along(graph, b, 1);
  if (even.which == 0 && odd.which == 1 && even.of == odd.of && even.kept == odd.kept)
    return PairSource{even.of, true, even.kept};
  const Node* slice = producer(graph, a, "Slice");
  if (slice == nullptr || parity_of(graph, a, slice->inputs[0]) != 0 || parity_of(graph, b, slice->inputs[0]) != 1)
    return std::nullopt;
  return PairSource{slice->inputs[0]};
}

// The shape as a target of Reshape of a tensor of shape `from`: nullopt if it cannot be said.
std::optional<std::vector<std::int64_t>> reshape_target(const Shape& from, const Shape& to) {
  std::vector<std::int64_t> target;
  int unknown = 0;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const bool copied = i < from.size() && from[i] == to[i];
    if (!to[i].is_constant() && !copied) ++unknown;
    if (to[i].is(0) || unknown > 1) return std::nullopt;
    target.push_back(to[i].is_constant() ? to[i].value() : copied ? 0 : -1);
  }
  return target;
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
    const auto pairs = pair_source(m.graph(), m[parts.a], m[parts.b]);
    of_pairs = pairs && !pairs->kept;
    if (of_pairs) return pairs->x;
    const Value& half = m.graph().value(m[parts.a]);
    if (half.kind != ValueKind::kResult) return ValueId();
    const ValueId x = m.graph().node(half.producer).inputs[0];
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

// Pairs put together again, and whatever shape they get then.
class RotaryOfPairs {
 public:
  Rule rule() const {
    const RotaryOfPairs self = *this;
    return {"fuse-rotary-of-pairs", whole_, [self](Match& m) { return self.accept(m); },
            [self](Builder& b, const Match& m) { return self.build(b, m); }};
  }

 private:
  // [..., D] of what is rotated; empty if it is not known.
  static Shape shape_of_whole(const Graph& graph, const PairSource& source) {
    const Shape* shape = shape_of(graph, source.x);
    if (shape == nullptr || !source.spread) return shape == nullptr ? Shape() : *shape;
    Shape result(shape->begin(), shape->end() - 1);
    if (!result.back().is_constant()) return {};
    result.back() = Dim(2 * result.back().value());
    return result;
  }

  bool accept(Match& m) const {
    const auto source = pair_source(m.graph(), m[parts_.a], m[parts_.b]);
    if (!source) return m.refuse("the parts are not the even and odd elements of one input");
    const Shape x = shape_of_whole(m.graph(), *source);
    if (x.empty() || !x.back().is_constant() || x.back().value() % 2 != 0)
      return m.refuse("how wide the parts are is not known");
    if (shape_of(m.graph(), m[pairs_]) == nullptr || !(m.shape(pairs_) == in_two(x, true)))
      return m.refuse("the pairs do not lie along the last axis");
    for (const Pattern& table : {parts_.cos, parts_.sin}) {
      if (m.rank(table) < (source->kept ? 2 : 1) || m.rank(table) > m.rank(parts_.a))
        return m.refuse("cos or sin has more axes than the input");
      if (source->kept && !m.shape(table).back().is(1)) return m.refuse("cos or sin differ within a pair");
    }
    if (m.rank(whole_) < 0 || !reshape_target(x, m.shape(whole_)))
      return m.refuse("the shape of the result is not known");
    return true;
  }

  Expr build(Builder& b, const Match& m) const {
    const PairSource source = pair_source(m.graph(), m[parts_.a], m[parts_.b]).value();
    const Shape shape = shape_of_whole(m.graph(), source);
    const std::int64_t width = shape.back().value();
    const std::vector<std::int64_t> target = reshape_target(shape, m.shape(whole_)).value();
    const bool same = m.shape(whole_) == shape;
    const auto table = [&](const Pattern& half) {
      Expr column = source.kept ? b.wrap(m[half]) : b.unsqueeze(b.wrap(m[half]), {-1});
      const auto rank = static_cast<std::size_t>(b.rank(column));
      if (!(b.dim(column, -2) == Dim(width / 2))) {
        std::vector<std::int64_t> wide(rank, 1);
        wide[rank - 2] = width / 2;
        column = b.make("Expand", {column.id(), b.ints(wide).id()});
      }
      const ValueId twice[] = {column.id(), column.id()};
      std::vector<std::int64_t> flat(rank - 1, 0);
      flat.back() = width;
      return b.reshape(b.concat(twice, -1), flat);
    };
    const Expr x = whole_input(b, source, shape);
    const ValueId cos = table(parts_.cos), sin = table(parts_.sin);
    const Expr y = b.make("Rotary", {x.id(), cos, sin}, {{"interleaved", std::int64_t{1}}});
    return same ? y : b.reshape(y, target);
  }

  static Expr whole_input(Builder& b, const PairSource& source, const Shape& shape) {
    if (!source.spread) return b.wrap(source.x);
    const Node* reshape = producer(b.graph(), source.x, "Reshape");
    if (reshape != nullptr && shape_of(b.graph(), reshape->inputs[0]) != nullptr &&
        *shape_of(b.graph(), reshape->inputs[0]) == shape) {
      return b.wrap(reshape->inputs[0]);
    }
    std::vector<std::int64_t> merged(shape.size(), 0);
    merged.back() = shape.back().value();
    return b.reshape(b.wrap(source.x), merged);
  }

  RotatedParts parts_;
  Pattern pairs_ = either(
      {concat_last({op("Unsqueeze", {parts_.first, any("axis")}), op("Unsqueeze", {parts_.second, any("axis")})}),
       concat_last({parts_.first, parts_.second})});
  Pattern whole_ = reshape(pairs_);
};

}  // namespace

int fuse_rotary(Graph& graph, PassContext& context) {
  return run_rules(
      graph,
      {rotary_halves(false), rotary_halves(true), rotary_pairs(), RotaryOfPairs().rule(),
       rotary_of_halves(Beside::kNothing), rotary_of_halves(Beside::kBefore), rotary_of_halves(Beside::kBehind)},
      context);
}

}  // namespace weft
