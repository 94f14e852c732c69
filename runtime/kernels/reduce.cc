// Reductions of f32 along any axes.
#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/op_def.h"
#include "ops/shape_util.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/reduce_simd.h"

namespace weft::runtime {
namespace {

using reduce::Kind;

constexpr std::size_t kUnit = 16 * 1024;  // elements of one partial result, and worth handing to a thread

enum class Finish : std::uint8_t { kNone, kMean, kRoot, kLog };

struct Operator {
  std::string_view op;
  Kind kind;
  Finish finish = Finish::kNone;
};

constexpr Operator kOperators[] = {
    {"ReduceSum", Kind::kSum},       {"ReduceMean", Kind::kSum, Finish::kMean},
    {"ReduceL1", Kind::kMagnitudes}, {"ReduceSumSquare", Kind::kSquares},
    {"ReduceMax", Kind::kLargest},   {"ReduceL2", Kind::kSquares, Finish::kRoot},
    {"ReduceMin", Kind::kSmallest},  {"ReduceLogSum", Kind::kSum, Finish::kLog},
    {"ReduceProd", Kind::kProduct},  {"ReduceLogSumExp", Kind::kLargest},
};

// Partial results are joined as sums where terms are added up.
Kind joining(Kind kind) { return kind == Kind::kMagnitudes || kind == Kind::kSquares ? Kind::kSum : kind; }

// The input as axes that are kept or reduced, neighbours of one sort joined: rows (the innermost axis is reduced) or
// columns (it is kept). What is reduced is cut into units whose size follows from the extents alone, each a partial
// result, so that few results of many elements have work for all threads, and the same bytes with any number of them.
class Walk {
 public:
  Walk(const Extents& shape, const std::vector<bool>& reduced) {
    std::vector<Axis> kept, taken;
    const Extents strides = row_major_strides(shape);
    bool inner = true;
    for (std::size_t i = shape.size(); i-- > 0;) {
      if (shape[i] == 1) continue;
      const Axis axis{static_cast<std::size_t>(shape[i]), static_cast<std::size_t>(strides[i])};
      if (inner && (length_ == 1 || rows_ == reduced[i])) {
        rows_ = reduced[i];
        length_ *= axis.extent;
        continue;
      }
      inner = false;
      std::vector<Axis>& axes = reduced[i] ? taken : kept;
      if (!axes.empty() && axes.back().stride * axes.back().extent == axis.stride) {
        axes.back().extent *= axis.extent;
      } else {
        axes.push_back(axis);
      }
    }
    kept_ = std::move(kept);
    offsets_ = {0};
    Extents extents;
    for (const Axis& axis : taken) extents.push_back(static_cast<std::int64_t>(axis.extent));
    check_size(DType::kI64, extents);
    for (std::size_t i = taken.size(); i-- > 0;) {
      std::vector<std::ptrdiff_t> all;
      for (const std::ptrdiff_t base : offsets_) {
        for (std::size_t k = 0; k < taken[i].extent; ++k)
          all.push_back(base + static_cast<std::ptrdiff_t>(k * taken[i].stride));
      }
      offsets_ = std::move(all);
    }
    for (const Axis& axis : kept_) outer_ *= axis.extent;
    pieces_ = rows_ ? std::max<std::size_t>(1, (length_ + kUnit - 1) / kUnit) : 1;
    const std::size_t most = rows_ ? kUnit / std::max<std::size_t>(length_, 1) : 256;
    per_unit_ = std::max<std::size_t>(1, most);
    units_ = (offsets_.size() + per_unit_ - 1) / per_unit_ * pieces_;
  }

  std::size_t outer() const { return outer_; }
  std::size_t units() const { return units_; }                                   // of each result
  std::size_t width() const { return rows_ ? 1 : length_; }                      // results beside each other
  std::size_t count() const { return offsets_.size() * (rows_ ? length_ : 1); }  // elements of a result
  // Elements that one unit of so many results takes.
  std::size_t work(std::size_t columns) const {
    return rows_ ? std::min(length_, kUnit) * std::min(per_unit_, offsets_.size()) : per_unit_ * columns;
  }

