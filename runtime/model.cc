#include "runtime/model.h"

#include <algorithm>
#include <array>

#include "importers/onnx/onnx.h"
#include "ops/builder.h"
#include "ops/cast.h"
#include "runtime/cache_options.h"
#include "runtime/compiled.h"
#include "runtime/lower.h"
#include "runtime/weights.h"

namespace weft::runtime {
namespace {

constexpr std::array<std::string_view, 5> kViews = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"};

bool is_view(const Node& node) { return std::find(kViews.begin(), kViews.end(), node.op) != kViews.end(); }

// A state grows by one node, the one that makes its next value.
bool appends_to_state(const Graph& graph, const Node& node) {
  if (node.op != "CacheAppend") return false;
  const auto state = state_of(graph, node.inputs[0]);
  return state && graph.states()[*state].next == node.outputs[0];
}

bool is_half(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }

// A node of halves as one of f32 between conversions: it is computed more widely and rounded once, by kernels there
// are.
bool widen_node(Graph& graph, NodeId id, std::map<ValueId, ValueId>& wide_constants) {
  const std::vector<ValueId> inputs = graph.node(id).inputs, outputs = graph.node(id).outputs;
  Builder builder(graph, id, graph.node(id).origin);
  bool changed = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].valid() || !is_half(graph.value(inputs[i]).type.dtype)) continue;
    changed = true;
    ValueId wide;
    if (graph.value(inputs[i]).kind != ValueKind::kConstant) {
      wide = builder.cast(builder.wrap(inputs[i]), DType::kF32).id();
    } else if (const auto known = wide_constants.find(inputs[i]); known != wide_constants.end()) {
      wide = known->second;
    } else {
      wide = builder.constant(cast(graph.value(inputs[i]).tensor->aligned(), DType::kF32)).id();
      wide_constants[inputs[i]] = wide;
    }
    graph.set_input(id, i, wide);
  }
  if (!changed) return false;
  std::vector<DType> before;
  for (const ValueId output : outputs) before.push_back(output.valid() ? graph.value(output).type.dtype : DType::kF32);
  for (const ValueId output : outputs) {
    if (output.valid() && is_half(graph.value(output).type.dtype)) graph.value(output).type.dtype = DType::kF32;
  }
  infer_node(graph, id);
  Builder after(graph, graph.next_node(id), graph.node(id).origin);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].valid() || !is_half(before[i])) continue;
    const Expr narrow = after.cast(after.wrap(outputs[i]), before[i]);
    const NodeId converts = graph.value(narrow.id()).producer;
    graph.replace_uses(outputs[i], narrow.id());
    graph.set_input(converts, 0, outputs[i]);
  }
  return true;
}

// Kernels that read caches where they are convert halves themselves.
void read_half_caches(Graph& graph, std::map<NodeId, std::unique_ptr<Kernel>>& kernels) {
  for (const NodeId id : graph.nodes()) {
    const auto found = kernels.find(id);
    if (found == kernels.end() || !graph.contains(id)) continue;
    for (std::size_t i = 0; i < graph.node(id).inputs.size(); ++i) {
      const ValueId wide = graph.node(id).inputs[i];
      const ValueId cache = wide.valid() && found->second->reads_cache(i) ? half_cache(graph, wide) : ValueId();
      if (!cache.valid()) continue;
      const NodeId converts = graph.value(wide).producer;
      graph.set_input(id, i, cache);
      if (graph.use_count(wide) > 0) continue;
      kernels.erase(converts);
      graph.erase_node(converts);
    }
  }
}

// Chooses a kernel for every node; nodes of which only the definition can run are replaced by it first, nodes of halves
// without a kernel, or with a slow one, by the same in f32.
void choose_kernels(Model::Impl& impl, std::unique_ptr<Kernel> (*make)(const Graph&, const Node&)) {
  Graph& graph = impl.graph;
  std::map<NodeId, std::unique_ptr<Kernel>> kernels;
  std::map<ValueId, ValueId> wide_constants;
  for (bool changed = true; changed;) {
    changed = false;
    for (const NodeId id : graph.nodes()) {
      if (kernels.contains(id)) continue;
      if (appends_to_state(graph, graph.node(id)) || is_view(graph.node(id))) continue;
      std::unique_ptr<Kernel> kernel = make(graph, graph.node(id));
      const bool wider =
          !kernel || (make == make_fast_kernel && kernel->is_reference() && has_kernel_in_f32(graph, graph.node(id)));
      if (wider && graph.node(id).op != "CacheAppend" && widen_node(graph, id, wide_constants)) {
        kernel = make(graph, graph.node(id));
        changed = true;
      }
      if (kernel) {
        kernels[id] = std::move(kernel);
      } else if (expand_node(graph, id)) {
        changed = true;
      } else {
        fail(ErrorCode::kUnsupported, "no kernel for {}", describe(graph.node(id)));
      }
    }
  }
  read_half_caches(graph, kernels);
  for (const NodeId id : graph.nodes()) {
    CompiledNode compiled;
    compiled.node = id;
    const Node& node = graph.node(id);
    if (is_view(node)) {
      compiled.kind = StepKind::kView;
    } else if (const auto found = kernels.find(id); found != kernels.end()) {
      compiled.kernel = std::move(found->second);
    } else {
      compiled.kind = StepKind::kCache;
      compiled.state = *state_of(graph, node.inputs[0]);
    }
    impl.nodes.push_back(std::move(compiled));
  }
}

