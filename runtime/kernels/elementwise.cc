// Elementwise operators, broadcast as NumPy does.
#include <algorithm>
#include <optional>

#include "ops/op_def.h"
#include "runtime/kernels/broadcast.h"
#include "runtime/kernels/elements.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 16 * 1024;  // elements worth handing to a thread

// Calls body(first, last) for parts of [0, count), on the pool when there is enough work.
template <class Body>
void for_parts(ThreadPool& pool, std::size_t count, const Body& body) {
  const std::size_t parts = (count + kGrain - 1) / kGrain;
  pool.parallel_for(parts, [&](std::size_t i) { body(i * count / parts, (i + 1) * count / parts); });
}

std::size_t count_of(const Extents& shape) { return static_cast<std::size_t>(element_count(shape)); }

// --- Two operands ---------------------------------------------------------------------------------------------

class PairKernel final : public Kernel {
 public:
  PairKernel(elements::PairRow row, DType from, DType to)
      : row_(row), from_(element_size(from)), to_(element_size(to)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<Bound>(*this, context);
  }
  bool may_overwrite(std::size_t) const override { return from_ == to_; }

 private:
  class Bound final : public BoundKernel {
   public:
    Bound(const PairKernel& kernel, const BindContext& context)
        : kernel_(kernel),
          broadcast_(context.outputs[0], {&context.inputs[0], &context.inputs[1]}),
          count_(count_of(context.outputs[0])) {}

    void run(const RunContext& context) override {
      const std::byte* a = context.inputs[0]->bytes().data();
      const std::byte* b = context.inputs[1]->bytes().data();
      std::byte* y = context.outputs[0]->mutable_bytes().data();
      for_parts(*context.pool, count_, [&](std::size_t first, std::size_t last) {
        broadcast_.for_runs(first, last, [&](std::size_t position, std::size_t count, const auto& at) {
          kernel_.row_(a + at[0] * kernel_.from_, broadcast_.advances(0), b + at[1] * kernel_.from_,
                       broadcast_.advances(1), y + position * kernel_.to_, count);
        });
      });
    }

   private:
    const PairKernel& kernel_;
    Broadcast<2> broadcast_;
    std::size_t count_;
  };

  elements::PairRow row_;
  std::size_t from_, to_;
};

std::unique_ptr<Kernel> make_pair(const Graph& graph, const Node& node) {
  if (node.inputs.size() != 2 || !has_input(node, 1)) return nullptr;
  const DType dtype = graph.value(node.inputs[0]).type.dtype;
  if (!input_is(graph, node, 1, dtype)) return nullptr;
  const elements::PairRow row = elements::pair_row(node.op == "Sum" ? "Add" : node.op, dtype);
  if (row == nullptr) return nullptr;
  return std::make_unique<PairKernel>(row, dtype, graph.value(node.outputs[0]).type.dtype);
}

// --- Where ----------------------------------------------------------------------------------------------------

class SelectKernel final : public Kernel {
 public:
  explicit SelectKernel(std::size_t size) : row_(elements::select_row(size)), size_(size) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<Bound>(*this, context);
  }
  bool may_overwrite(std::size_t) const override { return true; }

 private:
  class Bound final : public BoundKernel {
   public:
    Bound(const SelectKernel& kernel, const BindContext& context)
        : kernel_(kernel),
          broadcast_(context.outputs[0], {&context.inputs[0], &context.inputs[1], &context.inputs[2]}),
          count_(count_of(context.outputs[0])) {}

    void run(const RunContext& context) override {
      const std::size_t size = kernel_.size_;
      const std::byte* condition = context.inputs[0]->bytes().data();
      const std::byte* a = context.inputs[1]->bytes().data();
      const std::byte* b = context.inputs[2]->bytes().data();
      std::byte* y = context.outputs[0]->mutable_bytes().data();
      for_parts(*context.pool, count_, [&](std::size_t first, std::size_t last) {
        broadcast_.for_runs(first, last, [&](std::size_t position, std::size_t count, const auto& at) {
          kernel_.row_(condition + at[0], broadcast_.advances(0), a + at[1] * size, broadcast_.advances(1),
                       b + at[2] * size, broadcast_.advances(2), y + position * size, count);
        });
      });
    }

   private:
    const SelectKernel& kernel_;
    Broadcast<3> broadcast_;
    std::size_t count_;
  };

  elements::SelectRow row_;
  std::size_t size_;
};

std::unique_ptr<Kernel> make_select(const Graph& graph, const Node& node) {
  const DType dtype = graph.value(node.inputs[1]).type.dtype;
  if (is_object(dtype) || !input_is(graph, node, 2, dtype)) return nullptr;
  return std::make_unique<SelectKernel>(element_size(dtype));
}

// --- One operand ------------------------------------------------------------------------------------------------

// body(x, y, count) for parts of the elements.
template <class Part>
class PartKernel final : public Kernel {
 public:
  PartKernel(Part part, DType from, DType to) : part_(part), from_(element_size(from)), to_(element_size(to)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<Bound>(*this, count_of(context.outputs[0]));
  }
  bool may_overwrite(std::size_t input) const override { return input == 0 && from_ == to_; }

