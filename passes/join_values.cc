// Weights that several values share.
#include <algorithm>
#include <set>

#include "ops/builder.h"
#include "passes/attention_joins.h"
#include "passes/node_util.h"
#include "passes/rule.h"

namespace weft {
namespace {

// The products softmax(...) v that read these weights, if nothing else does.
std::vector<NodeId> products_of(const Graph& graph, ValueId weights) {
  std::vector<NodeId> products;
  if (graph.is_output(weights)) return {};
  for (const Use& use : graph.value(weights).uses) {
    const Node& node = graph.node(use.node);
    const Shape* shape = node.op == "MatMul" && use.input == 0 ? shape_of(graph, node.inputs[1]) : nullptr;
    if (shape == nullptr || shape->size() < 3 || !shape->back().is_constant()) return {};
    const Shape& first = products.empty() ? *shape : *shape_of(graph, graph.node(products[0]).inputs[1]);
    if (!std::equal(shape->begin(), shape->end() - 1, first.begin(), first.end() - 1)) return {};
    if (graph.value(node.inputs[1]).type.dtype != graph.value(weights).type.dtype) return {};
    products.push_back(use.node);
  }
  return products;
}

// The nodes that make these values and do not come before a node, in order.
std::vector<NodeId> nodes_after(const Graph& graph, const std::vector<ValueId>& values, NodeId place) {
  std::vector<ValueId> pending = values;
  std::set<NodeId> found;
  while (!pending.empty()) {
    const Value& value = graph.value(pending.back());
    pending.pop_back();
    if (value.kind != ValueKind::kResult || graph.precedes(value.producer, place)) continue;
    if (!found.insert(value.producer).second) continue;
    for (const ValueId input : graph.node(value.producer).inputs) {
      if (input.valid()) pending.push_back(input);
    }
  }
  std::vector<NodeId> nodes(found.begin(), found.end());
  std::sort(nodes.begin(), nodes.end(), [&](NodeId a, NodeId b) { return graph.precedes(a, b); });
  return nodes;
}

}  // namespace

int join_values(Graph& graph, PassContext& context) {
  constexpr std::string_view kName = "join-values-of-one-attention";
  RuleReport& report = context.report_of(kName);
  int joined = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "Softmax") continue;
    ValueId weights = graph.node(id).outputs[0];
    std::vector<NodeId> products = products_of(graph, weights);
    if (products.empty()) {  // perhaps behind a guard against NaN
      for (const Use& use : graph.value(weights).uses) {
        const Node& guard = graph.node(use.node);
        if (guard.op == "Where") products = products_of(graph, weights = guard.outputs[0]);
      }
    }
    if (products.size() < 2) continue;
    std::sort(products.begin(), products.end(), [&](NodeId a, NodeId b) { return graph.precedes(a, b); });
    std::vector<ValueId> values;
    std::vector<std::int64_t> widths;
    Origin origin;
    for (const NodeId product : products) {
      values.push_back(graph.node(product).inputs[1]);
      widths.push_back(shape_of(graph, values.back())->back().value());
      origin.merge(graph.node(product).origin);
    }
    const std::vector<NodeId> moved = nodes_after(graph, values, products.front());
    const bool depends = std::any_of(moved.begin(), moved.end(), [&](NodeId node) {
      return std::find(products.begin(), products.end(), node) != products.end();
    });
    if (depends) {
      record_near_miss(report, graph, id, 2, "one value is made of what another gave");
      continue;
    }
    for (const NodeId node : moved) graph.move_before(node, products.front());
    Builder b(graph, products.front(), origin);
    const Expr whole = b.matmul(b.wrap(weights), b.wrap(b.concat(values, -1).id()));
    const std::vector<ValueId> inputs = {whole.id(), b.ints(widths).id()};
    const std::vector<Expr> parts = b.make_many("Split", inputs, products.size(), {{"axis", std::int64_t{-1}}});
    for (std::size_t i = 0; i < products.size(); ++i) {
      replace_value(graph, graph.node(products[i]).outputs[0], parts[i], kName);
    }
    ++joined;
    context.rewritten(graph, kName);
  }
  report.applied += joined;
  return joined;
}

}  // namespace weft
