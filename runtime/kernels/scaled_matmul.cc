// MatMulIntegerToFloat and DynamicQuantizeMatMul by constant weights, packed once: sums of products of bytes, exact,
// that become floats before they leave the registers.
#include "ops/op_def.h"
#include "runtime/kernels/activations.h"
#include "runtime/kernels/integer_product.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/quantize.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kNone = SIZE_MAX;
// Where the inputs of an operator are.
struct Places {
  std::size_t b_scale, b_zero, bias, residual;
  std::size_t a_scale = kNone, a_zero = kNone;  // none: A is quantized here
};
constexpr Places kToFloat{3, 5, 6, 7, 2, 4};
constexpr Places kDynamic{2, 3, 4, 5};

// Everything the bound kernels of a node share.
struct ScaledMatMul {
  Places places;
  std::size_t depth = 0;
  std::vector<ScaledBytes> parts;  // one for each output
  std::vector<simd::Activation> activations;
};

class BoundScaledMatMul final : public BoundKernel {
 public:
  BoundScaledMatMul(std::shared_ptr<const ScaledMatMul> shared, const BindContext& context)
      : shared_(std::move(shared)) {
    const Extents& a = context.inputs[0];
    if (a.empty() || a.back() != static_cast<std::int64_t>(shared_->depth)) {
      fail(ErrorCode::kInvalidModel, "{} of {} by {} rows", context.node->op, to_string(a), shared_->depth);
    }
    count_ = static_cast<std::size_t>(element_count(a));
    for (std::size_t i = 0; i < shared_->parts.size(); ++i) {
      parts_.push_back({&shared_->parts[i], nullptr, shared_->activations[i]});
    }
    const std::size_t residual = shared_->places.residual;
    has_residual_ = has_input(*context.node, residual);
    if (has_residual_ && context.inputs[residual] != context.outputs[0]) {
      fail(ErrorCode::kInvalidModel, "{} gives {}, its residual is {}", context.node->op, to_string(context.outputs[0]),
           to_string(context.inputs[residual]));
    }
    if (shared_->places.a_scale == kNone) bytes_.resize(count_);
  }

  void run(const RunContext& context) override {
    const Places& places = shared_->places;
    const std::size_t rows = count_ / shared_->depth;
    Quantization by{};
    if (places.a_scale == kNone) {
      const float* a = context.in<float>(0);
      by = range_quantization(a, count_, *context.pool);
      quantize(a, count_, by, bytes_.data(), *context.pool);
      matrix_.set(bytes_.data(), false, rows, shared_->depth, {&by.zero, 1}, *context.pool);
    } else {
      const Tensor& a = *context.inputs[0];
      by = {context.in<float>(places.a_scale)[0], 0};
      const Tensor* zero = places.a_zero < context.inputs.size() ? context.inputs[places.a_zero] : nullptr;
      if (zero != nullptr) by.zero = static_cast<std::int32_t>(zero->to_ints().front());
      matrix_.set(reinterpret_cast<const std::uint8_t*>(a.bytes().data()), a.dtype() == DType::kI8, rows,
                  shared_->depth, {&by.zero, 1}, *context.pool);
    }
    for (std::size_t i = 0; i < parts_.size(); ++i) parts_[i].y = context.out<float>(i);
    if (has_residual_) parts_[0].residual = context.in<float>(places.residual);
    matrix_.multiply(parts_, by.scale, *context.pool);
  }

 private:
  std::shared_ptr<const ScaledMatMul> shared_;
  std::size_t count_ = 0;
  bool has_residual_ = false;
  std::vector<ScaledPart> parts_;
  std::vector<std::uint8_t> bytes_;
  IntegerMatrix matrix_;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class ScaledMatMulKernel final : public Kernel {
 public:
  explicit ScaledMatMulKernel(std::shared_ptr<const ScaledMatMul> shared) : shared_(std::move(shared)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundScaledMatMul>(shared_, context);
  }
  bool packs_constant(std::size_t input) const override {
    const Places& places = shared_->places;
    return input == 1 || input == places.b_scale || input == places.b_zero || input == places.bias;
  }

 private:
  std::shared_ptr<const ScaledMatMul> shared_;
};

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kI8; }

// Absent, or one element.
bool is_single(const Graph& graph, const Node& node, std::size_t i) {
  if (!has_input(node, i)) return true;
  const auto& shape = graph.value(node.inputs[i]).type.shape;
  return shape && (shape->empty() || (shape->size() == 1 && (*shape)[0].is(1)));
}

