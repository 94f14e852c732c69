// Comparisons, boolean functions, and selection.
#include <cmath>
#include <cstring>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

struct EqualTo {
  template <class T>
  bool operator()(const T& a, const T& b) const {
    return a == b;
  }
};
struct GreaterThan {
  template <class T>
  bool operator()(const T& a, const T& b) const {
    return a > b;
  }
};
struct GreaterOrEqual {
  template <class T>
  bool operator()(const T& a, const T& b) const {
    return a >= b;
  }
};
struct LessThan {
  template <class T>
  bool operator()(const T& a, const T& b) const {
    return a < b;
  }
};
struct LessOrEqual {
  template <class T>
  bool operator()(const T& a, const T& b) const {
    return a <= b;
  }
};
struct LogicalAnd {
  bool operator()(bool a, bool b) const { return a && b; }
};
struct LogicalOr {
  bool operator()(bool a, bool b) const { return a || b; }
};
struct LogicalXor {
  bool operator()(bool a, bool b) const { return a != b; }
};

template <class T, class Out, class F>
void apply(const Tensor& a, const Tensor& b, Tensor& out, const F& f) {
  const Extents& shape = out.shape();
  const std::array<Extents, 3> strides = {broadcast_strides(a.shape(), shape), broadcast_strides(b.shape(), shape),
                                          row_major_strides(shape)};
  const T* x = a.data<T>().data();
  const T* y = b.data<T>().data();
  Out* z = out.mutable_data<Out>().data();
  const std::int64_t length = shape.empty() ? 1 : shape.back();
  const std::int64_t step_x = shape.empty() ? 0 : strides[0].back();
  const std::int64_t step_y = shape.empty() ? 0 : strides[1].back();
  for_each_row<3>(shape, strides, [&](const std::array<std::int64_t, 3>& at) {
    for (std::int64_t i = 0; i < length; ++i) {
      z[at[2] + i] = f(x[at[0] + i * step_x], y[at[1] + i * step_y]);
    }
  });
}

template <class F>
void compare_kernel(KernelContext& context) {
  const Tensor& a = context.input(0);
  const Tensor& b = context.input(1);
  if (a.dtype() != b.dtype()) {
    fail(ErrorCode::kInvalidModel, "dtypes {} and {} differ", to_string(a.dtype()), to_string(b.dtype()));
  }
  Tensor& out = context.output(0, DType::kBool, broadcast_extents(a.shape(), b.shape()));
  visit_dtype(a.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      apply<T, bool>(a, b, out, [](T x, T y) { return F()(static_cast<float>(x), static_cast<float>(y)); });
    } else {
      apply<T, bool>(a, b, out, F());
    }
  });
}

template <class F>
void boolean_kernel(KernelContext& context) {
  const Tensor& a = context.input(0);
  const Tensor& b = context.input(1);
  Tensor& out = context.output(0, DType::kBool, broadcast_extents(a.shape(), b.shape()));
  apply<bool, bool>(a, b, out, F());
}

struct BitAnd {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct BitOr {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct BitXor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};

template <class F>
void bitwise_kernel(KernelContext& context) {
  const Tensor& a = context.input(0);
  const Tensor& b = context.input(1);
  Tensor& out = context.output(0, a.dtype(), broadcast_extents(a.shape(), b.shape()));
  visit_dtype(a.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T>)
      apply<T, T>(a, b, out, F());
    else
      fail(ErrorCode::kInvalidModel, "{} of {}", context.node().op, to_string(a.dtype()));
  });
}

void infer_compare_shape(InferContext& context) {
  context.set_dtype(0, DType::kBool);
  context.set_shape(0, broadcast_shapes(context.shape(0), context.shape(1)));
}

// Sign of a - b when it is the same for every value of the symbols.
std::optional<int> sign_of_difference(const Dim& a, const Dim& b) {
  const Dim difference = a - b;
  if (difference.is_constant()) return difference.value() < 0 ? -1 : difference.value() > 0;
  if (difference.always_positive()) return 1;
  if ((b - a).always_positive()) return -1;
  return std::nullopt;
}

