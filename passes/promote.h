// A graph in double precision: what a program means, without its rounding.
#pragma once

#include <span>
#include <vector>

#include "graph/graph.h"

namespace weft {

// The same computations with every f16, bf16 and f32 as f64, subgraphs included; inputs and outputs too. For
// evaluate_graph(): operators that are defined on f32 alone (quantization) then fail with an Error.
Graph in_double_precision(const Graph& graph);

// Narrower floats as f64; anything else as it is.
Tensor in_double_precision(const Tensor& tensor);

// The contents of every value of a graph (not of its subgraphs), from reference kernels. inputs: as for
// evaluate_graph().
std::map<ValueId, Tensor> evaluate_all_values(const Graph& graph, std::span<const Tensor> inputs);

}  // namespace weft
