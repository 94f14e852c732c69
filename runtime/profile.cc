#include "runtime/profile.h"

#include <algorithm>

namespace weft::runtime {

void Profile::set_phase(std::string_view name) {
  const auto found = std::find(phases_.begin(), phases_.end(), name);
  phase_ = static_cast<std::uint32_t>(found - phases_.begin());
  if (found == phases_.end()) phases_.emplace_back(name);
}

void Profile::clear() {
  runs_.clear();
  epoch_ = std::chrono::steady_clock::now();
}

std::int64_t Profile::now() const {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - epoch_).count();
}

void Profile::begin_run(std::shared_ptr<const Model> model) {
  Run run;
  // The same model runs the same nodes: no growing while it is measured.
  if (!runs_.empty() && runs_.back().model == model) run.steps.reserve(runs_.back().steps.size());
  run.model = std::move(model);
  run.phase = phase_;
  runs_.push_back(std::move(run));
  runs_.back().start = now();
}

}  // namespace weft::runtime
