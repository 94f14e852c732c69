// Operators by their reference kernels.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <vector>

#include "ops/builder.h"
#include "ops/op_def.h"

namespace weft {

// Runs one operator on tensors.
inline std::vector<Tensor> run(std::string_view op, const std::vector<Tensor>& inputs, Attributes attributes = {},
                               std::size_t outputs = 1) {
  Graph graph;
  std::vector<ValueId> ids;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    ids.push_back(graph.add_input(fmt::format("i{}", i), {inputs[i].dtype(), to_shape(inputs[i].shape())}));
  }
  Builder builder(graph);
  const auto results = builder.make_many(op, ids, outputs, std::move(attributes));
  for (std::size_t i = 0; i < results.size(); ++i) graph.add_output(fmt::format("o{}", i), results[i]);
  verify(graph);
  return evaluate_graph(graph, inputs);
}

}  // namespace weft
