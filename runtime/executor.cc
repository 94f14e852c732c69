#include "runtime/executor.h"

#include <algorithm>
#include <functional>

#include "ops/op_def.h"
#include "runtime/profile.h"

namespace weft::runtime {
namespace {

using Place = ValuePlan::Place;

// Types of a node's outputs for these inputs; nullopt when even now they do not follow from them.
std::optional<std::vector<std::pair<DType, Extents>>> output_types(const Node& node,
                                                                   std::span<const Tensor* const> inputs) {
  std::vector<TensorType> types(inputs.size());
  std::vector<InferContext::Input> given(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i] == nullptr) continue;
    types[i] = {inputs[i]->dtype(), to_shape(inputs[i]->shape())};
    given[i] = {&types[i], nullptr, inputs[i]};
  }
  InferContext context(get_op(node.op), node.attributes, given, node.outputs.size(), [] { return Dim::symbol("?"); });
  get_op(node.op).infer(context);
  std::vector<std::pair<DType, Extents>> result;
  for (const InferContext::Result& output : context.results()) {
    if (!output.type.shape || !is_static(*output.type.shape)) return std::nullopt;
    result.emplace_back(output.type.dtype, *evaluate(*output.type.shape, {}));
  }
  return result;
}

}  // namespace

Executor::Executor(Workspace& workspace, std::unique_ptr<Plan> plan)
    : workspace_(workspace),
      plan_(std::move(plan)),
      table_(plan_->values.size()),
      stays_(table_.size()),
      lengths_(workspace.caches.size()) {
  cache_of_.assign(table_.size(), SIZE_MAX);
  for (std::size_t i = 0; i < model().state_currents.size(); ++i) cache_of_[model().state_currents[i]] = i;
  for (const PlanStep& step : plan_->steps) {
    if (step.compiled->kind == StepKind::kCache) cache_of_[step.compiled->outputs[0]] = step.compiled->state;
    for (const Slot slot : step.compiled->outputs) {
      if (slot == kNoSlot) continue;
      const ValuePlan& value = plan_->values[slot];
      const bool object = is_object(value.dtype) && value.place == Place::kArena;
      if (value.place == Place::kOutput || object) made_each_run_.push_back(slot);
    }
  }
  point_arguments();
}

// The tensors that arguments point to are in table_, which never moves.
void Executor::point_arguments() {
  arguments_.resize(plan_->steps.size());
  for (std::size_t i = 0; i < plan_->steps.size(); ++i) {
    const PlanStep& step = plan_->steps[i];
    Arguments& arguments = arguments_[i];
    for (std::size_t j = 0; j < step.compiled->inputs.size(); ++j) {
      const Slot slot = step.compiled->inputs[j];
      const bool in_place = step.in_place[j];
      arguments.caches.push_back(in_place ? &workspace_.caches[cache_of_[slot]] : nullptr);
      arguments.inputs.push_back(slot == kNoSlot || in_place ? nullptr : &table_[slot]);
    }
    for (const Slot slot : step.compiled->outputs)
      arguments.outputs.push_back(slot != kNoSlot ? &table_[slot] : nullptr);
  }
}

bool Executor::adapt(std::span<const Extents> inputs, std::span<const Extents> states) {
  if (!adapt_plan(*plan_, model(), inputs, states, *workspace_.pool)) return false;
  if (plan_->laid_out_anew) {
    laid_out_ = false;
  } else if (laid_out_ && !plan_->changed.empty()) {
    for (const Slot slot : plan_->changed) place(slot);
    for (std::size_t i = 0; i < plan_->steps.size(); ++i) {
      if (arguments_[i].fixed_view) place_view(i);
    }
  }
  return true;
}

// --- Laying out --------------------------------------------------------------------------------------

void Executor::lay_out() {
  Tensor& arena = workspace_.arena;
  if (static_cast<std::size_t>(arena.size()) < plan_->arena_bytes)
    arena = Tensor::zeros(DType::kU8, {static_cast<std::int64_t>(plan_->arena_bytes)});
  const std::byte* base = arena.size() > 0 ? arena.bytes().data() : nullptr;
  if (laid_out_ && base == laid_out_in_) return;
  laid_out_in_ = base;
  laid_out_ = true;
  for (Slot slot = 0; slot < table_.size(); ++slot) place(slot);
  for (const Slot slot : model().inputs) stays_[slot] = false;
  for (std::size_t i = 0; i < plan_->steps.size(); ++i) place_view(i);
  released_ = model().inputs;
  for (std::size_t i = 0; i < plan_->steps.size(); ++i) {
    for (const Slot slot : plan_->steps[i].compiled->outputs) {
      if (slot != kNoSlot && !stays_[slot]) released_.push_back(slot);
    }
  }
  for (const Slot slot : model().state_currents) released_.push_back(slot);
}

