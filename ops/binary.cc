// Elementwise functions of two or more tensors, with broadcasting.
#include <cmath>
#include <limits>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"
#include "ops/wrapping.h"

namespace weft {
namespace {

// out = f(a, b), all of type T.
template <class T, class F>
void apply(const Tensor& a, const Tensor& b, Tensor& out, const F& f) {
  const T* x = a.data<T>().data();
  const T* y = b.data<T>().data();
  T* z = out.mutable_data<T>().data();
  const Extents& shape = out.shape();
  const std::array<Extents, 3> strides = {broadcast_strides(a.shape(), shape), broadcast_strides(b.shape(), shape),
                                          row_major_strides(shape)};
  const std::int64_t length = shape.empty() ? 1 : shape.back();
  const std::int64_t step_x = shape.empty() ? 0 : strides[0].back();
  const std::int64_t step_y = shape.empty() ? 0 : strides[1].back();
  for_each_row<3>(shape, strides, [&](const std::array<std::int64_t, 3>& at) {
    for (std::int64_t i = 0; i < length; ++i) {
      z[at[2] + i] = f(x[at[0] + i * step_x], y[at[1] + i * step_y]);
    }
  });
}

// F has operator()(T, T) for float, double and the integer types.
template <class F>
void numeric_kernel(const Tensor& a, const Tensor& b, Tensor& out, std::string_view op) {
  visit_dtype(a.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      apply<T>(a, b, out,
               [](T x, T y) { return T(static_cast<float>(F()(static_cast<float>(x), static_cast<float>(y)))); });
    } else if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
      apply<T>(a, b, out, [](T x, T y) { return static_cast<T>(F()(x, y)); });
    } else {
      fail(ErrorCode::kInvalidModel, "{} of {}", op, to_string(a.dtype()));
    }
  });
}

void check_same_dtype(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype()) {
    fail(ErrorCode::kInvalidModel, "dtypes {} and {} differ", to_string(a.dtype()), to_string(b.dtype()));
  }
}

template <class F>
void binary_kernel(KernelContext& context) {
  const Tensor& a = context.input(0);
  const Tensor& b = context.input(1);
  check_same_dtype(a, b);
  Tensor& out = context.output(0, a.dtype(), broadcast_extents(a.shape(), b.shape()));
  numeric_kernel<F>(a, b, out, context.node().op);
}

// Sum, Max, Min, Mean of any number of tensors; halves as f32.
template <class F>
Tensor fold(KernelContext& context) {
  const DType dtype = context.input(0).dtype();
  const DType wide = dtype == DType::kF16 || dtype == DType::kBF16 ? DType::kF32 : dtype;
  Tensor total = cast(context.input(0), wide);
  for (std::size_t i = 1; i < context.input_count(); ++i) {
    check_same_dtype(context.input(0), context.input(i));
    const Tensor next = cast(context.input(i), wide);
    Tensor out = Tensor::uninitialized(total.dtype(), broadcast_extents(total.shape(), next.shape()));
    numeric_kernel<F>(total, next, out, context.node().op);
    total = std::move(out);
  }
  return total;
}

struct AddOf {
  template <class T>
  T operator()(T a, T b) const {
    return wrapping_add(a, b);
  }
};
struct SubOf {
  template <class T>
  T operator()(T a, T b) const {
    return wrapping_subtract(a, b);
  }
};
struct MulOf {
  template <class T>
  T operator()(T a, T b) const {
    return wrapping_multiply(a, b);
  }
};
// Integer division truncates; by zero it gives 0.
struct DivOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0) return 0;
      if constexpr (std::is_signed_v<T>) {
        if (b == -1) return wrapping_subtract(T{0}, a);
      }
    }
    return static_cast<T>(a / b);
  }
};
// Of the divisor's sign; x mod 0 of integers is 0.
struct ModOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0 || (std::is_signed_v<T> && b == static_cast<T>(-1))) return 0;
      const T rest = static_cast<T>(a % b);
      return rest != 0 && (rest < 0) != (b < 0) ? static_cast<T>(rest + b) : rest;
    } else {
      const T rest = std::fmod(a, b);
      return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
    }
  }
};
struct FmodOf {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0 || (std::is_signed_v<T> && b == static_cast<T>(-1))) return 0;
      return static_cast<T>(a % b);
    } else {
      return std::fmod(a, b);
    }
  }
};
struct MaxOf {
  template <class T>
  T operator()(T a, T b) const {
    return a != a || a > b ? a : b;
  }
};
struct MinOf {
  template <class T>
  T operator()(T a, T b) const {
    return a != a || a < b ? a : b;
  }
};
struct PreluOf {
  template <class T>
  T operator()(T x, T slope) const {
    return x < 0 ? wrapping_multiply(x, slope) : x;
  }
};