void number_values(Model::Impl& impl) {
  const Graph& graph = impl.graph;
  std::map<ValueId, Slot> slots;
  for (const ValueId id : graph.values()) {
    slots[id] = static_cast<Slot>(impl.values.size());
    impl.values.push_back(id);
  }
  for (const ValueId id : graph.inputs()) impl.inputs.push_back(slots.at(id));
  for (const Output& output : graph.outputs()) impl.outputs.push_back(slots.at(output.value));
  for (const State& state : graph.states()) {
    impl.state_currents.push_back(slots.at(state.current));
    impl.state_nexts.push_back(slots.at(state.next));
  }
  for (CompiledNode& compiled : impl.nodes) {
    const Node& node = graph.node(compiled.node);
    for (const ValueId id : node.inputs) compiled.inputs.push_back(id.valid() ? slots.at(id) : kNoSlot);
    for (const ValueId id : node.outputs) compiled.outputs.push_back(id.valid() ? slots.at(id) : kNoSlot);
  }
}

}  // namespace

std::optional<std::size_t> state_of(const Graph& graph, ValueId value) {
  for (std::size_t i = 0; i < graph.states().size(); ++i) {
    if (graph.states()[i].current == value) return i;
  }
  return std::nullopt;
}

std::size_t default_memory_limit(std::size_t given, std::size_t weights) {
  constexpr std::size_t kBase = std::size_t{2} << 30;
  return kBase + 64 * given + 4 * weights;
}

namespace {

std::size_t constant_bytes(const Graph& graph) {
  std::size_t total = 0;
  for (const ValueId id : graph.values()) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kConstant && !is_object(value.tensor->dtype())) total += value.tensor->byte_size();
  }
  return total;
}

}  // namespace

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const Graph& Model::graph() const { return impl_->graph; }
const PassReport& Model::report() const { return impl_->report; }

std::shared_ptr<const Model> Model::compile(Graph graph, const CompileOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->graph = std::move(graph);
  impl->max_memory = options.max_memory;
  impl->weight_bytes = constant_bytes(impl->graph);
  const MemoryLimit limit(
      MemoryLimit::account(options.max_memory != 0 ? options.max_memory : default_memory_limit(0, impl->weight_bytes)));
  impl->report = optimize(impl->graph, {.passes = options.passes, .after_rewrite = options.after_rewrite});
  if (options.after_passes) options.after_passes(impl->graph);
  if (!options.states.empty()) lift_cache_states(impl->graph, options.states, options.states_of_any_layout);
  if (options.cache_dtype != DType::kF32) {
    if (options.cache_dtype != DType::kF16 && options.cache_dtype != DType::kBF16)
      fail(ErrorCode::kInvalidArgument, "caches are of f32, f16 or bf16, not {}", to_string(options.cache_dtype));
    narrow_states(impl->graph, options.cache_dtype);
  }
  if (!impl->graph.states().empty()) impl->identity = identity_of(impl->graph);
  keep_last_position(impl->graph, options.last_position_outputs);
  if (options.fast_kernels) {
    lower(impl->graph);
    align_constants(impl->graph, options.weights.get());
    choose_kernels(*impl, make_fast_kernel);
    pack_weights(*impl, options.packed_folder, options.weights.get());
  } else {
    for (const ValueId id : impl->graph.values()) {
      Value& value = impl->graph.value(id);
      if (value.kind == ValueKind::kConstant) value.tensor = value.tensor->aligned();
    }
    choose_kernels(*impl, make_reference_kernel);
  }
  number_values(*impl);
  return std::shared_ptr<const Model>(new Model(std::move(impl)));
}

std::shared_ptr<const Model> Model::load(const std::filesystem::path& path, const CompileOptions& options) {
  return with_frame([&] { return "while loading " + path.string(); },
                    [&] {
                      std::error_code error;
                      const auto size = static_cast<std::size_t>(std::filesystem::file_size(path, error));
                      const std::size_t allowed =
                          options.max_memory != 0 ? options.max_memory : default_memory_limit(error ? 0 : size, 0);
                      const MemoryLimit limit(MemoryLimit::account(allowed));
                      return compile(import_onnx(path), options);
                    });
}

}  // namespace weft::runtime
