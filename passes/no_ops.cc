// Operators that do nothing, alone or with what comes before them, go.
#include <algorithm>
#include <cmath>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Operators that keep every element and their order.
bool is_view(std::string_view op) { return op == "Reshape" || op == "Squeeze" || op == "Unsqueeze" || op == "Flatten"; }

// Every number of one dtype is one of the other.
bool holds(DType wide, DType narrow) {
  if (wide == narrow || narrow == DType::kBool) return is_numeric(wide) || wide == narrow;
  if (narrow == DType::kF16 || narrow == DType::kBF16) return wide == DType::kF32 || wide == DType::kF64;
  if (narrow == DType::kF32) return wide == DType::kF64;
  if (narrow == DType::kI32) return wide == DType::kI64 || wide == DType::kF64;
  return false;
}

// x of a chain of casts that comes back to its dtype and lost nothing on the way.
ValueId uncast(const Graph& graph, const Node& cast) {
  const DType wanted = graph.value(cast.outputs[0]).type.dtype;
  ValueId x = cast.inputs[0];
  for (;;) {
    if (graph.value(x).type.dtype == wanted) return x;
    const Node* inner = producer(graph, x, "Cast");
    if (inner == nullptr || !holds(graph.value(x).type.dtype, graph.value(inner->inputs[0]).type.dtype)) return {};
    x = inner->inputs[0];
  }
}

// x of a chain of views that comes back to its shape.
ValueId unviewed(const Graph& graph, const Node& view) {
  ValueId x = view.inputs[0];
  for (;;) {
    if (same_type(graph, x, view.outputs[0])) return x;
    const Value& value = graph.value(x);
    if (value.kind != ValueKind::kResult || !is_view(graph.node(value.producer).op)) return {};
    x = graph.node(value.producer).inputs[0];
  }
}

// The input that the node's output equals, whatever the numbers; invalid if it does something.
ValueId unchanged(const Graph& graph, const Node& node) {
  const ValueId x = node.inputs.empty() ? ValueId() : node.inputs[0];
  if (!x.valid() || node.outputs.size() != 1) return {};
  const bool same = same_type(graph, x, node.outputs[0]);
  if (node.op == "Identity") return x;
  if (node.op == "Cast") return uncast(graph, node);
  if (node.op == "Expand") return same ? x : ValueId();
  if (is_view(node.op)) return unviewed(graph, node);
  if (node.op == "Not" || node.op == "Neg") {
    const Node* inner = producer(graph, x, node.op);
    return inner != nullptr ? inner->inputs[0] : ValueId();
  }
  if (node.op == "Concat") return node.inputs.size() == 1 ? x : ValueId();
  if (node.op == "Transpose") {
    const auto* perm = permutation_of(node);
    return perm != nullptr && std::is_sorted(perm->begin(), perm->end()) ? x : ValueId();
  }
  if (node.op == "Slice" && same) {
    // All of it: as many elements in steps of 1 as there are.
    const auto steps = node.inputs.size() > 4 && node.inputs[4].valid() ? known_integers(graph, node.inputs[4])
                                                                        : std::optional(std::vector<std::int64_t>{});
    return steps && std::ranges::all_of(*steps, [](auto step) { return step == 1; }) ? x : ValueId();
  }
  if (node.op == "Pad" && same) {
    const auto amounts = known_integers(graph, node.inputs[1]);
    const bool nothing = amounts && std::all_of(amounts->begin(), amounts->end(), [](auto n) { return n == 0; });
    return nothing ? x : ValueId();
  }
  if (node.op == "Abs" && same) {
    const auto& elements = graph.value(x).elements;
    const bool positive =
        elements && std::all_of(elements->begin(), elements->end(), [](const Dim& d) { return d.never_negative(); });
    return positive ? x : ValueId();
  }
  // x + 0, x - 0, x * 1, x / 1 (the constant may not broadcast x).
  for (std::size_t side = 0; side < 2 && node.inputs.size() == 2; ++side) {
    const bool symmetric = node.op == "Add" || node.op == "Mul";
    if (side == 1 && !symmetric) break;
    const ValueId kept = node.inputs[side];
    const auto number = node.inputs[1 - side].valid() ? known_number(graph, node.inputs[1 - side]) : std::nullopt;
    if (!number || !same_type(graph, kept, node.outputs[0])) continue;
    const bool integer = is_integer(graph.value(kept).type.dtype);
    // -0.0 + 0.0 is 0.0, so adding 0 is left alone for floats unless it is -0.0 or subtracting.
    if ((node.op == "Mul" || node.op == "Div") && *number == 1) return kept;
    if (node.op == "Sub" && *number == 0) return kept;
    if (node.op == "Add" && *number == 0 && (integer || std::signbit(*number))) return kept;
  }
  return {};
}

// A broadcast that the operator reading it does itself: another input has the shape of the result already.
ValueId unexpanded(const Graph& graph, const Node& node, std::size_t input) {
  static constexpr std::string_view kBroadcasting[] = {"Add",   "Sub",  "Mul",         "Div",     "Pow",
                                                       "Where", "And",  "Or",          "Min",     "Max",
                                                       "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"};
  if (std::find(std::begin(kBroadcasting), std::end(kBroadcasting), node.op) == std::end(kBroadcasting)) return {};
  const Node* expand = producer(graph, node.inputs[input], "Expand");
  const Shape* result = shape_of(graph, node.outputs[0]);
  if (expand == nullptr || result == nullptr) return {};
  const Shape* from = shape_of(graph, expand->inputs[0]);
  const bool given = std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId other) {
    const Shape* shape = shape_of(graph, other);
    return other != node.inputs[input] && shape != nullptr && *shape == *result;
  });
  return given && from != nullptr && broadcasts_to(*from, *result) ? expand->inputs[0] : ValueId();
}

int drop_expands(Graph& graph, PassContext& context) {
  int dropped = 0;
  for (const NodeId id : graph.nodes()) {
    for (std::size_t i = 0; i < graph.node(id).inputs.size(); ++i) {
      const Node& node = graph.node(id);
      const ValueId source = node.inputs[i].valid() && node.outputs[0].valid() ? unexpanded(graph, node, i) : ValueId();
      if (!source.valid()) continue;
      graph.set_input(id, i, source);
      context.rewritten(graph, "drop-expands");
      ++dropped;
    }
  }
  return dropped;
}

}  // namespace

int drop_no_ops(Graph& graph, PassContext& context) {
  int dropped = 0;
  for (const NodeId id : graph.nodes()) {
    const ValueId source = unchanged(graph, graph.node(id));
    if (!source.valid()) continue;
    graph.replace_uses(graph.node(id).outputs[0], source);
    graph.erase_node(id);
    context.rewritten(graph, "drop-no-ops");
    ++dropped;
  }
  return dropped + drop_expands(graph, context);
}

}  // namespace weft
