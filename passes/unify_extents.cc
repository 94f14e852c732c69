// Extents that every run needs to be equal get one name.
#include <algorithm>
#include <set>

#include "passes/node_util.h"
#include "passes/pipeline.h"

namespace weft {
namespace {

// Symbols that are whole extents of inputs, as other expressions say them.
using Replacements = std::map<std::string, Dim, std::less<>>;

// constants: also as numbers.
void require_equal(const Dim& a, const Dim& b, const std::set<std::string>& open, bool constants,
                   Replacements& replacements) {
  for (const auto& [symbol, other] : {std::pair(a.symbol_name(), b), std::pair(b.symbol_name(), a)}) {
    if (!symbol || !open.contains(*symbol) || other.symbol_name()) continue;
    const auto inside = other.symbols();
    if ((inside.empty() && !constants) || std::ranges::find(inside, *symbol) != inside.end()) continue;
    replacements.try_emplace(*symbol, other);
  }
}

// Parts that are joined have the same extents but along the axis they are joined on, so have a cache and what is
// written into it.
Replacements read_requirements(const Graph& graph, const std::set<std::string>& open) {
  Replacements replacements;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    const bool scatter = node.op == "TensorScatter";
    const std::size_t parts = scatter ? 2 : node.inputs.size();
    const Shape* first = scatter || node.op == "Concat" ? shape_of(graph, node.inputs[0]) : nullptr;
    if (first == nullptr) continue;
    const std::int64_t axis = absolute_axis(graph, node.inputs[0], attributes_of(node).integer("axis"));
    for (std::size_t i = 1; i < parts; ++i) {
      const Shape* other = shape_of(graph, node.inputs[i]);
      if (other == nullptr || other->size() != first->size()) continue;
      for (std::size_t k = 0; k < first->size(); ++k) {
        if (static_cast<std::int64_t>(k) != axis) require_equal((*first)[k], (*other)[k], open, scatter, replacements);
      }
    }
  }
  return replacements;
}

}  // namespace

int unify_extents(Graph& graph) {
  std::set<std::string> open;
  for (const ValueId id : graph.inputs()) {
    const Shape* shape = shape_of(graph, id);
    for (std::size_t i = 0; shape != nullptr && i < shape->size(); ++i) {
      if (const auto symbol = (*shape)[i].symbol_name()) open.insert(*symbol);
    }
  }
  const Replacements replacements = read_requirements(graph, open);
  // One after the other would need an order: what replaces is not replaced itself.
  const bool chained = std::ranges::any_of(replacements, [&](const auto& entry) {
    return std::ranges::any_of(entry.second.symbols(), [&](const auto& s) { return replacements.contains(s); });
  });
  if (replacements.empty() || chained) return 0;
  replace_symbols(graph, replacements);
  return static_cast<int>(replacements.size());
}

}  // namespace weft
