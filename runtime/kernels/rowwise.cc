// Norms, activations and rotary embedding: loops over rows with the SIMD functions.
#include <algorithm>
#include <cmath>

#include "runtime/kernels/kernel.h"
#include "runtime/kernels/reduce_simd.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 16 * 1024;  // elements worth handing to a thread

// Calls body(first_row, last_row) for blocks of rows, on the pool when there is enough work.
template <class Body>
void for_rows(ThreadPool& pool, std::size_t rows, std::size_t columns, const Body& body) {
  const std::size_t per_block = std::max<std::size_t>(1, kGrain / std::max<std::size_t>(columns, 1));
  const std::size_t blocks = (rows + per_block - 1) / per_block;
  pool.parallel_for(blocks, [&](std::size_t i) { body(i * per_block, std::min(rows, (i + 1) * per_block)); });
}

const Attribute* attribute(const Node& node, std::string_view name) {
  const auto found = node.attributes.find(name);
  return found == node.attributes.end() ? nullptr : &found->second;
}

double number_or(const Node& node, std::string_view name, double fallback) {
  const Attribute* found = attribute(node, name);
  return found == nullptr ? fallback : std::get<double>(*found);
}

// A kernel that is the same for every shape: its bound form needs nothing but the two extents.
template <class Rows>
class RowKernel final : public Kernel {
 public:
  explicit RowKernel(Rows rows) : rows_(rows) {}

  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    const Extents& shape = context.inputs[0];
    const auto columns = shape.empty() ? 1 : static_cast<std::size_t>(shape.back());
    const auto elements = static_cast<std::size_t>(element_count(shape));
    return std::make_unique<Bound>(rows_, columns == 0 ? 0 : elements / columns, columns);
  }
  bool may_overwrite(std::size_t input) const override { return input == 0; }

 private:
  class Bound final : public BoundKernel {
   public:
    Bound(Rows rows, std::size_t count, std::size_t columns) : rows_(rows), count_(count), columns_(columns) {}
    void run(const RunContext& context) override {
      const float* x = context.in<float>(0);
      float* y = context.out<float>(0);
      for_rows(*context.pool, count_, columns_, [&](std::size_t first, std::size_t last) {
        rows_(context, x + first * columns_, y + first * columns_, last - first, columns_);
      });
    }

   private:
    Rows rows_;
    std::size_t count_, columns_;
  };
  Rows rows_;
};

template <class Rows>
std::unique_ptr<Kernel> row_kernel(Rows rows) {
  return std::make_unique<RowKernel<Rows>>(rows);
}

// True when x has a known rank, axis is its last, and the parameters are vectors as long as it.
bool normalizes_last_axis(const Graph& graph, const Node& node) {
  const TensorType& x = graph.value(node.inputs[0]).type;
  if (!x.shape || x.shape->empty()) return false;
  const Attribute* axis = attribute(node, "axis");
  const std::int64_t value = axis == nullptr ? -1 : std::get<std::int64_t>(*axis);
  if (value != -1 && value != static_cast<std::int64_t>(x.shape->size()) - 1) return false;
  for (std::size_t i = 1; i < node.inputs.size(); ++i) {
    if (!has_input(node, i)) continue;
    const TensorType& parameter = graph.value(node.inputs[i]).type;
    if (parameter.dtype != DType::kF32 || !parameter.shape || parameter.shape->size() != 1 ||
        !((*parameter.shape)[0] == x.shape->back())) {
      return false;
    }
  }
  return true;
}

class BoundRotary final : public BoundKernel {
 public:
  BoundRotary(const BindContext& context, bool interleaved) : shape_(context.inputs[0]), interleaved_(interleaved) {
    strides_[0] = broadcast_strides(context.inputs[1]);
    strides_[1] = broadcast_strides(context.inputs[2]);
  }
  void run(const RunContext& context) override {
    const auto columns = static_cast<std::size_t>(shape_.back());
    const std::size_t rows = columns == 0 ? 0 : static_cast<std::size_t>(element_count(shape_)) / columns;
    const float* x = context.in<float>(0);
    const float* cos = context.in<float>(1);
    const float* sin = context.in<float>(2);
    float* y = context.out<float>(0);
    for_rows(*context.pool, rows, columns, [&](std::size_t first, std::size_t last) {
      for (std::size_t row = first; row < last; ++row) {
        simd::rotate_row(x + row * columns, cos + offset(row, strides_[0]), sin + offset(row, strides_[1]),
                         interleaved_, y + row * columns, columns);
      }
    });
  }

 private:
  Extents broadcast_strides(const Extents& shape) const {
    Extents strides(shape_.size(), 0);
    const Extents own = row_major_strides(shape);
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] != 1) strides[shape_.size() - shape.size() + i] = own[i];
    }
    return strides;
  }
  std::size_t offset(std::size_t row, const Extents& strides) const {
    std::int64_t rest = static_cast<std::int64_t>(row);
    std::int64_t result = 0;
    for (std::size_t i = shape_.size() - 1; i-- > 0;) {
      result += rest % shape_[i] * strides[i];
      rest /= shape_[i];
    }
    return static_cast<std::size_t>(result);
  }

  Extents shape_;
  Extents strides_[2];
  bool interleaved_;
};

class RotaryKernel final : public Kernel {
 public:
  explicit RotaryKernel(bool interleaved) : interleaved_(interleaved) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundRotary>(context, interleaved_);
  }

 private:
  bool interleaved_;
};