 private:
  class Bound final : public BoundKernel {
   public:
    Bound(const PartKernel& kernel, std::size_t count) : kernel_(kernel), count_(count) {}
    void run(const RunContext& context) override {
      const std::byte* x = context.inputs[0]->bytes().data();
      std::byte* y = context.outputs[0]->mutable_bytes().data();
      for_parts(*context.pool, count_, [&](std::size_t first, std::size_t last) {
        kernel_.part_(context, x + first * kernel_.from_, y + first * kernel_.to_, last - first);
      });
    }

   private:
    const PartKernel& kernel_;
    std::size_t count_;
  };

  Part part_;
  std::size_t from_, to_;
};

template <class Part>
std::unique_ptr<Kernel> part_kernel(Part part, DType from, DType to) {
  return std::make_unique<PartKernel<Part>>(part, from, to);
}

// How an f32 operator is computed, and the attributes that are its parameters.
struct Function {
  std::string_view op;
  simd::Unary simd;
  std::string_view alpha = {}, beta = {};
};

constexpr Function kFunctions[] = {
    {"Abs", simd::Unary::kAbs},
    {"Neg", simd::Unary::kNeg},
    {"Sqrt", simd::Unary::kSqrt},
    {"Reciprocal", simd::Unary::kReciprocal},
    {"Floor", simd::Unary::kFloor},
    {"Ceil", simd::Unary::kCeil},
    {"Round", simd::Unary::kRound},
    {"Sign", simd::Unary::kSign},
    {"Exp", simd::Unary::kExp},
    {"Log", simd::Unary::kLog},
    {"Sin", simd::Unary::kSin},
    {"Cos", simd::Unary::kCos},
    {"Erf", simd::Unary::kErf},
    {"Softplus", simd::Unary::kSoftplus},
    {"Softsign", simd::Unary::kSoftsign},
    {"Mish", simd::Unary::kMish},
    {"HardSwish", simd::Unary::kHardSwish},
    {"HardSigmoid", simd::Unary::kHardSigmoid, "alpha", "beta"},
    {"LeakyRelu", simd::Unary::kLeakyRelu, "alpha"},
    {"ThresholdedRelu", simd::Unary::kThresholdedRelu, "alpha"},
    {"Elu", simd::Unary::kElu, "alpha"},
    {"Celu", simd::Unary::kCelu, "alpha"},
    {"Selu", simd::Unary::kSelu, "alpha", "gamma"},
};

std::unique_ptr<Kernel> make_function(const Node& node) {
  const auto found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                  [&](const Function& function) { return function.op == node.op; });
  if (found == std::end(kFunctions)) return nullptr;
  const AttributeReader attributes(get_op(node.op), node.attributes);
  const auto parameter = [&](std::string_view name) {
    return name.empty() ? 0.0f : static_cast<float>(attributes.number(name));
  };
  const simd::Function function = {found->simd, parameter(found->alpha), parameter(found->beta)};
  return part_kernel(
      [function](const RunContext&, const std::byte* x, std::byte* y, std::size_t count) {
        simd::unary(function, reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), count);
      },
      DType::kF32, DType::kF32);
}

// Bounds are read when it runs.
std::unique_ptr<Kernel> make_clip() {
  return part_kernel(
      [](const RunContext& context, const std::byte* x, std::byte* y, std::size_t count) {
        const auto bound = [&](std::size_t i, float fallback) {
          const bool given = context.inputs.size() > i && context.inputs[i] != nullptr;
          return given ? static_cast<float>(context.inputs[i]->item()) : fallback;
        };
        constexpr float kInfinity = std::numeric_limits<float>::infinity();
        const simd::Function clip = {simd::Unary::kClip, bound(1, -kInfinity), bound(2, kInfinity)};
        simd::unary(clip, reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), count);
      },
      DType::kF32, DType::kF32);
}

std::unique_ptr<Kernel> make_map(elements::MapRow row, DType from, DType to) {
  return part_kernel(
      [row](const RunContext&, const std::byte* x, std::byte* y, std::size_t count) { row(x, y, count); }, from, to);
}

}  // namespace

std::unique_ptr<Kernel> make_elementwise_kernel(const Graph& graph, const Node& node) {
  if (node.outputs.size() != 1 || !has_input(node, 0)) return nullptr;
  if (node.op == "Where") return make_select(graph, node);
  if (std::unique_ptr<Kernel> pair = make_pair(graph, node)) return pair;
  const DType from = graph.value(node.inputs[0]).type.dtype, to = graph.value(node.outputs[0]).type.dtype;
  if (const elements::MapRow row = elements::map_row(node.op, from)) return make_map(row, from, to);
  if (node.op == "Cast") {
    const elements::MapRow row = elements::cast_row(from, to);
    return row == nullptr ? nullptr : make_map(row, from, to);
  }
  if (from != DType::kF32) return nullptr;
  return node.op == "Clip" ? make_clip() : make_function(node);
}

}  // namespace weft::runtime
