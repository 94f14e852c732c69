// Steps that both targets of other runtimes take.
#pragma once

#include <string_view>

#include "ops/builder.h"

namespace weft::onnx {

// Linear as MatMul, Add and an activation of its own.
void spell_linear(Graph& graph, NodeId linear);
bool knows_activation(const Node& linear);
// `by` takes over the uses, type and name of `old`, whose node goes.
void replace_output(Graph& graph, ValueId old, ValueId by);
// Operators of weft's own that other targets have as they are defined.
bool is_spelled_out(std::string_view op);
// Erases what nobody reads.
void sweep(Graph& graph);

}  // namespace weft::onnx
