// Resize: of f32 by weights, of any type whose elements are bytes by the nearest. Axes in turn, but two beside each
// other together, row by row: an output row is made of the input's rows, then of its own columns.
#include <algorithm>
#include <cstring>

#include "ops/index_util.h"
#include "ops/resample.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/resample_simd.h"
#include "runtime/kernels/strided_copy.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {
namespace {

// [outer, rows, columns, inner] with other rows, other columns, or both.
struct Pass {
  std::size_t outer = 1, rows = 1, new_rows = 1, columns = 1, new_columns = 1, inner = 1;
  const Resampling* row_taps = nullptr;     // null: rows stay
  const Resampling* column_taps = nullptr;  // null: columns stay
  std::vector<std::int32_t> index;          // of columns: [each, new_columns]
  std::vector<float> weight;

  std::size_t row_length() const { return columns * inner; }
  std::size_t new_length() const { return new_columns * inner; }
};

void take_columns(Pass& pass, const Resampling& taps) {
  pass.column_taps = &taps;
  pass.new_columns = static_cast<std::size_t>(taps.output);
  pass.index.resize(taps.index.size());
  pass.weight.resize(taps.weight.size());
  for (std::size_t i = 0; i < pass.new_columns; ++i) {
    for (std::size_t k = 0; k < taps.each; ++k) {
      pass.index[k * pass.new_columns + i] = static_cast<std::int32_t>(taps.index[i * taps.each + k]);
      pass.weight[k * pass.new_columns + i] = taps.weight[i * taps.each + k];
    }
  }
}

std::vector<Pass> passes_of(const std::vector<Resampling>& axes, Extents shape) {
  const std::size_t rank = shape.size();
  std::vector<Pass> passes;
  const auto extent = [&](std::size_t axis) { return static_cast<std::size_t>(shape[axis]); };
  const auto between = [&](std::size_t first, std::size_t last) {
    return static_cast<std::size_t>(product(shape, first, last));
  };
  for (std::size_t i = rank; i-- > 0;) {
    if (axes[i].each == 0) continue;
    Pass pass;
    const std::size_t behind = between(i + 1, rank);
    const bool both = i > 0 && axes[i - 1].each > 0;
    if (both || behind == 1) {
      pass.columns = extent(i);
      pass.inner = behind;
      take_columns(pass, axes[i]);
    } else {
      pass.columns = pass.new_columns = behind;
    }
    const bool has_rows = both || behind != 1;
    if (has_rows) {
      const std::size_t row_axis = both ? i - 1 : i;
      pass.row_taps = &axes[row_axis];
      pass.rows = extent(row_axis);
      pass.new_rows = static_cast<std::size_t>(axes[row_axis].output);
      pass.outer = between(0, row_axis);
    } else {
      pass.outer = between(0, i);
    }
    shape[i] = axes[i].output;
    if (both) {
      --i;
      shape[i] = axes[i].output;
    }
    passes.push_back(std::move(pass));
  }
  return passes;
}

void weigh_columns(const Pass& pass, const float* row, float* y) {
  const Resampling& taps = *pass.column_taps;
  if (pass.inner == 1) {
    resample::weigh(row, pass.index.data(), pass.weight.data(), taps.each, pass.new_columns, y, pass.new_columns);
    return;
  }
  std::vector<std::ptrdiff_t> offsets(taps.each);
  for (std::size_t i = 0; i < pass.new_columns; ++i) {
    for (std::size_t k = 0; k < taps.each; ++k)
      offsets[k] = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(taps.index[i * taps.each + k]) * pass.inner);
    tile::correlate(row, offsets, taps.weight.data() + i * taps.each, 0, y + i * pass.inner, pass.inner);
  }
}

void weigh(ThreadPool& pool, const Pass& pass, const float* x, float* y) {
  const std::size_t length = pass.row_length();
  for_units(pool, pass.outer * pass.new_rows, pass.new_length() * sizeof(float),
            [&](std::size_t first, std::size_t last) {
              std::vector<float> mixed(pass.row_taps != nullptr && pass.column_taps != nullptr ? length : 0);
              std::vector<std::ptrdiff_t> offsets;
              for (std::size_t unit = first; unit < last; ++unit) {
                const std::size_t o = unit / pass.new_rows, r = unit % pass.new_rows;
                const float* source = x + o * pass.rows * length;
                float* to = y + unit * pass.new_length();
                if (pass.row_taps != nullptr) {
                  const Resampling& taps = *pass.row_taps;
                  offsets.clear();
                  for (std::size_t k = r * taps.each; k < (r + 1) * taps.each; ++k)
                    offsets.push_back(static_cast<std::ptrdiff_t>(static_cast<std::size_t>(taps.index[k]) * length));
                  float* row = mixed.empty() ? to : mixed.data();
                  tile::correlate(source, offsets, taps.weight.data() + r * taps.each, 0, row, length);
                  source = row;
                } else {
                  source += r * length;
                }
                if (pass.column_taps != nullptr) weigh_columns(pass, source, to);
              }
            });
}

