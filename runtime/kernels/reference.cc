// Any operator through its reference kernel, and the choice among kernels.
#include <cstring>

#include "ops/op_def.h"
#include "runtime/kernels/kernel.h"

namespace weft::runtime {
namespace {

class BoundReference final : public BoundKernel {
 public:
  explicit BoundReference(const Node* node) : node_(node) {}
  void run(const RunContext& context) override {
    const auto allocate = [&](std::size_t output, DType dtype, Extents shape) {
      Tensor* planned = context.outputs[output];
      if (planned != nullptr && planned->dtype() == dtype && planned->shape() == shape) {
        return *planned;
      }
      return Tensor::uninitialized(dtype, std::move(shape));
    };
    std::vector<Tensor> results = evaluate_node(*node_, context.inputs, allocate);
    for (std::size_t i = 0; i < results.size(); ++i) {
      Tensor* planned = context.outputs[i];
      if (planned == nullptr) continue;
      if (results[i].shape() != planned->shape() || results[i].dtype() != planned->dtype()) {
        fail(ErrorCode::kInternal, "{} gives {}{}, inference says {}{}", node_->op, to_string(results[i].dtype()),
             to_string(results[i].shape()), to_string(planned->dtype()), to_string(planned->shape()));
      }
      if (is_object(planned->dtype())) {
        *planned = std::move(results[i]);
      } else if (results[i].size() > 0 && results[i].bytes().data() != planned->bytes().data()) {
        std::memcpy(planned->mutable_bytes().data(), results[i].bytes().data(), planned->byte_size());
      }
    }
  }

 private:
  const Node* node_;
};

class ReferenceKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundReference>(context.node);
  }
  bool is_reference() const override { return true; }
};

}  // namespace

const Tensor* constant_input(const Graph& graph, const Node& node, std::size_t index) {
  if (!has_input(node, index)) return nullptr;
  const Value& value = graph.value(node.inputs[index]);
  return value.kind == ValueKind::kConstant ? &*value.tensor : nullptr;
}

bool input_is(const Graph& graph, const Node& node, std::size_t index, DType dtype) {
  return has_input(node, index) && graph.value(node.inputs[index]).type.dtype == dtype;
}

std::unique_ptr<Kernel> make_reference_kernel(const Graph&, const Node& node) {
  if (get_op(node.op).reference == nullptr) return nullptr;
  return std::make_unique<ReferenceKernel>();
}

std::unique_ptr<Kernel> make_specific_kernel(const Graph& graph, const Node& node) {
  using Maker = std::unique_ptr<Kernel> (*)(const Graph&, const Node&);
  constexpr Maker kMakers[] = {
      make_linear_kernel,         make_matmul_kernel,        make_attention_kernel,
      make_normalization_kernel,  make_activation_kernel,    make_rotary_kernel,
      make_elementwise_kernel,    make_softmax_kernel,       make_convolution_kernel,
      make_pooling_kernel,        make_recurrent_kernel,     make_quantize_kernel,
      make_integer_matmul_kernel, make_scaled_matmul_kernel, make_integer_convolution_kernel,
      make_packed_weights_kernel, make_cast_kernel,          make_movement_kernel,
      make_resize_kernel,         make_grid_sample_kernel,   make_reduction_kernel,
      make_axis_kernel,           make_channel_norm_kernel,  make_norm_of_sum_kernel,
      make_axis_norm_kernel,
  };
  for (const Maker make : kMakers) {
    if (std::unique_ptr<Kernel> kernel = make(graph, node)) return kernel;
  }
  return nullptr;
}

std::unique_ptr<Kernel> make_fast_kernel(const Graph& graph, const Node& node) {
  if (std::unique_ptr<Kernel> kernel = make_specific_kernel(graph, node)) return kernel;
  return make_reference_kernel(graph, node);
}

}  // namespace weft::runtime
