// Small questions that several passes ask about nodes and values.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "ops/op_def.h"

namespace weft {

inline AttributeReader attributes_of(const Node& node) { return AttributeReader(get_op(node.op), node.attributes); }

// Contents of an integer or bool value when every element is a known number: of a constant or, for
// small tensors, of anything that inference could follow.
std::optional<std::vector<std::int64_t>> known_integers(const Graph& graph, ValueId id);
// The number a constant holds whose extents are all 1; nullopt for anything else.
std::optional<double> known_number(const Graph& graph, ValueId id);
inline bool is_constant(const Graph& graph, ValueId id) { return graph.value(id).kind == ValueKind::kConstant; }

// The node that makes a value (as its first output) if it is one of `op`, else null. Valid until
// nodes are added.
const Node* producer(const Graph& graph, ValueId id, std::string_view op);
// The value behind Reshape, Squeeze and Unsqueeze, which keep the order of its elements.
ValueId without_views(const Graph& graph, ValueId id);
// Transpose's permutation, null when the attribute is absent (axes reversed).
const std::vector<std::int64_t>* permutation_of(const Node& transpose);
bool is_permutation(const Node* node, std::initializer_list<std::int64_t> perm);

// Null when the rank is unknown. Valid until nodes are added.
const Shape* shape_of(const Graph& graph, ValueId id);
std::int64_t rank_of(const Graph& graph, ValueId id);  // -1: unknown
// The axis counted from the front; -1 when the rank is unknown or there is no such axis.
std::int64_t absolute_axis(const Graph& graph, ValueId id, std::int64_t axis);
// The same dtype and, rank known, the same dims.
bool same_type(const Graph& graph, ValueId a, ValueId b);
// A tensor of shape `from` broadcasts to `result` without changing it, whatever the symbols are.
bool broadcasts_to(const Shape& from, const Shape& result);

// Symbols become other expressions wherever types of the graph (not of its subgraphs) name them, inputs and states too.
void replace_symbols(Graph& graph, const std::map<std::string, Dim, std::less<>>& replacements);

// Erases the node if nothing reads its results, then producers and constants without other readers.
int erase_if_dead(Graph& graph, NodeId node);
// Erases all nodes whose results nobody reads and constants without uses.
int erase_dead(Graph& graph);

// Name of the imported node for reports ("/h.0/attn/MatMul"), else its operator.
std::string report_name(const Node& node);
// The inputs of a node of which it reads the rows that another of its inputs names: of Gather along axis 0, of the
// norms of embeddings.
struct Lookup {
  std::size_t table, indices;
};
std::vector<Lookup> lookups_of(const Node& node);

// One line: "Softmax(%scores: f32[B, 4, S, T]) {axis = 1} -> %y: f32[B, 4, S, T]".
std::string node_text(const Graph& graph, NodeId id);

}  // namespace weft
