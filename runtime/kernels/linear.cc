// Linear, LinearSplit, and MatMul with constant weights: packed once, multiplied with the bias, the activation and the
// residual on the way.
#include <optional>

#include "runtime/kernels/activations.h"
#include "runtime/kernels/gemm.h"
#include "runtime/kernels/kernel.h"

namespace weft::runtime {
namespace {

// The weights of one node; shared by the bound kernels of all sessions.
struct PackedLinear {
  struct Part {  // one output
    gemm::PackedShape shape;
    std::size_t column;  // of the matrix
    std::size_t offset;  // into the packed weights
    simd::Activation activation;
  };
  std::vector<Part> parts;
  std::size_t columns = 0;
  Tensor weights;
  Tensor bias;  // empty: none
  bool has_residual = false;
};

class BoundLinear final : public BoundKernel {
 public:
  BoundLinear(std::shared_ptr<const PackedLinear> linear, std::size_t rows, int threads) : linear_(std::move(linear)) {
    for (const PackedLinear::Part& part : linear_->parts) {
      gemm::Product product;
      product.shape = part.shape;
      product.a_stride = part.shape.k;
      product.rows = rows;
      product.packed = linear_->weights.data<float>().data() + part.offset;
      product.bias = linear_->bias.size() > 0 ? linear_->bias.data<float>().data() + part.column : nullptr;
      product.activation = part.activation;
      product.residual_stride = part.shape.n;
      product.c_stride = part.shape.n;
      products_.push_back(product);
    }
    tasks_ = gemm::schedule(products_, threads);
  }

  void run(const RunContext& context) override {
    for (std::size_t i = 0; i < products_.size(); ++i) {
      products_[i].a = context.in<float>(0);
      products_[i].residual = linear_->has_residual ? context.in<float>(3) : nullptr;
      products_[i].c = context.out<float>(i);
    }
    gemm::multiply(products_, tasks_, *context.pool);
  }

 private:
  std::shared_ptr<const PackedLinear> linear_;
  std::vector<gemm::Product> products_;
  std::vector<gemm::Task> tasks_;
};

class BoundEmpty final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class LinearKernel final : public Kernel {
 public:
  // A width and an activation for each output.
  LinearKernel(const Tensor& weight, const Tensor* bias, std::span<const std::int64_t> widths,
               std::span<const simd::Activation> activations, bool has_residual)
      : linear_(std::make_shared<PackedLinear>()) {
    linear_->columns = static_cast<std::size_t>(weight.extent(1));
    linear_->has_residual = has_residual;
    if (bias != nullptr) linear_->bias = bias->aligned();
    const auto k = static_cast<std::size_t>(weight.extent(0));
    std::size_t column = 0, offset = 0;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const gemm::PackedShape shape = {k, static_cast<std::size_t>(widths[i])};
      linear_->parts.push_back({shape, column, offset, activations[i]});
      column += shape.n;
      offset += gemm::packed_size(shape);
    }
    floats_ = offset;
    source_ = weight;
  }

  std::size_t packed_floats() const override { return floats_; }

  void pack(std::span<float> packed, ThreadPool& pool) const override {
    for (const PackedLinear::Part& part : linear_->parts) {
      const std::byte* const source = source_.bytes().data() + part.column * sizeof(float);
      pool.parallel_for(gemm::panel_count(part.shape), [&](std::size_t panel) {
        gemm::pack(part.shape, source, linear_->columns, 1, panel, panel + 1, packed.data() + part.offset);
      });
    }
  }

  void set_packed(Tensor packed) override {
    linear_->weights = std::move(packed);
    source_ = Tensor();
  }
  Tensor packed() const override { return linear_->weights; }

  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    const Extents& x = context.inputs[0];
    const auto k = static_cast<std::int64_t>(linear_->parts[0].shape.k);
    if (x.empty() || x.back() != k) {
      fail(ErrorCode::kInvalidModel, "Linear of {} with {} rows of weights", to_string(x), k);
    }
    const std::int64_t rows = element_count(std::span(x).first(x.size() - 1));
    if (rows == 0) return std::make_unique<BoundEmpty>();
    if (linear_->has_residual && context.inputs[3] != context.outputs[0]) {
      fail(ErrorCode::kInvalidModel, "Linear gives {}, its residual is {}", to_string(context.outputs[0]),
           to_string(context.inputs[3]));
    }
    return std::make_unique<BoundLinear>(linear_, static_cast<std::size_t>(rows), context.pool->threads());
  }

  bool packs_constant(std::size_t input) const override { return input == 1 || input == 2; }  // weight and bias

 private:
  std::shared_ptr<PackedLinear> linear_;
  std::size_t floats_ = 0;
  Tensor source_;  // until it is packed
};

const Attribute* attribute(const Node& node, std::string_view name) {
  const auto found = node.attributes.find(name);
  return found == node.attributes.end() ? nullptr : &found->second;
}

// One for each output; nullopt when one has no kernel.
std::optional<std::vector<simd::Activation>> activations_of(const Node& node, std::size_t outputs) {
  std::vector<std::string> names(outputs, "none");
  if (const Attribute* one = attribute(node, "activation"); one != nullptr) names = {std::get<std::string>(*one)};
  if (const Attribute* each = attribute(node, "activations"); each != nullptr) {
    if (const auto& given = std::get<std::vector<std::string>>(*each); !given.empty()) names = given;
  }
  return read_activations(names);
}

}  // namespace

std::unique_ptr<Kernel> make_linear_kernel(const Graph& graph, const Node& node) {
  const bool split = node.op == "LinearSplit";
  if (node.op != "Linear" && node.op != "MatMul" && !split) return nullptr;
  const Tensor* weight = constant_input(graph, node, 1);
  if (weight == nullptr || weight->rank() != 2 || weight->size() == 0 || weight->dtype() != DType::kF32 ||
      !input_is(graph, node, 0, DType::kF32)) {
    return nullptr;
  }
  const TensorType& x = graph.value(node.inputs[0]).type;
  if (!x.shape || x.shape->empty()) return nullptr;
  const Tensor* bias = constant_input(graph, node, 2);
  if (has_input(node, 2) && (bias == nullptr || bias->size() != weight->extent(1))) return nullptr;
  if (has_input(node, 3) && !input_is(graph, node, 3, DType::kF32)) return nullptr;
  std::vector<std::int64_t> widths = {weight->extent(1)};
  if (split) widths = std::get<std::vector<std::int64_t>>(*attribute(node, "widths"));
  const auto activations = activations_of(node, widths.size());
  if (!activations) return nullptr;
  return std::make_unique<LinearKernel>(*weight, bias, widths, *activations, has_input(node, 3));
}

}  // namespace weft::runtime