// Constants, what is known since binding, and what lies in the arena.
void Executor::place(Slot slot) {
  const ValuePlan& value = plan_->values[slot];
  if (value.place == Place::kGiven) {
    table_[slot] = value.known;
    stays_[slot] = true;
  } else if (plan_->request_of[slot] != Plan::kNoRequest && value.place == Place::kArena && !is_object(value.dtype)) {
    stays_[slot] = true;
    // Not owning: the arena outlives the run.
    std::byte* base = plan_->arena_bytes > 0 ? workspace_.arena.mutable_bytes().data() : nullptr;
    table_[slot] =
        Tensor::wrap(value.dtype, value.shape, std::shared_ptr<std::byte>(std::shared_ptr<void>(), base + value.offset),
                     plan_->arena_bytes - value.offset);
  }
}

void Executor::place_view(std::size_t step_index) {
  const PlanStep& step = plan_->steps[step_index];
  if (step.dynamic || step.compiled->kind != StepKind::kView) return;
  const Slot in = step.compiled->inputs[0], out = step.compiled->outputs[0];
  stays_[out] = stays_[in];
  arguments_[step_index].fixed_view = stays_[in];
  if (stays_[in]) table_[out] = table_[in].reshaped(plan_->values[out].shape);
}

// --- Running -----------------------------------------------------------------------------------------

std::vector<Tensor> Executor::run(std::span<const Tensor> inputs) {
  for (std::size_t i = 0; i < workspace_.caches.size(); ++i) lengths_[i] = workspace_.caches[i].length();
  try {
    if (workspace_.budget) check_budget();
    prepare(inputs);
    for (std::size_t i = 0; i < plan_->steps.size(); ++i) {
      if (!arguments_[i].fixed_view) run_step(i);
    }
    std::vector<Tensor> outputs = results();
    move_states();
    release();
    return outputs;
  } catch (...) {
    // Some states have this run's tokens already: a run that fails leaves them all as they were.
    for (std::size_t i = 0; i < workspace_.caches.size(); ++i) {
      CacheState& cache = workspace_.caches[i];
      if (cache.length() > lengths_[i]) cache.truncate(lengths_[i]);
    }
    throw;
  }
}

// Before anything is computed. Appended values whose extents come out of the run are asked for when they are there.
void Executor::check_budget() {
  std::uint64_t bytes = 0;
  for (const PlanStep& step : plan_->steps) {
    if (step.compiled->kind != StepKind::kCache) continue;
    const ValuePlan& added = plan_->values[step.compiled->inputs[1]];
    if (added.place != Place::kDynamic) bytes += workspace_.caches[step.compiled->state].growth(added.shape[2]);
  }
  for (std::size_t i = 0; i < workspace_.caches.size(); ++i) {
    const Slot next = model().state_nexts[i];
    if (cache_of_[next] != i) bytes += workspace_.caches[i].bytes_of(plan_->values[next].shape);
  }
  workspace_.budget->require(bytes);
}

void Executor::prepare(std::span<const Tensor> inputs) {
  lay_out();
  for (std::size_t i = 0; i < inputs.size(); ++i) table_[model().inputs[i]] = inputs[i];
  for (std::size_t i = 0; i < workspace_.caches.size(); ++i) {
    if (plan_->read_current[i]) table_[model().state_currents[i]] = workspace_.caches[i].to_tensor();
  }
  for (const Slot slot : made_each_run_) {
    const ValuePlan& value = plan_->values[slot];
    with_frame([&] { return "in " + describe(model().graph.node(model().graph.value(model().values[slot]).producer)); },
               [&] { table_[slot] = workspace_.outputs.take(value.dtype, value.shape); });
  }
}

void Executor::run_step(std::size_t index) {
  PlanStep& step = plan_->steps[index];
  Arguments& arguments = arguments_[index];
  const Node& node = model().node(*step.compiled);
  Profile* const profile = workspace_.profile;
  const std::int64_t start = profile != nullptr ? profile->now() : 0;
  with_frame([&] { return "in " + describe(node); },
             [&] {
               if (step.dynamic)
                 run_dynamic(step, node, arguments);
               else if (step.compiled->kind == StepKind::kCache)
                 run_cache(step);
               else if (step.compiled->kind == StepKind::kView)
                 run_view(step);
               else
                 step.kernel->run({arguments.inputs, arguments.caches, arguments.outputs, workspace_.pool.get()});
             });
  if (profile == nullptr) return;
  const std::int64_t end = profile->now();
  Cost cost;
  if (step.compiled->kind == StepKind::kKernel)
    cost = cost_of(model().graph, node, arguments.inputs, arguments.caches, arguments.outputs);
  profile->add_step({step.compiled->node, start, end, cost});
}

