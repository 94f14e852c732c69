#include "runtime/plan.h"

#include <algorithm>

#include "ops/op_def.h"

namespace weft::runtime {
namespace {

using Place = ValuePlan::Place;
using Knowledge = ValueFacts::Knowledge;

Tensor known_tensor(const ValuePlan& plan, const std::vector<Dim>& elements) {
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

class Planner {
 public:
  Planner(Plan& plan, const Model::Impl& model, ThreadPool& pool)
      : model_(model), graph_(model.graph), pool_(pool), plan_(plan) {}

  void make(std::span<const Extents> inputs, std::span<const Extents> states) {
    plan_.values.resize(model_.values.size());
    plan_.facts.resize(model_.values.size());
    set_constants();
    set_given(inputs, states);
    for (const CompiledNode& compiled : model_.nodes) infer(compiled);
    mark_needed();
    for (const CompiledNode& compiled : model_.nodes) add_step(compiled);
    decide_cache_reads();
    place_values(plan_, model_);
    for (PlanStep& step : plan_.steps) bind(step);
  }

  bool adapt(std::span<const Extents> inputs, std::span<const Extents> states) {
    changed_.assign(plan_.values.size(), false);
    plan_.changed.clear();
    change_given(inputs, states);
    std::size_t next = 0;  // steps are a subsequence of the nodes
    std::vector<PlanStep*> stale;
    for (const CompiledNode& compiled : model_.nodes) {
      PlanStep* step =
          next < plan_.steps.size() && plan_.steps[next].compiled == &compiled ? &plan_.steps[next++] : nullptr;
      if (!concerns(compiled, step)) continue;
      if (compiled.kind == StepKind::kCache) {
        append_shape(compiled);
        continue;
      }
      if (!infer_again(compiled)) return false;
      if (step != nullptr) stale.push_back(step);
    }
    for (const auto& [input, output] : plan_.overwritten) {
      if (plan_.values[input].shape != plan_.values[output].shape) return false;
    }
    grow_places(plan_);
    for (PlanStep* step : stale) bind(*step);
    return true;
  }

 private:
  ValuePlan& value(Slot slot) { return plan_.values[slot]; }
  ValueFacts& facts(Slot slot) { return plan_.facts[slot]; }

  void set_constants() {
    for (Slot slot = 0; slot < model_.values.size(); ++slot) {
      const Value& constant = graph_.value(model_.values[slot]);
      if (constant.kind != ValueKind::kConstant) continue;
      facts(slot) = {constant.type, constant.elements, &*constant.tensor, Knowledge::kContents};
      value(slot) = {Place::kGiven, constant.type.dtype, constant.tensor->shape(), 0, *constant.tensor};
    }
  }

  void give(Slot slot, const Extents& shape, Place place) {
    const DType dtype = graph_.value(model_.values[slot]).type.dtype;
    facts(slot) = {{dtype, to_shape(shape)}, std::nullopt, nullptr, Knowledge::kShape};
    value(slot) = {place, dtype, shape, 0, {}};
  }

  void set_given(std::span<const Extents> inputs, std::span<const Extents> states) {
    for (std::size_t i = 0; i < inputs.size(); ++i) give(model_.inputs[i], inputs[i], Place::kGiven);
    for (std::size_t i = 0; i < states.size(); ++i) give(model_.state_currents[i], states[i], Place::kCache);
    plan_.inputs.assign(inputs.begin(), inputs.end());
    plan_.states.assign(states.begin(), states.end());
  }

  // --- Inference -----------------------------------------------------------------------------------

  std::vector<InferContext::Result> results_of(const CompiledNode& compiled) {
    const Node& node = model_.node(compiled);
    inputs_.clear();
    for (const Slot slot : compiled.inputs) {
      if (slot == kNoSlot) {
        inputs_.push_back({});
        continue;
      }
      const ValueFacts& known = facts(slot);
      inputs_.push_back({&known.type, known.elements ? &*known.elements : nullptr, known.tensor});
    }
    return with_frame([&] { return "in " + describe(node); },
                      [&] {
                        const OpDef& def = get_op(node.op);
                        InferContext context(def, node.attributes, inputs_, node.outputs.size(),
                                             [&] { return Dim::symbol("?" + std::to_string(plan_.unknowns++)); });
                        if (node.subgraphs.empty()) {
                          try {
                            def.infer(context);
                          } catch (const UnknownRank&) {
                          }
                        }
                        const std::span<InferContext::Result> results = context.results();
                        return std::vector<InferContext::Result>(std::make_move_iterator(results.begin()),
                                                                 std::make_move_iterator(results.end()));
                      });
  }

  void infer(const CompiledNode& compiled) {
    std::vector<InferContext::Result> results = results_of(compiled);
    for (std::size_t i = 0; i < compiled.outputs.size(); ++i) {
      const Slot slot = compiled.outputs[i];
      if (slot == kNoSlot) continue;
      record(slot, std::move(results[i]), model_.node(compiled));
      const Knowledge knowledge = facts(slot).knowledge;
      value(slot).place = knowledge == Knowledge::kNothing    ? Place::kDynamic
                          : knowledge == Knowledge::kContents ? Place::kGiven
                                                              : Place::kArena;
    }
  }

  // Everything but the place.
  void record(Slot slot, InferContext::Result result, const Node& node) {
    ValueFacts& known = facts(slot);
    ValuePlan& plan = value(slot);
    known.type = std::move(result.type);
    if (!node.subgraphs.empty()) known.type = {graph_.value(model_.values[slot]).type.dtype, std::nullopt};
    known.elements = std::move(result.elements);
    known.tensor = nullptr;
    known.knowledge = Knowledge::kNothing;
    plan.dtype = known.type.dtype;
    if (!known.type.shape || !is_static(*known.type.shape) || is_container(plan.dtype)) return;
    known.knowledge = Knowledge::kShape;
    plan.shape = with_frame([&] { return "in " + describe(node); }, [&] { return *evaluate(*known.type.shape, {}); });
    if (!known.elements || static_cast<std::int64_t>(known.elements->size()) != element_count(plan.shape)) {
      known.elements.reset();
      return;
    }
    if (!std::all_of(known.elements->begin(), known.elements->end(),
                     [](const Dim& dim) { return dim.is_constant(); })) {
      return;
    }
    known.knowledge = Knowledge::kContents;
    plan.known = known_tensor(plan, *known.elements);
    known.tensor = &plan.known;
  }

  // --- Adapting ------------------------------------------------------------------------------------

  void change_shape(Slot slot, const Extents& shape) {
    facts(slot).type.shape = to_shape(shape);
    value(slot).shape = shape;
    changed_[slot] = true;
  }

  void change_given(std::span<const Extents> inputs, std::span<const Extents> states) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i] == plan_.inputs[i]) continue;
      change_shape(model_.inputs[i], inputs[i]);
      plan_.inputs[i] = inputs[i];
    }
    for (std::size_t i = 0; i < states.size(); ++i) {
      if (states[i] == plan_.states[i]) continue;
      change_shape(model_.state_currents[i], states[i]);
      plan_.states[i] = states[i];
    }
  }

  // Does something that this node knows at binding differ?
  bool concerns(const CompiledNode& compiled, const PlanStep* step) const {
    for (std::size_t i = 0; i < compiled.inputs.size(); ++i) {
      const Slot slot = compiled.inputs[i];
      if (slot != kNoSlot && changed_[slot] && !(step != nullptr && !step->in_place.empty() && step->in_place[i]))
        return true;
    }
    return false;
  }

  void append_shape(const CompiledNode& compiled) {
    Extents shape = value(compiled.inputs[0]).shape;
    shape[2] += value(compiled.inputs[1]).shape[2];
    change_shape(compiled.outputs[0], shape);
  }

  // False when more or less is known than before.
  bool infer_again(const CompiledNode& compiled) {
    std::vector<InferContext::Result> results = results_of(compiled);
    for (std::size_t i = 0; i < compiled.outputs.size(); ++i) {
      const Slot slot = compiled.outputs[i];
      if (slot == kNoSlot) continue;
      ValueFacts& known = facts(slot);
      if (known.knowledge != Knowledge::kNothing && results[i].type == known.type &&
          results[i].elements == known.elements)
        continue;
      const Knowledge before = known.knowledge;
      record(slot, std::move(results[i]), model_.node(compiled));
      if (known.knowledge != before) return false;
      changed_[slot] = true;
      plan_.changed.push_back(slot);
    }
    return true;
  }

  // --- Steps ---------------------------------------------------------------------------------------

  // Values known since binding need no step, nor does what only they would have read.
  void mark_needed() {
    needed_.assign(plan_.values.size(), false);
    for (const Slot slot : model_.outputs) needed_[slot] = true;
    for (const Slot slot : model_.state_nexts) needed_[slot] = true;
    for (auto node = model_.nodes.rbegin(); node != model_.nodes.rend(); ++node) {
      if (!computes(*node)) continue;
      for (const Slot slot : node->inputs) {
        if (slot != kNoSlot) needed_[slot] = true;
      }
    }
  }

  bool computes(const CompiledNode& compiled) const {
    return std::any_of(compiled.outputs.begin(), compiled.outputs.end(), [&](Slot slot) {
      return slot != kNoSlot && needed_[slot] && plan_.values[slot].place != Place::kGiven;
    });
  }

  void add_step(const CompiledNode& compiled) {
    if (!computes(compiled)) return;
    const auto dynamic = [&](Slot slot) { return slot != kNoSlot && value(slot).place == Place::kDynamic; };
    PlanStep step;
    step.compiled = &compiled;
    if (compiled.kind == StepKind::kCache) {
      value(compiled.outputs[0]).place = Place::kCache;
    } else if (std::any_of(compiled.outputs.begin(), compiled.outputs.end(), dynamic) ||
               std::any_of(compiled.inputs.begin(), compiled.inputs.end(), dynamic)) {
      step.dynamic = true;
      for (const Slot slot : compiled.outputs) {
        if (slot != kNoSlot) value(slot).place = Place::kDynamic;
      }
    }
    plan_.steps.push_back(std::move(step));
  }

  // Which inputs are read from caches where they are, and which caches somebody wants as tensors.
  void decide_cache_reads() {
    std::vector<bool> read(plan_.values.size(), false);   // as a tensor
    std::vector<bool> grown(plan_.values.size(), false);  // the state has been appended to since
    for (const Slot slot : model_.outputs) read[slot] = true;
    for (PlanStep& step : plan_.steps) {
      const CompiledNode& compiled = *step.compiled;
      step.in_place.assign(compiled.inputs.size(), false);
      for (std::size_t i = 0; i < compiled.inputs.size(); ++i) {
        const Slot slot = compiled.inputs[i];
        if (slot == kNoSlot || value(slot).place != Place::kCache) continue;
        const bool appends = compiled.kind == StepKind::kCache && i == 0;
        step.in_place[i] =
            !appends && !step.dynamic && !grown[slot] && compiled.kernel != nullptr && compiled.kernel->reads_cache(i);
        if (!appends && !step.in_place[i]) read[slot] = true;
      }
      if (compiled.kind == StepKind::kCache) grown[compiled.inputs[0]] = true;
    }
    for (std::size_t i = 0; i < model_.state_currents.size(); ++i) {
      // A state that passes through unchanged stays where it is.
      plan_.read_current.push_back(read[model_.state_currents[i]]);
    }
    for (PlanStep& step : plan_.steps) {
      if (step.compiled->kind == StepKind::kCache) step.materialize_cache = read[step.compiled->outputs[0]];
    }
  }

  void bind(PlanStep& step) {
    if (step.dynamic || step.compiled->kind != StepKind::kKernel) return;
    const Node& node = model_.node(*step.compiled);
    std::vector<Extents> inputs, outputs;
    for (const Slot slot : step.compiled->inputs) inputs.push_back(slot != kNoSlot ? value(slot).shape : Extents{});
    for (const Slot slot : step.compiled->outputs) outputs.push_back(slot != kNoSlot ? value(slot).shape : Extents{});
    with_frame([&] { return "in " + describe(node); },
               [&] {
                 // Kernels prepare for what their outputs would be, before those have memory.
                 for (const Slot slot : step.compiled->outputs) {
                   if (slot != kNoSlot && value(slot).place != Place::kCache)
                     check_size(value(slot).dtype, value(slot).shape);
                 }
                 step.kernel = step.compiled->kernel->bind({&node, inputs, outputs, &pool_});
               });
  }

  const Model::Impl& model_;
  const Graph& graph_;
  ThreadPool& pool_;
  Plan& plan_;
  std::vector<InferContext::Input> inputs_;
  std::vector<bool> needed_, changed_;
};

}  // namespace

std::unique_ptr<Plan> make_plan(const Model::Impl& model, std::span<const Extents> inputs,
                                std::span<const Extents> states, ThreadPool& pool) {
  auto plan = std::make_unique<Plan>();
  Planner(*plan, model, pool).make(inputs, states);
  return plan;
}

bool adapt_plan(Plan& plan, const Model::Impl& model, std::span<const Extents> inputs, std::span<const Extents> states,
                ThreadPool& pool) {
  return Planner(plan, model, pool).adapt(inputs, states);
}

}  // namespace weft::runtime
