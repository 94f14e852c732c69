// Where the time of runs goes, node by node.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/cost.h"

namespace weft::runtime {

class Model;

// Filled by the sessions it is given to (Session::set_profile), which all run on one thread at a time. Times are
// nanoseconds since the profile was made or cleared.
class Profile {
 public:
  // One node of one run, on the thread that runs the session.
  struct Step {
    NodeId node;
    std::int64_t start = 0, end = 0;
    Cost cost;
  };
  // One run of a session. What lies between its steps is the runtime's own.
  struct Run {
    std::shared_ptr<const Model> model;
    std::uint32_t phase = 0;  // index into phases()
    std::int64_t start = 0, end = 0;
    std::vector<Step> steps;
  };

  // The runs that follow belong to this phase ("prefill", "decode"); at first "run".
  void set_phase(std::string_view name);
  // Forgets all runs.
  void clear();

  const std::vector<std::string>& phases() const { return phases_; }
  const std::vector<Run>& runs() const { return runs_; }

  // --- For sessions ----------------------------------------------------------------------------------
  std::int64_t now() const;
  void begin_run(std::shared_ptr<const Model> model);
  void add_step(const Step& step) { runs_.back().steps.push_back(step); }
  void end_run() { runs_.back().end = now(); }

 private:
  std::chrono::steady_clock::time_point epoch_ = std::chrono::steady_clock::now();
  std::vector<std::string> phases_ = {"run"};
  std::uint32_t phase_ = 0;
  std::vector<Run> runs_;
};

}  // namespace weft::runtime
