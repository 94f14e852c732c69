#include "runtime/generate/positions.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "passes/node_util.h"

namespace weft::runtime {
namespace {

bool is_positions(std::string_view name) {
  return name == "position_ids" || name == "decoder_position_ids" || name == "cache_position";
}

std::optional<std::int64_t> scalar(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kConstant || !value.tensor || !is_integer(value.type.dtype) || value.tensor->size() != 1)
    return std::nullopt;
  return value.tensor->aligned().to_ints().front();
}

// What is added to positions to become this value; nullopt when it is something else.
std::optional<std::int64_t> offset_from_positions(const Graph& graph, ValueId id) {
  constexpr std::array<std::string_view, 5> kSame = {"Cast", "Squeeze", "Unsqueeze", "Reshape", "Expand"};
  std::int64_t offset = 0;
  for (;;) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kInput) return is_positions(value.name) ? std::optional(offset) : std::nullopt;
    if (value.kind != ValueKind::kResult) return std::nullopt;
    const Node& node = graph.node(value.producer);
    if (std::ranges::find(kSame, node.op) != kSame.end()) {
      id = node.inputs[0];
    } else if (node.op == "Add") {
      const auto left = scalar(graph, node.inputs[0]), right = scalar(graph, node.inputs[1]);
      if (left.has_value() == right.has_value()) return std::nullopt;
      offset += left ? *left : *right;
      id = node.inputs[left ? 1 : 0];
    } else {
      return std::nullopt;
    }
  }
}

}  // namespace

std::optional<std::int64_t> position_limit(const Graph& graph) {
  std::optional<std::int64_t> limit;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    for (const Lookup& lookup : lookups_of(node)) {
      const Shape* table = shape_of(graph, node.inputs[lookup.table]);
      if (!is_constant(graph, node.inputs[lookup.table]) || table->empty()) continue;
      const auto offset = offset_from_positions(graph, node.inputs[lookup.indices]);
      if (!offset) continue;
      const std::int64_t rows = (*table)[0].value() - *offset;
      limit = limit ? std::min(*limit, rows) : rows;
    }
  }
  return limit;
}

}  // namespace weft::runtime
