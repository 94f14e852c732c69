// Rules: a pattern, a condition, a replacement. The driver answers for what every rewrite must keep.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ops/builder.h"
#include "passes/matcher.h"
#include "passes/pass_context.h"

namespace weft {

struct Rule {
  std::string name;
  Pattern root;
  // Checks beyond structure; refuse() names the reason. May be empty.
  std::function<bool(Match&)> where;
  // The replacement of the root's value. The Builder inserts before the root; what it makes carries
  // the merged origins of the match.
  std::function<Expr(Builder&, const Match&)> build;
};

// Applies the rule wherever it matches, in execution order, until it matches no more, and adds to
// its report: how often, and the deepest reasons why not elsewhere. Guaranteed whatever the rule:
//  - a match with a value inside that is read elsewhere or exported is refused (unless shareable);
//  - the replacement has the dtype, rank and known extents of what it replaces (else kInternal);
//  - it takes the name of what it replaces, so outputs keep theirs;
//  - nodes that nothing reads any more are gone.
// Returns how often it was applied. Error kInternal when it does not come to an end.
int apply_rule(Graph& graph, const Rule& rule, PassContext& context);
// Rules in order; returns how many rewrites they made.
int run_rules(Graph& graph, const std::vector<Rule>& rules, PassContext& context);

// For rewrites that are no patterns.
//
// Replaces all uses of `from` by `to` under the guarantees about types and names above, and erases
// what dies.
void replace_value(Graph& graph, ValueId from, ValueId to, std::string_view rule);
// Of something that fitted up to `depth` nodes and stopped at `node`.
NearMiss near_miss_at(const Graph& graph, NodeId node, int depth, std::string reason);
// Records that something fitted up to `depth` nodes and stopped at `node` for `reason`.
void record_near_miss(RuleReport& report, const Graph& graph, NodeId node, int depth, std::string reason);

}  // namespace weft
