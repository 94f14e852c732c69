// Reductions along axes, and their relatives.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"

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

// The tensor seen as [outer..., reduced...]: offsets of the kept elements and of the reduced ones.
struct Split {
  Extents kept_shape;  // with 1s when keepdims
  std::vector<std::int64_t> kept, reduced;
};

std::vector<std::int64_t> offsets_of(const Extents& shape, const Extents& strides, const std::vector<bool>& selected) {
  std::vector<std::int64_t> offsets = {0};
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (!selected[axis]) continue;
    std::vector<std::int64_t> next;
    next.reserve(offsets.size() * static_cast<std::size_t>(shape[axis]));
    for (const std::int64_t base : offsets) {
      for (std::int64_t i = 0; i < shape[axis]; ++i) next.push_back(base + i * strides[axis]);
    }
    offsets = std::move(next);
  }
  return offsets;
}

Split split_axes(const Tensor& x, const std::vector<std::int64_t>& axes, bool keepdims) {
  std::vector<bool> reduced(x.shape().size(), false);
  for (const std::int64_t axis : axes) reduced[static_cast<std::size_t>(axis)] = true;
  std::vector<bool> kept(reduced.size());
  std::transform(reduced.begin(), reduced.end(), kept.begin(), std::logical_not<>());
  Split split;
  for (std::size_t i = 0; i < reduced.size(); ++i) {
    if (!reduced[i])
      split.kept_shape.push_back(x.shape()[i]);
    else if (keepdims)
      split.kept_shape.push_back(1);
  }
  const Extents strides = row_major_strides(x.shape());
  split.kept = offsets_of(x.shape(), strides, kept);
  split.reduced = offsets_of(x.shape(), strides, reduced);
  return split;
}

struct Sum {
  static double start() { return 0; }
  static double step(double total, double x) { return total + x; }
  static double finish(double total, double) { return total; }
};
struct Mean : Sum {
  static double finish(double total, double count) { return total / count; }
};
struct Prod {
  static double start() { return 1; }
  static double step(double total, double x) { return total * x; }
  static double finish(double total, double) { return total; }
};
struct Max {
  static double start() { return -std::numeric_limits<double>::infinity(); }
  static double step(double best, double x) { return std::isnan(best) || best > x ? best : x; }
  static double finish(double best, double) { return best; }
};
struct Min {
  static double start() { return std::numeric_limits<double>::infinity(); }
  static double step(double best, double x) { return std::isnan(best) || best < x ? best : x; }
  static double finish(double best, double) { return best; }
};
struct L1 : Sum {
  static double step(double total, double x) { return total + std::abs(x); }
};
struct SumSquare : Sum {
  static double step(double total, double x) { return total + x * x; }
};
struct L2 : SumSquare {
  static double finish(double total, double) { return std::sqrt(total); }
};
struct LogSum : Sum {
  static double finish(double total, double) { return std::log(total); }
};

std::vector<std::int64_t> axes_of(const KernelContext& context) {
  std::vector<std::int64_t> given;
  if (context.has(1)) given = context.input(1).to_ints();
  return *reduced_axes(context, context.input(0).rank(), std::optional(std::move(given)));
}

// f64 accumulation; i64 sums, products and extremes are exact in 64 bits.
template <class R>
void reduce_kernel(KernelContext& context) {
  const Tensor& input = context.input(0);
  const Split split = split_axes(input, axes_of(context), context.integer("keepdims") != 0);
  Tensor& y = context.output(0, input.dtype(), split.kept_shape);
  const auto count = static_cast<double>(split.reduced.size());
  visit_dtype(input.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, std::string>) {
      fail(ErrorCode::kInvalidModel, "{} of strings", context.node().op);
    } else {
      const T* x = input.data<T>().data();
      T* out = y.mutable_data<T>().data();
      for (std::size_t i = 0; i < split.kept.size(); ++i) {
        if constexpr (std::is_integral_v<T> && sizeof(T) == 8 && (std::is_same_v<R, Sum> || std::is_same_v<R, Prod>)) {
          std::uint64_t total = std::is_same_v<R, Sum> ? 0 : 1;
          for (const std::int64_t offset : split.reduced) {
            const auto value = static_cast<std::uint64_t>(x[split.kept[i] + offset]);
            total = std::is_same_v<R, Sum> ? total + value : total * value;
          }
          out[i] = static_cast<T>(total);
        } else {
          double total = R::start();
          for (const std::int64_t offset : split.reduced) {
            const T& value = x[split.kept[i] + offset];
            if constexpr (std::is_arithmetic_v<T>)
              total = R::step(total, static_cast<double>(value));
            else
              total = R::step(total, static_cast<double>(static_cast<float>(value)));
          }
          const double result = R::finish(total, count);
          if constexpr (std::is_same_v<T, bool>)
            out[i] = result > 0;
          else if constexpr (std::is_integral_v<T>)
            out[i] = std::isinf(result) ? (result > 0 ? std::numeric_limits<T>::max() : std::numeric_limits<T>::min())
                                        : static_cast<T>(result);
          else if constexpr (std::is_arithmetic_v<T>)
            out[i] = static_cast<T>(result);
          else
            out[i] = T(static_cast<float>(result));
        }
      }
    }
  });
}

