#include "passes/rule.h"

#include <algorithm>
#include <cmath>

#include "passes/node_util.h"

namespace weft {
namespace {

constexpr std::size_t kKeptMisses = 5;
constexpr int kMaxApplications = 100000;

struct Failure {
  int depth = -1;
  NodeId node;
  std::string reason;
};

bool is_number(double found, double wanted, DType dtype) {
  if (wanted == 0) return found == 0;
  if (std::isinf(wanted) || std::isinf(found)) return found == wanted;
  const double tolerance = dtype == DType::kF16 || dtype == DType::kBF16 ? 1e-2 : 1e-4;
  return std::abs(found - wanted) <= tolerance * std::abs(wanted);
}

std::string describe_value(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.kind == ValueKind::kConstant) return "a constant " + to_string(value.type);
  if (value.kind == ValueKind::kInput) return "graph input \"" + value.name + "\"";
  return graph.node(value.producer).op;
}

}  // namespace

ValueId Match::operator[](const Pattern& handle) const {
  const auto found = values_.find(handle.node());
  if (found == values_.end()) fail(ErrorCode::kInternal, "a rule asks for a handle that did not match");
  return found->second;
}

ValueId Match::maybe(const Pattern& handle) const {
  const auto found = values_.find(handle.node());
  return found == values_.end() ? ValueId() : found->second;
}

double Match::number(const Scalar& handle) const {
  const auto found = numbers_.find(handle.node());
  return found == numbers_.end() ? 1.0 : found->second;
}

const Shape& Match::shape(const Pattern& handle) const {
  const Shape* shape = shape_of(*graph_, (*this)[handle]);
  if (shape == nullptr) fail(ErrorCode::kInternal, "a rule asks for the shape of a value of unknown rank");
  return *shape;
}

std::int64_t Match::rank(const Pattern& handle) const { return rank_of(*graph_, (*this)[handle]); }

// Backtracking search: every choice is followed by the rest of the pattern as a continuation.
class Matcher {
 public:
  using Next = std::function<bool()>;

  Matcher(const Graph& graph, Failure& deepest) : graph_(graph), match_(graph), deepest_(deepest) {}

  // The first match of `root` at `value` that `accept` takes.
  bool run(const Pattern& root, ValueId value, const std::function<bool(Match&)>& accept) {
    return match(root, value, [&] {
      if (accept(match_)) return true;
      return miss(value, match_.reason_);
    });
  }
  Match& result() { return match_; }

 private:
  bool miss(ValueId value, std::string reason) {
    const int depth = static_cast<int>(match_.nodes_.size());
    if (depth > deepest_.depth) {
      const Value& where = graph_.value(value);
      deepest_ = {depth, where.kind == ValueKind::kResult ? where.producer : NodeId(), std::move(reason)};
    }
    return false;
  }

  bool match(const Pattern& pattern, ValueId value, const Next& next) {
    const PatternNode* node = pattern.node();
    if (!value.valid()) return false;
    const auto bound = match_.values_.find(node);
    if (bound != match_.values_.end()) {
      return bound->second == value ? next() : miss(value, fmt::format("two different values for {}", label(*node)));
    }
    switch (node->kind) {
      case PatternKind::kAny: return bind(node, value, next);
      case PatternKind::kConstant:
        if (!is_constant(graph_, value)) {
          return miss(value, fmt::format("{} is not a constant but {}", label(*node), describe_value(graph_, value)));
        }
        return bind(node, value, next);
      case PatternKind::kScalar: return match_scalar(*node, value, next);
      case PatternKind::kEither:
        return std::any_of(node->operands.begin(), node->operands.end(), [&](const Pattern& alternative) {
          return match(alternative, value, [&] { return bind(node, value, next); });
        });
      case PatternKind::kScaled: return match_scaled(*node, value, 1.0, next);
      case PatternKind::kOp: return match_op(*node, value, next);
    }
    return false;
  }

  static std::string label(const PatternNode& node) {
    if (!node.name.empty()) return node.name;
    return node.op.empty() ? "a value" : node.op;
  }

  bool bind(const PatternNode* node, ValueId value, const Next& next) {
    match_.values_.emplace(node, value);
    if (next()) return true;
    match_.values_.erase(node);
    return false;
  }

