// What is known before the run is computed before the run: shapes, constants, branches.
#include <algorithm>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Results above this many bytes are kept only when they do not exceed what they are computed from.
constexpr std::size_t kMaxGrowth = 1 << 20;

std::size_t bytes_of(const Tensor& tensor) { return is_object(tensor.dtype()) ? 0 : tensor.byte_size(); }

bool can_fold(const Graph& graph, const Node& node) {
  if (!get_op(node.op).deterministic || !node.subgraphs.empty()) return false;
  if (node.inputs.empty()) return node.op != "RandomNormal";
  return std::all_of(node.inputs.begin(), node.inputs.end(),
                     [&](ValueId id) { return !id.valid() || is_constant(graph, id); });
}

// Inference bounds the result before it is computed, so that a small model cannot ask for a large one.
bool grows_too_much(const Graph& graph, const Node& node, std::size_t input_bytes) {
  for (const ValueId id : node.outputs) {
    if (!id.valid()) continue;
    const TensorType& type = graph.value(id).type;
    if (!type.shape || !is_static(*type.shape)) return false;
    constexpr std::size_t kObject = 32;
    const std::size_t size = is_object(type.dtype) ? kObject : element_size(type.dtype);
    const auto count = static_cast<std::size_t>(element_count(*evaluate(*type.shape, {})));
    if (count > std::max(kMaxGrowth, input_bytes) / size) return true;
  }
  return false;
}

}  // namespace

int fold_constants(Graph& graph, PassContext& context) {
  int folded = 0;
  for (const NodeId id : graph.nodes()) {
    if (!can_fold(graph, graph.node(id))) continue;
    std::vector<Tensor> contents;
    std::vector<const Tensor*> inputs;
    std::size_t input_bytes = 0;
    contents.reserve(graph.node(id).inputs.size());
    for (const ValueId input : graph.node(id).inputs) {
      if (!input.valid()) {
        inputs.push_back(nullptr);
        continue;
      }
      contents.push_back(graph.value(input).tensor->aligned());
      inputs.push_back(&contents.back());
      input_bytes += bytes_of(contents.back());
    }
    std::vector<Tensor> results;
    try {
      if (grows_too_much(graph, graph.node(id), input_bytes)) continue;
      results = evaluate_node(graph.node(id), inputs);
    } catch (const Error&) {
      continue;  // the error is the run's to report: the node may never be reached
    }
    const std::vector<ValueId> outputs = graph.node(id).outputs;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].valid() || graph.use_count(outputs[i]) == 0) continue;
      const std::string name = graph.value(outputs[i]).name;
      const ValueId constant = graph.add_constant(results[i], name);
      graph.replace_uses(outputs[i], constant);
    }
    graph.erase_node(id);
    context.rewritten(graph, "fold-constants");
    ++folded;
  }
  erase_dead(graph);
  return folded;
}

int fold_shapes(Graph& graph, PassContext& context) {
  int folded = 0;
  infer_graph(graph);
  for (const ValueId id : graph.values()) {
    const Value& value = graph.value(id);
    if (value.kind != ValueKind::kResult || !value.elements || graph.use_count(id) == 0) continue;
    const auto numbers = known_integers(graph, id);
    if (!numbers || !value.type.shape || !is_static(*value.type.shape)) continue;
    const Extents shape = *evaluate(*value.type.shape, {});
    if (element_count(shape) != static_cast<std::int64_t>(numbers->size())) continue;
    Tensor tensor = Tensor::uninitialized(value.type.dtype, shape);
    visit_dtype(value.type.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      if constexpr (std::is_integral_v<T>) {
        std::transform(numbers->begin(), numbers->end(), tensor.mutable_data<T>().begin(),
                       [](std::int64_t n) { return static_cast<T>(n); });
      }
    });
    const std::string name = value.name;
    graph.replace_uses(id, graph.add_constant(std::move(tensor), name));
    context.rewritten(graph, "fold-shapes");
    ++folded;
  }
  erase_dead(graph);
  return folded;
}

// If with a known condition is one of its branches.
int inline_branches(Graph& graph, PassContext& context) {
  int inlined = 0;
  for (const NodeId id : graph.nodes()) {
    if (graph.node(id).op != "If") continue;
    const auto condition = known_integers(graph, graph.node(id).inputs[0]);
    if (!condition || condition->size() != 1) continue;
    const Graph branch = graph.node(id).subgraphs[condition->front() != 0 ? 0 : 1].graph->clone();
    std::map<ValueId, ValueId> inside;
    for (std::size_t i = 0; i < branch.inputs().size(); ++i) inside[branch.inputs()[i]] = graph.node(id).inputs[1 + i];
    for (const ValueId value : branch.values()) {
      if (is_constant(branch, value))
        inside[value] = graph.add_constant(*branch.value(value).tensor, branch.value(value).name);
    }
    for (const NodeId inner : branch.nodes()) {
      const Node& node = branch.node(inner);
      NodeSpec spec{node.op, {}, node.attributes, {}, node.origin};
      for (const ValueId input : node.inputs) spec.inputs.push_back(input.valid() ? inside.at(input) : ValueId());
      for (const Subgraph& subgraph : node.subgraphs) {
        spec.subgraphs.push_back({subgraph.name, std::make_unique<Graph>(subgraph.graph->clone())});
      }
      std::vector<OutputSpec> outputs;
      for (const ValueId output : node.outputs) {
        if (output.valid())
          // Its dims are named in the branch: inference names them anew.
          outputs.push_back({branch.value(output).name,
                             {branch.value(output).type.dtype, std::nullopt, branch.value(output).type.element}});
        else
          outputs.push_back({"", {}, true});
      }
      const NodeId copy = graph.add_node(std::move(spec), outputs, id);
      for (std::size_t i = 0; i < node.outputs.size(); ++i) {
        if (node.outputs[i].valid()) inside[node.outputs[i]] = graph.node(copy).outputs[i];
      }
      infer_node(graph, copy);
    }
    const std::vector<ValueId> outputs = graph.node(id).outputs;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].valid()) graph.replace_uses(outputs[i], inside.at(branch.outputs()[i].value));
    }
    graph.erase_node(id);
    context.rewritten(graph, "inline-branches");
    ++inlined;
  }
  if (inlined > 0) {
    infer_graph(graph);
    erase_dead(graph);
  }
  return inlined;
}

}  // namespace weft
