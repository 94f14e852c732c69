// Norms along one axis, wherever it is: AxisNormalization, L2Normalization.
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
class BoundAxisNorm final : public BoundKernel {
 public:
  BoundAxisNorm(const BindContext& context, std::int64_t given, float epsilon, bool centres)
      : epsilon_(epsilon), centres_(centres) {
    const Extents& shape = context.inputs[0];
    const auto axis = static_cast<std::size_t>(normalize_axis(given, static_cast<std::int64_t>(shape.size())));
    outer_ = static_cast<std::size_t>(product(shape, 0, axis));
    extent_ = static_cast<std::size_t>(shape[axis]);
    inner_ = static_cast<std::size_t>(product(shape, axis + 1, shape.size()));
    for (std::size_t i = 1; i < context.inputs.size(); ++i) {
      if (has_input(*context.node, i) && context.inputs[i] != Extents{shape[axis]}) {
        fail(ErrorCode::kInvalidModel, "{} of {} with a parameter of {}", context.node->op, to_string(shape),
             to_string(context.inputs[i]));
      }
    }
  }

  void run(const RunContext& context) override {
    const auto parameter = [&](std::size_t i) {
      return i < context.inputs.size() && context.inputs[i] != nullptr ? context.in<float>(i) : nullptr;
    };
    const float *x = context.in<float>(0), *scale = parameter(1), *bias = parameter(2);
    float* y = context.out<float>(0);
    if (extent_ == 0) return;
    // Rows, or blocks of columns.
    const std::size_t blocks = (inner_ + kColumns - 1) / kColumns, tasks = outer_ * blocks;
    const std::size_t together = std::max<std::size_t>(1, kGrain / (extent_ * std::min(inner_, kColumns) + 1));
    context.pool->parallel_for((tasks + together - 1) / together, [&](std::size_t i) {
      for (std::size_t task = i * together; task < std::min(tasks, (i + 1) * together); ++task) {
        const std::size_t first = task % blocks * kColumns, at = task / blocks * extent_ * inner_ + first;
        const simd::Columns columns = {x + at, extent_, inner_, y + at, std::min(kColumns, inner_ - first)};
        if (inner_ == 1) {
          row(x + at, scale, bias, y + at);
        } else if (centres_) {
          simd::layer_norm_columns(columns, scale, bias, epsilon_);
        } else {
          simd::l2_norm_columns(columns, scale, epsilon_);
        }
      }
    });
  }

 private:
  void row(const float* x, const float* scale, const float* bias, float* y) const {
    if (centres_) {
      simd::layer_norm_row(x, scale, bias, epsilon_, y, extent_);
    } else {
      simd::l2_norm_row(x, scale, epsilon_, y, extent_);
    }
  }

  std::size_t outer_ = 1, extent_ = 1, inner_ = 1;
  float epsilon_;
  bool centres_;
};

class AxisNormKernel final : public Kernel {
 public:
  AxisNormKernel(std::int64_t axis, float epsilon, bool centres) : axis_(axis), epsilon_(epsilon), centres_(centres) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundAxisNorm>(context, axis_, epsilon_, centres_);
  }
  bool may_overwrite(std::size_t input) const override { return input == 0; }

 private:
  std::int64_t axis_;
  float epsilon_;
  bool centres_;
};

}  // namespace

std::unique_ptr<Kernel> make_axis_norm_kernel(const Graph& graph, const Node& node) {
  const bool centres = node.op == "AxisNormalization";
  if (!centres && node.op != "L2Normalization") return nullptr;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (has_input(node, i) && !input_is(graph, node, i, DType::kF32)) return nullptr;
  }
  const TensorType& x = graph.value(node.inputs[0]).type;
  if (!x.shape || x.shape->empty()) return nullptr;
  const AttributeReader attributes(get_op(node.op), node.attributes);
  return std::make_unique<AxisNormKernel>(attributes.integer("axis"), static_cast<float>(attributes.number("epsilon")),
                                          centres);
}

}  // namespace weft::runtime
