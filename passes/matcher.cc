#include "passes/matcher.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "passes/node_util.h"

namespace weft {
namespace {

bool is_number(double found, double wanted, DType dtype) {
  if (wanted == 0 || std::isinf(wanted) || std::isinf(found)) return found == wanted;
  const double tolerance = element_size(dtype) <= 2 ? 1e-2 : 1e-4;
  return std::abs(found - wanted) <= tolerance * std::abs(wanted);
}

std::string describe_value(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.kind == ValueKind::kConstant) return "a constant " + to_string(value.type);
  if (value.kind == ValueKind::kInput) return "graph input \"" + value.name + "\"";
  return graph.node(value.producer).op;
}

std::string label(const PatternNode& node) {
  if (!node.name.empty()) return node.name;
  return node.op.empty() ? "a value" : node.op;
}

}  // namespace

// --- Match -----------------------------------------------------------------------------------------

ValueId Match::operator[](const Pattern& handle) const {
  const ValueId id = maybe(handle);
  if (!id.valid()) {
    fail(ErrorCode::kInternal, "a rule asks for {}, which took no part in the match", label(*handle.node()));
  }
  return id;
}

ValueId Match::maybe(const Pattern& handle) const {
  const auto found = values_.find(handle.node());
  return found == values_.end() ? ValueId() : found->second;
}

double Match::number(const Scalar& handle) const {
  const auto found = numbers_.find(handle.node());
  return found == numbers_.end() ? 1.0 : found->second;
}

const Node& Match::node(const Pattern& handle) const {
  const Value& value = graph_->value((*this)[handle]);
  if (value.kind != ValueKind::kResult) {
    fail(ErrorCode::kInternal, "a rule asks for the node behind {}", value.name);
  }
  return graph_->node(value.producer);
}

const Shape& Match::shape(const Pattern& handle) const {
  const Shape* shape = shape_of(*graph_, (*this)[handle]);
  if (shape == nullptr) {
    fail(ErrorCode::kInternal, "a rule asks for the shape of {}, whose rank is not known", label(*handle.node()));
  }
  return *shape;
}

std::int64_t Match::rank(const Pattern& handle) const { return rank_of(*graph_, (*this)[handle]); }

bool Match::shape(const Pattern& handle, std::initializer_list<std::string_view> names) {
  const std::string what = label(*handle.node());
  const Shape* shape = shape_of(*graph_, (*this)[handle]);
  if (shape == nullptr) return refuse(fmt::format("the rank of {} is not known", what));
  if (shape->size() != names.size()) {
    return refuse(fmt::format("{} is {}, not of rank {}", what, to_string(*shape), names.size()));
  }
  for (std::size_t axis = 0; axis < names.size(); ++axis) {
    const std::string_view name = names.begin()[axis];
    const Dim& extent = (*shape)[axis];
    if (name == "_") continue;
    const bool literal = name.front() >= '0' && name.front() <= '9';
    const Dim wanted = literal ? Dim::parse(name) : dims_.emplace(name, extent).first->second;
    if (!(extent == wanted)) {
      return refuse(literal ? fmt::format("axis {} of {} is {}, not {}", axis, what, extent.to_string(), name)
                            : fmt::format("axis {} of {} is {} where {} is {}", axis, what, extent.to_string(), name,
                                          wanted.to_string()));
    }
  }
  return true;
}

const Dim& Match::dim(std::string_view name) const {
  const auto found = dims_.find(name);
  if (found == dims_.end()) fail(ErrorCode::kInternal, "a rule asks for the extent {}", name);
  return found->second;
}

// --- Matcher ---------------------------------------------------------------------------------------

// Depth-first search: every choice is followed by the rest of the pattern as a continuation, and
// undone when that fails.
class Matcher {
 public:
  using Next = std::function<bool()>;

  Matcher(const Graph& graph, const std::function<bool(Match&)>& accept, Refusal& deepest)
      : graph_(graph), accept_(accept), match_(graph), deepest_(deepest) {}

  bool run(const Pattern& root, ValueId value) {
    return match(root, value, [&] {
      match_.dims_.clear();
      match_.reason_.clear();
      return accept_(match_) || miss(value, match_.reason_);
    });
  }
  Match& result() { return match_; }

 private:
  bool miss(ValueId value, std::string reason, int more = 0) {
    const int depth = static_cast<int>(match_.nodes_.size()) + more;
    if (depth > deepest_.depth) {
      deepest_ = {depth, place_of(value), std::move(reason), {match_.nodes_.begin(), match_.nodes_.end()}, value, {}};
    }
    return false;
  }

