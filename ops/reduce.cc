// Reductions along axes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/axis_split.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"
#include "ops/wrapping.h"

namespace weft {
namespace {

// Axes of a Reduce* node: input 1; absent or empty means all, or none with noop_with_empty_axes.
template <class Context>
std::optional<std::vector<std::int64_t>> reduced_axes(const Context& context, std::int64_t rank,
                                                      std::optional<std::vector<std::int64_t>> given) {
  if (!given) return std::nullopt;
  if (given->empty()) {
    if (context.integer("noop_with_empty_axes") != 0) return std::vector<std::int64_t>{};
    std::vector<std::int64_t> all(static_cast<std::size_t>(rank));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  return normalize_axes(*given, rank);
}

void infer_reduce(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const std::int64_t rank = context.rank(0);
  std::optional<std::vector<std::int64_t>> given = std::vector<std::int64_t>{};
  if (context.has(1)) given = context.integers(1);
  const auto axes = reduced_axes(context, rank, given);
  const bool keep = context.integer("keepdims") != 0;
  if (!axes) {
    if (!keep) return;
    Shape unknown;
    for (std::int64_t i = 0; i < rank; ++i) unknown.push_back(context.unknown_dim());
    context.set_shape(0, std::move(unknown));
    return;
  }
  Shape shape;
  for (std::int64_t i = 0; i < rank; ++i) {
    const bool reduced = std::binary_search(axes->begin(), axes->end(), i);
    if (!reduced)
      shape.push_back(context.shape(0)[static_cast<std::size_t>(i)]);
    else if (keep)
      shape.emplace_back(1);
  }
  context.set_shape(0, std::move(shape));
}

void infer_reduce_prod(InferContext& context) {
  infer_reduce(context);
  const auto* elements = context.elements(0);
  if (elements == nullptr || context.rank(0) != 1) return;
  Dim product(1);
  for (const Dim& dim : *elements) product = product * dim;
  context.set_elements(0, {product});
}

void infer_reduce_sum(InferContext& context) {
  infer_reduce(context);
  const auto* elements = context.elements(0);
  if (elements == nullptr || context.rank(0) != 1) return;
  Dim sum;
  for (const Dim& dim : *elements) sum = sum + dim;
  context.set_elements(0, {sum});
}

// --- Reduce* ---------------------------------------------------------------------------------------

// Each folds values of type A, which is f64, or for integers i64 or u64, where sums and products wrap around. An empty
// set has the start; `count` values were folded.

// The least (greatest) value of T, or the infinity.
template <class T, class A, bool kGreatest>
constexpr A bound() {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<A>(kGreatest ? std::numeric_limits<T>::max() : std::numeric_limits<T>::min());
  } else {
    return static_cast<A>(kGreatest ? INFINITY : -INFINITY);
  }
}

template <class A>
bool is_nan(A x) {
  return x != x;
}

struct Sum {
  template <class T, class A>
  static A start() {
    return 0;
  }
  template <class A>
  static A step(A total, A x) {
    return wrapping_add(total, x);
  }
  template <class A>
  static A finish(A total, std::size_t) {
    return total;
  }
};
struct Mean : Sum {
  template <class A>
  static A finish(A total, std::size_t count) {
    if (std::is_integral_v<A> && count == 0) return 0;
    return total / static_cast<A>(count);
  }
};
struct Prod : Sum {
  template <class T, class A>
  static A start() {
    return 1;
  }
  template <class A>
  static A step(A total, A x) {
    return wrapping_multiply(total, x);
  }
};
struct Max : Sum {
  template <class T, class A>
  static A start() {
    return bound<T, A, false>();
  }
  template <class A>
  static A step(A best, A x) {
    return is_nan(best) || best > x ? best : x;
  }
};
struct Min : Sum {
  template <class T, class A>
  static A start() {
    return bound<T, A, true>();
  }
  template <class A>
  static A step(A best, A x) {
    return is_nan(best) || best < x ? best : x;
  }
};
struct L1 : Sum {
  template <class A>
  static A step(A total, A x) {
    return wrapping_add(total, x < 0 ? wrapping_subtract(A{0}, x) : x);
  }
};
struct SumSquare : Sum {
  template <class A>
  static A step(A total, A x) {
    return wrapping_add(total, wrapping_multiply(x, x));
  }
};
struct L2 : SumSquare {
  using Real = void;  // of integers too
  static double finish(double total, std::size_t) { return std::sqrt(total); }
};
struct LogSum : Sum {
  using Real = void;
  static double finish(double total, std::size_t) { return std::log(total); }
};

std::vector<std::int64_t> axes_of(const KernelContext& context) {
  std::vector<std::int64_t> given;
  if (context.has(1)) given = context.input(1).to_ints();
  return *reduced_axes(context, context.input(0).rank(), std::optional(std::move(given)));
}

template <class R, class A, class T>
A reduced(const T* x, const std::vector<std::int64_t>& offsets) {
  A total = R::template start<T, A>();
  for (const std::int64_t offset : offsets) {
    if constexpr (std::is_arithmetic_v<T>)
      total = R::step(total, static_cast<A>(x[offset]));
    else
      total = R::step(total, static_cast<A>(static_cast<float>(x[offset])));
  }
  return R::finish(total, offsets.size());
}

template <class R>
void reduce_kernel(KernelContext& context) {
  const Tensor& input = context.input(0);
  const std::vector<std::int64_t> axes = axes_of(context);
  const bool keep = context.integer("keepdims") != 0;
  Extents shape;
  for (std::int64_t i = 0; i < input.rank(); ++i) {
    const bool gone = std::find(axes.begin(), axes.end(), i) != axes.end();
    if (keep || !gone) shape.push_back(gone ? 1 : input.extent(i));
  }
  Tensor& y = context.output(0, input.dtype(), std::move(shape));  // may be refused
  const AxisSplit split = split_axes(input.shape(), axes, keep);
  visit_dtype(input.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, std::string>) {
      fail(ErrorCode::kInvalidModel, "{} of strings", context.node().op);
    } else {
      constexpr bool kWhole = std::is_integral_v<T> && !std::is_same_v<T, bool> && !requires { typename R::Real; };
      using Integer = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
      using A = std::conditional_t<kWhole, Integer, double>;
      const T* x = input.data<T>().data();
      T* out = y.mutable_data<T>().data();
      for (std::size_t i = 0; i < split.kept.size(); ++i) {
        const A result = reduced<R, A>(x + split.kept[i], split.reduced);
        if constexpr (kWhole)
          out[i] = static_cast<T>(result);
        else if constexpr (std::is_same_v<T, bool>)
          out[i] = result > 0;
        else
          out[i] = number_cast<T>(result);
      }
    }
  });
}

