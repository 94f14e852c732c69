#include "passes/pattern.h"

#include "ops/op_def.h"
#include "passes/node_util.h"

namespace weft {
namespace {

Pattern make(PatternKind kind, std::string_view name) {
  auto node = std::make_shared<PatternNode>();
  node->kind = kind;
  node->name = name;
  return Pattern(std::move(node));
}

bool reduces_last_axis(const Graph& graph, const Node& node) {
  const std::optional<Shape>& shape = graph.value(node.inputs[0]).type.shape;
  if (!shape || node.inputs.size() < 2) return false;
  const std::optional<std::vector<std::int64_t>> axes = known_integers(graph, node.inputs[1]);
  const auto rank = static_cast<std::int64_t>(shape->size());
  return axes && axes->size() == 1 && (axes->front() == -1 || axes->front() == rank - 1);
}

bool on_last_axis(const Graph& graph, const Node& node) {
  const std::optional<Shape>& shape = graph.value(node.inputs[0]).type.shape;
  const std::int64_t axis = attributes_of(node).integer("axis");
  return axis == -1 || (shape && axis == static_cast<std::int64_t>(shape->size()) - 1);
}

}  // namespace

// The flags below are set on the handle's own node while the pattern is written.

Pattern Pattern::shareable() const {
  node_->is_shareable = true;
  return *this;
}

Pattern Pattern::named(std::string_view name) const {
  node_->name = name;
  return *this;
}

Pattern Pattern::when(std::function<bool(const Graph&, const Node&)> test, std::string_view reason) const {
  node_->tests.push_back({std::move(test), std::string(reason)});
  return *this;
}

Pattern Pattern::with(std::string_view attribute, Attribute value) const {
  return when(
      [name = std::string(attribute), value = std::move(value)](const Graph&, const Node& node) {
        const auto given = node.attributes.find(name);
        if (given != node.attributes.end()) return operator_equal(given->second, value);
        for (const AttributeDef& def : get_op(node.op).attributes) {
          if (def.name == name) return def.fallback && operator_equal(*def.fallback, value);
        }
        return false;
      },
      fmt::format("another {}", attribute));
}

Pattern any(std::string_view name) { return make(PatternKind::kAny, name); }
Pattern constant(std::string_view name) { return make(PatternKind::kConstant, name); }

Scalar scalar(std::string_view name) {
  auto node = std::make_shared<PatternNode>();
  node->kind = PatternKind::kScalar;
  node->name = name;
  return Scalar(std::move(node));
}

Scalar number(double value) {
  auto node = std::make_shared<PatternNode>();
  node->kind = PatternKind::kScalar;
  node->name = fmt::format("{}", value);
  node->number = value;
  return Scalar(std::move(node));
}

Pattern either(std::initializer_list<Pattern> alternatives) {
  auto node = std::make_shared<PatternNode>();
  node->kind = PatternKind::kEither;
  node->operands = alternatives;
  return Pattern(std::move(node));
}

Pattern scaled(const Pattern& x, const Scalar& factor) {
  auto node = std::make_shared<PatternNode>();
  node->kind = PatternKind::kScaled;
  node->operands = {x};
  node->factor = factor;
  return Pattern(std::move(node));
}

Pattern op(std::string_view name, std::vector<Pattern> inputs) {
  auto node = std::make_shared<PatternNode>();
  node->kind = PatternKind::kOp;
  node->op = name;
  node->operands = std::move(inputs);
  return Pattern(std::move(node));
}

Pattern open_op(std::string_view name, std::vector<Pattern> inputs) {
  auto node = std::make_shared<PatternNode>();
  node->kind = PatternKind::kOp;
  node->op = name;
  node->operands = std::move(inputs);
  node->open = true;
  return Pattern(std::move(node));
}

Pattern operator+(const Pattern& a, const Pattern& b) { return op("Add", {a, b}); }
Pattern operator-(const Pattern& a, const Pattern& b) { return op("Sub", {a, b}); }
Pattern operator*(const Pattern& a, const Pattern& b) { return op("Mul", {a, b}); }
Pattern operator/(const Pattern& a, const Pattern& b) { return op("Div", {a, b}); }
Pattern operator+(const Pattern& a, double b) { return a + number(b); }
Pattern operator*(const Pattern& a, double b) { return a * number(b); }
Pattern operator-(const Pattern& a) { return op("Neg", {a}); }

Pattern maybe_cast(const Pattern& x) { return either({cast(x), x}); }

Pattern reduced_last(std::string_view reduction, const Pattern& x) {
  return open_op(reduction, {x})
      .with("keepdims", std::int64_t{1})
      .when(reduces_last_axis, "the reduction is not over the last axis alone");
}

Pattern softmax_last(const Pattern& x) {
  return op("Softmax", {x}).when(on_last_axis, "Softmax is not over the last axis");
}

Pattern transpose(const Pattern& x, std::vector<std::int64_t> perm) {
  return op("Transpose", {x}).with("perm", std::move(perm));
}

Pattern transpose_last_two(const Pattern& x) {
  return op("Transpose", {x})
      .when(
          [](const Graph&, const Node& node) {
            const std::vector<std::int64_t>* perm = permutation_of(node);
            if (perm == nullptr || perm->size() < 2) return false;
            const std::size_t rank = perm->size();
            for (std::size_t i = 0; i + 2 < rank; ++i) {
              if ((*perm)[i] != static_cast<std::int64_t>(i)) return false;
            }
            return (*perm)[rank - 1] == static_cast<std::int64_t>(rank) - 2;
          },
          "Transpose does not swap the last two axes");
}

Pattern reshape(const Pattern& x) { return open_op("Reshape", {x}); }

Pattern concat_last(std::vector<Pattern> parts) {
  return op("Concat", std::move(parts)).when(on_last_axis, "Concat is not along the last axis");
}

Pattern zero_where_nan(const Pattern& x) { return where(op("IsNaN", {x}), number(0), x); }

}  // namespace weft
