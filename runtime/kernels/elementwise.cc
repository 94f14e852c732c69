// f32 elementwise operators on XNNPACK.
#include <array>
#include <optional>

#include "runtime/kernels/kernel.h"
#include "runtime/kernels/xnnpack.h"

namespace weft::runtime {
namespace {

template <class Operator>
struct Mapping {
  std::string_view op;
  Operator xnn;
};

// Only operators whose results XNNPACK computes as ONNX defines them, NaN included (its minimum and
// maximum drop NaN on x86, its rounding and transcendental functions are approximations).
constexpr std::array<Mapping<xnn_binary_operator>, 4> kBinary = {{
    {"Add", xnn_binary_add},
    {"Sub", xnn_binary_subtract},
    {"Mul", xnn_binary_multiply},
    {"Div", xnn_binary_divide},
}};
constexpr std::array<Mapping<xnn_unary_operator>, 4> kUnary = {{
    {"Abs", xnn_unary_abs},
    {"Neg", xnn_unary_negate},
    {"Sqrt", xnn_unary_square_root},
    {"Floor", xnn_unary_floor},
}};

template <class Table>
auto find(const Table& table, std::string_view op) {
  std::optional<decltype(table[0].xnn)> result;
  for (const auto& entry : table) {
    if (entry.op == op) result.emplace(entry.xnn);
  }
  return result;
}

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class BoundBinary final : public BoundKernel {
 public:
  BoundBinary(xnn_binary_operator type, const BindContext& context) {
    xnn_operator_t op = nullptr;
    xnn::check(xnn_create_binary_elementwise_nd(type, xnn_datatype_fp32, nullptr, nullptr, nullptr, 0, &op),
               "xnn_create_binary_elementwise_nd");
    operator_.reset(op);
    const std::vector<std::size_t> a(context.inputs[0].begin(), context.inputs[0].end());
    const std::vector<std::size_t> b(context.inputs[1].begin(), context.inputs[1].end());
    work_ = static_cast<double>(element_count(context.outputs[0]));
    xnn::check(
        xnn_reshape_binary_elementwise_nd(op, a.size(), a.data(), b.size(), b.data(), pool_for(*context.pool, work_)),
        "xnn_reshape_binary_elementwise_nd");
  }
  void run(const RunContext& context) override {
    xnn::check(xnn_setup_binary_elementwise_nd(operator_.get(), context.in<float>(0), context.in<float>(1),
                                               context.out<float>(0)),
               "xnn_setup_binary_elementwise_nd");
    xnn::check(xnn_run_operator(operator_.get(), pool_for(*context.pool, work_)), "xnn_run_operator");
  }

 private:
  xnn::Operator operator_;
  double work_ = 0;
};

class BoundUnary final : public BoundKernel {
 public:
  BoundUnary(xnn_unary_operator type, const BindContext& context) {
    xnn_operator_t op = nullptr;
    xnn::check(
        xnn_create_unary_elementwise_nc(type, xnn_datatype_fp32, xnn_datatype_fp32, nullptr, nullptr, nullptr, 0, &op),
        "xnn_create_unary_elementwise_nc");
    operator_.reset(op);
    const auto count = static_cast<std::size_t>(element_count(context.outputs[0]));
    work_ = static_cast<double>(count);
    xnn::check(xnn_reshape_unary_elementwise_nc(op, 1, count, count, count, pool_for(*context.pool, work_)),
               "xnn_reshape_unary_elementwise_nc");
  }
  void run(const RunContext& context) override {
    xnn::check(xnn_setup_unary_elementwise_nc(operator_.get(), context.in<float>(0), context.out<float>(0)),
               "xnn_setup_unary_elementwise_nc");
    xnn::check(xnn_run_operator(operator_.get(), pool_for(*context.pool, work_)), "xnn_run_operator");
  }

 private:
  xnn::Operator operator_;
  double work_ = 0;
};

class BinaryKernel final : public Kernel {
 public:
  explicit BinaryKernel(xnn_binary_operator type) : type_(type) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundBinary>(type_, context);
  }
  bool may_overwrite(std::size_t) const override { return true; }

 private:
  xnn_binary_operator type_;
};

class UnaryKernel final : public Kernel {
 public:
  explicit UnaryKernel(xnn_unary_operator type) : type_(type) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundUnary>(type_, context);
  }
  bool may_overwrite(std::size_t) const override { return true; }

 private:
  xnn_unary_operator type_;
};

}  // namespace

std::unique_ptr<Kernel> make_elementwise_kernel(const Graph& graph, const Node& node) {
  if (!input_is(graph, node, 0, DType::kF32)) return nullptr;
  if (const auto unary = find(kUnary, node.op)) {
    xnn::initialize();
    return std::make_unique<UnaryKernel>(*unary);
  }
  const auto binary = find(kBinary, node.op);
  if (!binary || !input_is(graph, node, 1, DType::kF32)) return nullptr;
  for (const ValueId id : node.inputs) {
    const TensorType& type = graph.value(id).type;
    if (!type.shape || type.shape->size() > XNN_MAX_TENSOR_DIMS) return nullptr;
  }
  xnn::initialize();
  return std::make_unique<BinaryKernel>(*binary);
}

}  // namespace weft::runtime
