// Running nodes and graphs with reference kernels.
#include "ops/builder.h"
#include "ops/cast.h"
#include "ops/op_def.h"

namespace weft {
namespace {

bool is_half(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }

// Halves are computed with as f32 and rounded once, at the end.
std::vector<Tensor> run_decomposition(const Node& node, std::span<const Tensor* const> inputs) {
  std::vector<TensorType> types(inputs.size()), wide_types(inputs.size());
  std::vector<Tensor> given;
  bool halves = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i] == nullptr) continue;
    const bool half = is_half(inputs[i]->dtype());
    halves = halves || half;
    types[i] = {inputs[i]->dtype(), to_shape(inputs[i]->shape())};
    wide_types[i] = {half ? DType::kF32 : types[i].dtype, types[i].shape};
    given.push_back(half ? cast(*inputs[i], DType::kF32) : *inputs[i]);
  }
  const Graph graph = decomposition_graph(node, wide_types);
  std::vector<Tensor> results = evaluate_graph(graph, given);
  if (halves) {
    const Graph narrow = decomposition_graph(node, types);
    for (std::size_t i = 0; i < results.size(); ++i) {
      results[i] = cast(results[i], narrow.value(narrow.outputs()[i].value).type.dtype);
    }
  }
  std::vector<Tensor> outputs(node.outputs.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (node.outputs[i].valid()) outputs[i] = std::move(results[next++]);
  }
  return outputs;
}

}  // namespace

std::vector<Tensor> evaluate_node(const Node& node, std::span<const Tensor* const> inputs,
                                  const KernelContext::Allocate& allocate) {
  return with_frame([&] { return "in " + describe(node); },
                    [&] {
                      const OpDef& def = get_op(node.op);
                      if (def.reference == nullptr) return run_decomposition(node, inputs);
                      KernelContext context(def, node, inputs, node.outputs.size(), allocate,
                                            [&](std::size_t index, std::span<const Tensor> given) {
                                              return evaluate_graph(*node.subgraphs.at(index).graph, given);
                                            });
                      def.reference(context);
                      return context.take_outputs();
                    });
}

std::vector<Tensor> evaluate_graph(const Graph& graph, std::span<const Tensor> inputs) {
  if (inputs.size() != graph.inputs().size() + graph.states().size()) {
    fail(ErrorCode::kInvalidArgument, "graph \"{}\" takes {} inputs, {} given", graph.name(),
         graph.inputs().size() + graph.states().size(), inputs.size());
  }
  std::map<ValueId, Tensor> values;
  std::map<ValueId, std::size_t> uses_left;
  std::size_t next = 0;
  for (const ValueId id : graph.inputs()) values[id] = inputs[next++];
  for (const State& state : graph.states()) values[state.current] = inputs[next++];
  const auto read = [&](ValueId id) -> const Tensor& {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kConstant) return *value.tensor;
    return values.at(id);
  };
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    std::vector<const Tensor*> arguments;
    std::vector<Tensor> realigned;
    realigned.reserve(node.inputs.size());
    for (const ValueId input : node.inputs) {
      if (!input.valid()) {
        arguments.push_back(nullptr);
        continue;
      }
      realigned.push_back(read(input).aligned());
      arguments.push_back(&realigned.back());
    }
    std::vector<Tensor> results = evaluate_node(node, arguments);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (!node.outputs[i].valid()) continue;
      uses_left[node.outputs[i]] = graph.use_count(node.outputs[i]);
      values[node.outputs[i]] = std::move(results[i]);
    }
    for (const ValueId input : node.inputs) {
      const auto left = input.valid() ? uses_left.find(input) : uses_left.end();
      if (left != uses_left.end() && --left->second == 0) values.erase(input);
    }
  }
  std::vector<Tensor> results;
  for (const Output& output : graph.outputs()) results.push_back(read(output.value));
  for (const State& state : graph.states()) results.push_back(read(state.next));
  return results;
}

}  // namespace weft