  // The partial results of a unit, of columns [first, first + columns).
  void reduce_unit(Kind kind, const float* x, std::size_t outer, std::size_t unit, std::size_t first,
                   std::size_t columns, float* y) const {
    x += base(outer);
    const std::size_t begin = unit / pieces_ * per_unit_;
    const std::span<const std::ptrdiff_t> offsets(offsets_.data() + begin,
                                                  std::min(per_unit_, offsets_.size() - begin));
    if (!rows_) return reduce::columns(kind, x + first, offsets, y, columns);
    const std::size_t start = unit % pieces_ * kUnit, count = std::min(length_ - start, pieces_ == 1 ? length_ : kUnit);
    if (offsets.size() == 1) {
      *y = reduce::row(kind, x + offsets[0] + start, count);
      return;
    }
    float partial[64];
    *y = reduce::start(kind);
    for (std::size_t i = 0; i < offsets.size(); i += 63) {
      std::size_t n = 0;
      partial[n++] = *y;
      for (std::size_t k = i; k < std::min(i + 63, offsets.size()); ++k)
        partial[n++] = reduce::row(kind, x + offsets[k] + start, count);
      *y = reduce::row(joining(kind), partial, n);
    }
  }

 private:
  struct Axis {
    std::size_t extent, stride;
  };
  std::size_t base(std::size_t outer) const {
    std::size_t result = 0;
    for (const Axis& axis : kept_) {
      result += outer % axis.extent * axis.stride;
      outer /= axis.extent;
    }
    return result;
  }

  bool rows_ = false;
  std::size_t length_ = 1;               // of the innermost axis
  std::vector<Axis> kept_;               // others, the innermost first
  std::vector<std::ptrdiff_t> offsets_;  // of what others reduce
  std::size_t outer_ = 1, pieces_ = 1, per_unit_ = 1, units_ = 1;
};

class BoundReduction final : public BoundKernel {
 public:
  BoundReduction(const Operator& op, const Extents& shape, const std::vector<bool>& reduced)
      : op_(op),
        walk_(element_count(shape) == 0 ? Extents{} : shape, reduced),  // nothing to walk
        empty_(element_count(shape) == 0) {}

  void run(const RunContext& context) override {
    float* y = context.out<float>(0);
    const auto results = static_cast<std::size_t>(context.outputs[0]->size());
    if (results == 0) return;
    if (empty_) {
      std::fill_n(y, results, reduce::start(op_.kind));
      return finish(y, results);
    }
    const float* x = context.in<float>(0);
    const std::size_t units = walk_.units(), width = walk_.width();
    if (units == 1) {
      for_blocks(*context.pool, walk_.outer(), [&](std::size_t outer, std::size_t first, std::size_t columns) {
        float* to = y + outer * width + first;
        walk_.reduce_unit(op_.kind, x, outer, 0, first, columns, to);
        finish(to, columns);
      });
      return;
    }
    // Partial results [outer, unit, width], then theirs.
    auto* partial = reinterpret_cast<float*>(context.pool->scratch(results * units * sizeof(float)));
    for_blocks(*context.pool, walk_.outer() * units, [&](std::size_t task, std::size_t first, std::size_t columns) {
      walk_.reduce_unit(op_.kind, x, task / units, task % units, first, columns, partial + task * width + first);
    });
    std::vector<std::ptrdiff_t> offsets;
    for (std::size_t u = 0; u < units; ++u) offsets.push_back(static_cast<std::ptrdiff_t>(u * width));
    const Kind join = joining(op_.kind);
    for (std::size_t outer = 0; outer < walk_.outer(); ++outer) {
      const float* from = partial + outer * units * width;
      if (width == 1) {
        y[outer] = reduce::row(join, from, units);
      } else {
        reduce::columns(join, from, offsets, y + outer * width, width);
      }
    }
    finish(y, results);
  }

 private:
  // body(task, first column, columns) for blocks of columns of every task, several at a time where they are small.
  template <class Body>
  void for_blocks(ThreadPool& pool, std::size_t tasks, const Body& body) const {
    constexpr std::size_t kColumns = 1024;
    const std::size_t width = walk_.width(), blocks = (width + kColumns - 1) / kColumns, all = tasks * blocks;
    const std::size_t work = std::max<std::size_t>(1, walk_.work(std::min(width, kColumns)));
    const std::size_t together = std::max<std::size_t>(1, kUnit / work);
    pool.parallel_for((all + together - 1) / together, [&](std::size_t i) {
      for (std::size_t n = i * together; n < std::min(all, (i + 1) * together); ++n) {
        const std::size_t first = n % blocks * kColumns;
        body(n / blocks, first, std::min(kColumns, width - first));
      }
    });
  }

