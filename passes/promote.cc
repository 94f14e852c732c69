#include "passes/promote.h"

#include "ops/cast.h"
#include "ops/op_def.h"

namespace weft {
namespace {

bool is_narrower(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

DType promoted(DType dtype) { return is_narrower(dtype) ? DType::kF64 : dtype; }

void promote_attributes(Node& node) {
  for (const AttributeDef& definition : get_op(node.op).attributes) {
    const std::string name(definition.name);
    // A type that is meant where none is given.
    if (definition.kind == AttributeKind::kType && definition.fallback && !node.attributes.contains(name))
      node.attributes[name] = *definition.fallback;
  }
  for (auto& [name, attribute] : node.attributes) {
    if (auto* dtype = std::get_if<DType>(&attribute)) *dtype = promoted(*dtype);
    if (auto* tensor = std::get_if<Tensor>(&attribute)) *tensor = in_double_precision(*tensor);
  }
}

void promote(Graph& graph) {
  for (const ValueId id : graph.values()) {
    Value& value = graph.value(id);
    value.type.dtype = promoted(value.type.dtype);
    value.type.element = promoted(value.type.element);
    if (value.tensor) value.tensor = in_double_precision(*value.tensor);
  }
  for (const NodeId id : graph.nodes()) {
    Node& node = graph.node(id);
    promote_attributes(node);
    for (Subgraph& subgraph : node.subgraphs) promote(*subgraph.graph);
  }
}

}  // namespace

Graph in_double_precision(const Graph& graph) {
  Graph copy = graph.clone();
  promote(copy);
  return copy;
}

Tensor in_double_precision(const Tensor& tensor) {
  return is_narrower(tensor.dtype()) ? cast(tensor.aligned(), DType::kF64) : tensor;
}

std::map<ValueId, Tensor> evaluate_all_values(const Graph& graph, std::span<const Tensor> inputs) {
  std::map<ValueId, Tensor> values;
  std::size_t next = 0;
  for (const ValueId id : graph.inputs()) values[id] = inputs[next++];
  for (const State& state : graph.states()) values[state.current] = inputs[next++];
  for (const ValueId id : graph.values()) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kConstant) values[id] = value.tensor->aligned();
  }
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    std::vector<const Tensor*> arguments;
    for (const ValueId input : node.inputs) arguments.push_back(input.valid() ? &values.at(input) : nullptr);
    const std::vector<Tensor> results = evaluate_node(node, arguments);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (node.outputs[i].valid()) values[node.outputs[i]] = results[i].aligned();
    }
  }
  return values;
}

}  // namespace weft
