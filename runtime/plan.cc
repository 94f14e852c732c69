#include "runtime/plan.h"

#include <algorithm>
#include <set>

#include "ops/op_def.h"
#include "runtime/memory_plan.h"

namespace weft::runtime {
namespace {

using Place = ValuePlan::Place;

class Planner {
 public:
  Planner(const Model::Impl& model, ThreadPool& pool)
      : model_(model), graph_(model.graph), pool_(pool), plan_(std::make_unique<Plan>()) {}

  std::unique_ptr<Plan> make(std::span<const Extents> inputs, std::span<const Extents> states) {
    set_given(inputs, states);
    for (const CompiledNode& compiled : model_.nodes) infer(compiled);
    mark_needed();
    for (const CompiledNode& compiled : model_.nodes) add_step(compiled);
    place_values();
    bind();
    return std::move(plan_);
  }

 private:
  // What is known of a value for these shapes.
  struct Facts {
    TensorType type;
    std::optional<std::vector<Dim>> elements;
    const Tensor* tensor = nullptr;
    bool static_shape() const { return type.shape && is_static(*type.shape); }
  };

  void set_given(std::span<const Extents> inputs, std::span<const Extents> states) {
    const auto give = [&](ValueId id, const Extents& shape, Place place) {
      const DType dtype = graph_.value(id).type.dtype;
      facts_[id] = {{dtype, to_shape(shape)}, std::nullopt, nullptr};
      ValuePlan& value = plan_->values[id];
      value.place = place;
      value.dtype = dtype;
      value.shape = shape;
    };
    for (std::size_t i = 0; i < inputs.size(); ++i) give(graph_.inputs()[i], inputs[i], Place::kGiven);
    for (std::size_t i = 0; i < states.size(); ++i) {
      give(graph_.states()[i].current, states[i], Place::kCache);
    }
    for (const ValueId id : graph_.values()) {
      const Value& value = graph_.value(id);
      if (value.kind != ValueKind::kConstant) continue;
      facts_[id] = {value.type, value.elements, &*value.tensor};
      ValuePlan& plan = plan_->values[id];
      plan.place = Place::kGiven;
      plan.dtype = value.type.dtype;
      plan.shape = value.tensor->shape();
      plan.known = *value.tensor;
    }
  }

  void infer(const CompiledNode& compiled) {
    const Node& node = graph_.node(compiled.node);
    std::vector<InferContext::Input> inputs;
    for (const ValueId id : node.inputs) {
      if (!id.valid()) {
        inputs.push_back({});
        continue;
      }
      const Facts& facts = facts_.at(id);
      inputs.push_back({&facts.type, facts.elements ? &*facts.elements : nullptr, facts.tensor});
    }
    with_frame([&] { return "in " + describe(node); },
               [&] {
                 const OpDef& def = get_op(node.op);
                 InferContext context(def, node.attributes, inputs, node.outputs.size(),
                                      [&] { return Dim::symbol("?" + std::to_string(unknowns_++)); });
                 if (node.subgraphs.empty()) {
                   try {
                     def.infer(context);
                   } catch (const UnknownRank&) {
                   }
                 }
                 for (std::size_t i = 0; i < node.outputs.size(); ++i) {
                   if (node.outputs[i].valid()) record(node.outputs[i], context.results()[i], node);
                 }
               });
  }

  void record(ValueId id, InferContext::Result& result, const Node& node) {
    Facts& facts = facts_[id];
    facts.type = std::move(result.type);
    if (!node.subgraphs.empty()) facts.type = {graph_.value(id).type.dtype, std::nullopt};
    facts.elements = std::move(result.elements);
    ValuePlan& plan = plan_->values[id];
    plan.dtype = facts.type.dtype;
    if (!facts.static_shape() || is_container(plan.dtype)) {
      plan.place = Place::kDynamic;
      return;
    }
    plan.shape = *evaluate(*facts.type.shape, {});
    plan.place = Place::kArena;
    if (!facts.elements || static_cast<std::int64_t>(facts.elements->size()) != element_count(plan.shape)) {
      facts.elements.reset();
      return;
    }
    if (!std::all_of(facts.elements->begin(), facts.elements->end(),
                     [](const Dim& dim) { return dim.is_constant(); })) {
      return;
    }
    plan.known = known_tensor(plan, *facts.elements);
    plan.place = Place::kGiven;
    facts.tensor = &plan.known;
  }

