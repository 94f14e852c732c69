// What the passes of one optimize() share: the reports of their rules, and who is told of each rewrite.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "passes/pipeline.h"

namespace weft {

class PassContext {
 public:
  // `whole` is the graph that optimize() was given; passes may be at work on a subgraph of it. Both must outlive this.
  PassContext(const Graph& whole, const PassOptions& options) : whole_(&whole), options_(&options) {}

  // The report of a rule, which all its runs share. Valid as long as the context.
  RuleReport& report_of(std::string_view rule);

  // To be called after every single rewrite, when the graph is whole again: verifies it if that was asked for and
  // tells the observer.
  void rewritten(const Graph& graph, std::string_view rule);

  // What rules could not do in an earlier run of this pass is forgotten: the last word counts.
  void start_pass(std::string_view pass);
  // A pass that told nobody of what it changed counts as one rewrite.
  void finish_pass(const Graph& graph, int changes);

  std::vector<RuleReport> take_reports() { return {reports_.begin(), reports_.end()}; }

 private:
  const Graph* whole_;
  const PassOptions* options_;
  std::string pass_;
  bool told_ = false;
  std::deque<RuleReport> reports_;
};

}  // namespace weft