void mod_kernel(KernelContext& context) {
  if (context.integer("fmod") != 0) {
    binary_kernel<FmodOf>(context);
  } else {
    binary_kernel<ModOf>(context);
  }
}

double to_double(auto x) {
  if constexpr (std::is_arithmetic_v<decltype(x)>)
    return static_cast<double>(x);
  else
    return static_cast<double>(static_cast<float>(x));
}

// Integers to integers are exact and wrap around.
template <class T, class E>
T power(T base, E exponent) {
  if constexpr (std::is_integral_v<T> && std::is_integral_v<E>) {
    if (exponent >= 0) return wrapping_power(base, static_cast<std::uint64_t>(exponent));
  }
  const double b = to_double(base), e = to_double(exponent), value = e == 2.0 ? b * b : std::pow(b, e);
  if constexpr (std::is_integral_v<T>) {  // as NumPy and ONNX Runtime have it where nothing fits
    const bool fits = value > static_cast<double>(std::numeric_limits<T>::min()) - 1 &&
                      value < static_cast<double>(std::numeric_limits<T>::max()) + 1;
    if (!fits) return std::numeric_limits<T>::min();
  }
  return number_cast<T>(value);
}

// The exponent may have another dtype, here i64 or f64; the result has the base's.
template <class E>
void pow_with(const Tensor& base, const Tensor& exponent, Tensor& out) {
  const Extents& shape = out.shape();
  const std::array<Extents, 2> strides = {broadcast_strides(base.shape(), shape),
                                          broadcast_strides(exponent.shape(), shape)};
  const std::int64_t length = shape.empty() ? 1 : shape.back();
  const std::int64_t step_x = shape.empty() ? 0 : strides[0].back(), step_y = shape.empty() ? 0 : strides[1].back();
  visit_dtype(base.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, bool>) {
      fail(ErrorCode::kInvalidModel, "Pow of {}", to_string(base.dtype()));
    } else {
      const T* x = base.data<T>().data();
      const E* y = exponent.data<E>().data();
      T* z = out.mutable_data<T>().data();
      for_each_row<2>(shape, strides, [&](const std::array<std::int64_t, 2>& at) {
        for (std::int64_t i = 0; i < length; ++i) *z++ = power(x[at[0] + i * step_x], y[at[1] + i * step_y]);
      });
    }
  });
}

void pow_kernel(KernelContext& context) {
  const Tensor& base = context.input(0);
  const DType given = context.input(1).dtype();
  if (given == DType::kString) fail(ErrorCode::kInvalidModel, "Pow to a power of strings");
  const bool whole = is_integer(given) && is_integer(base.dtype());
  const Tensor exponent = cast(context.input(1), whole ? DType::kI64 : DType::kF64);
  Tensor& out = context.output(0, base.dtype(), broadcast_extents(base.shape(), exponent.shape()));
  if (whole) {
    pow_with<std::int64_t>(base, exponent, out);
  } else {
    pow_with<double>(base, exponent, out);
  }
}

template <class F>
void variadic_kernel(KernelContext& context) {
  context.set_output(0, cast(fold<F>(context), context.input(0).dtype()));
}

void mean_kernel(KernelContext& context) {
  const Tensor total = fold<AddOf>(context);
  const Tensor count = Tensor::full(total.dtype(), {}, static_cast<double>(context.input_count()));
  Tensor mean = Tensor::uninitialized(total.dtype(), total.shape());
  numeric_kernel<DivOf>(total, count, mean, "Mean");
  context.set_output(0, cast(mean, context.input(0).dtype()));
}