  static Tensor known_tensor(const ValuePlan& plan, const std::vector<Dim>& elements) {
    Tensor tensor = Tensor::uninitialized(plan.dtype, plan.shape);
    visit_dtype(plan.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      if constexpr (std::is_integral_v<T>) {
        for (std::size_t i = 0; i < elements.size(); ++i) {
          tensor.mutable_data<T>()[i] = static_cast<T>(elements[i].value());
        }
      }
    });
    return tensor;
  }

  // Values known since binding need no step, nor does what only they would have read.
  void mark_needed() {
    std::vector<ValueId> pending;
    const auto need = [&](ValueId id) {
      if (needed_.insert(id).second) pending.push_back(id);
    };
    for (const Output& output : graph_.outputs()) need(output.value);
    for (const State& state : graph_.states()) need(state.next);
    while (!pending.empty()) {
      const ValueId id = pending.back();
      pending.pop_back();
      const Value& value = graph_.value(id);
      if (value.kind != ValueKind::kResult || plan_->values.at(id).place == Place::kGiven) continue;
      for (const ValueId input : graph_.node(value.producer).inputs) {
        if (input.valid()) need(input);
      }
    }
  }

  void add_step(const CompiledNode& compiled) {
    const Node& node = graph_.node(compiled.node);
    bool computed = false;
    bool dynamic = false;
    for (const ValueId id : node.outputs) {
      if (!id.valid()) continue;
      const ValuePlan& value = plan_->values.at(id);
      computed = computed || (needed_.contains(id) && value.place != Place::kGiven);
      dynamic = dynamic || value.place == Place::kDynamic;
    }
    if (!computed) return;
    for (const ValueId id : node.inputs) {
      dynamic = dynamic || (id.valid() && plan_->values.at(id).place == Place::kDynamic);
    }
    PlanStep step;
    step.compiled = &compiled;
    if (compiled.kind == StepKind::kCache) {
      plan_->values[node.outputs[0]].place = Place::kCache;
      step.materialize_cache = read_as_tensor(node.outputs[0]);
    } else if (dynamic) {
      step.dynamic = true;
      for (const ValueId id : node.outputs) {
        if (id.valid()) plan_->values[id].place = Place::kDynamic;
      }
    }
    plan_->steps.push_back(std::move(step));
  }

  bool read_as_tensor(ValueId id) const {
    for (const Output& output : graph_.outputs()) {
      if (output.value == id) return true;
    }
    for (const CompiledNode& compiled : model_.nodes) {
      const Node& node = graph_.node(compiled.node);
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        if (node.inputs[i] != id) continue;
        if (compiled.kernel == nullptr || !compiled.kernel->reads_cache(i)) return true;
      }
    }
    return false;
  }

