// Of outputs [B, S, ...] of which a decode loop reads the last position, a long run computes that one alone: the
// position is taken before the operators at the end that treat each position by itself.
#include <algorithm>
#include <array>
#include <set>

#include "ops/builder.h"
#include "passes/node_util.h"
#include "passes/pipeline.h"

namespace weft {
namespace {

constexpr std::int64_t kAxis = 1;

constexpr std::array<std::string_view, 24> kElementwise = {
    "Abs", "Add", "Cast", "Clip", "Div",     "Erf",  "Exp",  "Gelu", "LeakyRelu", "Log",  "Max",   "Min",
    "Mul", "Neg", "Pow",  "Relu", "Sigmoid", "Silu", "Sqrt", "Sub",  "Swish",     "Tanh", "Where", "Elu"};

class LastPosition {
 public:
  LastPosition(Graph& graph, ValueId output) : graph_(graph), output_(output) {}

  bool run() {
    const Shape* shape = shape_of(graph_, output_);
    if (shape == nullptr || shape->size() != 3 || (*shape)[kAxis].is_constant()) return false;
    positions_ = (*shape)[kAxis];
    collect();
    if (rows_.empty()) return false;
    const std::vector<NodeId> nodes = graph_.nodes();
    for (const NodeId id : nodes) {
      if (rows_.contains(id)) rewrite(id);
    }
    graph_.replace_uses(output_, last_.at(output_));
    for (auto id = nodes.rbegin(); id != nodes.rend(); ++id) {
      if (rows_.contains(*id)) erase_if_dead(graph_, *id);
    }
    return true;
  }

 private:
  // A row for each position.
  bool carries(ValueId id) const {
    const Shape* shape = shape_of(graph_, id);
    return shape != nullptr && shape->size() == 3 && (*shape)[kAxis] == positions_;
  }
  // The same for all positions when broadcast with what carries them.
  bool neutral(ValueId id) const {
    const Shape* shape = shape_of(graph_, id);
    return shape != nullptr && shape->size() <= 3 && (shape->size() < 2 || (*shape)[shape->size() - 2].is(1));
  }

  // Does the node treat each position of its result by itself?
  bool by_position(const Node& node) const {
    const auto carried = [&](ValueId id) { return id.valid() && carries(id); };
    if (!node.subgraphs.empty() || !std::all_of(node.outputs.begin(), node.outputs.end(), carried)) return false;
    if (node.op == "Split") {
      const std::int64_t axis = attributes_of(node).integer("axis");
      const bool known = node.inputs.size() < 2 || !node.inputs[1].valid() || is_constant(graph_, node.inputs[1]);
      return known && carries(node.inputs[0]) && (axis == -1 || axis == 2);
    }
    if (node.op == "SkipLayerNormalization" || node.op == "SkipRMSNormalization") {
      return carries(node.inputs[0]) && carries(node.inputs[1]) &&
             std::all_of(node.inputs.begin() + 2, node.inputs.end(),
                         [&](ValueId id) { return !id.valid() || is_constant(graph_, id); });
    }
    if (node.outputs.size() != 1) return false;
    if (node.op == "MatMulIntegerToFloat" || node.op == "DynamicQuantizeMatMul") {
      // One scale and zero point for all positions.
      const auto for_all = [&](ValueId id) { return !id.valid() || rank_of(graph_, id) <= 1; };
      return is_constant(graph_, node.inputs[1]) && rank_of(graph_, node.inputs[1]) == 2 && carries(node.inputs[0]) &&
             node.attributes.empty() && std::all_of(node.inputs.begin() + 2, node.inputs.end(), for_all);
    }
    if (node.op == "Linear" || node.op == "MatMul") {
      const bool weights = is_constant(graph_, node.inputs[1]) && rank_of(graph_, node.inputs[1]) == 2;
      const bool residual = node.inputs.size() <= 3 || !node.inputs[3].valid() || carries(node.inputs[3]);
      return weights && carries(node.inputs[0]) && residual;
    }
    if (node.op == "LayerNormalization" || node.op == "RMSNormalization" || node.op == "L2Normalization") {
      const auto constant = [&](ValueId id) { return !id.valid() || is_constant(graph_, id); };
      const std::int64_t axis = attributes_of(node).integer("axis");
      return carries(node.inputs[0]) && (axis == -1 || axis == 2) &&
             std::all_of(node.inputs.begin() + 1, node.inputs.end(), constant);
    }
    if (std::find(kElementwise.begin(), kElementwise.end(), node.op) == kElementwise.end()) return false;
    return std::all_of(node.inputs.begin(), node.inputs.end(),
                       [&](ValueId id) { return !id.valid() || carries(id) || neutral(id); });
  }