template <class W>
void pick_columns(const Pass& pass, const W* row, W* y) {
  if (pass.inner == 1) {
    if constexpr (sizeof(W) == 4) {
      resample::pick(reinterpret_cast<const std::int32_t*>(row), pass.index.data(), reinterpret_cast<std::int32_t*>(y),
                     pass.new_columns);
    } else {
      for (std::size_t i = 0; i < pass.new_columns; ++i) y[i] = row[pass.index[i]];
    }
    return;
  }
  for (std::size_t i = 0; i < pass.new_columns; ++i)
    std::copy_n(row + static_cast<std::size_t>(pass.index[i]) * pass.inner, pass.inner, y + i * pass.inner);
}

template <class W>
void pick(ThreadPool& pool, const Pass& pass, const W* x, W* y) {
  const std::size_t length = pass.row_length(), new_length = pass.new_length();
  for_units(pool, pass.outer * pass.new_rows, new_length * sizeof(W), [&](std::size_t first, std::size_t last) {
    const W* before = nullptr;
    for (std::size_t unit = first; unit < last; ++unit) {
      const std::size_t o = unit / pass.new_rows, r = unit % pass.new_rows;
      const std::size_t row = pass.row_taps != nullptr ? static_cast<std::size_t>(pass.row_taps->index[r]) : r;
      const W* source = x + (o * pass.rows + row) * length;
      W* to = y + unit * new_length;
      if (source == before) {
        std::copy_n(to - new_length, new_length, to);
      } else if (pass.column_taps == nullptr) {
        std::copy_n(source, length, to);
      } else {
        pick_columns(pass, source, to);
      }
      before = source;
    }
  });
}

class BoundResize final : public BoundKernel {
 public:
  explicit BoundResize(const Node* node) : node_(node) {}

  void run(const RunContext& context) override {
    Tensor& y = *context.outputs[0];
    if (y.size() == 0) return;
    plan(context.inputs, y.shape());
    const Tensor& x = *context.inputs[0];
    if (passes_.empty()) {
      std::memcpy(y.mutable_bytes().data(), x.bytes().data(), y.byte_size());
      return;
    }
    Tensor from = x;
    for (const Pass& pass : passes_) {
      Tensor to = y;
      if (&pass != &passes_.back()) {
        const std::size_t count = pass.outer * pass.new_rows * pass.new_length();
        to = Tensor::uninitialized(x.dtype(), {static_cast<std::int64_t>(count)});
      }
      apply(*context.pool, pass, from, to);
      from = std::move(to);
    }
  }

 private:
  void apply(ThreadPool& pool, const Pass& pass, const Tensor& from, Tensor& to) const {
    if (!moves()) return weigh(pool, pass, from.data<float>().data(), to.mutable_data<float>().data());
    visit_storage(from.dtype(), [&](auto tag) {
      using W = typename decltype(tag)::type;
      if constexpr (requires { W::kWordSize; }) pick(pool, pass, from.data<W>().data(), to.mutable_data<W>().data());
    });
  }

  bool moves() const { return AttributeReader(get_op(node_->op), node_->attributes).text("mode") == "nearest"; }

  // What is read follows from the lists among the inputs, which seldom change.
  void plan(std::span<const Tensor* const> inputs, const Extents& expected) {
    const Extents& shape = inputs[0]->shape();
    const auto same = [&] {
      if (lists_.size() + 1 != inputs.size() || shape != shape_) return false;
      for (std::size_t i = 1; i < inputs.size(); ++i) {
        if (inputs[i] != nullptr && !inputs[i]->identical(lists_[i - 1])) return false;
      }
      return true;
    };
    if (planned_ && same()) return;
    axes_ = resamplings(AttributeReader(get_op(node_->op), node_->attributes), inputs);
    shape_ = shape;
    lists_.assign(inputs.size() - 1, {});
    for (std::size_t i = 1; i < inputs.size(); ++i) {
      if (inputs[i] != nullptr) lists_[i - 1] = inputs[i]->clone();
    }
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const std::int64_t extent = axes_[i].each > 0 ? axes_[i].output : shape[i];
      if (extent != expected.at(i) || shape[i] > INT32_MAX)
        fail(ErrorCode::kInternal, "Resize gives an axis of {}, inference says {}", extent, expected.at(i));
    }
    passes_ = passes_of(axes_, shape);
    planned_ = true;
  }

  const Node* node_;
  bool planned_ = false;
  Extents shape_;
  std::vector<Tensor> lists_;
  std::vector<Resampling> axes_;
  std::vector<Pass> passes_;
};

class ResizeKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundResize>(context.node);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_resize_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Resize") return nullptr;
  const AttributeReader attributes(get_op(node.op), node.attributes);
  const DType dtype = graph.value(node.inputs[0]).type.dtype;
  const bool moves = attributes.text("mode") == "nearest" && !is_object(dtype);
  if (attributes.text("coordinate_transformation_mode") == "tf_crop_and_resize") return nullptr;
  return moves || dtype == DType::kF32 ? std::make_unique<ResizeKernel>() : nullptr;
}

}  // namespace weft::runtime
