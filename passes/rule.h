// Rules: a pattern, a condition, a replacement. The driver answers for what every rewrite must keep.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

#include "ops/builder.h"
#include "passes/pattern.h"
#include "passes/pipeline.h"

namespace weft {

// What a pattern's handles stand for.
class Match {
 public:
  explicit Match(const Graph& graph) : graph_(&graph) {}

  const Graph& graph() const { return *graph_; }
  bool has(const Pattern& handle) const { return values_.contains(handle.node()); }
  // Error kInternal when the handle took no part.
  ValueId operator[](const Pattern& handle) const;
  // Invalid when it took no part.
  ValueId maybe(const Pattern& handle) const;
  // The number of a scalar; 1 of a `scaled` factor that took no part.
  double number(const Scalar& handle) const;
  const Shape& shape(const Pattern& handle) const;  // Error kInternal when the rank is unknown
  std::int64_t rank(const Pattern& handle) const;   // -1: unknown
  DType dtype(const Pattern& handle) const { return graph_->value((*this)[handle]).type.dtype; }

  // For conditions: says why not, and is false.
  bool refuse(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }

 private:
  friend class Matcher;
  friend class RuleDriver;
  const Graph* graph_;
  std::map<const PatternNode*, ValueId> values_;
  std::map<const PatternNode*, double> numbers_;
  std::set<NodeId> nodes_;      // of the match, the root included
  std::set<NodeId> shareable_;  // those that may stay for other users
  std::string reason_;
};

struct Rule {
  std::string name;
  Pattern root;
  // Checks beyond structure; refuse() names the reason. May be empty.
  std::function<bool(Match&)> where;
  // The replacement of the root's value; the Builder inserts before the root and carries merged origins.
  std::function<Expr(Builder&, const Match&)> build;
};

// Applies the rule wherever it matches, again and again until it matches no more, and adds to the report.
// A match is refused when a value inside it is read elsewhere or exported (unless shareable), and when
// the replacement would have another type. Returns how often it was applied.
int apply_rule(Graph& graph, const Rule& rule, RuleReport& report, bool verify_rewrites);

// For rewrites that are no patterns: records that something fitted up to `depth` and failed for `reason`.
void record_near_miss(RuleReport& report, const Node& node, int depth, std::string reason);

}  // namespace weft
