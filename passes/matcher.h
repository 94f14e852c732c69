// Matching a pattern at a value of a graph.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "passes/pattern.h"

namespace weft {

// What a pattern's handles stand for. Valid as long as the graph does not change.
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
  // The node that makes the value; Error kInternal when none does.
  const Node& node(const Pattern& handle) const;
  const Shape& shape(const Pattern& handle) const;  // Error kInternal when the rank is unknown
  std::int64_t rank(const Pattern& handle) const;   // -1: unknown
  DType dtype(const Pattern& handle) const { return graph_->value((*this)[handle]).type.dtype; }

  // For conditions. True when the value has as many axes as there are names and each extent is what
  // its name stood for before in this match. A name met first is bound; "1" and other numbers stand
  // for themselves, "_" for anything. Otherwise refuses.
  bool shape(const Pattern& handle, std::initializer_list<std::string_view> names);
  const Dim& dim(std::string_view name) const;  // Error kInternal when not bound

  // For conditions: says why not, and is false.
  bool refuse(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }

  // Nodes that take part, the one at the root included.
  const std::set<NodeId>& nodes() const { return nodes_; }
  bool is_shareable(NodeId node) const { return !fixed_.contains(node); }

 private:
  friend class Matcher;
  const Graph* graph_;
  std::map<const PatternNode*, ValueId> values_;
  std::map<const PatternNode*, double> numbers_;
  std::map<std::string, Dim, std::less<>> dims_;
  std::set<NodeId> nodes_;
  std::set<NodeId> fixed_;  // those that may not stay behind for other users
  std::string reason_;
};

// Why a pattern does not match somewhere: data, not an error.
struct Refusal {
  int depth = -1;  // how many nodes had matched; -1: nothing was tried
  NodeId node;     // where it stopped; at an input or constant, the node that reads it; invalid if none does
  std::string reason;
  std::vector<NodeId> matched;      // the nodes that had matched
  ValueId value;                    // the value that did not fit
  std::vector<std::string> wanted;  // operators any of which would have gone on there; empty for other reasons
};

// Searches for a match of `root` at `value` that `accept` takes: alternatives, orders of operands and
// bracketings are tried until it returns true. On success *match is that match; otherwise *refusal is
// the deepest reason met, the first of equals.
bool match_pattern(const Graph& graph, const Pattern& root, ValueId value, const std::function<bool(Match&)>& accept,
                   Match* match, Refusal* refusal);

// False when no match of the pattern can have this operator at its root.
bool can_start(const Pattern& root, std::string_view op);

}  // namespace weft