  void finish(float* y, std::size_t count) const {
    const auto each = static_cast<float>(empty_ ? 0 : walk_.count());
    const auto map = [&](const auto& f) { std::transform(y, y + count, y, f); };
    switch (op_.finish) {
      case Finish::kNone: return;
      case Finish::kMean: return map([each](float v) { return v / each; });
      case Finish::kRoot: return map([](float v) { return std::sqrt(v); });
      case Finish::kLog: return map([](float v) { return std::log(v); });
    }
  }

  Operator op_;
  Walk walk_;
  bool empty_;
};

// log(sum(exp(x))) of rows, which are what the last axes hold.
class BoundLogSumExp final : public BoundKernel {
 public:
  explicit BoundLogSumExp(std::size_t count) : count_(count) {}
  void run(const RunContext& context) override {
    float* const y = context.out<float>(0);
    const float* const x = context.in<float>(0);
    const auto rows = static_cast<std::size_t>(context.outputs[0]->size());
    const std::size_t together = std::max<std::size_t>(1, kUnit / std::max<std::size_t>(count_, 1));
    context.pool->parallel_for((rows + together - 1) / together, [&](std::size_t i) {
      for (std::size_t row = i * together; row < std::min(rows, (i + 1) * together); ++row) {
        const reduce::Exponents found = reduce::exponents(x + row * count_, count_);
        y[row] = std::isfinite(found.top) ? found.top + found.log_sum : found.top;
      }
    });
  }

 private:
  std::size_t count_;
};

class ReductionKernel final : public Kernel {
 public:
  // axes: none given, all are reduced.
  ReductionKernel(const Operator& op, std::optional<std::vector<std::int64_t>> axes)
      : op_(op), axes_(std::move(axes)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    const Extents& shape = context.inputs[0];
    std::vector<bool> reduced(shape.size(), !axes_);
    if (axes_) {
      for (const std::int64_t axis : normalize_axes(*axes_, static_cast<std::int64_t>(shape.size())))
        reduced[static_cast<std::size_t>(axis)] = true;
    }
    if (op_.op == "ReduceLogSumExp") {
      std::int64_t count = 1;
      for (std::size_t i = 0; i < shape.size(); ++i) count *= reduced[i] ? shape[i] : 1;
      return std::make_unique<BoundLogSumExp>(static_cast<std::size_t>(count));
    }
    return std::make_unique<BoundReduction>(op_, shape, reduced);
  }

 private:
  Operator op_;
  std::optional<std::vector<std::int64_t>> axes_;
};

// Nothing that is kept comes after what is reduced.
bool are_last(const Graph& graph, const Node& node, const std::vector<std::int64_t>& axes) {
  const auto& shape = graph.value(node.inputs[0]).type.shape;
  if (!shape) return false;
  const auto rank = static_cast<std::int64_t>(shape->size());
  const std::vector<std::int64_t> all = normalize_axes(axes, rank);
  return std::ranges::all_of(all,
                             [&](std::int64_t axis) { return axis + static_cast<std::int64_t>(all.size()) >= rank; });
}

}  // namespace

std::unique_ptr<Kernel> make_reduction_kernel(const Graph& graph, const Node& node) {
  const auto op = std::find_if(std::begin(kOperators), std::end(kOperators),
                               [&](const Operator& candidate) { return candidate.op == node.op; });
  if (op == std::end(kOperators) || !input_is(graph, node, 0, DType::kF32)) return nullptr;
  if (!has_input(node, 1)) {
    const bool none = AttributeReader(get_op(node.op), node.attributes).integer("noop_with_empty_axes") != 0;
    return none ? nullptr : std::make_unique<ReductionKernel>(*op, std::nullopt);
  }
  const Tensor* axes = constant_input(graph, node, 1);
  if (axes == nullptr || axes->size() == 0) return nullptr;
  if (op->op == "ReduceLogSumExp" && !are_last(graph, node, axes->to_ints())) return nullptr;
  return std::make_unique<ReductionKernel>(*op, axes->to_ints());
}

}  // namespace weft::runtime
