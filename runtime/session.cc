#include "runtime/session.h"

#include <list>

#include "runtime/bind_inputs.h"
#include "runtime/cache_file.h"
#include "runtime/cache_options.h"
#include "runtime/executor.h"
#include "runtime/profile.h"

namespace weft::runtime {
namespace {

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
  Workspace workspace;
  std::list<Executor> executors;  // most recent first
  std::vector<Extents> input_shapes, state_shapes;

  const Graph& graph() const { return workspace.model->graph(); }

  // An executor for these inputs and the states as they are: one that has run with such shapes; one that a few other
  // extents make fit (a mask that grows with the cache), or a new one.
  Executor& executor_for(std::span<const Tensor> inputs) {
    input_shapes.resize(inputs.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) input_shapes[i] = inputs[i].shape();
    state_shapes.resize(workspace.caches.size());
    for (std::size_t i = 0; i < workspace.caches.size(); ++i) state_shapes[i] = workspace.caches[i].shape();
    auto best = executors.end();
    std::size_t most = 0;
    for (auto it = executors.begin(); it != executors.end(); ++it) {
      const std::size_t fit = similarity(it->plan());
      if (fit <= most) continue;
      most = fit;
      best = it;
    }
    if (best != executors.end()) {
      executors.splice(executors.begin(), executors, best);
      Executor& executor = executors.front();
      if (executor.plan().inputs == input_shapes && executor.plan().states == state_shapes) return executor;
      if (adapt(executor)) return executor;
      executors.pop_front();
    }
    executors.emplace_front(workspace, make_plan(workspace.model->impl(), input_shapes, state_shapes, *workspace.pool));
    if (executors.size() > kKeptPlans) executors.pop_back();
    return executors.front();
  }

  bool adapt(Executor& executor) {
    try {
      return executor.adapt(input_shapes, state_shapes);
    } catch (...) {  // half adapted
      executors.pop_front();
      throw;
    }
  }

  // 0: not worth adapting. States may only be longer or shorter; of the inputs at least one that might have another
  // shape has this one, or all do.
  std::size_t similarity(const Plan& plan) const {
    for (std::size_t i = 0; i < state_shapes.size(); ++i) {
      if (plan.states[i][0] != state_shapes[i][0]) return 0;
    }
    std::size_t equal = 0, telling = 0;
    for (std::size_t i = 0; i < input_shapes.size(); ++i) {
      if (plan.inputs[i] != input_shapes[i]) continue;
      ++equal;
      const auto& declared = graph().value(graph().inputs()[i]).type.shape;
      telling += !declared || !is_static(*declared);
    }
    if (equal == input_shapes.size()) return equal + (plan.states == state_shapes ? 2 : 1);
    return telling > 0 ? equal : 0;
  }
};

Session::Session(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool)
    : impl_(std::make_unique<Impl>()) {
  impl_->workspace.model = std::move(model);
  impl_->workspace.pool = pool ? std::move(pool) : std::make_shared<ThreadPool>();
  const Graph& graph = impl_->graph();
  for (const State& state : graph.states()) {
    impl_->workspace.caches.emplace_back(fixed_extent(graph, state, 1), fixed_extent(graph, state, 3),
                                         cache_options(graph, state));
  }
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const Model& Session::model() const { return *impl_->workspace.model; }

void Session::set_profile(Profile* profile) { impl_->workspace.profile = profile; }

std::vector<Tensor> Session::run(const TensorMap& inputs) { return run_matched(match_inputs(impl_->graph(), inputs)); }

std::vector<Tensor> Session::run(std::span<const Tensor> inputs) {
  return run_matched(check_inputs(impl_->graph(), inputs));
}

std::vector<Tensor> Session::run_matched(const std::vector<Tensor>& given) {
  Workspace& workspace = impl_->workspace;
  const Model::Impl& compiled = workspace.model->impl();
  std::size_t bytes = 0;
  for (const Tensor& tensor : given) bytes += is_object(tensor.dtype()) ? 0 : tensor.byte_size();
  const MemoryLimit limit(MemoryLimit::account(
      compiled.max_memory != 0 ? compiled.max_memory : default_memory_limit(bytes, compiled.weight_bytes)));
  if (workspace.profile != nullptr) workspace.profile->begin_run(workspace.model);
  struct Rest {  // after an error too: other pools wait for the CPUs
    ThreadPool& pool;
    ~Rest() { pool.rest(); }
  };
  const Rest rest{*workspace.pool};
  std::vector<Tensor> results = impl_->executor_for(given).run(given);
  if (workspace.profile != nullptr) workspace.profile->end_run();
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
  for (CacheState& cache : impl_->workspace.caches) cache.reset(batch);
}

void Session::reorder_states(std::span<const std::int64_t> parents) {
  for (CacheState& cache : impl_->workspace.caches) cache.reorder(parents);
}

void Session::truncate_state(std::string_view name, std::int64_t length) {
  impl_->workspace.caches[state_index(impl_->graph(), name)].truncate(length);
}

void Session::set_state(std::string_view name, const Tensor& value) {
  CacheState& cache = impl_->workspace.caches[state_index(impl_->graph(), name)];
  if (impl_->workspace.budget) impl_->workspace.budget->require(cache.bytes_of(value.shape()));
  cache.assign(value);
}

Tensor Session::state(std::string_view name) const {
  return impl_->workspace.caches[state_index(impl_->graph(), name)].to_tensor();
}

Session Session::fork(std::shared_ptr<ThreadPool> pool) const {
  const Workspace& workspace = impl_->workspace;
  Session other(workspace.model, pool ? std::move(pool) : workspace.pool);
  other.impl_->workspace.caches = workspace.caches;
  other.impl_->workspace.budget = workspace.budget;
  return other;
}

void Session::save_states(const std::filesystem::path& path) const {
  write_caches(path, impl_->workspace.model->impl().identity, impl_->graph().states(), impl_->workspace.caches);
}

void Session::load_states(const std::filesystem::path& path) {
  std::vector<CacheState>& caches = impl_->workspace.caches;
  caches = read_caches(path, impl_->workspace.model->impl().identity, impl_->graph().states(), caches);
}

void Session::set_cache_budget(const std::shared_ptr<CacheBudget>& budget) {
  impl_->workspace.budget = budget;
  for (CacheState& cache : impl_->workspace.caches) cache.set_budget(budget);
}

CacheUsage Session::cache_usage() const {
  CacheUsage sum;
  for (const CacheState& cache : impl_->workspace.caches) sum += cache.usage();
  return sum;
}

}  // namespace weft::runtime