  bool match_scalar(const PatternNode& node, ValueId value, const Next& next) {
    const std::optional<double> number = known_number(graph_, value);
    if (!number) {
      return miss(value, fmt::format("{} is not a known number but {}", label(node), describe_value(graph_, value)));
    }
    if (node.number && !is_number(*number, *node.number, graph_.value(value).type.dtype)) {
      return miss(value, fmt::format("{} wanted, {} found", *node.number, *number));
    }
    match_.numbers_[&node] = *number;
    if (bind(&node, value, next)) return true;
    match_.numbers_.erase(&node);
    return false;
  }

  bool match_scaled(const PatternNode& node, ValueId value, double factor, const Next& next) {
    const Value& scaled_value = graph_.value(value);
    if (scaled_value.kind == ValueKind::kResult) {
      const NodeId id = scaled_value.producer;
      const Node& producer = graph_.node(id);
      const bool product = producer.op == "Mul";
      if (product || producer.op == "Div") {
        for (std::size_t side = 0; side < (product ? 2u : 1u); ++side) {
          const auto number = known_number(graph_, producer.inputs[1 - side]);
          // The number may not add axes.
          if (!number || graph_.value(producer.inputs[side]).type != scaled_value.type) continue;
          const bool added = match_.nodes_.insert(id).second;
          if (match_scaled(node, producer.inputs[side], product ? factor * *number : factor / *number, next)) return true;
          if (added) match_.nodes_.erase(id);
        }
      }
    }
    match_.numbers_[node.factor.node()] = factor;
    if (match(node.operands[0], value, [&] { return bind(&node, value, next); })) return true;
    match_.numbers_.erase(node.factor.node());
    return false;
  }

  bool match_op(const PatternNode& node, ValueId value, const Next& next) {
    const Value& result = graph_.value(value);
    if (result.kind != ValueKind::kResult || result.output_index != 0 || graph_.node(result.producer).op != node.op) {
      return miss(value, fmt::format("{} wanted, {} found", node.op, describe_value(graph_, value)));
    }
    const NodeId id = result.producer;
    const Node& found = graph_.node(id);
    const std::size_t wanted = node.operands.size();
    if (found.inputs.size() < wanted || (!node.open && found.inputs.size() > wanted)) {
      return miss(value, fmt::format("{} has {} inputs, {} wanted", node.op, found.inputs.size(), wanted));
    }
    for (const PatternNode::Test& test : node.tests) {
      if (!test.test(graph_, found)) return miss(value, test.reason);
    }
    const bool added = match_.nodes_.insert(id).second;
    if (node.is_shareable) match_.shareable_.insert(id);
    const bool swappable = wanted == 2 && get_op(node.op).commutative;
    for (int order = 0; order < (swappable ? 2 : 1); ++order) {
      if (operands(node, found, 0, order == 1, [&] { return bind(&node, value, next); })) return true;
    }
    if (added) match_.nodes_.erase(id);
    match_.shareable_.erase(id);
    return false;
  }

  bool operands(const PatternNode& node, const Node& found, std::size_t index, bool swapped, const Next& next) {
    if (index == node.operands.size()) return next();
    const std::size_t position = swapped ? node.operands.size() - 1 - index : index;
    return match(node.operands[index], found.inputs[position],
                 [&, index] { return operands(node, found, index + 1, swapped, next); });
  }

  const Graph& graph_;
  Match match_;
  Failure& deepest_;
};

class RuleDriver {
 public:
  RuleDriver(Graph& graph, const Rule& rule, RuleReport& report, bool verify_rewrites)
      : graph_(graph), rule_(rule), report_(report), verify_(verify_rewrites) {}

  int run() {
    int applied = 0;
    for (bool changed = true; changed;) {
      changed = false;
      for (const NodeId id : graph_.nodes()) {
        if (!graph_.contains(id) || !try_at(id)) continue;
        changed = true;
        if (++applied > kMaxApplications) fail(ErrorCode::kInternal, "rule {} does not come to an end", rule_.name);
      }
      if (changed) misses_.clear();  // what failed before may have matched since
    }
    report_.applied += applied;
    for (const Failure& miss : misses_) record(miss);
    return applied;
  }

