// Rewrites for the executor alone, after optimization: what the kernels do in one step becomes one node.
#pragma once

#include "graph/graph.h"

namespace weft::runtime {

// A Linear whose features are only split becomes a LinearSplit, which writes the parts where they belong and applies
// the activations that alone read them.
// The norm of a sum with a Linear becomes a Linear with a residual, and a norm: a pass over memory less.
void lower(Graph& graph);

}  // namespace weft::runtime
