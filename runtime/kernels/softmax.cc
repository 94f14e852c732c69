// Softmax over the last axis of f32 on XNNPACK.
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/xnnpack.h"

namespace weft::runtime {
namespace {

class BoundSoftmax final : public BoundKernel {
 public:
  explicit BoundSoftmax(const BindContext& context) {
    const auto channels = static_cast<std::size_t>(context.inputs[0].back());
    const auto rows = static_cast<std::size_t>(element_count(context.inputs[0])) / channels;
    xnn_operator_t op = nullptr;
    xnn::check(xnn_create_softmax_nc_f32(0, &op), "xnn_create_softmax_nc_f32");
    operator_.reset(op);
    work_ = static_cast<double>(rows * channels);
    xnn::check(xnn_reshape_softmax_nc_f32(op, channels, channels, channels, rows, pool_for(*context.pool, work_)),
               "xnn_reshape_softmax_nc_f32");
  }
  void run(const RunContext& context) override {
    xnn::check(xnn_setup_softmax_nc_f32(operator_.get(), context.in<float>(0), context.out<float>(0)),
               "xnn_setup_softmax_nc_f32");
    xnn::check(xnn_run_operator(operator_.get(), pool_for(*context.pool, work_)), "xnn_run_operator");
  }

 private:
  xnn::Operator operator_;
  double work_ = 0;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class SoftmaxKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundSoftmax>(context);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_softmax_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Softmax" || !input_is(graph, node, 0, DType::kF32)) return nullptr;
  const TensorType& type = graph.value(node.inputs[0]).type;
  if (!type.shape || type.shape->empty()) return nullptr;
  const auto found = node.attributes.find("axis");
  const std::int64_t axis = found == node.attributes.end() ? -1 : std::get<std::int64_t>(found->second);
  if (axis != -1 && axis != static_cast<std::int64_t>(type.shape->size()) - 1) return nullptr;
  xnn::initialize();
  return std::make_unique<SoftmaxKernel>();
}

}  // namespace weft::runtime
