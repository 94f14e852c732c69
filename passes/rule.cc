#include "passes/rule.h"

#include <algorithm>
#include <set>

#include "passes/node_util.h"

namespace weft {
namespace {

// A single operator in common is no near miss.
constexpr int kLeastDepth = 2;

bool may_replace(const TensorType& before, const TensorType& after) {
  if (before.dtype != after.dtype) return false;
  if (!before.shape || !after.shape) return true;
  return before.shape->size() == after.shape->size() &&
         std::equal(before.shape->begin(), before.shape->end(), after.shape->begin(),
                    [](const Dim& a, const Dim& b) { return a == b || !a.is_constant() || !b.is_constant(); });
}

// Both describe the same value: a known extent beats a symbol, what readers saw beats a new spelling.
TensorType merged_type(const TensorType& before, const TensorType& after) {
  if (!before.shape) return after;
  TensorType result = before;
  for (std::size_t i = 0; after.shape && i < result.shape->size(); ++i) {
    if ((*after.shape)[i].is_constant()) (*result.shape)[i] = (*after.shape)[i];
  }
  return result;
}

bool is_kept(const RuleReport& report, int depth) {
  return report.near_misses.size() < report.kept_misses || report.near_misses.back().depth < depth;
}

void keep(RuleReport& report, NearMiss miss) {
  std::vector<NearMiss>& kept = report.near_misses;
  const bool known = std::any_of(kept.begin(), kept.end(), [&](const NearMiss& other) {
    return other.found == miss.found && other.reason == miss.reason;
  });
  if (known) return;
  const auto place =
      std::find_if(kept.begin(), kept.end(), [&](const NearMiss& other) { return other.depth < miss.depth; });
  kept.insert(place, std::move(miss));
  if (kept.size() > report.kept_misses) kept.pop_back();
}

class RuleDriver {
 public:
  RuleDriver(Graph& graph, const Rule& rule, PassContext& context)
      : graph_(graph), rule_(rule), context_(context), report_(context.report_of(rule.name)) {}

  int run() {
    const std::size_t limit = 1000 + 10 * graph_.node_count();
    std::size_t applied = 0;
    for (bool changed = true; changed;) {
      changed = false;
      misses_.clear();  // what failed in an earlier sweep may match in this one
      for (const NodeId id : graph_.nodes()) {
        if (!graph_.contains(id) || !try_at(id)) continue;
        changed = true;
        if (++applied > limit) {
          fail(ErrorCode::kInternal, "rule {} does not come to an end", rule_.name);
        }
      }
    }
    report_.applied += static_cast<int>(applied);
    for (const Refusal& miss : misses_) record(miss);
    return static_cast<int>(applied);
  }

 private:
  void record(const Refusal& refusal) {
    if (!is_kept(report_, refusal.depth)) return;
    NearMiss miss = near_miss_at(graph_, refusal.node, refusal.depth, refusal.reason);
    for (const NodeId id : refusal.matched) miss.matched.merge(graph_.node(id).origin);
    keep(report_, std::move(miss));
  }

  bool try_at(NodeId id) {
    const Node& node = graph_.node(id);
    if (!can_start(rule_.root, node.op) || node.outputs.empty() || !node.outputs[0].valid()) {
      return false;
    }
    const ValueId value = node.outputs[0];
    Match match(graph_);
    Refusal refusal;
    const auto accept = [&](Match& found) { return is_contained(found, id) && (!rule_.where || rule_.where(found)); };
    if (!match_pattern(graph_, rule_.root, value, accept, &match, &refusal)) {
      if (refusal.depth >= kLeastDepth) {
        if (!refusal.node.valid()) refusal.node = id;
        misses_.push_back(std::move(refusal));
      }
      return false;
    }
    replace(match, id, value);
    return true;
  }

  // Every value inside the match is read inside it only.
  bool is_contained(Match& match, NodeId root) {
    for (const NodeId id : match.nodes()) {
      if (id == root || match.is_shareable(id)) continue;
      for (const ValueId output : graph_.node(id).outputs) {
        if (!output.valid()) continue;
        const Value& value = graph_.value(output);
        if (graph_.is_output(output)) {
          return match.refuse(fmt::format("%{} ({}) is an output of the graph", value.name, graph_.node(id).op));
        }
        for (const Use& use : value.uses) {
          if (match.nodes().contains(use.node)) continue;
          return match.refuse(fmt::format("%{} ({}) is used elsewhere, by {}", value.name, graph_.node(id).op,
                                          graph_.node(use.node).op));
        }
      }
    }
    return true;
  }

  void replace(const Match& match, NodeId root, ValueId value) {
    with_frame([&] { return fmt::format("in rule {} at {}", rule_.name, describe(graph_.node(root))); },
               [&] {
                 std::vector<NodeId> nodes(match.nodes().begin(), match.nodes().end());
                 std::sort(nodes.begin(), nodes.end(), [&](NodeId a, NodeId b) { return graph_.precedes(a, b); });
                 Origin origin;
                 for (const NodeId id : nodes) origin.merge(graph_.node(id).origin);
                 Builder builder(graph_, root, std::move(origin));
                 replace_value(graph_, value, rule_.build(builder, match).id(), rule_.name);
               });
    context_.rewritten(graph_, rule_.name);
  }

  Graph& graph_;
  const Rule& rule_;
  PassContext& context_;
  RuleReport& report_;
  std::vector<Refusal> misses_;
};

}  // namespace

int apply_rule(Graph& graph, const Rule& rule, PassContext& context) { return RuleDriver(graph, rule, context).run(); }

int run_rules(Graph& graph, const std::vector<Rule>& rules, PassContext& context) {
  int applied = 0;
  for (const Rule& rule : rules) applied += apply_rule(graph, rule, context);
  return applied;
}

void replace_value(Graph& graph, ValueId from, ValueId to, std::string_view rule) {
  const Value& old = graph.value(from);
  const TensorType before = old.type;
  const TensorType& after = graph.value(to).type;
  if (!may_replace(before, after)) {
    fail(ErrorCode::kInternal, "rule {} replaces {} by {}", rule, to_string(before), to_string(after));
  }
  const std::string name = old.name;
  const NodeId maker = old.producer;
  // A value made for this has no readers yet, so its type may still be settled.
  const bool is_new = graph.value(to).kind == ValueKind::kResult && graph.use_count(to) == 0;
  if (is_new) graph.value(to).type = merged_type(before, after);
  graph.replace_uses(from, to);
  erase_if_dead(graph, maker);
  if (is_new && !graph.find_value(name)) graph.rename_value(to, name);
}

NearMiss near_miss_at(const Graph& graph, NodeId id, int depth, std::string reason) {
  const Node& node = graph.node(id);
  NearMiss miss;
  miss.node = report_name(node);
  if (!node.origin.sources.empty()) miss.source = node.origin.sources.front();
  miss.found = node_text(graph, id);
  miss.reason = std::move(reason);
  miss.depth = depth;
  miss.matched = node.origin;
  return miss;
}

void record_near_miss(RuleReport& report, const Graph& graph, NodeId node, int depth, std::string reason) {
  if (is_kept(report, depth)) keep(report, near_miss_at(graph, node, depth, std::move(reason)));
}

}  // namespace weft
