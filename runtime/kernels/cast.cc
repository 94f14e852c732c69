// Cast between f32 and halves, and whether a node of halves runs on a kernel once it is one of f32.
#include <algorithm>

#include "ops/builder.h"
#include "runtime/kernels/convert.h"
#include "runtime/kernels/kernel.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kChunk = 16 * 1024;  // elements of a task

bool is_half(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }

class BoundCast final : public BoundKernel {
 public:
  void run(const RunContext& context) override {
    const Tensor& x = *context.inputs[0];
    Tensor& y = *context.outputs[0];
    const auto total = static_cast<std::size_t>(x.size());
    context.pool->parallel_for((total + kChunk - 1) / kChunk, [&](std::size_t task) {
      const std::size_t first = task * kChunk, count = std::min(kChunk, total - first);
      if (is_half(x.dtype())) {
        convert::from_half(reinterpret_cast<const std::uint16_t*>(x.bytes().data()) + first, x.dtype() == DType::kBF16,
                           y.mutable_data<float>().data() + first, count);
      } else {
        convert::to_half(x.data<float>().data() + first, y.dtype() == DType::kBF16,
                         reinterpret_cast<std::uint16_t*>(y.mutable_bytes().data()) + first, count);
      }
    });
  }
};

class CastKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext&) const override { return std::make_unique<BoundCast>(); }
};

}  // namespace

std::unique_ptr<Kernel> make_cast_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Cast") return nullptr;
  const DType from = graph.value(node.inputs[0]).type.dtype, to = graph.value(node.outputs[0]).type.dtype;
  const bool known = (is_half(from) && to == DType::kF32) || (from == DType::kF32 && is_half(to));
  return known ? std::make_unique<CastKernel>() : nullptr;
}

bool has_kernel_in_f32(const Graph& graph, const Node& node) {
  if (node.op == "Cast" || !node.subgraphs.empty()) return false;
  Graph wide;
  Builder builder(wide);
  std::vector<ValueId> inputs;
  bool half = false;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) {
      inputs.push_back({});
      continue;
    }
    const Value& value = graph.value(node.inputs[i]);
    TensorType type = value.type;
    if (is_half(type.dtype)) {
      half = true;
      type.dtype = DType::kF32;
    } else if (value.kind == ValueKind::kConstant) {
      inputs.push_back(builder.constant(*value.tensor));
      continue;
    }
    inputs.push_back(wide.add_input("x" + std::to_string(i), type));
  }
  if (!half) return false;
  const std::vector<Expr> outputs = builder.make_many(node.op, inputs, node.outputs.size(), node.attributes);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (node.outputs[i].valid() && is_half(graph.value(node.outputs[i]).type.dtype) &&
        builder.dtype(outputs[i]) != DType::kF32) {
      return false;
    }
  }
  return make_specific_kernel(wide, wide.node(wide.value(outputs.at(0)).producer)) != nullptr;
}

}  // namespace weft::runtime
