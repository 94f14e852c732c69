// A model bound to the shapes of one run: what is computed, where it lies, in which order.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "runtime/compiled.h"

namespace weft::runtime {

struct ValuePlan {
  enum class Place : std::uint8_t {
    kNone,     // nobody computes it (known at bind time and not needed)
    kGiven,    // an input of the run, a constant, or known since binding
    kArena,    // at `offset` of the session's arena
    kView,     // another value's bytes under another shape
    kOutput,   // a fresh tensor for the caller
    kDynamic,  // its shape comes out of the run
    kCache,    // the contents of a state
  };
  Place place = Place::kNone;
  DType dtype = DType::kF32;
  Extents shape;
  std::size_t offset = 0;
  Tensor known;  // kGiven since binding
};

struct PlanStep {
  const CompiledNode* compiled;
  std::unique_ptr<BoundKernel> kernel;  // null: view, cache, or dynamic and not bound yet
  bool dynamic = false;                 // shapes come out of the run
  std::vector<Extents> bound_inputs;    // dynamic: the shapes that `kernel` is bound to
  bool materialize_cache = false;       // kCache: somebody reads it as a tensor
};

struct Plan {
  std::map<ValueId, ValuePlan> values;
  std::vector<PlanStep> steps;
  std::size_t arena_bytes = 0;
};

// inputs: the shape of every graph input, in order; contents of small integer inputs matter to shapes
// only in models that compute shapes from data, whose nodes become dynamic. states: shapes of the
// states' current values. Errors of inference.
std::unique_ptr<Plan> make_plan(const Model::Impl& model, std::span<const Extents> inputs,
                                std::span<const Extents> states, ThreadPool& pool);

}  // namespace weft::runtime
