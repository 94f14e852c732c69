// Norms along one axis, wherever it is: AxisNormalization, L2Normalization.
#include "ops/op_def.h"
#include "runtime/kernels/axis_lines.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

class BoundAxisNorm final : public BoundKernel {
 public:
  BoundAxisNorm(const BindContext& context, std::int64_t given, float epsilon, bool centres)
      : lines_(context.inputs[0], given), epsilon_(epsilon), centres_(centres) {
    const Extents wanted = {static_cast<std::int64_t>(lines_.extent)};
    for (std::size_t i = 1; i < context.inputs.size(); ++i) {
      if (has_input(*context.node, i) && context.inputs[i] != wanted) {
        fail(ErrorCode::kInvalidModel, "{} of {} with a parameter of {}", context.node->op,
             to_string(context.inputs[0]), to_string(context.inputs[i]));
      }
    }
  }

  void run(const RunContext& context) override {
    const auto parameter = [&](std::size_t i) {
      return i < context.inputs.size() && context.inputs[i] != nullptr ? context.in<float>(i) : nullptr;
    };
    const float *x = context.in<float>(0), *scale = parameter(1), *bias = parameter(2);
    float* y = context.out<float>(0);
    lines_.for_each(*context.pool, [&](std::size_t at, std::size_t count) {
      const simd::Columns columns = {x + at, lines_.extent, lines_.inner, y + at, count};
      if (lines_.inner == 1) {
        row(x + at, scale, bias, y + at);
      } else if (centres_) {
        simd::layer_norm_columns(columns, scale, bias, epsilon_);
      } else {
        simd::l2_norm_columns(columns, scale, epsilon_);
      }
    });
  }

 private:
  void row(const float* x, const float* scale, const float* bias, float* y) const {
    if (centres_) {
      simd::layer_norm_row(x, scale, bias, epsilon_, y, lines_.extent);
    } else {
      simd::l2_norm_row(x, scale, epsilon_, y, lines_.extent);
    }
  }

  AxisLines lines_;
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