void log_sum_exp_kernel(KernelContext& context) {
  const Tensor input = cast(context.input(0), DType::kF64);
  const AxisSplit split = split_axes(input.shape(), axes_of(context), context.integer("keepdims") != 0);
  Tensor result = Tensor::uninitialized(DType::kF64, split.kept_shape);
  const auto x = input.data<double>();
  for (std::size_t i = 0; i < split.kept.size(); ++i) {
    double top = -std::numeric_limits<double>::infinity();
    for (const std::int64_t offset : split.reduced) {
      top = Max::step(top, x[static_cast<std::size_t>(split.kept[i] + offset)]);
    }
    const double shift = std::isfinite(top) ? top : 0.0;
    double total = 0;
    for (const std::int64_t offset : split.reduced) {
      total += std::exp(x[static_cast<std::size_t>(split.kept[i] + offset)] - shift);
    }
    result.mutable_data<double>()[i] = std::log(total) + shift;
  }
  context.set_output(0, cast(result, context.input(0).dtype()));
}

OpDef reduction(std::string_view name, void (*reference)(KernelContext&), void (*infer)(InferContext&) = infer_reduce) {
  return {.name = name,
          .inputs = {{"data"}, {"axes", Arity::kOptional}},
          .outputs = {{"reduced"}},
          .attributes = {{"keepdims", AttributeKind::kInt, false, Attribute(std::int64_t{1})},
                         {"noop_with_empty_axes", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
          .infer = infer,
          .reference = reference};
}

}  // namespace

std::span<const OpDef> reduce_ops() {
  static const std::vector<OpDef> ops = {
      reduction("ReduceSum", reduce_kernel<Sum>, infer_reduce_sum),
      reduction("ReduceMean", reduce_kernel<Mean>),
      reduction("ReduceProd", reduce_kernel<Prod>, infer_reduce_prod),
      reduction("ReduceMax", reduce_kernel<Max>),
      reduction("ReduceMin", reduce_kernel<Min>),
      reduction("ReduceL1", reduce_kernel<L1>),
      reduction("ReduceL2", reduce_kernel<L2>),
      reduction("ReduceSumSquare", reduce_kernel<SumSquare>),
      reduction("ReduceLogSum", reduce_kernel<LogSum>),
      reduction("ReduceLogSumExp", log_sum_exp_kernel),
  };
  return ops;
}

}  // namespace weft
