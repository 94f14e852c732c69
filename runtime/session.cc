#include "runtime/session.h"

#include <algorithm>
#include <functional>
#include <list>
#include <set>

#include "ops/op_def.h"
#include "runtime/bind_inputs.h"
#include "runtime/cache.h"
#include "runtime/plan.h"

namespace weft::runtime {
namespace {

using Place = ValuePlan::Place;

// Plans for so many sets of input shapes are kept.
constexpr std::size_t kKeptPlans = 4;

// The extents of a state that do not change while it grows.
std::int64_t fixed_extent(const Graph& graph, const State& state, std::size_t axis) {
  const TensorType& type = graph.value(state.current).type;
  if (!type.shape || type.shape->size() != 4 || !(*type.shape)[axis].is_constant()) {
    fail(ErrorCode::kUnsupported, "state \"{}\" is {}, not [B, heads, P, size]", state.name, to_string(type));
  }
  return (*type.shape)[axis].value();
}

}  // namespace

struct Session::Impl {
  std::shared_ptr<const Model> model;
  std::shared_ptr<ThreadPool> pool;
  std::vector<CacheState> caches;  // one per state of the graph
  struct Bound {
    std::vector<Extents> key;
    std::unique_ptr<Plan> plan;
  };
  std::list<Bound> plans;  // most recent first
  Tensor arena;
  std::map<ValueId, Tensor> table;

  const Graph& graph() const { return model->graph(); }

  Plan& plan_for(std::span<const Tensor> inputs) {
    std::vector<Extents> input_shapes, state_shapes;
    for (const Tensor& input : inputs) input_shapes.push_back(input.shape());
    for (const CacheState& cache : caches) state_shapes.push_back(cache.shape());
    std::vector<Extents> key = input_shapes;
    key.insert(key.end(), state_shapes.begin(), state_shapes.end());
    for (auto it = plans.begin(); it != plans.end(); ++it) {
      if (it->key != key) continue;
      plans.splice(plans.begin(), plans, it);
      return *plans.front().plan;
    }
    plans.push_front({std::move(key), make_plan(model->impl(), input_shapes, state_shapes, *pool)});
    if (plans.size() > kKeptPlans) plans.pop_back();
    return *plans.front().plan;
  }

  // Puts a tensor for every value that has its place before the run starts.
  void lay_out(const Plan& plan, std::span<const Tensor> inputs) {
    if (static_cast<std::size_t>(arena.size()) < plan.arena_bytes) {
      arena = Tensor::zeros(DType::kU8, {static_cast<std::int64_t>(plan.arena_bytes)});
    }
    std::byte* base = plan.arena_bytes > 0 ? arena.mutable_bytes().data() : nullptr;
    table.clear();
    for (const auto& [id, value] : plan.values) {
      if (value.place == Place::kGiven) {
        table[id] = value.known;
      } else if (value.place == Place::kOutput || is_object(value.dtype)) {
        if (value.place == Place::kDynamic) continue;
        with_frame([&] { return "in " + describe(graph().node(graph().value(id).producer)); },
                   [&] { table[id] = Tensor::uninitialized(value.dtype, value.shape); });
      } else if (value.place == Place::kArena) {
        // Not owning: the arena outlives the run.
        table[id] = Tensor::wrap(value.dtype, value.shape,
                                 std::shared_ptr<std::byte>(std::shared_ptr<void>(), base + value.offset),
                                 plan.arena_bytes - value.offset);
      }
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) table[graph().inputs()[i]] = inputs[i];
  }

  void run_step(PlanStep& step) {
    const Node& node = graph().node(step.compiled->node);
    with_frame([&] { return "in " + describe(node); },
               [&] {
                 if (step.compiled->kind == StepKind::kCache) return append(step, node);
                 if (step.compiled->kind == StepKind::kView && !step.dynamic) {
                   const ValueId out = node.outputs[0];
                   table[out] = read(node.inputs[0]).reshaped(step_shape(out));
                   return;
                 }
                 std::vector<const Tensor*> inputs;
                 std::vector<const CacheState*> from_cache;
                 for (std::size_t i = 0; i < node.inputs.size(); ++i) {
                   const ValueId id = node.inputs[i];
                   const CacheState* cache = nullptr;
                   if (id.valid() && !step.dynamic && step.compiled->kernel && step.compiled->kernel->reads_cache(i))
                     cache = cache_of(id);
                   from_cache.push_back(cache);
                   inputs.push_back(!id.valid() || cache != nullptr ? nullptr : &read(id));
                 }
                 if (step.dynamic) return run_dynamic(step, node, inputs);
                 std::vector<Tensor*> outputs;
                 for (const ValueId id : node.outputs) outputs.push_back(id.valid() ? &table.at(id) : nullptr);
                 step.kernel->run({inputs, from_cache, outputs, pool.get()});
               });
  }

  // A result may be a view of an input whose place in the arena is given away after this step.
  Tensor outside_arena(Tensor result) const {
    if (is_object(result.dtype()) || result.size() == 0 || arena.size() == 0) return result;
    const std::byte* bytes = result.bytes().data();
    const std::less<> before;
    const bool inside = !before(bytes, arena.bytes().data()) && before(bytes, arena.bytes().data() + arena.size());
    return inside ? result.clone() : result;
  }

