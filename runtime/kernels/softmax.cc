// Softmax of f32.
#include <algorithm>

#include "ops/index_util.h"
#include "ops/op_def.h"
#include "ops/shape_util.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 8 * 1024;  // elements worth handing to a thread
constexpr std::size_t kColumns = 64;

// x as [outer, extent, inner].
class BoundSoftmax final : public BoundKernel {
 public:
  BoundSoftmax(const Extents& shape, std::int64_t given) {
    const auto axis = static_cast<std::size_t>(normalize_axis(given, static_cast<std::int64_t>(shape.size())));
    outer_ = static_cast<std::size_t>(product(shape, 0, axis));
    extent_ = static_cast<std::size_t>(shape[axis]);
    inner_ = static_cast<std::size_t>(product(shape, axis + 1, shape.size()));
  }

  void run(const RunContext& context) override {
    const float* x = context.in<float>(0);
    float* y = context.out<float>(0);
    if (extent_ == 0) return;
    // Rows, or blocks of columns.
    const std::size_t blocks = (inner_ + kColumns - 1) / kColumns, tasks = outer_ * blocks;
    const std::size_t together = std::max<std::size_t>(1, kGrain / (extent_ * std::min(inner_, kColumns) + 1));
    context.pool->parallel_for((tasks + together - 1) / together, [&](std::size_t i) {
      for (std::size_t task = i * together; task < std::min(tasks, (i + 1) * together); ++task) {
        const std::size_t first = task % blocks * kColumns, at = task / blocks * extent_ * inner_ + first;
        if (inner_ == 1) {
          simd::softmax_row(x + at, y + at, extent_);
        } else {
          simd::softmax_columns(x + at, extent_, inner_, y + at, std::min(kColumns, inner_ - first));
        }
      }
    });
  }

 private:
  std::size_t outer_ = 1, extent_ = 1, inner_ = 1;
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
