// Linear, and MatMul with constant weights: packed once, multiplied with the bias, the activation and the residual on
// the way.
#include <array>

#include "runtime/kernels/gemm.h"
#include "runtime/kernels/kernel.h"

namespace weft::runtime {
namespace {

struct ActivationName {
  std::string_view name;
  simd::Activation activation;
};
constexpr std::array<ActivationName, 7> kActivations = {{
    {"none", simd::Activation::kNone},
    {"relu", simd::Activation::kRelu},
    {"gelu", simd::Activation::kGelu},
    {"gelu_tanh", simd::Activation::kGeluTanh},
    {"silu", simd::Activation::kSilu},
    {"tanh", simd::Activation::kTanh},
    {"sigmoid", simd::Activation::kSigmoid},
}};

// The weights of one node; shared by the bound kernels of all sessions.
struct PackedLinear {
  gemm::PackedShape shape;
  Tensor weights;
  Tensor bias;  // empty: none
  simd::Activation activation = simd::Activation::kNone;
  bool has_residual = false;
};

class BoundLinear final : public BoundKernel {
 public:
  BoundLinear(std::shared_ptr<const PackedLinear> linear, std::size_t rows) : linear_(std::move(linear)) {
    product_.shape = linear_->shape;
    product_.a_stride = linear_->shape.k;
    product_.rows = rows;
    product_.packed = linear_->weights.data<float>().data();
    product_.bias = linear_->bias.size() > 0 ? linear_->bias.data<float>().data() : nullptr;
    product_.activation = linear_->activation;
    product_.residual_stride = linear_->shape.n;
    product_.c_stride = linear_->shape.n;
  }

  void run(const RunContext& context) override {
    product_.a = context.in<float>(0);
    product_.residual = linear_->has_residual ? context.in<float>(3) : nullptr;
    product_.c = context.out<float>(0);
    gemm::multiply(product_, *context.pool);
  }

 private:
  std::shared_ptr<const PackedLinear> linear_;
  gemm::Product product_;
};

class BoundEmpty final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class LinearKernel final : public Kernel {
 public:
  LinearKernel(const Tensor& weight, const Tensor* bias, simd::Activation activation, bool has_residual)
      : linear_(std::make_shared<PackedLinear>()) {
    linear_->shape = {static_cast<std::size_t>(weight.extent(0)), static_cast<std::size_t>(weight.extent(1))};
    linear_->activation = activation;
    linear_->has_residual = has_residual;
    if (bias != nullptr) linear_->bias = bias->aligned();
    const Tensor aligned = weight.aligned();
    linear_->weights =
        Tensor::uninitialized(DType::kF32, {static_cast<std::int64_t>(gemm::packed_size(linear_->shape))});
    gemm::pack(linear_->shape, aligned.data<float>().data(), linear_->shape.n, 1, 0, gemm::panel_count(linear_->shape),
               linear_->weights.mutable_data<float>().data());
  }

  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    const auto elements = static_cast<std::size_t>(element_count(context.outputs[0]));
    if (elements == 0) return std::make_unique<BoundEmpty>();
    if (linear_->has_residual && context.inputs[3] != context.outputs[0]) {
      fail(ErrorCode::kInvalidModel, "Linear gives {}, its residual is {}", to_string(context.outputs[0]),
           to_string(context.inputs[3]));
    }
    return std::make_unique<BoundLinear>(linear_, elements / linear_->shape.n);
  }

  bool packs_constants() const override { return true; }

 private:
  std::shared_ptr<PackedLinear> linear_;
};

const simd::Activation* find_activation(std::string_view name) {
  for (const ActivationName& entry : kActivations) {
    if (entry.name == name) return &entry.activation;
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Kernel> make_linear_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Linear" && node.op != "MatMul") return nullptr;
  const Tensor* weight = constant_input(graph, node, 1);
  if (weight == nullptr || weight->rank() != 2 || weight->size() == 0 || weight->dtype() != DType::kF32 ||
      !input_is(graph, node, 0, DType::kF32)) {
    return nullptr;
  }
  const TensorType& x = graph.value(node.inputs[0]).type;
  if (!x.shape || x.shape->empty()) return nullptr;
  const Tensor* bias = nullptr;
  simd::Activation activation = simd::Activation::kNone;
  if (node.op == "Linear") {
    if (has_input(node, 2)) {
      bias = constant_input(graph, node, 2);
      if (bias == nullptr) return nullptr;
    }
    const auto found = node.attributes.find("activation");
    if (found != node.attributes.end()) {
      const simd::Activation* known = find_activation(std::get<std::string>(found->second));
      if (known == nullptr) return nullptr;
      activation = *known;
    }
    if (has_input(node, 3) && !input_is(graph, node, 3, DType::kF32)) return nullptr;
  }
  return std::make_unique<LinearKernel>(*weight, bias, activation, has_input(node, 3));
}

}  // namespace weft::runtime
