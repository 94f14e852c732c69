// MatMul of two computed f32 tensors on XNNPACK's batch matrix multiplication.
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/xnnpack.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kMaxBatchDims = 6;

class BoundMatMul final : public BoundKernel {
 public:
  BoundMatMul(const BindContext& context) {
    const Extents& a = context.inputs[0];
    const Extents& b = context.inputs[1];
    const std::size_t batch = context.outputs[0].size() - 2;
    const auto batch_dims = [&](const Extents& shape) {
      std::vector<std::size_t> dims(batch, 1);
      const std::size_t own = shape.size() - 2;
      for (std::size_t i = 0; i < own; ++i) {
        dims[batch - own + i] = static_cast<std::size_t>(shape[i]);
      }
      return dims;
    };
    const std::vector<std::size_t> dims_a = batch_dims(a);
    const std::vector<std::size_t> dims_b = batch_dims(b);
    xnn_operator_t op = nullptr;
    xnn::check(xnn_create_batch_matrix_multiply_nc_f32(0, &op), "xnn_create_batch_matrix_multiply_nc_f32");
    operator_.reset(op);
    std::size_t bytes = 0;
    std::size_t alignment = 0;
    work_ = static_cast<double>(element_count(context.outputs[0])) * static_cast<double>(a.back());
    xnn::check(xnn_reshape_batch_matrix_multiply_nc_f32(
                   op, batch, dims_a.data(), dims_b.data(), static_cast<std::size_t>(a[a.size() - 2]),
                   static_cast<std::size_t>(a[a.size() - 1]), static_cast<std::size_t>(b[b.size() - 1]), &bytes,
                   &alignment, pool_for(*context.pool, work_)),
               "xnn_reshape_batch_matrix_multiply_nc_f32");
    workspace_ = Tensor::uninitialized(DType::kU8, {static_cast<std::int64_t>(bytes + alignment)});
    if (alignment > 64) fail(ErrorCode::kBackend, "XNNPACK wants an alignment of {}", alignment);
  }

  void run(const RunContext& context) override {
    xnn::check(
        xnn_setup_batch_matrix_multiply_nc_f32(operator_.get(), workspace_.mutable_bytes().data(), context.in<float>(0),
                                               context.in<float>(1), context.out<float>(0)),
        "xnn_setup_batch_matrix_multiply_nc_f32");
    xnn::check(xnn_run_operator(operator_.get(), pool_for(*context.pool, work_)), "xnn_run_operator");
  }

 private:
  xnn::Operator operator_;
  double work_ = 0;
  Tensor workspace_;
};

// No output elements, or sums of no terms.
class BoundZero final : public BoundKernel {
 public:
  void run(const RunContext& context) override {
    for (float& y : context.outputs[0]->mutable_data<float>()) y = 0.0f;
  }
};

class MatMulKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0 || context.inputs[0].back() == 0) {
      return std::make_unique<BoundZero>();
    }
    return std::make_unique<BoundMatMul>(context);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_matmul_kernel(const Graph& graph, const Node& node) {
  if (node.op != "MatMul" || !input_is(graph, node, 0, DType::kF32) || !input_is(graph, node, 1, DType::kF32)) {
    return nullptr;
  }
  for (const ValueId id : node.inputs) {
    const TensorType& type = graph.value(id).type;
    if (!type.shape || type.shape->size() < 2 || type.shape->size() > 2 + kMaxBatchDims) {
      return nullptr;
    }
  }
  xnn::initialize();
  return std::make_unique<MatMulKernel>();
}

}  // namespace weft::runtime
