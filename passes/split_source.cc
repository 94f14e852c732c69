#include "passes/split_source.h"

#include <algorithm>
#include <set>

#include "ops/builder.h"
#include "passes/node_util.h"

namespace weft {
namespace {

bool costs(std::string_view op) {
  static constexpr std::string_view kOps[] = {
      "Linear", "MatMul", "MatMulNBits", "Conv",          "ConvTranspose",        "Attention",
      "LSTM",   "GRU",    "RNN",         "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"};
  return std::ranges::find(kOps, op) != std::end(kOps);
}

class SourceValues {
 public:
  SourceValues(const Graph& graph, const std::set<ValueId>& source, const Dim& batch) : graph_(graph), batch_(batch) {
    for (const ValueId input : source) values_.insert(input);
    for (const NodeId id : graph.nodes()) take(graph.node(id));
  }

  // What the rest of the graph reads, or what makes that, as far as it can be handed over.
  std::vector<ValueId> frontier() const {
    std::set<ValueId> cut;
    std::set<NodeId> stays;
    std::vector<NodeId> nodes = graph_.nodes();
    const auto read = [&](ValueId id) {
      if (!id.valid() || !costly_.contains(id)) return;
      if (can_hand_over(id))
        cut.insert(id);
      else
        stays.insert(graph_.value(id).producer);
    };
    for (const Output& output : graph_.outputs()) read(output.value);
    for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) {
      const Node& node = graph_.node(*it);
      const bool in_source = std::ranges::all_of(
          node.outputs, [&](ValueId output) { return !output.valid() || values_.contains(output); });
      if (in_source && !stays.contains(*it)) continue;
      for (const ValueId input : node.inputs) read(input);
    }
    return {cut.begin(), cut.end()};
  }

 private:
  void take(const Node& node) {
    if (!node.subgraphs.empty() || !get_op(node.op).deterministic) return;
    bool reads_source = false, costly = costs(node.op);
    for (const ValueId input : node.inputs) {
      if (!input.valid() || is_constant(graph_, input)) continue;
      if (!values_.contains(input)) return;
      reads_source = true;
      costly = costly || costly_.contains(input);
    }
    if (!reads_source) return;
    for (const ValueId output : node.outputs) {
      if (!output.valid()) continue;
      values_.insert(output);
      if (costly) costly_.insert(output);
    }
  }

  // Rows come first, and every other extent has a name or is known.
  bool can_hand_over(ValueId id) const {
    const Value& value = graph_.value(id);
    return value.type.shape && !value.type.shape->empty() && value.type.shape->front() == batch_ &&
           !is_object(value.type.dtype) && std::ranges::all_of(*value.type.shape, [](const Dim& dim) {
             return dim.is_constant() || dim.symbol_name();
           });
  }

  const Graph& graph_;
  Dim batch_;
  std::set<ValueId> values_, costly_;
};

// Keys or values of the source that attention reads as [B, T, heads * size] become [B, heads, T, size], as sessions
// keep them.
void split_heads(Graph& graph, const std::vector<ValueId>& of_source) {
  const std::set<ValueId> handed(of_source.begin(), of_source.end());
  for (const NodeId id : graph.nodes()) {
    if (graph.node(id).op != "Attention") continue;
    const std::int64_t heads = attributes_of(graph.node(id)).integer("kv_num_heads");
    for (const std::size_t input : {std::size_t{1}, std::size_t{2}}) {
      const ValueId value = graph.node(id).inputs[input];
      if (!handed.contains(value) || rank_of(graph, value) != 3 || heads == 0) continue;
      const Dim width = shape_of(graph, value)->back();
      if (!width.is_constant()) continue;
      const NodeId maker = graph.value(value).producer;
      Builder b(graph, graph.next_node(maker), graph.node(maker).origin);
      const Expr split = b.reshape(b.wrap(value), {0, 0, heads, width.value() / heads});
      graph.set_input(id, input, b.transpose(split, {0, 2, 1, 3}));
    }
    const std::vector<ValueId>& inputs = graph.node(id).inputs;
    if (rank_of(graph, inputs[1]) == 4 && rank_of(graph, inputs[2]) == 4)
      graph.node(id).attributes.erase("kv_num_heads");
  }
}

void remove_unused_inputs(Graph& graph) {
  for (std::size_t i = graph.inputs().size(); i-- > 0;) {
    if (graph.use_count(graph.inputs()[i]) == 0) graph.remove_input(i);
  }
}

}  // namespace

std::optional<Graph> split_source(Graph& graph, const std::vector<std::string>& source, const std::string& prefix) {
  std::set<ValueId> inputs;
  std::optional<Dim> batch;
  for (const ValueId id : graph.inputs()) {
    if (std::ranges::find(source, graph.value(id).name) == source.end()) continue;
    const Shape* shape = shape_of(graph, id);
    if (shape == nullptr || shape->empty() || (batch && !(*batch == shape->front()))) return std::nullopt;
    batch = shape->front();
    inputs.insert(id);
  }
  if (!batch) return std::nullopt;
  const std::vector<ValueId> found = SourceValues(graph, inputs, *batch).frontier();
  if (found.empty()) return std::nullopt;
  Graph step = graph.clone();
  split_heads(step, found);
  const std::vector<ValueId> frontier = SourceValues(step, inputs, *batch).frontier();
  Graph whole = step.clone();
  for (std::size_t i = whole.outputs().size(); i-- > 0;) whole.remove_output(i);
  for (std::size_t i = 0; i < frontier.size(); ++i) {
    const std::string name = prefix + std::to_string(i);
    whole.add_output(name, frontier[i]);
    const TensorType type = step.value(frontier[i]).type;
    step.replace_uses(frontier[i], step.add_input(name, type));
  }
  erase_dead(whole);
  remove_unused_inputs(whole);
  erase_dead(step);
  for (const ValueId id : inputs) {
    const auto at = std::ranges::find(step.inputs(), id) - step.inputs().begin();
    if (step.use_count(id) == 0) step.remove_input(static_cast<std::size_t>(at));
  }
  graph = std::move(step);
  return whole;
}

}  // namespace weft
