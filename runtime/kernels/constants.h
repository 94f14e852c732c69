// The inputs of a node that are constants, held by its kernel: those it has packed are dropped from the graph.
#pragma once

#include <optional>
#include <vector>

#include "runtime/kernels/kernel.h"

namespace weft::runtime {

class Constants {
 public:
  Constants(const Graph& graph, const Node& node) : tensors_(node.inputs.size()) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (const Tensor* tensor = constant_input(graph, node, i)) tensors_[i] = *tensor;
    }
  }
  // The constant, or what the run gives, or null where the input is absent.
  const Tensor* get(const RunContext& context, std::size_t i) const {
    if (const Tensor* constant = get(i)) return constant;
    return i < context.inputs.size() ? context.inputs[i] : nullptr;
  }
  const Tensor* get(std::size_t i) const { return i < tensors_.size() && tensors_[i] ? &*tensors_[i] : nullptr; }
  void drop(std::size_t i) { tensors_[i].reset(); }

 private:
  std::vector<std::optional<Tensor>> tensors_;
};

}  // namespace weft::runtime