void Executor::run_view(const PlanStep& step) {
  const Slot out = step.compiled->outputs[0];
  table_[out] = table_[step.compiled->inputs[0]].reshaped(plan_->values[out].shape);
}

// Appends this run's keys or values to the state.
void Executor::run_cache(PlanStep& step) {
  CacheState& cache = workspace_.caches[step.compiled->state];
  const Tensor& added = table_[step.compiled->inputs[1]];
  const bool unchecked = plan_->values[step.compiled->inputs[1]].place == Place::kDynamic;
  if (workspace_.budget && unchecked && added.rank() == 4) workspace_.budget->require(cache.growth(added.extent(2)));
  cache.append(added, workspace_.pool.get());
  if (step.materialize_cache) table_[step.compiled->outputs[0]] = cache.to_tensor();
}

// A result may be a view of an input whose place in the arena is given away after this step.
Tensor Executor::outside_arena(Tensor result) const {
  const Tensor& arena = workspace_.arena;
  if (is_object(result.dtype()) || result.size() == 0 || arena.size() == 0) return result;
  const std::byte* bytes = result.bytes().data();
  const std::less<> before;
  const bool inside = !before(bytes, arena.bytes().data()) && before(bytes, arena.bytes().data() + arena.size());
  return inside ? result.clone() : result;
}

// A node whose shapes were not known when the plan was made: bound now, or run by reference.
void Executor::run_dynamic(PlanStep& step, const Node& node, Arguments& arguments) {
  const std::span<const Tensor* const> inputs = arguments.inputs;
  const Kernel* kernel = step.compiled->kernel.get();
  const auto shapes = kernel == nullptr || kernel->is_reference() ? std::nullopt : output_types(node, inputs);
  if (!shapes) {
    std::vector<Tensor> results = evaluate_node(node, inputs);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (arguments.outputs[i] != nullptr) *arguments.outputs[i] = outside_arena(std::move(results[i]));
    }
    return;
  }
  std::vector<Extents> input_shapes, output_shapes;
  for (const Tensor* input : inputs) input_shapes.push_back(input != nullptr ? input->shape() : Extents{});
  std::vector<Tensor> results;
  for (const auto& [dtype, shape] : *shapes) {
    output_shapes.push_back(shape);
    results.push_back(Tensor::uninitialized(dtype, shape));
  }
  if (!step.kernel || step.bound_inputs != input_shapes) {
    step.kernel = kernel->bind({&node, input_shapes, output_shapes, workspace_.pool.get()});
    step.bound_inputs = std::move(input_shapes);
  }
  std::vector<Tensor*> outputs;
  for (std::size_t i = 0; i < results.size(); ++i)
    outputs.push_back(arguments.outputs[i] != nullptr ? &results[i] : nullptr);
  step.kernel->run({inputs, arguments.caches, outputs, workspace_.pool.get()});
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (arguments.outputs[i] != nullptr) *arguments.outputs[i] = std::move(results[i]);
  }
}

// --- After the steps -----------------------------------------------------------------------------------

std::vector<Tensor> Executor::results() {
  std::vector<Tensor> results;
  const std::vector<Slot>& outputs = model().outputs;
  results.reserve(outputs.size());
  for (auto output = outputs.begin(); output != outputs.end(); ++output) {
    const Place place = plan_->values[*output].place;
    // A dynamic value may share bytes with an input or the arena through a view.
    const bool own =
        (place == Place::kOutput || place == Place::kCache) && std::find(outputs.begin(), output, *output) == output;
    results.push_back(own ? table_[*output] : table_[*output].clone());
  }
  return results;
}

void Executor::move_states() {
  for (std::size_t i = 0; i < workspace_.caches.size(); ++i) {
    const Slot next = model().state_nexts[i];
    if (cache_of_[next] == i) continue;  // appended to, or as it was
    const Tensor value = cache_of_[next] != SIZE_MAX ? workspace_.caches[cache_of_[next]].to_tensor() : table_[next];
    workspace_.caches[i].assign(value);
  }
}

// Lets go of what belongs to the caller and of what only this run knew.
void Executor::release() {
  static const Tensor kNothing;
  for (const Slot slot : released_) table_[slot] = kNothing;
}

}  // namespace weft::runtime
