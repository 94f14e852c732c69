// Reductions in one spelling: of axes counted from the front, the last as -1, that stay as 1 where they are put back.
#include <algorithm>

#include "ops/builder.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Constant axes of a reduction, from the front and sorted; nullopt if they or the rank are not known, or there are
// none.
std::optional<std::vector<std::int64_t>> folded_axes(const Graph& graph, const Node& node) {
  if (!node.op.starts_with("Reduce") || node.inputs.size() < 2 || !node.inputs[1].valid()) return std::nullopt;
  auto axes = is_constant(graph, node.inputs[1]) ? known_integers(graph, node.inputs[1]) : std::nullopt;
  if (!axes || axes->empty() || rank_of(graph, node.inputs[0]) < 1) return std::nullopt;
  for (std::int64_t& axis : *axes) {
    axis = absolute_axis(graph, node.inputs[0], axis);
    if (axis < 0) return std::nullopt;
  }
  std::sort(axes->begin(), axes->end());
  return axes;
}

int spell_axes(Graph& graph, PassContext& context) {
  int changed = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    auto axes = folded_axes(graph, node);
    if (!axes) continue;
    if (axes->size() == 1 && axes->front() == rank_of(graph, node.inputs[0]) - 1) axes->front() = -1;
    if (*axes == *known_integers(graph, node.inputs[1])) continue;
    graph.set_input(id, 1, graph.add_constant(Tensor::vector<std::int64_t>(*axes), "axes"));
    context.rewritten(graph, "spell-reduced-axes");
    ++changed;
  }
  return changed;
}

// The shape of what is reduced with the folded axes as 1.
std::optional<Shape> kept_shape(const Graph& graph, const Node& reduction) {
  const auto axes = folded_axes(graph, reduction);
  if (!axes || attributes_of(reduction).integer("keepdims") != 0) return std::nullopt;
  Shape shape = *shape_of(graph, reduction.inputs[0]);
  for (const std::int64_t axis : *axes) shape[static_cast<std::size_t>(axis)] = Dim(1);
  return shape;
}

// Axes that a reduction drops and a view puts back stay.
int keep_axes(Graph& graph, PassContext& context) {
  int changed = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id)) continue;
    const Node& view = graph.node(id);
    if (view.op != "Reshape" && view.op != "Unsqueeze") continue;
    const Value& reduced = graph.value(view.inputs[0]);
    if (reduced.kind != ValueKind::kResult || reduced.uses.size() != 1 || graph.is_output(view.inputs[0])) continue;
    const Node& reduction = graph.node(reduced.producer);
    const auto kept = kept_shape(graph, reduction);
    const Shape* result = shape_of(graph, view.outputs[0]);
    if (!kept || result == nullptr || !(*kept == *result)) continue;
    Origin origin = reduction.origin;
    origin.merge(view.origin);
    const std::vector<ValueId> inputs = reduction.inputs;
    Attributes attributes = reduction.attributes;
    attributes["keepdims"] = std::int64_t{1};
    Builder b(graph, id, std::move(origin));
    const std::string op = reduction.op;
    replace_value(graph, view.outputs[0], b.make(op, inputs, std::move(attributes)), "keep-reduced-axes");
    context.rewritten(graph, "keep-reduced-axes");
    ++changed;
  }
  return changed;
}

}  // namespace

int canonicalize_reductions(Graph& graph, PassContext& context) {
  return spell_axes(graph, context) + keep_axes(graph, context);
}

}  // namespace weft
