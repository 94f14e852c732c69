// Softmax over the last axis of f32.
#include <algorithm>

#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 8 * 1024;  // elements worth handing to a thread

class BoundSoftmax final : public BoundKernel {
 public:
  explicit BoundSoftmax(const Extents& shape)
      : columns_(static_cast<std::size_t>(shape.back())),
        rows_(columns_ == 0 ? 0 : static_cast<std::size_t>(element_count(shape)) / columns_) {}

  void run(const RunContext& context) override {
    const float* x = context.in<float>(0);
    float* y = context.out<float>(0);
    const std::size_t together = std::max<std::size_t>(1, kGrain / std::max<std::size_t>(columns_, 1));
    context.pool->parallel_for((rows_ + together - 1) / together, [&](std::size_t i) {
      const std::size_t last = std::min(rows_, (i + 1) * together);
      for (std::size_t r = i * together; r < last; ++r) {
        simd::softmax_row(x + r * columns_, y + r * columns_, columns_);
      }
    });
  }

 private:
  std::size_t columns_, rows_;
};

class SoftmaxKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundSoftmax>(context.outputs[0]);
  }
  bool may_overwrite(std::size_t) const override { return true; }
};

}  // namespace

std::unique_ptr<Kernel> make_softmax_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Softmax" || !input_is(graph, node, 0, DType::kF32)) return nullptr;
  const TensorType& type = graph.value(node.inputs[0]).type;
  if (!type.shape || type.shape->empty()) return nullptr;
  const auto found = node.attributes.find("axis");
  const std::int64_t axis = found == node.attributes.end() ? -1 : std::get<std::int64_t>(found->second);
  if (axis != -1 && axis != static_cast<std::int64_t>(type.shape->size()) - 1) return nullptr;
  return std::make_unique<SoftmaxKernel>();
}

}  // namespace weft::runtime
