// A model bound to the shapes of one run: what is computed, where it lies, in which order.
#pragma once

#include <memory>
#include <vector>

#include "runtime/compiled.h"
#include "runtime/memory_plan.h"

namespace weft::runtime {

struct ValuePlan {
  enum class Place : std::uint8_t {
    kNone,     // nobody computes it (known at bind time and not needed)
    kGiven,    // an input of the run, a constant, or known since binding
    kArena,    // at `offset` of the session's arena
    kView,     // another value's bytes under another shape
    kOutput,   // a tensor for the caller
    kDynamic,  // its shape comes out of the run
    kCache,    // the contents of a state
  };
  Place place = Place::kNone;
  DType dtype = DType::kF32;
  Extents shape;
  std::size_t offset = 0;
  Tensor known;  // kGiven since binding, and constants
};

// What inference says of a value for the shapes of the plan.
struct ValueFacts {
  enum class Knowledge : std::uint8_t { kNothing, kShape, kContents };
  TensorType type;
  std::optional<std::vector<Dim>> elements;
  const Tensor* tensor = nullptr;
  Knowledge knowledge = Knowledge::kNothing;
};

struct PlanStep {
  const CompiledNode* compiled = nullptr;
  std::unique_ptr<BoundKernel> kernel;  // null: view, cache, or dynamic and not bound yet
  bool dynamic = false;                 // shapes come out of the run
  std::vector<Extents> bound_inputs;    // dynamic: the shapes that `kernel` is bound to
  std::vector<bool> in_place;           // per input: read from the cache where it is
  bool materialize_cache = false;       // kCache: somebody reads it as a tensor
};

struct Plan {
  std::vector<Extents> inputs, states;  // shapes it is made for
  std::vector<ValuePlan> values;        // by slot
  std::vector<ValueFacts> facts;        // by slot
  std::vector<PlanStep> steps;
  std::vector<bool> read_current;  // per state: somebody reads its value before the run as a tensor
  // Memory of values in the arena, and which of the requests a value has (kNoRequest: none).
  static constexpr std::uint32_t kNoRequest = ~std::uint32_t{0};
  std::vector<MemoryRequest> requests;
  std::vector<std::uint32_t> request_of;
  std::vector<std::pair<Slot, Slot>> overwritten;  // (input, output) in the same memory
  std::size_t arena_bytes = 0;
  // By the last adapt_plan(): values whose tensors are to be made anew, and whether the arena was laid out anew.
  std::vector<Slot> changed;
  bool laid_out_anew = false;
  std::uint64_t unknowns = 0;  // symbols made so far
};

// inputs: the shape of every graph input, in order; contents of small integer inputs matter to shapes
// only in models that compute shapes from data, whose nodes become dynamic. states: shapes of the
// states' current values. Errors of inference.
std::unique_ptr<Plan> make_plan(const Model::Impl& model, std::span<const Extents> inputs,
                                std::span<const Extents> states, ThreadPool& pool);

// Moves a plan to other shapes: only what depends on the extents that changed is inferred and bound again, and memory
// is laid out anew only when something outgrows its place. Kernels that read a cache where it is see its length when
// they run: a longer cache alone changes nothing. False when the steps would be others: the plan is then of no use.
bool adapt_plan(Plan& plan, const Model::Impl& model, std::span<const Extents> inputs, std::span<const Extents> states,
                ThreadPool& pool);

// Lays the values of a new plan out in the arena by lifetime, in place where kernels allow.
void place_values(Plan& plan, const Model::Impl& model);
// After plan.changed have other shapes: lays out anew, with room to spare, when one outgrows its place.
void grow_places(Plan& plan);

}  // namespace weft::runtime
