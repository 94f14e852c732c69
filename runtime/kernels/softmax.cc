// Softmax of f32.
#include "ops/op_def.h"
#include "runtime/kernels/axis_lines.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

class BoundSoftmax final : public BoundKernel {
 public:
  BoundSoftmax(const Extents& shape, std::int64_t axis) : lines_(shape, axis) {}

  void run(const RunContext& context) override {
    const float* x = context.in<float>(0);
    float* y = context.out<float>(0);
    lines_.for_each(*context.pool, [&](std::size_t at, std::size_t columns) {
      if (lines_.inner == 1) {
        simd::softmax_row(x + at, y + at, lines_.extent);
      } else {
        simd::softmax_columns(x + at, lines_.extent, lines_.inner, y + at, columns);
      }
    });
  }

 private:
  AxisLines lines_;
};

class SoftmaxKernel final : public Kernel {
 public:
  explicit SoftmaxKernel(std::int64_t axis) : axis_(axis) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundSoftmax>(context.outputs[0], axis_);
  }
  bool may_overwrite(std::size_t) const override { return true; }

 private:
  std::int64_t axis_;
};

}  // namespace

std::unique_ptr<Kernel> make_softmax_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Softmax" || !input_is(graph, node, 0, DType::kF32)) return nullptr;
  const TensorType& type = graph.value(node.inputs[0]).type;
  if (!type.shape || type.shape->empty()) return nullptr;
  return std::make_unique<SoftmaxKernel>(AttributeReader(get_op(node.op), node.attributes).integer("axis"));
}

}  // namespace weft::runtime
