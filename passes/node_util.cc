#include "passes/node_util.h"

#include <algorithm>

namespace weft {

std::optional<std::vector<std::int64_t>> known_integers(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.elements) {
    std::vector<std::int64_t> result;
    for (const Dim& dim : *value.elements) {
      if (!dim.is_constant()) return std::nullopt;
      result.push_back(dim.value());
    }
    return result;
  }
  const bool integers = is_integer(value.type.dtype) || value.type.dtype == DType::kBool;
  if (value.kind != ValueKind::kConstant || !integers) return std::nullopt;
  return value.tensor->aligned().to_ints();
}

std::optional<double> known_number(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kConstant || value.tensor->size() != 1 || value.type.dtype == DType::kString) {
    return std::nullopt;
  }
  return value.tensor->aligned().item();
}

const Node* producer(const Graph& graph, ValueId id, std::string_view op) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kResult || value.output_index != 0) return nullptr;
  const Node& node = graph.node(value.producer);
  return node.op == op ? &node : nullptr;
}

const std::vector<std::int64_t>* permutation_of(const Node& transpose) {
  const auto found = transpose.attributes.find("perm");
  return found == transpose.attributes.end() ? nullptr : &std::get<std::vector<std::int64_t>>(found->second);
}

bool is_permutation(const Node* node, std::initializer_list<std::int64_t> perm) {
  if (node == nullptr || node->op != "Transpose") return false;
  const auto* actual = permutation_of(*node);
  return actual != nullptr && std::equal(actual->begin(), actual->end(), perm.begin(), perm.end());
}

const Shape* shape_of(const Graph& graph, ValueId id) {
  const auto& shape = graph.value(id).type.shape;
  return shape ? &*shape : nullptr;
}

std::int64_t rank_of(const Graph& graph, ValueId id) {
  const Shape* shape = shape_of(graph, id);
  return shape == nullptr ? -1 : static_cast<std::int64_t>(shape->size());
}

int erase_dead(Graph& graph) {
  int erased = 0;
  std::vector<NodeId> nodes = graph.nodes();
  for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) {
    const Node& node = graph.node(*it);
    const bool used = std::any_of(node.outputs.begin(), node.outputs.end(),
                                  [&](ValueId id) { return id.valid() && graph.use_count(id) > 0; });
    if (used) continue;
    graph.erase_node(*it);
    ++erased;
  }
  for (const ValueId id : graph.values()) {
    if (is_constant(graph, id) && graph.use_count(id) == 0) graph.erase_value(id);
  }
  return erased;
}

std::string report_name(const Node& node) { return node.origin.nodes.empty() ? node.op : node.origin.nodes.front(); }

}  // namespace weft