void log_sum_exp_kernel(KernelContext& context) {
  const Tensor input = cast(context.input(0), DType::kF64);
  const Split split = split_axes(input, axes_of(context), context.integer("keepdims") != 0);
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

// --- ArgMax, ArgMin, TopK, CumSum ------------------------------------------------------------------

void infer_arg(InferContext& context) {
  context.set_dtype(0, DType::kI64);
  Shape shape = context.shape(0);
  const auto axis = static_cast<std::ptrdiff_t>(normalize_axis(context.integer("axis"), context.rank(0)));
  if (context.integer("keepdims") != 0)
    shape[static_cast<std::size_t>(axis)] = 1;
  else
    shape.erase(shape.begin() + axis);
  context.set_shape(0, std::move(shape));
}

template <bool kMaximum>
void arg_kernel(KernelContext& context) {
  const Tensor input = cast(context.input(0), DType::kF64);
  const std::int64_t axis = normalize_axis(context.integer("axis"), input.rank());
  const Split split = split_axes(input, {axis}, context.integer("keepdims") != 0);
  const bool last = context.integer("select_last_index") != 0;
  const auto out = context.output(0, DType::kI64, split.kept_shape).mutable_data<std::int64_t>();
  const auto x = input.data<double>();
  if (split.reduced.empty() && !split.kept.empty()) {
    fail(ErrorCode::kInvalidModel, "{} along an axis of length 0", context.node().op);
  }
  for (std::size_t i = 0; i < split.kept.size(); ++i) {
    std::size_t best = 0;
    const auto at = [&](std::size_t k) { return x[static_cast<std::size_t>(split.kept[i] + split.reduced[k])]; };
    for (std::size_t k = 1; k < split.reduced.size(); ++k) {
      const bool better = kMaximum ? at(k) > at(best) : at(k) < at(best);
      if (better || (last && at(k) == at(best))) best = k;
    }
    out[i] = static_cast<std::int64_t>(best);
  }
}

OpDef arg_op(std::string_view name, void (*reference)(KernelContext&)) {
  return {.name = name,
          .inputs = {{"data"}},
          .outputs = {{"reduced"}},
          .attributes = {{"axis", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
                         {"keepdims", AttributeKind::kInt, false, Attribute(std::int64_t{1})},
                         {"select_last_index", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
          .infer = infer_arg,
          .reference = reference};
}

void infer_top_k(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  context.set_dtype(1, DType::kI64);
  Shape shape = context.shape(0);
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), context.rank(0)));
  const auto* k = context.elements(1);
  shape[axis] = k != nullptr && k->size() == 1 ? (*k)[0] : context.unknown_dim();
  context.set_shape(0, shape);
  context.set_shape(1, std::move(shape));
}

// The first k of [0, count) by key, equal ones by position. A NaN is neither before nor after anything: rows with one
// are sorted as a whole.
template <class At>
std::vector<std::int64_t> first_by_key(std::size_t count, std::size_t k, bool largest, const At& at) {
  std::vector<std::int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](std::int64_t a, std::int64_t b) { return largest ? at(a) > at(b) : at(a) < at(b); };
  constexpr std::size_t kFew = 8;  // a heap of at most an eighth is cheaper than sorting all
  const bool partial =
      k < count / kFew && std::none_of(order.begin(), order.end(), [&](std::int64_t n) { return std::isnan(at(n)); });
  if (partial) {
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
                      [&](std::int64_t a, std::int64_t b) { return before(a, b) || (at(a) == at(b) && a < b); });
  } else {
    std::stable_sort(order.begin(), order.end(), before);
  }
  order.resize(k);
  return order;
}