 private:
  static bool can_start(const PatternNode& pattern, const std::string& op) {
    if (pattern.kind == PatternKind::kOp) return pattern.op == op;
    if (pattern.kind == PatternKind::kEither) {
      return std::any_of(pattern.operands.begin(), pattern.operands.end(),
                         [&](const Pattern& p) { return can_start(*p.node(), op); });
    }
    return true;
  }

  bool try_at(NodeId id) {
    const Node& node = graph_.node(id);
    if (!can_start(*rule_.root.node(), node.op) || node.outputs.empty() || !node.outputs[0].valid()) return false;
    const ValueId value = node.outputs[0];
    Failure failure;
    Matcher matcher(graph_, failure);
    const bool matched = matcher.run(rule_.root, value, [&](Match& match) {
      return contained(match, id) && (!rule_.where || rule_.where(match));
    });
    if (!matched) {
      // A single operator in common is no near miss.
      if (failure.depth > 1) misses_.push_back(failure.node.valid() ? failure : Failure{failure.depth, id, failure.reason});
      return false;
    }
    return replace(matcher.result(), id, value);
  }

  // Every value inside the match is read inside it only.
  bool contained(Match& match, NodeId root) {
    for (const NodeId id : match.nodes_) {
      if (id == root || match.shareable_.contains(id)) continue;
      for (const ValueId output : graph_.node(id).outputs) {
        if (!output.valid()) continue;
        const Value& value = graph_.value(output);
        const bool outside = std::any_of(value.uses.begin(), value.uses.end(),
                                         [&](const Use& use) { return !match.nodes_.contains(use.node); });
        if (outside) return match.refuse(fmt::format("{} is used elsewhere", value.name));
        if (graph_.is_output(output)) return match.refuse(fmt::format("{} is an output of the graph", value.name));
      }
    }
    return true;
  }

  bool replace(Match& match, NodeId root, ValueId value) {
    Origin origin;
    for (const NodeId id : graph_.nodes()) {
      if (match.nodes_.contains(id)) origin.merge(graph_.node(id).origin);
    }
    const TensorType before = graph_.value(value).type;
    Builder builder(graph_, root, std::move(origin));
    const ValueId replacement = rule_.build(builder, match).id();
    const TensorType& after = graph_.value(replacement).type;
    if (after.dtype != before.dtype ||
        (after.shape && before.shape && after.shape->size() != before.shape->size())) {
      fail(ErrorCode::kInternal, "rule {} replaces {} by {}", rule_.name, to_string(before), to_string(after));
    }
    // Equal dims may be spelled differently; what was known stays known.
    if (before.shape) graph_.value(replacement).type = before;
    const std::string name = graph_.value(value).name;
    graph_.replace_uses(value, replacement);
    erase_dead(graph_);
    if (!graph_.find_value(name) && graph_.contains(replacement) &&
        graph_.value(replacement).kind == ValueKind::kResult) {
      graph_.rename_value(replacement, name);
    }
    if (verify_) verify(graph_);
    return true;
  }

  void record(const Failure& failure) {
    if (!graph_.contains(failure.node)) return;
    record_near_miss(report_, graph_.node(failure.node), failure.depth, failure.reason);
  }

  Graph& graph_;
  const Rule& rule_;
  RuleReport& report_;
  bool verify_;
  std::vector<Failure> misses_;
};

int apply_rule(Graph& graph, const Rule& rule, RuleReport& report, bool verify_rewrites) {
  return RuleDriver(graph, rule, report, verify_rewrites).run();
}

void record_near_miss(RuleReport& report, const Node& node, int depth, std::string reason) {
  NearMiss miss;
  miss.node = report_name(node);
  if (!node.origin.sources.empty()) miss.source = node.origin.sources.front();
  miss.reason = std::move(reason);
  miss.depth = depth;
  const auto place = std::find_if(report.near_misses.begin(), report.near_misses.end(),
                                  [&](const NearMiss& other) { return other.depth < depth; });
  report.near_misses.insert(place, std::move(miss));
  if (report.near_misses.size() > kKeptMisses) report.near_misses.pop_back();
}

}  // namespace weft
