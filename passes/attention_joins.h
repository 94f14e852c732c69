// Attention that is written as several, and becomes one before it is fused.
#pragma once

#include "passes/pass_context.h"

namespace weft {

// softmax(...) v1, softmax(...) v2, ... of the same weights are softmax(...) [v1, v2, ...], split. Returns how many
// weights were shared.
int join_values(Graph& graph, PassContext& context);

}  // namespace weft