void infer_add(InferContext& context) {
  infer_broadcast(context);
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> { return a + b; });
}
void infer_sub(InferContext& context) {
  infer_broadcast(context);
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> { return a - b; });
}
void infer_mul(InferContext& context) {
  infer_broadcast(context);
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> { return a * b; });
}
void infer_div(InferContext& context) {
  infer_broadcast(context);
  // Truncation is flooring only for non-negative dividends and positive divisors.
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> {
    if (b.is(0) || b.is(-1)) return std::nullopt;
    if (a.is_constant() && b.is_constant()) return a.value() / b.value();
    if (const auto exact = Dim::exact_div(a, b)) return exact;
    if (!b.never_negative()) return std::nullopt;
    if (a.never_negative()) return Dim::floor_div(a, b);
    if (!b.is_constant()) return std::nullopt;
    // Towards zero, written with floors of what is not negative.
    return Dim::floor_div(Dim::max(a, Dim(0)), b) - Dim::floor_div(Dim::max(a * Dim(-1), Dim(0)), b);
  });
}
void infer_mod(InferContext& context) {
  infer_broadcast(context);
  if (context.integer("fmod") != 0) {  // has the sign of the dividend
    infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> {
      if (!a.never_negative() || !b.always_positive()) return std::nullopt;
      return Dim::mod(a, b);
    });
    return;
  }
  infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> {
    return b.always_positive() ? std::optional<Dim>(Dim::mod(a, b)) : std::nullopt;
  });
}

template <bool kMaximum>
void infer_extreme(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape shape = context.shape(0);
  for (std::size_t i = 1; i < context.input_count(); ++i) {
    shape = broadcast_shapes(shape, context.shape(i));
  }
  context.set_shape(0, std::move(shape));
  if (context.input_count() == 2) {
    infer_elements(context, [](const Dim& a, const Dim& b) -> std::optional<Dim> {
      return kMaximum ? Dim::max(a, b) : Dim::min(a, b);
    });
  }
}

OpDef binary(std::string_view name, void (*infer)(InferContext&), void (*reference)(KernelContext&), bool commutative) {
  return {.name = name,
          .inputs = {{"A"}, {"B"}},
          .outputs = {{"C"}},
          .infer = infer,
          .reference = reference,
          .commutative = commutative,
          .associative = commutative};
}

OpDef variadic(std::string_view name, void (*infer)(InferContext&), void (*reference)(KernelContext&)) {
  return {.name = name,
          .inputs = {{"data_0"}, {"data", Arity::kVariadic}},
          .outputs = {{"result"}},
          .infer = infer,
          .reference = reference};
}

void infer_variadic(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape shape = context.shape(0);
  for (std::size_t i = 1; i < context.input_count(); ++i) {
    shape = broadcast_shapes(shape, context.shape(i));
  }
  context.set_shape(0, std::move(shape));
}

}  // namespace

std::span<const OpDef> binary_ops() {
  static const std::vector<OpDef> ops = {
      binary("Add", infer_add, binary_kernel<AddOf>, true),
      binary("Sub", infer_sub, binary_kernel<SubOf>, false),
      binary("Mul", infer_mul, binary_kernel<MulOf>, true),
      binary("Div", infer_div, binary_kernel<DivOf>, false),
      binary("Pow", infer_broadcast, pow_kernel, false),
      binary("PRelu", infer_broadcast, binary_kernel<PreluOf>, false),
      {.name = "Mod",
       .inputs = {{"A"}, {"B"}},
       .outputs = {{"C"}},
       .attributes = {{"fmod", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
       .infer = infer_mod,
       .reference = mod_kernel},
      variadic("Max", infer_extreme<true>, variadic_kernel<MaxOf>),
      variadic("Min", infer_extreme<false>, variadic_kernel<MinOf>),
      variadic("Sum", infer_variadic, variadic_kernel<AddOf>),
      variadic("Mean", infer_variadic, mean_kernel),
  };
  return ops;
}

}  // namespace weft