// A constant vector of one number or `columns` numbers, or absent where it may be.
bool is_row(const Graph& graph, const Node& node, std::size_t i, std::int64_t columns, bool optional) {
  if (!has_input(node, i)) return optional;
  const Tensor* tensor = constant_input(graph, node, i);
  return tensor != nullptr && tensor->rank() <= 1 && (tensor->size() == 1 || tensor->size() == columns);
}

// The kernel's inputs beside A and B are what it can take.
bool takes(const Graph& graph, const Node& node, const Places& places, const Tensor& b) {
  const std::int64_t columns = b.extent(1);
  for (const std::size_t scale : {places.a_scale, places.b_scale}) {
    if (scale != kNone && !input_is(graph, node, scale, DType::kF32)) return false;
  }
  for (const std::size_t row : {places.bias, places.residual}) {
    if (has_input(node, row) && !input_is(graph, node, row, DType::kF32)) return false;
  }
  const Tensor* bias = constant_input(graph, node, places.bias);
  if (has_input(node, places.bias) && (bias == nullptr || bias->shape() != Extents{columns})) return false;
  const bool dynamic = places.a_scale == kNone;
  const TensorType& a = graph.value(node.inputs[0]).type;
  if (!a.shape || a.shape->size() < 2 || (dynamic ? a.dtype != DType::kF32 : !is_byte(a.dtype))) return false;
  if (!dynamic && (!is_single(graph, node, places.a_scale) || !is_single(graph, node, places.a_zero))) return false;
  return is_row(graph, node, places.b_scale, columns, false) && is_row(graph, node, places.b_zero, columns, true);
}

// Numbers of the columns from `first` on, or the one for all.
template <class T>
std::span<const T> columns_of(const std::vector<T>& all, std::size_t first, std::size_t count) {
  return all.size() <= 1 ? std::span<const T>(all) : std::span<const T>(all).subspan(first, count);
}

}  // namespace

std::unique_ptr<Kernel> make_scaled_matmul_kernel(const Graph& graph, const Node& node) {
  const bool dynamic = node.op == "DynamicQuantizeMatMul";
  if (!dynamic && node.op != "MatMulIntegerToFloat") return nullptr;
  const Places& places = dynamic ? kDynamic : kToFloat;
  const Tensor* b = constant_input(graph, node, 1);
  if (b == nullptr || b->rank() != 2 || b->size() == 0 || !is_byte(b->dtype())) return nullptr;
  if (!takes(graph, node, places, *b)) return nullptr;
  const AttributeReader attributes(get_op(node.op), node.attributes);
  std::vector<std::int64_t> widths = attributes.integers("widths");
  if (widths.empty()) widths = {b->extent(1)};
  std::vector<std::string> names = attributes.texts("activations");
  if (names.empty()) names.assign(widths.size(), "none");
  const auto activations = read_activations(names);
  if (!activations) return nullptr;
  if (has_input(node, places.residual) && activations->front() != simd::Activation::kNone) return nullptr;
  const auto floats = [&](std::size_t i) {
    const Tensor* tensor = constant_input(graph, node, i);
    if (tensor == nullptr) return std::vector<float>();
    const Tensor own = tensor->aligned();
    return std::vector<float>(own.data<float>().begin(), own.data<float>().end());
  };
  const std::vector<float> scales = floats(places.b_scale), bias = floats(places.bias);
  const std::vector<std::int32_t> zeros = zero_points(constant_input(graph, node, places.b_zero));
  auto shared = std::make_shared<ScaledMatMul>();
  shared->places = places;
  shared->depth = static_cast<std::size_t>(b->extent(0));
  shared->activations = *activations;
  const auto pitch = static_cast<std::size_t>(b->extent(1));
  std::size_t first = 0;
  for (const std::int64_t width : widths) {
    const auto count = static_cast<std::size_t>(width);
    PackedBytes bytes(reinterpret_cast<const std::uint8_t*>(b->bytes().data()) + first, b->dtype() == DType::kI8,
                      shared->depth, count, pitch);
    shared->parts.emplace_back(std::move(bytes), columns_of(zeros, first, count), columns_of(scales, first, count),
                               bias.empty() ? std::span<const float>() : std::span(bias).subspan(first, count));
    first += count;
  }
  return std::make_unique<ScaledMatMulKernel>(std::move(shared));
}

}  // namespace weft::runtime