void infer_equal(InferContext& context) {
  infer_compare_shape(context);
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> {
    const auto sign = sign_of_difference(a, b);
    return sign ? std::optional<Dim>(*sign == 0) : std::nullopt;
  });
}
template <bool kGreater, bool kEqual>
void infer_order(InferContext& context) {
  infer_compare_shape(context);
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> {
    if (const auto sign = sign_of_difference(a, b)) {
      return Dim(*sign == 0 ? kEqual : (*sign > 0) == kGreater);
    }
    // Without knowing about equality: a >= b settles >= and <, a <= b settles <= and >.
    if (kGreater == kEqual && (a - b).never_negative()) return Dim(kGreater ? 1 : 0);
    if (kGreater != kEqual && (b - a).never_negative()) return Dim(kGreater ? 0 : 1);
    return std::nullopt;
  });
}
template <bool kAnd>
void infer_and_or(InferContext& context) {
  infer_compare_shape(context);
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> {
    if (a.is(kAnd ? 0 : 1) || b.is(kAnd ? 0 : 1)) return Dim(kAnd ? 0 : 1);
    if (a.is_constant() && b.is_constant()) return Dim(kAnd ? 1 : 0);
    return std::nullopt;
  });
}

void infer_not(InferContext& context) {
  context.set_dtype(0, DType::kBool);
  context.set_shape(0, context.shape(0));
  if (const auto* elements = context.elements(0)) {
    std::vector<Dim> result;
    for (const Dim& dim : *elements) {
      if (!dim.is_constant()) return;
      result.emplace_back(dim.is(0) ? 1 : 0);
    }
    context.set_elements(0, std::move(result));
  }
}

void not_kernel(KernelContext& context) {
  const auto x = context.input(0).data<bool>();
  const auto y = context.output(0, DType::kBool, context.input(0).shape()).mutable_data<bool>();
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = !x[i];
}

void bitwise_not_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  Tensor& y = context.output(0, x.dtype(), x.shape());
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      const auto in = x.data<T>();
      for (std::size_t i = 0; i < in.size(); ++i) y.mutable_data<T>()[i] = static_cast<T>(~in[i]);
    } else {
      fail(ErrorCode::kInvalidModel, "BitwiseNot of {}", to_string(x.dtype()));
    }
  });
}

template <class F>
void float_test(KernelContext& context, const F& f) {
  const Tensor x = is_narrow(context.input(0).dtype()) ? cast(context.input(0), DType::kF32) : context.input(0);
  const auto y = context.output(0, DType::kBool, x.shape()).mutable_data<bool>();
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, std::string> || std::is_integral_v<T>) {
      fail(ErrorCode::kInvalidModel, "{} of {}", context.node().op, to_string(x.dtype()));
    } else {
      const auto in = x.data<T>();
      for (std::size_t i = 0; i < in.size(); ++i) {
        if constexpr (std::is_floating_point_v<T>)
          y[i] = f(static_cast<double>(in[i]));
        else
          y[i] = f(static_cast<double>(static_cast<float>(in[i])));
      }
    }
  });
}
void is_nan_kernel(KernelContext& context) {
  float_test(context, [](double x) { return std::isnan(x); });
}
void is_inf_kernel(KernelContext& context) {
  const bool negative = context.integer("detect_negative") != 0;
  const bool positive = context.integer("detect_positive") != 0;
  float_test(context, [&](double x) { return std::isinf(x) && (x > 0 ? positive : negative); });
}

void infer_where(InferContext& context) {
  if (context.dtype(0) != DType::kBool) {
    fail(ErrorCode::kInvalidModel, "Where by {}", to_string(context.dtype(0)));
  }
  context.set_dtype(0, context.dtype(1));
  const Shape shape = broadcast_shapes(context.shape(0), broadcast_shapes(context.shape(1), context.shape(2)));
  context.set_shape(0, shape);
  const auto* condition = context.elements(0);
  const auto* a = context.elements(1);
  const auto* b = context.elements(2);
  if (condition == nullptr || a == nullptr || b == nullptr || shape.size() > 1) return;
  const std::size_t count = std::max({condition->size(), a->size(), b->size()});
  std::vector<Dim> result;
  for (std::size_t i = 0; i < count; ++i) {
    const auto pick = [&](const std::vector<Dim>& from) { return from[from.size() == 1 ? 0 : i]; };
    for (const auto* operand : {condition, a, b}) {
      if (operand->size() != 1 && operand->size() != count) return;
    }
    const Dim chosen = pick(*condition);
    if (!chosen.is_constant()) return;
    result.push_back(chosen.is(0) ? pick(*b) : pick(*a));
  }
  context.set_elements(0, std::move(result));
}