  void place_values() {
    std::vector<MemoryRequest> requests;
    std::map<ValueId, std::size_t> request_of;
    for (std::size_t i = 0; i < plan_->steps.size(); ++i) {
      const PlanStep& step = plan_->steps[i];
      const Node& node = graph_.node(step.compiled->node);
      for (const ValueId id : node.inputs) {
        const auto found = id.valid() ? request_of.find(id) : request_of.end();
        if (found != request_of.end()) requests[found->second].last = i;
      }
      for (const ValueId id : node.outputs) {
        if (!id.valid() || plan_->values.at(id).place != Place::kArena) continue;
        if (step.compiled->kind == StepKind::kView) {  // lives where its input lives
          plan_->values.at(id).place = Place::kView;
          const auto source = request_of.find(node.inputs[0]);
          if (source != request_of.end()) request_of[id] = source->second;
          continue;
        }
        if (const auto reused = overwritten_input(step, i, request_of, requests, id)) {
          request_of[id] = *reused;
          requests[*reused].last = i;
          continue;
        }
        request_of[id] = requests.size();
        const ValuePlan& value = plan_->values.at(id);
        const std::size_t bytes =
            is_object(value.dtype) ? 0
                                   : static_cast<std::size_t>(element_count(value.shape)) * element_size(value.dtype);
        requests.push_back({bytes, i, i, 0});
      }
    }
    const std::size_t end = plan_->steps.size();
    const auto keep = [&](ValueId id) {
      const auto found = request_of.find(id);
      if (found != request_of.end()) requests[found->second].last = end;
    };
    for (const Output& output : graph_.outputs()) keep(output.value);
    for (const State& state : graph_.states()) keep(state.next);
    // An output has memory of its own: the arena need not hold it, unless something else lives at its place.
    for (const Output& output : graph_.outputs()) {
      const auto found = request_of.find(output.value);
      if (found == request_of.end() || plan_->values.at(output.value).place != Place::kArena) continue;
      const bool alone = std::all_of(request_of.begin(), request_of.end(), [&](const auto& entry) {
        return entry.second != found->second || entry.first == output.value ||
               plan_->values.at(entry.first).place == Place::kView;
      });
      if (alone) requests[found->second].bytes = 0;
    }
    plan_->arena_bytes = plan_memory(requests);
    for (const auto& [id, request] : request_of) plan_->values.at(id).offset = requests[request].offset;
    for (const Output& output : graph_.outputs()) {
      ValuePlan& plan = plan_->values.at(output.value);
      if (plan.place == Place::kArena) plan.place = Place::kOutput;
    }
  }

  // The request of an input that dies at this step and whose memory output `id` may take over.
  std::optional<std::size_t> overwritten_input(const PlanStep& step, std::size_t index,
                                               const std::map<ValueId, std::size_t>& request_of,
                                               const std::vector<MemoryRequest>& requests, ValueId id) const {
    if (step.compiled->kernel == nullptr || step.dynamic) return std::nullopt;
    const Node& node = graph_.node(step.compiled->node);
    const ValuePlan& output = plan_->values.at(id);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!step.compiled->kernel->may_overwrite(i) || !node.inputs[i].valid()) continue;
      const auto found = request_of.find(node.inputs[i]);
      const ValuePlan& input = plan_->values.at(node.inputs[i]);
      if (found == request_of.end() || input.place != Place::kArena || input.dtype != output.dtype ||
          input.shape != output.shape) {
        continue;
      }
      if (requests[found->second].last == index && dies_here(found->second, request_of, index)) {
        return found->second;
      }
    }
    return std::nullopt;
  }

  // No value that lives in this memory is read after step `index`, by a node or by the caller.
  bool dies_here(std::size_t request, const std::map<ValueId, std::size_t>& request_of, std::size_t index) const {
    const NodeId here = plan_->steps[index].compiled->node;
    for (const auto& [id, other] : request_of) {
      if (other != request) continue;
      if (graph_.is_output(id)) return false;
      for (const Use& use : graph_.value(id).uses) {
        if (use.node != here && !graph_.precedes(use.node, here)) return false;
      }
      // The same value twice as input of this node is fine: elementwise kernels read before they write.
    }
    return true;
  }

  void bind() {
    for (PlanStep& step : plan_->steps) {
      if (step.dynamic || step.compiled->kind != StepKind::kKernel) continue;
      const Node& node = graph_.node(step.compiled->node);
      std::vector<Extents> inputs, outputs;
      for (const ValueId id : node.inputs) {
        inputs.push_back(id.valid() ? plan_->values.at(id).shape : Extents{});
      }
      for (const ValueId id : node.outputs) {
        outputs.push_back(id.valid() ? plan_->values.at(id).shape : Extents{});
      }
      with_frame([&] { return "in " + describe(node); },
                 [&] { step.kernel = step.compiled->kernel->bind({&node, inputs, outputs, &pool_}); });
    }
  }

  const Model::Impl& model_;
  const Graph& graph_;
  ThreadPool& pool_;
  std::unique_ptr<Plan> plan_;
  std::map<ValueId, Facts> facts_;
  std::set<ValueId> needed_;
  std::uint64_t unknowns_ = 0;
};

}  // namespace

std::unique_ptr<Plan> make_plan(const Model::Impl& model, std::span<const Extents> inputs,
                                std::span<const Extents> states, ThreadPool& pool) {
  return Planner(model, pool).make(inputs, states);
}

}  // namespace weft::runtime
