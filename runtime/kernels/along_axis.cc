// Operators of f32 along one axis: ArgMax, ArgMin, TopK, LogSoftmax; and CumSum of every number type.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/cast.h"
#include "ops/index_util.h"
#include "ops/op_def.h"
#include "ops/shape_util.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/reduce_simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 16 * 1024;  // elements worth handing to a thread
constexpr std::size_t kColumns = 256;

// x as [outer, extent, inner].
struct Around {
  std::size_t outer, extent, inner;
  Around(const Extents& shape, std::int64_t given) {
    const auto axis = static_cast<std::size_t>(normalize_axis(given, static_cast<std::int64_t>(shape.size())));
    outer = static_cast<std::size_t>(product(shape, 0, axis));
    extent = static_cast<std::size_t>(shape[axis]);
    inner = static_cast<std::size_t>(product(shape, axis + 1, shape.size()));
  }

  // body(first, last) for parts of [0, outer).
  template <class Body>
  void for_rows(ThreadPool& pool, const Body& body) const {
    const std::size_t together = std::max<std::size_t>(1, kGrain / std::max<std::size_t>(extent, 1));
    pool.parallel_for((outer + together - 1) / together,
                      [&](std::size_t i) { body(i * together, std::min(outer, (i + 1) * together)); });
  }
  // body(outer, first column, columns) for blocks of columns.
  template <class Body>
  void for_columns(ThreadPool& pool, const Body& body) const {
    const std::size_t blocks = (inner + kColumns - 1) / kColumns;
    const std::size_t work = std::max<std::size_t>(1, extent * std::min(inner, kColumns));
    const std::size_t all = outer * blocks, together = std::max<std::size_t>(1, kGrain / work);
    pool.parallel_for((all + together - 1) / together, [&](std::size_t i) {
      for (std::size_t n = i * together; n < std::min(all, (i + 1) * together); ++n) {
        const std::size_t first = n % blocks * kColumns;
        body(n / blocks, first, std::min(kColumns, inner - first));
      }
    });
  }
};

// run(context, around, axis) with an axis that is an attribute.
template <class Run>
class AxisKernel final : public Kernel {
 public:
  AxisKernel(std::int64_t axis, Run run, bool overwrites) : axis_(axis), run_(run), overwrites_(overwrites) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<Bound>(run_, Around(context.inputs[0], axis_));
  }
  bool may_overwrite(std::size_t input) const override { return overwrites_ && input == 0; }

 private:
  class Bound final : public BoundKernel {
   public:
    Bound(Run body, const Around& around) : run_(body), around_(around) {}
    void run(const RunContext& context) override { run_(context, around_); }

   private:
    Run run_;
    Around around_;
  };
  std::int64_t axis_;
  Run run_;
  bool overwrites_;
};

template <class Run>
std::unique_ptr<Kernel> axis_kernel(std::int64_t axis, Run run, bool overwrites = false) {
  return std::make_unique<AxisKernel<Run>>(axis, run, overwrites);
}

// --- ArgMax, ArgMin -------------------------------------------------------------------------------

void find_positions(const RunContext& context, const Around& around, reduce::Extreme extreme) {
  auto* y = context.out<std::int64_t>(0);
  if (around.extent == 0) {
    if (context.outputs[0]->size() == 0) return;
    fail(ErrorCode::kInvalidModel, "{} along an axis of length 0", extreme.largest ? "ArgMax" : "ArgMin");
  }
  const float* x = context.in<float>(0);
  if (around.inner == 1) {
    around.for_rows(*context.pool, [&](std::size_t first, std::size_t last) {
      for (std::size_t o = first; o < last; ++o) y[o] = reduce::position(extreme, x + o * around.extent, around.extent);
    });
    return;
  }
  around.for_columns(*context.pool, [&](std::size_t o, std::size_t first, std::size_t columns) {
    reduce::positions(extreme, x + o * around.extent * around.inner + first, around.extent, around.inner,
                      y + o * around.inner + first, columns);
  });
}

// --- TopK -----------------------------------------------------------------------------------------

struct Candidate {
  float value;
  std::int64_t index;
};

// The first k of x by value, equal ones by position, in that order. No NaN.
std::vector<Candidate> first_of(const float* x, std::size_t count, std::size_t k, bool largest) {
  const auto before = [&](const Candidate& a, const Candidate& b) {
    if (a.value != b.value) return largest ? a.value > b.value : a.value < b.value;
    return a.index < b.index;
  };
  std::vector<Candidate> best(k);  // a heap, the last of them on top
  for (std::size_t i = 0; i < k; ++i) best[i] = {x[i], static_cast<std::int64_t>(i)};
  std::make_heap(best.begin(), best.end(), before);
  for (std::size_t i = k; k > 0;) {
    i = reduce::find_beyond(largest, best.front().value, x, i, count);
    if (i == count) break;
    std::pop_heap(best.begin(), best.end(), before);
    best.back() = {x[i], static_cast<std::int64_t>(i)};
    std::push_heap(best.begin(), best.end(), before);
    ++i;
  }
  std::sort_heap(best.begin(), best.end(), before);
  return best;
}

// With NaN, which is neither before nor after anything: the order of a stable sort.
std::vector<Candidate> first_sorted(const float* x, std::size_t count, std::size_t k, bool largest) {
  std::vector<Candidate> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = {x[i], static_cast<std::int64_t>(i)};
  std::stable_sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
    return largest ? a.value > b.value : a.value < b.value;
  });
  all.resize(k);
  return all;
}

