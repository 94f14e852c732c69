// The inside of a Model: nodes in order with the kernels chosen for them.
#pragma once

#include <memory>
#include <vector>

#include "runtime/kernels/kernel.h"
#include "runtime/model.h"
#include "runtime/packed_file.h"

namespace weft::runtime {

enum class StepKind : std::uint8_t {
  kKernel,  // a kernel writes the outputs
  kView,    // output 0 is input 0 under another shape
  kCache,   // CacheAppend onto a state
};

// Values of a model are numbered without gaps, so that what a run knows of them lies in arrays.
using Slot = std::uint32_t;
inline constexpr Slot kNoSlot = ~Slot{0};

struct CompiledNode {
  NodeId node;
  StepKind kind = StepKind::kKernel;
  std::unique_ptr<Kernel> kernel;     // kKernel
  std::size_t state = 0;              // kCache: index into Graph::states()
  std::vector<Slot> inputs, outputs;  // kNoSlot where absent
};

struct Model::Impl {
  Graph graph;
  PassReport report;
  std::vector<CompiledNode> nodes;
  std::vector<ValueId> values;                    // by slot
  std::vector<Slot> inputs, outputs;              // of the graph
  std::vector<Slot> state_currents, state_nexts;  // of its states
  PackedKey identity;                             // of models with states: its graph, a sample of its constants, weft
  std::size_t max_memory = 0;                     // as asked for
  std::size_t weight_bytes = 0;                   // of all constants, before packing

  Impl() : graph("empty") {}
  const Node& node(const CompiledNode& compiled) const { return graph.node(compiled.node); }
};

// The limit when none was asked for: for this many bytes given and this many of weights.
std::size_t default_memory_limit(std::size_t given, std::size_t weights);

// Index of the state whose current value this is, if any.
std::optional<std::size_t> state_of(const Graph& graph, ValueId value);

}  // namespace weft::runtime