  // Another operator stands here. Alternatives that fail at the same place are told together.
  bool miss_operator(ValueId value, const std::string& wanted) {
    const int depth = static_cast<int>(match_.nodes_.size());
    const bool again = depth == deepest_.depth && value == deepest_.value && !deepest_.wanted.empty();
    if (!again && depth <= deepest_.depth) return false;
    if (!again) miss(value, "");
    std::vector<std::string>& all = deepest_.wanted;
    if (std::find(all.begin(), all.end(), wanted) == all.end()) all.push_back(wanted);
    const std::string listed =
        all.size() == 1 ? all[0] : fmt::format("{} or {}", fmt::join(all.begin(), all.end() - 1, ", "), all.back());
    deepest_.reason = fmt::format("{} wanted, {} found", listed, describe_value(graph_, value));
    return false;
  }

  // The node that makes the value, else the one of the match that reads it.
  NodeId place_of(ValueId id) const {
    const Value& value = graph_.value(id);
    if (value.kind == ValueKind::kResult) return value.producer;
    const auto reader = std::find_if(value.uses.begin(), value.uses.end(),
                                     [&](const Use& use) { return match_.nodes_.contains(use.node); });
    return reader == value.uses.end() ? NodeId() : reader->node;
  }

  bool bind(const PatternNode* node, ValueId value, const Next& next) {
    match_.values_.emplace(node, value);
    if (next()) return true;
    match_.values_.erase(node);
    return false;
  }

  // Takes a node of the graph into the match for as long as `next` runs.
  bool with_node(NodeId id, bool shareable, const Next& next) {
    const bool added = match_.nodes_.insert(id).second;
    const bool fixed = !shareable && match_.fixed_.insert(id).second;
    if (next()) return true;
    if (fixed) match_.fixed_.erase(id);
    if (added) match_.nodes_.erase(id);
    return false;
  }

  bool match(const Pattern& pattern, ValueId value, const Next& next);
  bool match_scalar(const PatternNode& node, ValueId value, const Next& next);
  bool match_scaled(const PatternNode& node, ValueId value, double factor, const Next& next);
  bool match_op(const PatternNode& node, ValueId value, const Next& next);
  bool match_in_order(const PatternNode& node, const std::vector<ValueId>& inputs, std::size_t index, const Next& next);
  bool match_chain(const PatternNode& node, const std::vector<Pattern>& operands, const std::vector<ValueId>& leaves,
                   std::size_t from, const Next& next);
  bool match_in_any_order(const std::vector<Pattern>& operands, std::size_t index, std::vector<ValueId>& leaves,
                          const Next& next);

  const Graph& graph_;
  const std::function<bool(Match&)>& accept_;
  Match match_;
  Refusal& deepest_;
};

bool Matcher::match(const Pattern& pattern, ValueId value, const Next& next) {
  const PatternNode& node = *pattern.node();
  if (!value.valid()) return false;
  const auto bound = match_.values_.find(&node);
  if (bound != match_.values_.end()) {
    if (bound->second == value) return next();
    return miss(value, fmt::format("two different values for {}", label(node)));
  }
  switch (node.kind) {
    case PatternKind::kAny: return bind(&node, value, next);
    case PatternKind::kConstant:
      if (is_constant(graph_, value)) return bind(&node, value, next);
      return miss(value, fmt::format("{} is not a constant but {}", label(node), describe_value(graph_, value)));
    case PatternKind::kScalar: return match_scalar(node, value, next);
    case PatternKind::kEither:
      return std::any_of(node.operands.begin(), node.operands.end(), [&](const Pattern& alternative) {
        return match(alternative, value, [&] { return bind(&node, value, next); });
      });
    case PatternKind::kScaled: return match_scaled(node, value, 1.0, next);
    case PatternKind::kOp: return match_op(node, value, next);
  }
  return false;
}

bool Matcher::match_scalar(const PatternNode& node, ValueId value, const Next& next) {
  const std::optional<double> found = known_number(graph_, value);
  if (!found) {
    return miss(value, fmt::format("{} is not a known number but {}", label(node), describe_value(graph_, value)));
  }
  if (node.number && !is_number(*found, *node.number, graph_.value(value).type.dtype)) {
    return miss(value, fmt::format("{:.6g} wanted, {:.6g} found", *node.number, *found));
  }
  match_.numbers_[&node] = *found;
  if (bind(&node, value, next)) return true;
  match_.numbers_.erase(&node);
  return false;
}

bool Matcher::match_scaled(const PatternNode& node, ValueId value, double factor, const Next& next) {
  const Value& product = graph_.value(value);
  const Node* made = product.kind == ValueKind::kResult ? &graph_.node(product.producer) : nullptr;
  if (made != nullptr && (made->op == "Mul" || made->op == "Div")) {
    const bool divides = made->op == "Div";
    for (std::size_t side = 0; side < (divides ? 1u : 2u); ++side) {
      const std::optional<double> number = known_number(graph_, made->inputs[1 - side]);
      // The number may not add axes.
      const bool same = graph_.value(made->inputs[side]).type == product.type;
      if (!number || !same || (divides && *number == 0)) continue;
      const double total = divides ? factor / *number : factor * *number;
      const ValueId inner = made->inputs[side];
      const NodeId id = product.producer;
      if (with_node(id, false, [&] { return match_scaled(node, inner, total, next); })) return true;
    }
  }
  match_.numbers_[node.factor.node()] = factor;
  if (match(node.operands[0], value, [&] { return bind(&node, value, next); })) return true;
  match_.numbers_.erase(node.factor.node());
  return false;
}

