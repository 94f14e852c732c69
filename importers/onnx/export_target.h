// How an exported model spells weft's operators.
#pragma once

#include <string_view>

#include "graph/graph.h"
#include "importers/onnx/onnx.h"

namespace weft::onnx {

// Operators of the file that weft has not, or has in another form, stand in the graph as "<domain>::<operator>": the
// exporter writes them as they are. Attributes named "weft.*" become metadata of the node.
constexpr std::string_view kDomainMark = "::";
constexpr std::string_view kStandardAttention = "::Attention";

// Rewrites a graph that is about to be exported, subgraphs included, into what the target spells directly.
void spell_standard(Graph& graph);
void spell_microsoft(Graph& graph);

// The first operator set that has the operator as weft has it; 0: none has, it is written as a function.
std::int64_t standard_since(std::string_view op);

// The body of the function that a node becomes: its definition, or where the target has an operator that computes
// the same from other inputs, that.
Graph function_body(const Node& node, const std::vector<TensorType>& types, ExportTarget target, const Graph& graph);

// The extents of an axis of two inputs are the same half of `value` twice over, as cosines and sines of both halves
// are.
bool has_equal_halves(const Graph& graph, ValueId value);

}  // namespace weft::onnx
