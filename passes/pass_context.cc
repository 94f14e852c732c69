#include "passes/pass_context.h"

#include <algorithm>

namespace weft {

RuleReport& PassContext::report_of(std::string_view rule) {
  const auto found =
      std::find_if(reports_.begin(), reports_.end(), [&](const RuleReport& report) { return report.name == rule; });
  if (found != reports_.end()) return *found;
  return reports_.emplace_back(RuleReport{std::string(rule), pass_, 0, {}, options_->kept_misses});
}

void PassContext::rewritten(const Graph& graph, std::string_view rule) {
  told_ = true;
  if (options_->verify_rewrites) verify(graph);
  if (options_->after_rewrite) options_->after_rewrite(*whole_, pass_, rule);
}

void PassContext::start_pass(std::string_view pass) {
  pass_ = pass;
  for (RuleReport& report : reports_) {
    if (report.pass == pass) report.near_misses.clear();
  }
}

void PassContext::finish_pass(const Graph& graph, int changes) {
  if (changes > 0 && !told_) rewritten(graph, pass_);
  told_ = false;
}

}  // namespace weft
