// f32 elementwise operators, broadcast as NumPy does.
#include <algorithm>
#include <array>
#include <optional>

#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 16 * 1024;  // elements worth handing to a thread

template <class Operator>
struct Mapping {
  std::string_view op;
  Operator simd;
};

constexpr std::array<Mapping<simd::Binary>, 4> kBinary = {{
    {"Add", simd::Binary::kAdd},
    {"Sub", simd::Binary::kSub},
    {"Mul", simd::Binary::kMul},
    {"Div", simd::Binary::kDiv},
}};
constexpr std::array<Mapping<simd::Unary>, 8> kUnary = {{
    {"Abs", simd::Unary::kAbs},
    {"Neg", simd::Unary::kNeg},
    {"Sqrt", simd::Unary::kSqrt},
    {"Reciprocal", simd::Unary::kReciprocal},
    {"Floor", simd::Unary::kFloor},
    {"Ceil", simd::Unary::kCeil},
    {"Exp", simd::Unary::kExp},
    {"Erf", simd::Unary::kErf},
}};

template <class Table>
auto find(const Table& table, std::string_view op) {
  std::optional<decltype(table[0].simd)> result;
  for (const auto& entry : table) {
    if (entry.op == op) result = entry.simd;
  }
  return result;
}

// Calls body(first, last) for parts of [0, count), on the pool when there is enough work.
template <class Body>
void for_parts(ThreadPool& pool, std::size_t count, const Body& body) {
  const std::size_t parts = (count + kGrain - 1) / kGrain;
  pool.parallel_for(parts, [&](std::size_t i) { body(i * count / parts, (i + 1) * count / parts); });
}

// How two operands are walked, axes that both take in one stride joined. The last axis is the row: along it an operand
// either advances by one or stays.
class Broadcast {
 public:
  Broadcast(const Extents& out, const Extents& a, const Extents& b) {
    const Extents strides_a = strides(out, a), strides_b = strides(out, b);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (out[i] == 1) continue;
      const Axis axis{out[i], {strides_a[i], strides_b[i]}};
      const bool joins = !axes_.empty() && axes_.back().strides[0] == axis.strides[0] * axis.extent &&
                         axes_.back().strides[1] == axis.strides[1] * axis.extent;
      if (joins) {
        axes_.back() = {axes_.back().extent * axis.extent, axis.strides};
      } else {
        axes_.push_back(axis);
      }
    }
    if (axes_.empty()) axes_.push_back({1, {0, 0}});
  }

  std::size_t row_length() const { return static_cast<std::size_t>(axes_.back().extent); }
  bool advances(std::size_t operand) const { return axes_.back().strides[operand] != 0; }
  // Where an operand's row begins.
  std::size_t offset(std::size_t operand, std::size_t row) const {
    auto rest = static_cast<std::int64_t>(row);
    std::int64_t result = 0;
    for (std::size_t i = axes_.size() - 1; i-- > 0;) {
      result += rest % axes_[i].extent * axes_[i].strides[operand];
      rest /= axes_[i].extent;
    }
    return static_cast<std::size_t>(result);
  }

 private:
  struct Axis {
    std::int64_t extent;
    std::array<std::int64_t, 2> strides;
  };

  static Extents strides(const Extents& out, const Extents& own) {
    Extents result(out.size(), 0);
    const Extents dense = row_major_strides(own);
    for (std::size_t i = 0; i < own.size(); ++i) {
      if (own[i] != 1) result[out.size() - own.size() + i] = dense[i];
    }
    return result;
  }

  std::vector<Axis> axes_;
};

class BoundBinary final : public BoundKernel {
 public:
  BoundBinary(simd::Binary type, const BindContext& context)
      : type_(type),
        broadcast_(context.outputs[0], context.inputs[0], context.inputs[1]),
        count_(static_cast<std::size_t>(element_count(context.outputs[0]))) {}

  void run(const RunContext& context) override {
    const float* a = context.in<float>(0);
    const float* b = context.in<float>(1);
    float* y = context.out<float>(0);
    const std::size_t length = broadcast_.row_length();
    for_parts(*context.pool, count_, [&](std::size_t first, std::size_t last) {
      while (first < last) {
        const std::size_t row = first / length, column = first % length;
        const std::size_t count = std::min(length - column, last - first);
        const bool moves_a = broadcast_.advances(0), moves_b = broadcast_.advances(1);
        simd::binary(type_, a + broadcast_.offset(0, row) + (moves_a ? column : 0), moves_a,
                     b + broadcast_.offset(1, row) + (moves_b ? column : 0), moves_b, y + first, count);
        first += count;
      }
    });
  }

 private:
  simd::Binary type_;
  Broadcast broadcast_;
  std::size_t count_;
};

class BoundUnary final : public BoundKernel {
 public:
  BoundUnary(simd::Unary type, std::size_t count) : type_(type), count_(count) {}

  void run(const RunContext& context) override {
    const float* x = context.in<float>(0);
    float* y = context.out<float>(0);
    for_parts(*context.pool, count_,
              [&](std::size_t first, std::size_t last) { simd::unary(type_, x + first, y + first, last - first); });
  }

 private:
  simd::Unary type_;
  std::size_t count_;
};

class BinaryKernel final : public Kernel {
 public:
  explicit BinaryKernel(simd::Binary type) : type_(type) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundBinary>(type_, context);
  }
  bool may_overwrite(std::size_t) const override { return true; }

 private:
  simd::Binary type_;
};

class UnaryKernel final : public Kernel {
 public:
  explicit UnaryKernel(simd::Unary type) : type_(type) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundUnary>(type_, static_cast<std::size_t>(element_count(context.outputs[0])));
  }
  bool may_overwrite(std::size_t) const override { return true; }

 private:
  simd::Unary type_;
};

}  // namespace

std::unique_ptr<Kernel> make_elementwise_kernel(const Graph& graph, const Node& node) {
  if (!input_is(graph, node, 0, DType::kF32)) return nullptr;
  if (const auto unary = find(kUnary, node.op)) return std::make_unique<UnaryKernel>(*unary);
  const auto binary = find(kBinary, node.op);
  if (!binary || !input_is(graph, node, 1, DType::kF32)) return nullptr;
  return std::make_unique<BinaryKernel>(*binary);
}

}  // namespace weft::runtime
