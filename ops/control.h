// What operators with subgraphs share.
#pragma once

#include <vector>

#include "ops/op_def.h"

namespace weft {

// What is known of the inputs from `first` on, for a subgraph; `storage` holds the types.
std::vector<InferContext::Input> inputs_from(const InferContext& context, std::size_t first,
                                             std::vector<TensorType>& storage);
std::vector<Tensor> tensors_from(const KernelContext& context, std::size_t first);

// Joins equal tensors along a new first axis. Error kInvalidModel when they differ in shape.
Tensor stack(const std::vector<Tensor>& parts);

}  // namespace weft
