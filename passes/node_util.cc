#include "passes/node_util.h"

#include <fmt/ranges.h>

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
  if (value.kind != ValueKind::kConstant || value.tensor->size() != 1 || is_object(value.type.dtype)) {
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

ValueId without_views(const Graph& graph, ValueId id) {
  for (;;) {
    const Value& value = graph.value(id);
    if (value.kind != ValueKind::kResult) return id;
    const Node& node = graph.node(value.producer);
    if (node.op != "Reshape" && node.op != "Squeeze" && node.op != "Unsqueeze") return id;
    id = node.inputs[0];
  }
}

const std::vector<std::int64_t>* permutation_of(const Node& transpose) {
  const auto found = transpose.attributes.find("perm");
  if (found == transpose.attributes.end()) return nullptr;
  return &std::get<std::vector<std::int64_t>>(found->second);
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

std::int64_t absolute_axis(const Graph& graph, ValueId id, std::int64_t axis) {
  const std::int64_t rank = rank_of(graph, id);
  if (rank < 0 || axis < -rank || axis >= rank) return -1;
  return axis < 0 ? axis + rank : axis;
}

bool same_type(const Graph& graph, ValueId a, ValueId b) {
  return graph.value(a).type.shape && graph.value(a).type == graph.value(b).type;
}

bool broadcasts_to(const Shape& from, const Shape& result) {
  if (from.size() > result.size()) return false;
  const std::size_t skip = result.size() - from.size();
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (!from[i].is(1) && !(from[i] == result[skip + i])) return false;
  }
  return true;
}

void replace_symbols(Graph& graph, const std::map<std::string, Dim, std::less<>>& replacements) {
  for (const ValueId id : graph.values()) {
    Value& value = graph.value(id);
    for (std::size_t i = 0; value.type.shape && i < value.type.shape->size(); ++i)
      (*value.type.shape)[i] = (*value.type.shape)[i].substitute(replacements);
    if (value.kind == ValueKind::kResult) value.elements.reset();
  }
  infer_graph(graph);
}

std::vector<Lookup> lookups_of(const Node& node) {
  if (node.op == "Gather" && attributes_of(node).integer("axis") == 0) return {{0, 1}};
  std::vector<Lookup> lookups;
  if (node.op != "EmbedLayerNormalization" && node.op != "EmbedRMSNormalization") return lookups;
  for (std::size_t i = node.op == "EmbedLayerNormalization" ? 2 : 1; i + 1 < node.inputs.size(); i += 2)
    lookups.push_back({i, i + 1});
  return lookups;
}

int erase_if_dead(Graph& graph, NodeId first) {
  int erased = 0;
  std::vector<NodeId> pending = {first};
  while (!pending.empty()) {
    const NodeId id = pending.back();
    pending.pop_back();
    if (!graph.contains(id)) continue;
    const Node& node = graph.node(id);
    const bool used = std::any_of(node.outputs.begin(), node.outputs.end(),
                                  [&](ValueId output) { return output.valid() && graph.use_count(output) > 0; });
    if (used) continue;
    const std::vector<ValueId> inputs = node.inputs;
    graph.erase_node(id);
    ++erased;
    for (const ValueId input : inputs) {
      if (!input.valid() || !graph.contains(input) || graph.use_count(input) > 0) continue;
      const Value& value = graph.value(input);
      if (value.kind == ValueKind::kResult) pending.push_back(value.producer);
      if (value.kind == ValueKind::kConstant) graph.erase_value(input);
    }
  }
  return erased;
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

namespace {

std::string value_text(const Graph& graph, ValueId id) {
  if (!id.valid()) return "_";
  const Value& value = graph.value(id);
  if (const auto number = known_number(graph, id)) return fmt::format("{:.6g}", *number);
  return fmt::format("%{}: {}", value.name, to_string(value.type));
}

// Empty for tensors and strings of any length.
std::string attribute_text(const Attribute& attribute) {
  if (const auto* i = std::get_if<std::int64_t>(&attribute)) return std::to_string(*i);
  if (const auto* d = std::get_if<double>(&attribute)) return fmt::format("{:.6g}", *d);
  if (const auto* s = std::get_if<std::string>(&attribute)) return *s;
  if (const auto* is = std::get_if<std::vector<std::int64_t>>(&attribute))
    return fmt::format("[{}]", fmt::join(*is, ", "));
  if (const auto* type = std::get_if<DType>(&attribute)) return std::string(to_string(*type));
  return "...";
}

}  // namespace

std::string node_text(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const auto list = [&](const std::vector<ValueId>& ids) {
    std::vector<std::string> parts;
    for (const ValueId value : ids) parts.push_back(value_text(graph, value));
    return fmt::format("{}", fmt::join(parts, ", "));
  };
  std::vector<std::string> attributes;
  for (const auto& [name, value] : node.attributes)
    attributes.push_back(fmt::format("{} = {}", name, attribute_text(value)));
  const std::string given = attributes.empty() ? "" : fmt::format(" {{{}}}", fmt::join(attributes, ", "));
  return fmt::format("{}({}){} -> {}", node.op, list(node.inputs), given, list(node.outputs));
}

std::string report_name(const Node& node) { return node.origin.nodes.empty() ? node.op : node.origin.nodes.front(); }

}  // namespace weft