void where_kernel(KernelContext& context) {
  const Tensor& condition = context.input(0);
  const Tensor& a = context.input(1);
  const Tensor& b = context.input(2);
  if (a.dtype() != b.dtype()) {
    fail(ErrorCode::kInvalidModel, "dtypes {} and {} differ", to_string(a.dtype()), to_string(b.dtype()));
  }
  const Extents shape = broadcast_extents(condition.shape(), broadcast_extents(a.shape(), b.shape()));
  Tensor& out = context.output(0, a.dtype(), shape);
  const std::array<Extents, 4> strides = {broadcast_strides(condition.shape(), shape),
                                          broadcast_strides(a.shape(), shape), broadcast_strides(b.shape(), shape),
                                          row_major_strides(shape)};
  const std::int64_t length = shape.empty() ? 1 : shape.back();
  const auto step = [&](std::size_t k) { return shape.empty() ? 0 : strides[k].back(); };
  const bool* choose = condition.data<bool>().data();
  visit_storage(a.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = a.data<T>().data();
    const T* y = b.data<T>().data();
    T* z = out.mutable_data<T>().data();
    const std::int64_t step_c = step(0), step_x = step(1), step_y = step(2);
    for_each_row<4>(shape, strides, [&](const std::array<std::int64_t, 4>& at) {
      for (std::int64_t i = 0; i < length; ++i) {
        z[at[3] + i] = choose[at[0] + i * step_c] ? x[at[1] + i * step_x] : y[at[2] + i * step_y];
      }
    });
  });
}

void infer_test(InferContext& context) {
  context.set_dtype(0, DType::kBool);
  context.set_shape(0, context.shape(0));
}

OpDef pair(std::string_view name, void (*infer)(InferContext&), void (*reference)(KernelContext&), bool commutative) {
  return {.name = name,
          .inputs = {{"A"}, {"B"}},
          .outputs = {{"C"}},
          .infer = infer,
          .reference = reference,
          .commutative = commutative};
}

AttributeDef flag(std::string_view name) { return {name, AttributeKind::kInt, false, Attribute(std::int64_t{1})}; }

}  // namespace

std::span<const OpDef> logic_ops() {
  static const std::vector<OpDef> ops = {
      pair("Equal", infer_equal, compare_kernel<EqualTo>, true),
      pair("Greater", infer_order<true, false>, compare_kernel<GreaterThan>, false),
      pair("GreaterOrEqual", infer_order<true, true>, compare_kernel<GreaterOrEqual>, false),
      pair("Less", infer_order<false, false>, compare_kernel<LessThan>, false),
      pair("LessOrEqual", infer_order<false, true>, compare_kernel<LessOrEqual>, false),
      pair("And", infer_and_or<true>, boolean_kernel<LogicalAnd>, true),
      pair("Or", infer_and_or<false>, boolean_kernel<LogicalOr>, true),
      pair("Xor", infer_compare_shape, boolean_kernel<LogicalXor>, true),
      pair("BitwiseAnd", infer_broadcast, bitwise_kernel<BitAnd>, true),
      pair("BitwiseOr", infer_broadcast, bitwise_kernel<BitOr>, true),
      pair("BitwiseXor", infer_broadcast, bitwise_kernel<BitXor>, true),
      {.name = "Not", .inputs = {{"X"}}, .outputs = {{"Y"}}, .infer = infer_not, .reference = not_kernel},
      {.name = "BitwiseNot",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .infer = infer_same_as_first,
       .reference = bitwise_not_kernel},
      {.name = "IsNaN", .inputs = {{"X"}}, .outputs = {{"Y"}}, .infer = infer_test, .reference = is_nan_kernel},
      {.name = "IsInf",
       .inputs = {{"X"}},
       .outputs = {{"Y"}},
       .attributes = {flag("detect_negative"), flag("detect_positive")},
       .infer = infer_test,
       .reference = is_inf_kernel},
      {.name = "Where",
       .inputs = {{"condition"}, {"X"}, {"Y"}},
       .outputs = {{"output"}},
       .infer = infer_where,
       .reference = where_kernel},
  };
  return ops;
}

}  // namespace weft
