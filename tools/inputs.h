// Inputs of a run from files or random numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "runtime/bind_inputs.h"
#include "tools/commands.h"

namespace weft::tools {

// "B=2,S=16" -> bindings. Error kInvalidArgument.
Bindings parse_bindings(const std::string& text);

// A tensor for every input of the graph, the same for the same seed: floats in [-1, 1), integers in
// [0, 10)
// (less where they index a shorter table) or, for inputs named like masks, ones, bools true. Error kInvalidArgument
// naming symbols without value.
runtime::TensorMap random_inputs(const Graph& graph, const Bindings& bindings, std::uint64_t seed);

// What these options give for the graph: random inputs, overruled by those of files. Error kInvalidArgument, kIo.
runtime::TensorMap gather_inputs(const InputOptions& options, const Graph& graph);

// "min -1.2, max 3.4, mean 0.1", or the elements when they are few.
std::string summarize(const Tensor& tensor);

}  // namespace weft::tools
