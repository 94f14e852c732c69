// Where the values of a plan lie.
#include <algorithm>

#include "runtime/plan.h"

namespace weft::runtime {
namespace {

using Place = ValuePlan::Place;

std::size_t bytes_of(const ValuePlan& value) {
  return is_object(value.dtype) ? 0 : static_cast<std::size_t>(element_count(value.shape)) * element_size(value.dtype);
}

class Placement {
 public:
  Placement(Plan& plan, const Model::Impl& model) : model_(model), graph_(model.graph), plan_(plan) {
    plan_.request_of.assign(plan_.values.size(), Plan::kNoRequest);
  }

  void run() {
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) place_step(i);
    const auto keep = [&](Slot slot) {
      const std::uint32_t request = plan_.request_of[slot];
      if (request != Plan::kNoRequest) plan_.requests[request].last = plan_.steps.size();
    };
    for (const Slot slot : model_.outputs) keep(slot);
    for (const Slot slot : model_.state_nexts) keep(slot);
    free_outputs();
    plan_.arena_bytes = plan_memory(plan_.requests);
    for (const std::vector<Slot>& members : members_) {
      for (const Slot slot : members) plan_.values[slot].offset = plan_.requests[plan_.request_of[slot]].offset;
    }
    for (Slot slot = 0; slot < plan_.values.size(); ++slot) {
      const bool computed = plan_.request_of[slot] != Plan::kNoRequest;
      if (plan_.values[slot].place == Place::kArena && !computed) plan_.values[slot].place = Place::kNone;
    }
    for (const Slot slot : model_.outputs) {
      if (plan_.values[slot].place == Place::kArena) plan_.values[slot].place = Place::kOutput;
    }
  }

 private:
  void join(Slot slot, std::uint32_t request) {
    plan_.request_of[slot] = request;
    members_[request].push_back(slot);
  }

  void place_step(std::size_t index) {
    const PlanStep& step = plan_.steps[index];
    for (const Slot slot : step.compiled->inputs) {
      if (slot != kNoSlot && plan_.request_of[slot] != Plan::kNoRequest)
        plan_.requests[plan_.request_of[slot]].last = index;
    }
    for (const Slot slot : step.compiled->outputs) {
      if (slot == kNoSlot || plan_.values[slot].place != Place::kArena) continue;
      if (step.compiled->kind == StepKind::kView) {  // lives where its input lives
        plan_.values[slot].place = Place::kView;
        const std::uint32_t source = plan_.request_of[step.compiled->inputs[0]];
        if (source != Plan::kNoRequest) join(slot, source);
        continue;
      }
      if (const Slot reused = overwritten_input(step, index, slot); reused != kNoSlot) {
        plan_.overwritten.emplace_back(reused, slot);
        join(slot, plan_.request_of[reused]);
        continue;
      }
      plan_.requests.push_back({bytes_of(plan_.values[slot]), index, index, 0});
      members_.emplace_back();
      join(slot, static_cast<std::uint32_t>(plan_.requests.size() - 1));
    }
  }

  // An input that dies at this step and whose memory output `slot` may take over; kNoSlot if there is none.
  Slot overwritten_input(const PlanStep& step, std::size_t index, Slot slot) const {
    if (step.compiled->kernel == nullptr || step.dynamic) return kNoSlot;
    const ValuePlan& output = plan_.values[slot];
    for (std::size_t i = 0; i < step.compiled->inputs.size(); ++i) {
      const Slot input = step.compiled->inputs[i];
      if (input == kNoSlot || !step.compiled->kernel->may_overwrite(i)) continue;
      const ValuePlan& value = plan_.values[input];
      const std::uint32_t request = plan_.request_of[input];
      if (request == Plan::kNoRequest || value.place != Place::kArena || value.dtype != output.dtype ||
          value.shape != output.shape)
        continue;
      if (plan_.requests[request].last == index && dies_here(request, step.compiled->node)) return input;
    }
    return kNoSlot;
  }

  // No value that lives in this memory is read after this node, by a node or by the caller.
  bool dies_here(std::uint32_t request, NodeId here) const {
    for (const Slot slot : members_[request]) {
      const ValueId id = model_.values[slot];
      if (graph_.is_output(id)) return false;
      for (const Use& use : graph_.value(id).uses) {
        if (use.node != here && !graph_.precedes(use.node, here)) return false;
      }
      // The same value twice as input of this node is fine: elementwise kernels read before they write.
    }
    return true;
  }

  // An output has memory of its own: the arena need not hold it, unless something else lives at its place.
  void free_outputs() {
    for (const Slot output : model_.outputs) {
      const std::uint32_t request = plan_.request_of[output];
      if (request == Plan::kNoRequest || plan_.values[output].place != Place::kArena) continue;
      const std::vector<Slot>& members = members_[request];
      const bool alone = std::all_of(members.begin(), members.end(), [&](Slot slot) {
        return slot == output || plan_.values[slot].place == Place::kView;
      });
      if (alone) plan_.requests[request].bytes = 0;
    }
  }

  const Model::Impl& model_;
  const Graph& graph_;
  Plan& plan_;
  std::vector<std::vector<Slot>> members_;  // by request
};

}  // namespace

void place_values(Plan& plan, const Model::Impl& model) { Placement(plan, model).run(); }

void grow_places(Plan& plan) {
  plan.laid_out_anew = false;
  for (const Slot slot : plan.changed) {
    const std::uint32_t index = plan.request_of[slot];
    if (index == Plan::kNoRequest || plan.values[slot].place != Place::kArena) continue;
    const std::size_t bytes = bytes_of(plan.values[slot]);
    if (bytes <= plan.requests[index].bytes) continue;
    plan.requests[index].bytes = bytes + bytes / 4;
    plan.laid_out_anew = true;
  }
  if (!plan.laid_out_anew) return;
  plan.arena_bytes = plan_memory(plan.requests);
  for (Slot slot = 0; slot < plan.values.size(); ++slot) {
    if (plan.request_of[slot] != Plan::kNoRequest)
      plan.values[slot].offset = plan.requests[plan.request_of[slot]].offset;
  }
}

}  // namespace weft::runtime
