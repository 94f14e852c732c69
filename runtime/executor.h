// Runs plans: tensors for every value, kernels called in order.
#pragma once

#include <memory>
#include <vector>

#include "runtime/cache.h"
#include "runtime/output_pool.h"
#include "runtime/plan.h"

namespace weft::runtime {

class Profile;

// What the runs of one session share.
struct Workspace {
  std::shared_ptr<const Model> model;
  std::shared_ptr<ThreadPool> pool;
  std::vector<CacheState> caches;       // one per state of the graph
  std::shared_ptr<CacheBudget> budget;  // of these; may be null
  Tensor arena;
  OutputPool outputs;
  Profile* profile = nullptr;
};

// A plan with its tensors. What every run does alike is prepared: a run allocates nothing but its outputs.
class Executor {
 public:
  Executor(Workspace& workspace, std::unique_ptr<Plan> plan);

  const Plan& plan() const { return *plan_; }
  // See adapt_plan(). After false the executor is of no use.
  bool adapt(std::span<const Extents> inputs, std::span<const Extents> states);
  // inputs: in the graph's order, of the shapes of the plan. States move on.
  std::vector<Tensor> run(std::span<const Tensor> inputs);

 private:
  struct Arguments {
    std::vector<const Tensor*> inputs;
    std::vector<const CacheState*> caches;
    std::vector<Tensor*> outputs;
    bool fixed_view = false;  // made when laid out: nothing to do
  };

  const Model::Impl& model() const { return workspace_.model->impl(); }
  void lay_out();
  void place(Slot slot);
  void place_view(std::size_t step);
  void point_arguments();
  void check_budget();
  void prepare(std::span<const Tensor> inputs);
  void run_step(std::size_t index);
  void run_view(const PlanStep& step);
  void run_cache(PlanStep& step);
  void run_dynamic(PlanStep& step, const Node& node, Arguments& arguments);
  Tensor outside_arena(Tensor result) const;
  std::vector<Tensor> results();
  void move_states();
  void release();

  Workspace& workspace_;
  std::unique_ptr<Plan> plan_;
  std::vector<Tensor> table_;               // by slot
  std::vector<Arguments> arguments_;        // by step
  std::vector<std::size_t> cache_of_;       // by slot of a cached value: index of its state
  std::vector<Slot> made_each_run_;         // outputs, and objects
  std::vector<bool> stays_;                 // by slot: the tensor is the same at every run
  std::vector<Slot> released_;              // the others
  const std::byte* laid_out_in_ = nullptr;  // the arena that table_ points into
  std::vector<std::int64_t> lengths_;       // of the states when the run began
  bool laid_out_ = false;
};

}  // namespace weft::runtime