// y = x / norm, 0 where the norm is.
void divide_by_norm(bool magnitudes, const float* x, float* y, std::size_t columns) {
  const float sum = reduce::row(magnitudes ? reduce::Kind::kMagnitudes : reduce::Kind::kSquares, x, columns);
  double norm = magnitudes ? sum : std::sqrt(sum);
  constexpr float kLeast = 1e-30f, kMost = 1e38f;  // beyond, sums and squares are none of f32
  if (!(sum >= kLeast && sum <= kMost)) {
    double exact = 0;
    for (std::size_t i = 0; i < columns; ++i)
      exact += magnitudes ? std::abs(static_cast<double>(x[i])) : static_cast<double>(x[i]) * x[i];
    norm = magnitudes ? exact : std::sqrt(exact);
  }
  if (norm == 0) return std::fill_n(y, columns, 0.0f), void();
  if (norm >= kLeast && norm <= kMost) return reduce::centre(x, 0, static_cast<float>(1 / norm), 0, y, columns);
  for (std::size_t i = 0; i < columns; ++i) y[i] = static_cast<float>(x[i] / norm);
}

std::unique_ptr<Kernel> make_lp_normalization_kernel(const Graph& graph, const Node& node) {
  if (node.op != "LpNormalization" || !input_is(graph, node, 0, DType::kF32) || !normalizes_last_axis(graph, node)) {
    return nullptr;
  }
  const Attribute* p = attribute(node, "p");
  const bool magnitudes = p != nullptr && std::get<std::int64_t>(*p) == 1;
  return row_kernel([magnitudes](const RunContext&, const float* x, float* y, std::size_t rows, std::size_t columns) {
    for (std::size_t r = 0; r < rows; ++r) divide_by_norm(magnitudes, x + r * columns, y + r * columns, columns);
  });
}

}  // namespace

std::unique_ptr<Kernel> make_normalization_kernel(const Graph& graph, const Node& node) {
  if (node.op == "LpNormalization") return make_lp_normalization_kernel(graph, node);
  const bool layer = node.op == "LayerNormalization";
  if (!layer && node.op != "RMSNormalization") return nullptr;
  if (!input_is(graph, node, 0, DType::kF32) || node.outputs.size() != 1 || !normalizes_last_axis(graph, node)) {
    return nullptr;
  }
  const auto epsilon = static_cast<float>(number_or(node, "epsilon", 1e-5));
  if (!layer) {
    return row_kernel(
        [epsilon](const RunContext& context, const float* x, float* y, std::size_t rows, std::size_t columns) {
          const float* scale = context.in<float>(1);
          for (std::size_t r = 0; r < rows; ++r) {
            simd::rms_norm_row(x + r * columns, scale, epsilon, y + r * columns, columns);
          }
        });
  }
  const bool has_bias = has_input(node, 2);
  return row_kernel(
      [epsilon, has_bias](const RunContext& context, const float* x, float* y, std::size_t rows, std::size_t columns) {
        const float* scale = context.in<float>(1);
        const float* bias = has_bias ? context.in<float>(2) : nullptr;
        for (std::size_t r = 0; r < rows; ++r) {
          simd::layer_norm_row(x + r * columns, scale, bias, epsilon, y + r * columns, columns);
        }
      });
}

std::unique_ptr<Kernel> make_activation_kernel(const Graph& graph, const Node& node) {
  if (!input_is(graph, node, 0, DType::kF32)) return nullptr;
  simd::Activation activation = simd::Activation::kNone;
  float alpha = 1.0f;
  if (node.op == "Gelu") {
    const Attribute* approximate = attribute(node, "approximate");
    const bool tanh = approximate != nullptr && std::get<std::string>(*approximate) == "tanh";
    activation = tanh ? simd::Activation::kGeluTanh : simd::Activation::kGelu;
  } else if (node.op == "Swish") {
    activation = simd::Activation::kQuickGelu;
    alpha = static_cast<float>(number_or(node, "alpha", 1.0));
  } else if (node.op == "Relu") {
    activation = simd::Activation::kRelu;
  } else if (node.op == "Tanh") {
    activation = simd::Activation::kTanh;
  } else if (node.op == "Sigmoid") {
    activation = simd::Activation::kSigmoid;
  } else {
    return nullptr;
  }
  return row_kernel(
      [activation, alpha](const RunContext&, const float* x, float* y, std::size_t rows, std::size_t columns) {
        simd::activate(activation, alpha, x, y, rows * columns);
      });
}

std::unique_ptr<Kernel> make_rotary_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Rotary") return nullptr;
  const TensorType& x = graph.value(node.inputs[0]).type;
  if (!x.shape || x.shape->empty()) return nullptr;
  for (std::size_t i = 0; i < 3; ++i) {
    const TensorType& type = graph.value(node.inputs[i]).type;
    // cos and sin may broadcast over rows, not inside a row.
    if (type.dtype != DType::kF32 || !type.shape || type.shape->empty() || !(type.shape->back() == x.shape->back())) {
      return nullptr;
    }
  }
  const Attribute* interleaved = attribute(node, "interleaved");
  return std::make_unique<RotaryKernel>(interleaved != nullptr && std::get<std::int64_t>(*interleaved) != 0);
}

}  // namespace weft::runtime