void top_k_kernel(KernelContext& context) {
  const Tensor& input = context.input(0);
  const std::int64_t axis = normalize_axis(context.integer("axis"), input.rank());
  const auto k = static_cast<std::int64_t>(context.input(1).item());
  if (k < 0 || k > input.extent(axis)) {
    fail(ErrorCode::kInvalidModel, "TopK of {} among {}", k, input.extent(axis));
  }
  const bool largest = context.integer("largest") != 0;
  const Tensor keys = cast(input, DType::kF64);
  const Split split = split_axes(input, {axis}, true);
  Extents shape = input.shape();
  shape[static_cast<std::size_t>(axis)] = k;
  Tensor indices = Tensor::uninitialized(DType::kI64, shape);
  Tensor values = Tensor::uninitialized(DType::kF64, shape);
  const std::vector<std::int64_t> out_base = [&] {
    Tensor probe = Tensor::share(DType::kU8, shape, std::make_shared<std::byte>(), SIZE_MAX);
    return split_axes(probe, {axis}, true).kept;
  }();
  const std::int64_t stride = row_major_strides(shape)[static_cast<std::size_t>(axis)];
  const auto x = keys.data<double>();
  for (std::size_t i = 0; i < split.kept.size(); ++i) {
    const auto at = [&](std::int64_t n) {
      return x[static_cast<std::size_t>(split.kept[i] + split.reduced[static_cast<std::size_t>(n)])];
    };
    const auto order = first_by_key(split.reduced.size(), static_cast<std::size_t>(k), largest, at);
    for (std::int64_t n = 0; n < k; ++n) {
      const auto target = static_cast<std::size_t>(out_base[i] + n * stride);
      indices.mutable_data<std::int64_t>()[target] = order[static_cast<std::size_t>(n)];
      values.mutable_data<double>()[target] = at(order[static_cast<std::size_t>(n)]);
    }
  }
  context.set_output(0, cast(values, input.dtype()));
  context.set_output(1, std::move(indices));
}

template <bool kProduct>
void cumulate_kernel(KernelContext& context) {
  const Tensor& input = context.input(0);
  const std::int64_t axis = normalize_axis(static_cast<std::int64_t>(context.input(1).item()), input.rank());
  const bool exclusive = context.integer("exclusive") != 0;
  const bool reverse = context.integer("reverse") != 0;
  const Split split = split_axes(input, {axis}, true);
  Tensor& out = context.output(0, input.dtype(), input.shape());
  visit_dtype(input.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr bool kHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;
    if constexpr (kHalf || (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)) {
      using Wide = std::conditional_t<kHalf, float, T>;
      const T* x = input.data<T>().data();
      T* y = out.mutable_data<T>().data();
      const std::size_t count = split.reduced.size();
      for (const std::int64_t base : split.kept) {
        Wide total = kProduct ? 1 : 0;
        for (std::size_t n = 0; n < count; ++n) {
          const std::int64_t at = base + split.reduced[reverse ? count - 1 - n : n];
          const auto value = static_cast<Wide>(x[at]);
          if (exclusive) y[at] = T(total);
          if constexpr (std::is_signed_v<Wide> && std::is_integral_v<Wide>) {  // wraps around
            const auto a = static_cast<std::uint64_t>(total), b = static_cast<std::uint64_t>(value);
            total = static_cast<Wide>(kProduct ? a * b : a + b);
          } else {
            total = static_cast<Wide>(kProduct ? total * value : total + value);
          }
          if (!exclusive) y[at] = T(total);
        }
      }
    } else {
      fail(ErrorCode::kUnsupported, "cumulation of {}", to_string(input.dtype()));
    }
  });
}

OpDef cumulation(std::string_view name, void (*reference)(KernelContext&)) {
  return {.name = name,
          .inputs = {{"x"}, {"axis"}},
          .outputs = {{"y"}},
          .attributes = {{"exclusive", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
                         {"reverse", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
          .infer = infer_same_as_first,
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
      arg_op("ArgMax", arg_kernel<true>),
      arg_op("ArgMin", arg_kernel<false>),
      {.name = "TopK",
       .inputs = {{"X"}, {"K"}},
       .outputs = {{"Values"}, {"Indices"}},
       .attributes = {{"axis", AttributeKind::kInt, false, Attribute(std::int64_t{-1})},
                      {"largest", AttributeKind::kInt, false, Attribute(std::int64_t{1})},
                      {"sorted", AttributeKind::kInt, false, Attribute(std::int64_t{1})}},
       .infer = infer_top_k,
       .reference = top_k_kernel},
      cumulation("CumSum", cumulate_kernel<false>),
      cumulation("CumProd", cumulate_kernel<true>),
  };
  return ops;
}

}  // namespace weft
