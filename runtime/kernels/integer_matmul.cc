// MatMulInteger and QLinearMatMul: sums of products of bytes, exact; a constant right side is packed once.
#include "ops/op_def.h"
#include "runtime/kernels/constants.h"
#include "runtime/kernels/convert.h"
#include "runtime/kernels/integer_product.h"

namespace weft::runtime {
namespace {

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kI8; }
const std::uint8_t* bytes_of(const Tensor& tensor) {
  return reinterpret_cast<const std::uint8_t*>(tensor.bytes().data());
}

// Where the inputs of an operator are; kNone where it has none.
constexpr std::size_t kNone = SIZE_MAX;
struct Places {
  std::size_t a, b, a_zero, b_zero, a_scale = kNone, b_scale = kNone, y_scale = kNone, y_zero = kNone;
};
constexpr Places kInteger{0, 1, 2, 3};
constexpr Places kLinear{0, 3, 2, 5, 1, 4, 6, 7};

// Everything the bound kernels of a node share.
struct IntegerMatMul {
  Places places;
  Constants constants;
  std::optional<PackedBytes> weights;
};

PackedBytes pack(const Tensor& b, std::size_t offset, std::size_t depth, std::size_t columns) {
  return {bytes_of(b) + offset, b.dtype() == DType::kI8, depth, columns, columns};
}

class BoundIntegerMatMul final : public BoundKernel {
 public:
  BoundIntegerMatMul(std::shared_ptr<const IntegerMatMul> shared, const BindContext& context)
      : shared_(std::move(shared)) {
    const Extents &a = context.inputs[shared_->places.a], &b = context.inputs[shared_->places.b];
    depth_ = static_cast<std::size_t>(a.back());
    if (static_cast<std::int64_t>(depth_) != b[b.size() - 2]) {
      fail(ErrorCode::kInvalidModel, "{} of {} by {}", context.node->op, to_string(a), to_string(b));
    }
    columns_ = static_cast<std::size_t>(b.back());
    period_ = static_cast<std::size_t>(a[a.size() - 2]);
    rows_ = period_;
    if (b.size() == 2) {  // all rows at once
      rows_ = static_cast<std::size_t>(element_count(a)) / std::max<std::size_t>(depth_, 1);
      if (depth_ == 0) rows_ = static_cast<std::size_t>(element_count(context.outputs[0])) / columns_;
      return;
    }
    Extents batch(context.outputs[0].begin(), context.outputs[0].end() - 2);
    for (std::int64_t i = 0; i < element_count(batch); ++i) {
      batches_.emplace_back(offset(a, batch, i), offset(b, batch, i));
    }
  }

  void run(const RunContext& context) override {
    const Places& places = shared_->places;
    const auto input = [&](std::size_t i) { return i == kNone ? nullptr : shared_->constants.get(context, i); };
    const Tensor &a = *input(places.a), *b = context.inputs[places.b];
    const std::vector<std::int32_t> a_zeros = row_values(zero_points(input(places.a_zero)));
    const std::vector<std::int32_t> b_zeros = zero_points(input(places.b_zero));
    if (b_zeros.size() != 1 && b_zeros.size() != columns_) {
      fail(ErrorCode::kInvalidModel, "{} zero points for {} columns", b_zeros.size(), columns_);
    }
    Tensor* y = context.outputs[0];
    const bool requantizes = places.y_scale != kNone;
    if (requantizes) sums_.resize(static_cast<std::size_t>(y->size()));
    std::int32_t* sums = requantizes ? sums_.data() : y->mutable_data<std::int32_t>().data();
    const auto multiply = [&](std::size_t from_a, const PackedBytes& weights, std::int32_t* to) {
      matrix_.set(bytes_of(a) + from_a, a.dtype() == DType::kI8, rows_, depth_, a_zeros, *context.pool);
      matrix_.multiply(weights, b_zeros, to, *context.pool);
    };
    if (shared_->weights) {
      multiply(0, *shared_->weights, sums);
    } else if (batches_.empty()) {
      multiply(0, pack(*b, 0, depth_, columns_), sums);
    }
    for (std::size_t i = 0; i < batches_.size(); ++i) {
      multiply(batches_[i].first, pack(*b, batches_[i].second, depth_, columns_), sums + i * rows_ * columns_);
    }
    if (requantizes)
      requantize(context, *input(places.a_scale), *input(places.b_scale), *input(places.y_scale),
                 *input(places.y_zero));
  }

 private:
  // The first element of batch `index` of an operand, whose leading axes are broadcast.
  static std::size_t offset(const Extents& shape, const Extents& batch, std::int64_t index) {
    std::int64_t at = 0, pitch = shape[shape.size() - 1] * shape[shape.size() - 2];
    for (std::size_t i = batch.size(), j = shape.size() - 2; i-- > 0;) {
      const std::int64_t here = index % batch[i];
      index /= batch[i];
      if (j == 0) continue;
      --j;
      if (shape[j] != 1) at += here * pitch;
      pitch *= shape[j];
    }
    return static_cast<std::size_t>(at);
  }