  // A node whose shapes were not known when the plan was made: bound now, or run by reference.
  void run_dynamic(PlanStep& step, const Node& node, std::span<const Tensor* const> inputs) {
    const Kernel* kernel = step.compiled->kernel.get();
    const auto shapes = kernel == nullptr || kernel->is_reference() ? std::nullopt : output_types(node, inputs);
    if (!shapes) {
      std::vector<Tensor> results = evaluate_node(node, inputs);
      for (std::size_t i = 0; i < results.size(); ++i) {
        if (node.outputs[i].valid()) table[node.outputs[i]] = outside_arena(std::move(results[i]));
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
      step.kernel = kernel->bind({&node, input_shapes, output_shapes, pool.get()});
      step.bound_inputs = std::move(input_shapes);
    }
    std::vector<Tensor*> outputs;
    for (std::size_t i = 0; i < results.size(); ++i) outputs.push_back(node.outputs[i].valid() ? &results[i] : nullptr);
    const std::vector<const CacheState*> no_caches(inputs.size(), nullptr);
    step.kernel->run({inputs, no_caches, outputs, pool.get()});
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (node.outputs[i].valid()) table[node.outputs[i]] = std::move(results[i]);
    }
  }

  // Types of a node's outputs for these inputs; nullopt when even now they do not follow from them.
  static std::optional<std::vector<std::pair<DType, Extents>>> output_types(const Node& node,
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

  const Extents& step_shape(ValueId id) const { return current->values.at(id).shape; }

  // Appends this run's keys or values to the state.
  void append(PlanStep& step, const Node& node) {
    CacheState& cache = caches[step.compiled->state];
    if (graph().value(node.inputs[0]).uses.size() > 1) read(node.inputs[0]);  // as it was
    cache.append(read(node.inputs[1]));
    cached[node.outputs[0]] = &cache;
    if (step.materialize_cache) table[node.outputs[0]] = cache.to_tensor();
  }

  const CacheState* cache_of(ValueId id) const {
    const auto found = cached.find(id);
    return found == cached.end() ? nullptr : found->second;
  }

  const Tensor& read(ValueId id) {
    const auto found = table.find(id);
    if (found != table.end()) return found->second;
    if (const CacheState* cache = cache_of(id)) return table[id] = cache->to_tensor();
    fail(ErrorCode::kInternal, "value \"{}\" is not there", graph().value(id).name);
  }

  std::vector<Tensor> outputs() {
    std::vector<Tensor> results;
    std::set<ValueId> given;
    for (const Output& output : graph().outputs()) {
      const Tensor& tensor = read(output.value);
      const auto plan = current->values.find(output.value);
      const bool own = plan != current->values.end() &&
                       (plan->second.place == Place::kOutput || plan->second.place == Place::kDynamic ||
                        plan->second.place == Place::kCache) &&
                       given.insert(output.value).second;
      // A dynamic value may share bytes with an input or the arena through a view.
      results.push_back(own && plan->second.place != Place::kDynamic ? tensor : tensor.clone());
    }
    return results;
  }

  Plan* current = nullptr;
  std::map<ValueId, const CacheState*> cached;
};

Session::Session(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool)
    : impl_(std::make_unique<Impl>()) {
  impl_->model = std::move(model);
  impl_->pool = pool ? std::move(pool) : std::make_shared<ThreadPool>();
  const Graph& graph = impl_->graph();
  for (const State& state : graph.states()) {
    impl_->caches.emplace_back(fixed_extent(graph, state, 1), fixed_extent(graph, state, 3));
  }
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const Model& Session::model() const { return *impl_->model; }

std::vector<Tensor> Session::run(const TensorMap& inputs) {
  Impl& impl = *impl_;
  const std::vector<Tensor> given = match_inputs(impl.graph(), inputs);
  const Model::Impl& compiled = impl.model->impl();
  std::size_t bytes = 0;
  for (const Tensor& tensor : given) bytes += is_object(tensor.dtype()) ? 0 : tensor.byte_size();
  const MemoryLimit limit(MemoryLimit::account(
      compiled.max_memory != 0 ? compiled.max_memory : default_memory_limit(bytes, compiled.weight_bytes)));
  Plan& plan = impl.plan_for(given);
  impl.current = &plan;
  impl.cached.clear();
  impl.lay_out(plan, given);
  const std::span<const State> states = impl.graph().states();
  for (std::size_t i = 0; i < states.size(); ++i) impl.cached[states[i].current] = &impl.caches[i];
  for (PlanStep& step : plan.steps) impl.run_step(step);
  std::vector<Tensor> results = impl.outputs();
  for (std::size_t i = 0; i < states.size(); ++i) {
    const bool appended = impl.cache_of(states[i].next) != nullptr;
    if (!appended) impl.caches[i].assign(impl.read(states[i].next));
  }
  impl.table.clear();
  impl.pool->rest();
  return results;
}

// --- States ----------------------------------------------------------------------------------------

namespace {

std::size_t state_index(const Graph& graph, std::string_view name) {
  for (std::size_t i = 0; i < graph.states().size(); ++i) {
    if (graph.states()[i].name == name) return i;
  }
  fail(ErrorCode::kInvalidArgument, "the model has no state \"{}\"", name);
}

}  // namespace

void Session::reset_states(std::int64_t batch) {
  for (CacheState& cache : impl_->caches) cache.reset(batch);
}

void Session::reorder_states(std::span<const std::int64_t> parents) {
  for (CacheState& cache : impl_->caches) cache.reorder(parents);
}

void Session::set_state(std::string_view name, const Tensor& value) {
  impl_->caches[state_index(impl_->graph(), name)].assign(value);
}

Tensor Session::state(std::string_view name) const {
  return impl_->caches[state_index(impl_->graph(), name)].to_tensor();
}

}  // namespace weft::runtime