  // The nodes that make nothing but the output, from its end backwards.
  void collect() {
    std::vector<NodeId> nodes = graph_.nodes();
    for (auto id = nodes.rbegin(); id != nodes.rend(); ++id) {
      const Node& node = graph_.node(*id);
      const bool inside = std::all_of(node.outputs.begin(), node.outputs.end(),
                                      [&](ValueId result) { return result.valid() && is_inside(result); });
      if (inside && by_position(node)) rows_.insert(*id);
    }
  }

  // The output, read by nobody else, or what only nodes found so far read.
  bool is_inside(ValueId result) const {
    if (result == output_) return graph_.use_count(result) == 1;
    const std::vector<Use>& uses = graph_.value(result).uses;
    return !graph_.is_output(result) && !uses.empty() && std::all_of(uses.begin(), uses.end(), [&](const Use& use) {
      // All positions together say how they are quantized.
      return rows_.contains(use.node) && graph_.node(use.node).op != "DynamicQuantizeMatMul";
    });
  }

  // The same node for the last position.
  void rewrite(NodeId id) {
    if (graph_.node(id).op == "DynamicQuantizeMatMul") return rewrite_quantized(id);
    std::vector<ValueId> inputs = graph_.node(id).inputs;
    for (ValueId& input : inputs) {
      if (input.valid() && !is_constant(graph_, input) && carries(input)) input = taken(input, id);
    }
    const Node& node = graph_.node(id);
    const std::vector<ValueId> results = node.outputs;
    Builder builder(graph_, id, node.origin);
    const std::vector<Expr> rewritten =
        builder.make_many(std::string(node.op), inputs, results.size(), Attributes(node.attributes));
    for (std::size_t i = 0; i < results.size(); ++i) last_[results[i]] = rewritten[i];
  }

  // All positions are quantized, one is multiplied.
  void rewrite_quantized(NodeId id) {
    std::vector<ValueId> inputs = graph_.node(id).inputs;
    inputs.resize(5);
    const ValueId result = graph_.node(id).outputs[0], x[] = {inputs[0]};
    Builder b(graph_, id, graph_.node(id).origin);
    const std::vector<Expr> a = b.make_many("DynamicQuantizeLinear", x, 3);
    last_[result] =
        b.make("MatMulIntegerToFloat", {taken(a[0], id), inputs[1], a[1], inputs[2], a[2], inputs[3], inputs[4]});
  }

  ValueId taken(ValueId value, NodeId before) {
    const auto known = last_.find(value);
    if (known != last_.end()) return known->second;
    // From S - 1 on in a long run, from 0 in a short one: min(S / (kAllPositions + 1), 1) * (S - 1).
    Builder b(graph_, before, graph_.node(before).origin);
    const Expr length = b.extent_of(b.wrap(value), kAxis);
    const Expr is_long = b.make("Min", {(length / static_cast<double>(kAllPositions + 1)).id(), b.ints({1}).id()});
    const Expr start = is_long * (length - 1.0);
    return last_[value] = b.make("Slice", {value, start, length, b.ints({kAxis}), b.ints({1})});
  }

  Graph& graph_;
  ValueId output_;
  Dim positions_;
  std::set<NodeId> rows_;
  std::map<ValueId, ValueId> last_;
};

}  // namespace

int keep_last_position(Graph& graph, const std::vector<std::string>& outputs) {
  int changed = 0;
  for (const std::string& name : outputs) {
    const auto output = std::find_if(graph.outputs().begin(), graph.outputs().end(),
                                     [&](const Output& candidate) { return candidate.name == name; });
    if (output != graph.outputs().end()) changed += LastPosition(graph, output->value).run();
  }
  return changed;
}

}  // namespace weft