  // One value for all rows, or one for each row of a matrix, for each row of the product.
  template <class T>
  std::vector<T> row_values(std::vector<T> values) const {
    if (values.size() == 1) return values;
    if (values.size() != period_)
      fail(ErrorCode::kInvalidModel, "{} zero points or scales for {} rows", values.size(), period_);
    std::vector<T> all(rows_);
    for (std::size_t r = 0; r < rows_; ++r) all[r] = values[r % period_];
    return all;
  }

  void requantize(const RunContext& context, const Tensor& a_scale, const Tensor& b_scale, const Tensor& y_scale,
                  const Tensor& y_zero) const {
    const auto floats = [](const Tensor& t) {
      return std::vector<float>(t.data<float>().begin(), t.data<float>().end());
    };
    const std::vector<float> of_rows = row_values(floats(a_scale)), of_columns = floats(b_scale);
    if (of_columns.size() != 1 && of_columns.size() != columns_) {
      fail(ErrorCode::kInvalidModel, "{} scales for {} columns", of_columns.size(), columns_);
    }
    const auto step = static_cast<float>(y_scale.item());
    const auto zero = static_cast<std::int32_t>(y_zero.item());
    Tensor* y = context.outputs[0];
    auto* to = reinterpret_cast<std::uint8_t*>(y->mutable_bytes().data());
    const std::size_t rows = columns_ == 0 ? 0 : sums_.size() / columns_;
    context.pool->parallel_for(rows, [&](std::size_t r) {
      std::vector<float> scales(columns_), real(columns_);
      const float of_row = of_rows[of_rows.size() == 1 ? 0 : r % rows_];
      for (std::size_t n = 0; n < columns_; ++n) scales[n] = of_row * of_columns[of_columns.size() == 1 ? 0 : n];
      convert::dequantize(sums_.data() + r * columns_, scales.data(), real.data(), columns_);
      convert::quantize(real.data(), step, zero, y->dtype() == DType::kI8, to + r * columns_, columns_);
    });
  }

  std::shared_ptr<const IntegerMatMul> shared_;
  std::size_t rows_ = 0, period_ = 1, depth_ = 0, columns_ = 0;
  std::vector<std::pair<std::size_t, std::size_t>> batches_;  // offsets of both sides
  IntegerMatrix matrix_;
  std::vector<std::int32_t> sums_;
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class IntegerMatMulKernel final : public Kernel {
 public:
  explicit IntegerMatMulKernel(std::shared_ptr<const IntegerMatMul> shared) : shared_(std::move(shared)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundIntegerMatMul>(shared_, context);
  }
  bool packs_constant(std::size_t) const override { return shared_->weights.has_value(); }

 private:
  std::shared_ptr<const IntegerMatMul> shared_;
};

bool is_vector_or_scalar(const Graph& graph, const Node& node, std::size_t i) {
  if (i == kNone || !has_input(node, i)) return true;
  const TensorType& type = graph.value(node.inputs[i]).type;
  return type.shape && type.shape->size() <= 1;
}

bool is_scalar(const Graph& graph, const Node& node, std::size_t i) {
  if (i == kNone || !has_input(node, i)) return true;
  const TensorType& type = graph.value(node.inputs[i]).type;
  return type.shape && (type.shape->empty() || (type.shape->size() == 1 && (*type.shape)[0] == Dim(1)));
}

}  // namespace

std::unique_ptr<Kernel> make_integer_matmul_kernel(const Graph& graph, const Node& node) {
  if (node.op != "MatMulInteger" && node.op != "QLinearMatMul") return nullptr;
  const Places& places = node.op == "MatMulInteger" ? kInteger : kLinear;
  for (const std::size_t i : {places.a, places.b}) {
    const TensorType& type = graph.value(node.inputs[i]).type;
    if (!is_byte(type.dtype) || !type.shape || type.shape->size() < 2) return nullptr;
  }
  for (const std::size_t i : {places.a_zero, places.b_zero, places.a_scale, places.b_scale}) {
    if (!is_vector_or_scalar(graph, node, i)) return nullptr;
  }
  if (!is_scalar(graph, node, places.y_scale) || !is_scalar(graph, node, places.y_zero)) return nullptr;
  if (places.y_zero != kNone) {
    if (!is_byte(graph.value(node.inputs[places.y_zero]).type.dtype)) return nullptr;
    for (const std::size_t i : {places.a_scale, places.b_scale, places.y_scale}) {
      if (!input_is(graph, node, i, DType::kF32)) return nullptr;
    }
  }
  auto shared = std::make_shared<IntegerMatMul>(IntegerMatMul{places, Constants(graph, node), std::nullopt});
  if (const Tensor* b = shared->constants.get(places.b); b != nullptr && b->rank() == 2) {
    shared->weights = pack(*b, 0, static_cast<std::size_t>(b->extent(0)), static_cast<std::size_t>(b->extent(1)));
    shared->constants.drop(places.b);
  }
  return std::make_unique<IntegerMatMulKernel>(std::move(shared));
}

}  // namespace weft::runtime
