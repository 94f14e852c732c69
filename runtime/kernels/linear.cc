// Linear, and MatMul with constant weights, on XNNPACK's fully-connected operator.
//
// XNNPACK walks rows inside columns, so a weight wider than the cache is read again for every tile of
// rows: wide weights are cut into panels of columns, one operator each, and panels go to threads.
#include <algorithm>
#include <array>
#include <limits>

#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"
#include "runtime/kernels/xnnpack.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kPanelBytes = 768 * 1024;
constexpr std::size_t kPanelColumns = 32;
// Below this many multiplications handing work to other threads costs more than it saves.
constexpr std::size_t kSerialWork = 64 * 1024;

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

struct Panel {
  std::size_t first, columns;
  const float* weight;  // key into the packed weights
  const float* bias;
};

// The weights of one node, packed; shared by the bound kernels of all sessions.
struct PackedLinear {
  std::size_t inputs = 0, outputs = 0;
  simd::Activation activation = simd::Activation::kNone;
  std::vector<Panel> panels;
  xnn::PackedWeights weights;

  xnn::Operator create(const Panel& panel) const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    xnn_operator_t op = nullptr;
    xnn::check(xnn_create_fully_connected_nc_f32(inputs, panel.columns, inputs, outputs, panel.weight, panel.bias,
                                                 activation == simd::Activation::kRelu ? 0.0f : -kInfinity, kInfinity,
                                                 0, nullptr, weights.cache(), &op),
               "xnn_create_fully_connected_nc_f32");
    return xnn::Operator(op);
  }
};

// [K, N] -> [N, K], in tiles that stay in cache.
std::vector<float> transposed(const float* weight, std::size_t rows, std::size_t columns) {
  constexpr std::size_t kTile = 32;
  std::vector<float> result(rows * columns);
  for (std::size_t r0 = 0; r0 < rows; r0 += kTile) {
    for (std::size_t c0 = 0; c0 < columns; c0 += kTile) {
      for (std::size_t r = r0; r < std::min(r0 + kTile, rows); ++r) {
        for (std::size_t c = c0; c < std::min(c0 + kTile, columns); ++c) {
          result[c * rows + r] = weight[r * columns + c];
        }
      }
    }
  }
  return result;
}

class BoundLinear final : public BoundKernel {
 public:
  BoundLinear(std::shared_ptr<const PackedLinear> linear, std::size_t rows) : linear_(std::move(linear)), rows_(rows) {
    for (const Panel& panel : linear_->panels) {
      operators_.push_back(linear_->create(panel));
      xnn::check(xnn_reshape_fully_connected_nc_f32(operators_.back().get(), rows_, nullptr),
                 "xnn_reshape_fully_connected_nc_f32");
    }
  }

  void run(const RunContext& context) override {
    const float* x = context.in<float>(0);
    float* y = context.out<float>(0);
    const auto body = [&](std::size_t i) { run_panel(i, x, y); };
    if (rows_ * linear_->inputs * linear_->outputs < kSerialWork) {
      for (std::size_t i = 0; i < operators_.size(); ++i) body(i);
    } else {
      context.pool->parallel_for(operators_.size(), body);
    }
  }

 private:
  void run_panel(std::size_t i, const float* x, float* y) {
    const Panel& panel = linear_->panels[i];
    xnn_operator_t op = operators_[i].get();
    xnn::check(xnn_setup_fully_connected_nc_f32(op, x, y + panel.first), "xnn_setup_fully_connected_nc_f32");
    xnn::check(xnn_run_operator(op, nullptr), "xnn_run_operator");
    if (linear_->activation == simd::Activation::kNone || linear_->activation == simd::Activation::kRelu) {
      return;
    }
    for (std::size_t r = 0; r < rows_; ++r) {
      float* row = y + r * linear_->outputs + panel.first;
      simd::activate(linear_->activation, 1.0f, row, row, panel.columns);
    }
  }

  std::shared_ptr<const PackedLinear> linear_;
  std::size_t rows_;
  std::vector<xnn::Operator> operators_;
};

// Without rows, columns or terms there is nothing for XNNPACK to do.
class BoundEmpty final : public BoundKernel {
 public:
  explicit BoundEmpty(std::shared_ptr<const PackedLinear> linear) : linear_(std::move(linear)) {}
  void run(const RunContext&) override {}

 private:
  std::shared_ptr<const PackedLinear> linear_;
};

class LinearKernel final : public Kernel {
 public:
  LinearKernel(const Tensor& weight, const Tensor* bias, simd::Activation activation)
      : linear_(std::make_shared<PackedLinear>()) {
    xnn::initialize();
    linear_->inputs = static_cast<std::size_t>(weight.extent(0));
    linear_->outputs = static_cast<std::size_t>(weight.extent(1));
    linear_->activation = activation;
    const Tensor aligned = weight.aligned();
    const std::vector<float> by_output = transposed(aligned.data<float>().data(), linear_->inputs, linear_->outputs);
    Tensor aligned_bias;
    if (bias != nullptr) aligned_bias = bias->aligned();
    const float* bias_data = bias != nullptr ? aligned_bias.data<float>().data() : nullptr;
    for (std::size_t first = 0; first < linear_->outputs; first += panel_columns()) {
      const std::size_t columns = std::min(panel_columns(), linear_->outputs - first);
      linear_->panels.push_back({first, columns, by_output.data() + first * linear_->inputs,
                                 bias_data != nullptr ? bias_data + first : nullptr});
      linear_->create(linear_->panels.back());  // packs
    }
    linear_->weights.seal();
  }

  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    const auto elements = static_cast<std::size_t>(element_count(context.outputs[0]));
    if (elements == 0) return std::make_unique<BoundEmpty>(linear_);
    return std::make_unique<BoundLinear>(linear_, elements / linear_->outputs);
  }

  bool packs_constants() const override { return true; }

 private:
  std::size_t panel_columns() const {
    const std::size_t fitting = kPanelBytes / (sizeof(float) * linear_->inputs);
    const std::size_t shared = (linear_->outputs + 7) / 8;  // enough panels for a few threads
    const std::size_t columns = std::min(std::max(fitting, kPanelColumns), std::max(shared, 2 * kPanelColumns));
    return std::max(columns / kPanelColumns * kPanelColumns, kPanelColumns);
  }

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
  }
  return std::make_unique<LinearKernel>(*weight, bias, activation);
}

}  // namespace weft::runtime
