// Order and running totals along an axis: ArgMax, ArgMin, TopK, CumSum, CumProd.
#include <algorithm>
#include <numeric>

#include "ops/axis_split.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"
#include "ops/wrapping.h"

namespace weft {
namespace {

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

// Calls body(elements) with numbers that compare: halves and narrow types as f32, all others as they are.
template <class Body>
void visit_ordered(const Tensor& input, const Body& body) {
  const DType dtype = input.dtype();
  const bool narrow = dtype == DType::kF16 || dtype == DType::kBF16 || is_narrow(dtype);
  const Tensor keys = narrow ? cast(input, DType::kF32) : input;
  visit_dtype(keys.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T>) {
      body(keys.data<T>());
    } else {
      fail(ErrorCode::kInvalidModel, "an order of {}", to_string(dtype));
    }
  });
}

template <bool kMaximum>
void arg_kernel(KernelContext& context) {
  const Tensor& input = context.input(0);
  const std::int64_t axis = normalize_axis(context.integer("axis"), input.rank());
  const bool keep = context.integer("keepdims") != 0, last = context.integer("select_last_index") != 0;
  Extents shape = input.shape();
  shape[static_cast<std::size_t>(axis)] = 1;
  if (!keep) shape.erase(shape.begin() + axis);
  const auto out = context.output(0, DType::kI64, std::move(shape)).mutable_data<std::int64_t>();
  const AxisSplit split = split_axes(input.shape(), {axis}, keep);
  if (split.reduced.empty() && !split.kept.empty()) {
    fail(ErrorCode::kInvalidModel, "{} along an axis of length 0", context.node().op);
  }
  visit_ordered(input, [&](auto x) {
    for (std::size_t i = 0; i < split.kept.size(); ++i) {
      std::size_t best = 0;
      const auto at = [&](std::size_t k) { return x[static_cast<std::size_t>(split.kept[i] + split.reduced[k])]; };
      for (std::size_t k = 1; k < split.reduced.size(); ++k) {
        const bool better = kMaximum ? at(k) > at(best) : at(k) < at(best);
        if (better || (last && at(k) == at(best))) best = k;
      }
      out[i] = static_cast<std::int64_t>(best);
    }
  });
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
      k < count / kFew && std::none_of(order.begin(), order.end(), [&](std::int64_t n) { return at(n) != at(n); });
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
  const std::int64_t k = only_integer(context.input(1));
  if (k < 0 || k > input.extent(axis)) {
    fail(ErrorCode::kInvalidModel, "TopK of {} among {}", k, input.extent(axis));
  }
  const bool largest = context.integer("largest") != 0;
  Extents shape = input.shape();
  shape[static_cast<std::size_t>(axis)] = k;
  Tensor values = Tensor::uninitialized(input.dtype(), shape);
  Tensor indices = Tensor::uninitialized(DType::kI64, shape);
  const AxisSplit split = split_axes(input.shape(), {axis}, true);
  const std::vector<std::int64_t> out_base = split_axes(shape, {axis}, true).kept;
  const std::int64_t stride = row_major_strides(shape)[static_cast<std::size_t>(axis)];
  const auto to = indices.mutable_data<std::int64_t>();
  visit_ordered(input, [&](auto x) {
    for (std::size_t i = 0; k > 0 && i < split.kept.size(); ++i) {
      const auto at = [&](std::int64_t n) {
        return x[static_cast<std::size_t>(split.kept[i] + split.reduced[static_cast<std::size_t>(n)])];
      };
      const auto order = first_by_key(split.reduced.size(), static_cast<std::size_t>(k), largest, at);
      for (std::int64_t n = 0; n < k; ++n) {
        to[static_cast<std::size_t>(out_base[i] + n * stride)] = order[static_cast<std::size_t>(n)];
      }
    }
  });
  visit_storage(input.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (std::size_t i = 0; k > 0 && i < split.kept.size(); ++i) {
      for (std::int64_t n = 0; n < k; ++n) {
        const auto target = static_cast<std::size_t>(out_base[i] + n * stride);
        const std::int64_t source = split.kept[i] + split.reduced[static_cast<std::size_t>(to[target])];
        values.mutable_data<T>()[target] = input.data<T>()[static_cast<std::size_t>(source)];
      }
    }
  });
  context.set_output(0, std::move(values));
  context.set_output(1, std::move(indices));
}

template <bool kProduct>
void cumulate_kernel(KernelContext& context) {
  const Tensor& input = context.input(0);
  const std::int64_t axis = normalize_axis(only_integer(context.input(1)), input.rank());
  const bool exclusive = context.integer("exclusive") != 0;
  const bool reverse = context.integer("reverse") != 0;
  Tensor& out = context.output(0, input.dtype(), input.shape());
  const AxisSplit split = split_axes(input.shape(), {axis}, true);
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
          total = kProduct ? wrapping_multiply(total, value) : wrapping_add(total, value);
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

std::span<const OpDef> along_axis_ops() {
  static const std::vector<OpDef> ops = {
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