// The operands of the pattern's own chain of one associative operator: (a * b) * c has three.
void flatten(const PatternNode& chain, std::vector<Pattern>& operands) {
  for (const Pattern& operand : chain.operands) {
    const PatternNode& inner = *operand.node();
    const bool link = inner.kind == PatternKind::kOp && inner.op == chain.op && inner.name.empty() &&
                      inner.tests.empty() && operand.is_only_handle();
    if (link)
      flatten(inner, operands);
    else
      operands.push_back(operand);
  }
}

bool Matcher::match_op(const PatternNode& node, ValueId value, const Next& next) {
  const Value& result = graph_.value(value);
  const bool made = result.kind == ValueKind::kResult && result.output_index == 0;
  if (!made || graph_.node(result.producer).op != node.op) {
    return miss_operator(value, node.op);
  }
  const Node& found = graph_.node(result.producer);
  const std::size_t wanted = node.operands.size();
  if (found.inputs.size() < wanted || (!node.open && found.inputs.size() > wanted)) {
    return miss(value, fmt::format("{} has {} inputs, {} wanted", node.op, found.inputs.size(), wanted));
  }
  for (const PatternNode::Test& test : node.tests) {
    if (!test.test(graph_, found)) return miss(value, test.reason, 1);  // the operator itself fits
  }
  const OpDef& def = get_op(node.op);
  return with_node(result.producer, node.is_shareable, [&] {
    const Next bound = [&] { return bind(&node, value, next); };
    if (wanted != 2 || !def.commutative) return match_in_order(node, found.inputs, 0, bound);
    std::vector<Pattern> operands;
    if (def.associative)
      flatten(node, operands);
    else
      operands = node.operands;
    return match_chain(node, operands, found.inputs, 0, bound);
  });
}

bool Matcher::match_in_order(const PatternNode& node, const std::vector<ValueId>& inputs, std::size_t index,
                             const Next& next) {
  if (index == node.operands.size()) return next();
  return match(node.operands[index], inputs[index], [&] { return match_in_order(node, inputs, index + 1, next); });
}

// Opens leaves that the same operator makes until there are as many as operands; every way to do so
// is tried.
bool Matcher::match_chain(const PatternNode& node, const std::vector<Pattern>& operands,
                          const std::vector<ValueId>& leaves, std::size_t from, const Next& next) {
  if (leaves.size() == operands.size()) {
    std::vector<ValueId> free = leaves;
    return match_in_any_order(operands, 0, free, next);
  }
  bool opens = false;
  for (std::size_t i = from; i < leaves.size(); ++i) {
    const Node* inner = producer(graph_, leaves[i], node.op);
    if (inner == nullptr) continue;
    opens = true;
    std::vector<ValueId> opened = leaves;
    opened[i] = inner->inputs[0];
    opened.insert(opened.begin() + static_cast<std::ptrdiff_t>(i) + 1, inner->inputs[1]);
    const NodeId id = graph_.value(leaves[i]).producer;
    if (with_node(id, false, [&] { return match_chain(node, operands, opened, i, next); })) {
      return true;
    }
  }
  if (opens) return false;
  return miss(leaves.front(),
              fmt::format("{} of {} operands wanted, {} found", node.op, operands.size(), leaves.size()));
}

bool Matcher::match_in_any_order(const std::vector<Pattern>& operands, std::size_t index, std::vector<ValueId>& leaves,
                                 const Next& next) {
  if (index == operands.size()) return next();
  for (ValueId& leaf : leaves) {
    if (!leaf.valid()) continue;
    const ValueId taken = leaf;
    leaf = {};
    const bool matched =
        match(operands[index], taken, [&] { return match_in_any_order(operands, index + 1, leaves, next); });
    leaf = taken;
    if (matched) return true;
  }
  return false;
}

bool match_pattern(const Graph& graph, const Pattern& root, ValueId value, const std::function<bool(Match&)>& accept,
                   Match* match, Refusal* refusal) {
  *refusal = {};
  Matcher matcher(graph, accept, *refusal);
  if (!matcher.run(root, value)) return false;
  *match = std::move(matcher.result());
  return true;
}

bool can_start(const Pattern& root, std::string_view op) {
  const PatternNode& node = *root.node();
  if (node.kind == PatternKind::kOp) return node.op == op;
  if (node.kind != PatternKind::kEither) return true;
  return std::any_of(node.operands.begin(), node.operands.end(),
                     [&](const Pattern& alternative) { return can_start(alternative, op); });
}

}  // namespace weft