void top_k(const RunContext& context, const Around& around, bool largest) {
  const std::int64_t k = only_integer(*context.inputs[1]);
  if (k < 0 || k > static_cast<std::int64_t>(around.extent))
    fail(ErrorCode::kInvalidModel, "TopK of {} among {}", k, around.extent);
  const auto kept = static_cast<std::size_t>(k);
  Tensor *values = context.outputs[0], *indices = context.outputs.size() > 1 ? context.outputs[1] : nullptr;
  for (const Tensor* output : {values, indices}) {
    if (output != nullptr && output->shape().back() != k)
      fail(ErrorCode::kInternal, "TopK gives {}, inference says {}", k, output->shape().back());
  }
  const float* x = context.in<float>(0);
  around.for_rows(*context.pool, [&](std::size_t first, std::size_t last) {
    for (std::size_t o = first; o < last; ++o) {
      const float* row = x + o * around.extent;
      const bool ordered = !std::isnan(reduce::row(reduce::Kind::kLargest, row, around.extent));
      const auto best =
          ordered ? first_of(row, around.extent, kept, largest) : first_sorted(row, around.extent, kept, largest);
      for (std::size_t i = 0; i < kept; ++i) {
        if (values != nullptr) values->mutable_data<float>()[o * kept + i] = best[i].value;
        if (indices != nullptr) indices->mutable_data<std::int64_t>()[o * kept + i] = best[i].index;
      }
    }
  });
}

// --- LogSoftmax -----------------------------------------------------------------------------------

void log_softmax(const RunContext& context, const Around& around) {
  const float* x = context.in<float>(0);
  float* y = context.out<float>(0);
  const std::size_t n = around.extent;
  around.for_rows(*context.pool, [&](std::size_t first, std::size_t last) {
    for (std::size_t o = first; o < last; ++o) {
      const reduce::Exponents exponents = reduce::exponents(x + o * n, n);
      reduce::centre(x + o * n, exponents.top, 1, -exponents.log_sum, y + o * n, n);
    }
  });
}

// --- CumSum ---------------------------------------------------------------------------------------

template <class T>
void cumulate(const RunContext& context, bool exclusive, bool reverse) {
  using Sum = std::conditional_t<std::is_integral_v<T>, std::uint64_t, T>;  // integers wrap around
  const Tensor& input = *context.inputs[0];
  const Around around(input.shape(), only_integer(*context.inputs[1]));
  const T* x = input.data<T>().data();
  T* y = context.out<T>(0);
  around.for_columns(*context.pool, [&](std::size_t o, std::size_t first, std::size_t columns) {
    Sum total[kColumns] = {};
    const std::size_t start = o * around.extent * around.inner + first;
    for (std::size_t n = 0; n < around.extent; ++n) {
      const std::size_t at = start + (reverse ? around.extent - 1 - n : n) * around.inner;
      for (std::size_t i = 0; i < columns; ++i) {
        const Sum next = static_cast<Sum>(total[i] + static_cast<Sum>(x[at + i]));
        y[at + i] = static_cast<T>(exclusive ? total[i] : next);
        total[i] = next;
      }
    }
  });
}

class BoundCumSum final : public BoundKernel {
 public:
  BoundCumSum(bool exclusive, bool reverse) : exclusive_(exclusive), reverse_(reverse) {}
  void run(const RunContext& context) override {
    switch (context.inputs[0]->dtype()) {
      case DType::kF32: return cumulate<float>(context, exclusive_, reverse_);
      case DType::kI32: return cumulate<std::int32_t>(context, exclusive_, reverse_);
      default: return cumulate<std::int64_t>(context, exclusive_, reverse_);
    }
  }

 private:
  bool exclusive_, reverse_;
};

class CumSumKernel final : public Kernel {
 public:
  CumSumKernel(bool exclusive, bool reverse) : exclusive_(exclusive), reverse_(reverse) {}
  std::unique_ptr<BoundKernel> bind(const BindContext&) const override {
    return std::make_unique<BoundCumSum>(exclusive_, reverse_);
  }

 private:
  bool exclusive_, reverse_;
};

bool is_last(const Graph& graph, const Node& node, std::int64_t axis) {
  const TensorType& type = graph.value(node.inputs[0]).type;
  return type.shape && !type.shape->empty() &&
         (axis == -1 || axis + 1 == static_cast<std::int64_t>(type.shape->size()));
}

}  // namespace

std::unique_ptr<Kernel> make_axis_kernel(const Graph& graph, const Node& node) {
  if (!has_input(node, 0)) return nullptr;
  const DType dtype = graph.value(node.inputs[0]).type.dtype;
  const AttributeReader attributes(get_op(node.op), node.attributes);
  if (node.op == "CumSum") {
    const bool known = dtype == DType::kF32 || dtype == DType::kI32 || dtype == DType::kI64;
    if (!known) return nullptr;
    return std::make_unique<CumSumKernel>(attributes.integer("exclusive") != 0, attributes.integer("reverse") != 0);
  }
  if (dtype != DType::kF32) return nullptr;
  if (node.op == "ArgMax" || node.op == "ArgMin") {
    const reduce::Extreme extreme = {node.op == "ArgMax", attributes.integer("select_last_index") != 0};
    return axis_kernel(attributes.integer("axis"), [extreme](const RunContext& context, const Around& around) {
      find_positions(context, around, extreme);
    });
  }
  if ((node.op != "TopK" && node.op != "LogSoftmax") || !is_last(graph, node, attributes.integer("axis")))
    return nullptr;
  if (node.op == "LogSoftmax") return axis_kernel(-1, log_softmax, true);
  const bool largest = attributes.integer("largest") != 0;
  return axis_kernel(-1,
                     [largest](const RunContext& context, const Around& around) { top_k(context, around, largest); });
}

}  // namespace weft::runtime
