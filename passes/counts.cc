// What weft explain counts, on any graph: fused operators, and what is left of their definitions.
#include <algorithm>
#include <set>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// The producer of the value behind operators that only rearrange, scale, mask or guard.
const Node* behind(const Graph& graph, ValueId value, std::string_view wanted,
                   std::span<const std::string_view> through) {
  std::vector<ValueId> pending = {value};
  for (int steps = 0; !pending.empty() && steps < 32; ++steps) {
    const Value& current = graph.value(pending.back());
    pending.pop_back();
    if (current.kind != ValueKind::kResult) continue;
    const Node& node = graph.node(current.producer);
    if (node.op == wanted) return &node;
    if (std::find(through.begin(), through.end(), node.op) == through.end()) continue;
    for (const ValueId input : node.inputs) {
      if (input.valid()) pending.push_back(input);
    }
  }
  return nullptr;
}

// Softmax of a product that weighs another product.
bool is_attention_core(const Graph& graph, const Node& softmax) {
  static constexpr std::string_view kUp[] = {"Add",  "Mul", "Div", "Where", "Reshape",
                                             "Cast", "Sub", "Max", "Clip",  "Tanh"};
  if (behind(graph, softmax.inputs[0], "MatMul", kUp) == nullptr) return false;
  std::vector<ValueId> pending = {softmax.outputs[0]};
  for (int steps = 0; !pending.empty() && steps < 32; ++steps) {
    const ValueId value = pending.back();
    pending.pop_back();
    for (const Use& use : graph.value(value).uses) {
      const Node& node = graph.node(use.node);
      if (node.op == "MatMul") return true;
      static constexpr std::string_view kDown[] = {"Where", "Reshape", "Cast", "Mul", "IsNaN", "Transpose"};
      if (std::find(std::begin(kDown), std::end(kDown), node.op) != std::end(kDown)) pending.push_back(node.outputs[0]);
    }
  }
  return false;
}

// A root of a mean of squares: a norm that was not fused.
bool is_norm(const Graph& graph, const Node& root) {
  static constexpr std::string_view kThrough[] = {"Add", "Cast"};
  const Node* mean = behind(graph, root.inputs[0], "ReduceMean", kThrough);
  if (mean == nullptr) return false;
  const Node* square = producer(graph, mean->inputs[0], "Mul");
  return producer(graph, mean->inputs[0], "Pow") != nullptr ||
         (square != nullptr && square->inputs[0] == square->inputs[1]);
}

void count_qkv(const Graph& graph, const Node& attention, FusionCounts& counts) {
  std::vector<NodeId> linears;
  std::vector<ValueId> inputs;
  for (std::size_t i = 0; i < 3; ++i) {
    const NodeId linear = projection_of(graph, attention.inputs[i]);
    linears.push_back(linear);
    inputs.push_back(linear.valid() ? graph.node(linear).inputs[0] : ValueId());
  }
  const bool self = linears[0].valid() && inputs[0] == inputs[1] && inputs[1] == inputs[2];
  const bool cross = linears[1].valid() && inputs[1] == inputs[2];
  if (!self && !cross) return;
  ++counts.qkv;
  const bool keys_together = linears[1] == linears[2];
  counts.qkv_fused += self ? keys_together && linears[0] == linears[1] : keys_together;
}

void count(const Graph& graph, FusionCounts& counts) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.op == "Attention") {
      ++counts.attention_cores;
      ++counts.attention_fused;
      count_qkv(graph, node, counts);
    } else if (node.op == "Softmax") {
      ++counts.softmax_left;
      counts.attention_cores += is_attention_core(graph, node);
    } else if (node.op.ends_with("LayerNormalization") || node.op.ends_with("RMSNormalization") ||
               node.op == "L2Normalization") {
      ++counts.norms;
      ++counts.norms_fused;
    } else if (node.op == "Sqrt") {
      counts.norms += is_norm(graph, node);
    }
    for (const Subgraph& subgraph : node.subgraphs) count(*subgraph.graph, counts);
  }
}

}  // namespace

FusionCounts count_fusions(const Graph& graph) {
  FusionCounts counts;
  count(graph, counts);
  return counts;
}

}  // namespace weft
