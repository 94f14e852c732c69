// Elementwise functions of one tensor.
#include <cmath>
#include <limits>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// y = f(x) for floats (computed in float, or in double for f64).
template <class F>
void map_floats(KernelContext& context, const F& f) {
  const Tensor& x = context.input(0);
  Tensor& y = context.output(0, x.dtype(), x.shape());
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
      const auto in = x.data<T>();
      const auto out = y.mutable_data<T>();
      for (std::size_t i = 0; i < in.size(); ++i) out[i] = static_cast<T>(f(in[i]));
    } else if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      const auto in = x.data<T>();
      const auto out = y.mutable_data<T>();
      for (std::size_t i = 0; i < in.size(); ++i) out[i] = T(f(static_cast<float>(in[i])));
    } else {
      fail(ErrorCode::kInvalidModel, "{} of {}", context.node().op, to_string(x.dtype()));
    }
  });
}

// The same for integers too; g serves them.
template <class F, class G>
void map_numbers(KernelContext& context, const F& f, const G& g) {
  const Tensor& x = context.input(0);
  if (is_float(x.dtype())) return map_floats(context, f);
  Tensor& y = context.output(0, x.dtype(), x.shape());
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      const auto in = x.data<T>();
      const auto out = y.mutable_data<T>();
      for (std::size_t i = 0; i < in.size(); ++i) out[i] = static_cast<T>(g(in[i]));
    } else {
      fail(ErrorCode::kInvalidModel, "{} of {}", context.node().op, to_string(x.dtype()));
    }
  });
}

template <double (*kFunction)(double)>
void float_function(KernelContext& context) {
  map_floats(context, [](auto x) { return kFunction(static_cast<double>(x)); });
}

template <double (*kFunction)(double)>
OpDef float_op(std::string_view name) {
  return {.name = name,
          .inputs = {{"X"}},
          .outputs = {{"Y"}},
          .infer = infer_same_as_first,
          .reference = float_function<kFunction>};
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double softplus(double x) { return x > 30 ? x : std::log1p(std::exp(x)); }
double softsign(double x) { return x / (1.0 + std::abs(x)); }
double mish(double x) { return x * std::tanh(softplus(x)); }
double hard_swish(double x) {
  const double gate = x / 6.0 + 0.5;
  return x * (std::isnan(gate) ? gate : std::min(1.0, std::max(0.0, gate)));
}
double reciprocal(double x) { return 1.0 / x; }
double ceil_of(double x) { return std::ceil(x); }
double floor_of(double x) { return std::floor(x); }
double round_of(double x) { return std::nearbyint(x); }
double sqrt_of(double x) { return std::sqrt(x); }
double exp_of(double x) { return std::exp(x); }
double log_of(double x) { return std::log(x); }
double erf_of(double x) { return std::erf(x); }
double tanh_of(double x) { return std::tanh(x); }
double sin_of(double x) { return std::sin(x); }
double cos_of(double x) { return std::cos(x); }
double tan_of(double x) { return std::tan(x); }
double sinh_of(double x) { return std::sinh(x); }
double cosh_of(double x) { return std::cosh(x); }
double asin_of(double x) { return std::asin(x); }
double acos_of(double x) { return std::acos(x); }
double atan_of(double x) { return std::atan(x); }
double asinh_of(double x) { return std::asinh(x); }
double acosh_of(double x) { return std::acosh(x); }
double atanh_of(double x) { return std::atanh(x); }

void infer_abs(InferContext& context) {
  infer_same_as_first(context);
  if (const auto* elements = context.elements(0)) {
    std::vector<Dim> result;
    for (const Dim& dim : *elements) {
      result.push_back(dim.never_negative() ? dim : Dim::max(dim, dim * Dim(-1)));
    }
    context.set_elements(0, std::move(result));
  }
}

void infer_neg(InferContext& context) {
  infer_same_as_first(context);
  if (const auto* elements = context.elements(0)) {
    std::vector<Dim> result;
    for (const Dim& dim : *elements) result.push_back(dim * Dim(-1));
    context.set_elements(0, std::move(result));
  }
}

// Integer wrap-around without signed overflow.
template <class T>
T wrapping_negation(T x) {
  return static_cast<T>(std::uint64_t{0} - static_cast<std::uint64_t>(x));
}

void abs_kernel(KernelContext& context) {
  map_numbers(context, [](auto x) { return std::abs(x); }, [](auto x) { return x < 0 ? wrapping_negation(x) : x; });
}
void neg_kernel(KernelContext& context) {
  map_numbers(context, [](auto x) { return -x; }, [](auto x) { return wrapping_negation(x); });
}
void sign_kernel(KernelContext& context) {
  map_numbers(
      context, [](auto x) { return std::isnan(x) ? x : static_cast<decltype(x)>((x > 0) - (x < 0)); },
      [](auto x) { return (x > 0) - (x < 0); });
}
void relu_kernel(KernelContext& context) {
  map_numbers(
      context, [](auto x) { return x < 0 ? static_cast<decltype(x)>(0) : x; },
      [](auto x) { return x < 0 ? static_cast<decltype(x)>(0) : x; });
}
void leaky_relu_kernel(KernelContext& context) {
  const double alpha = context.attributes().number("alpha");
  map_floats(context, [&](auto x) { return x < 0 ? alpha * x : x; });
}
void elu_kernel(KernelContext& context) {
  const double alpha = context.attributes().number("alpha");
  map_floats(context, [&](auto x) { return x < 0 ? alpha * std::expm1(static_cast<double>(x)) : x; });
}
void selu_kernel(KernelContext& context) {
  const double alpha = context.attributes().number("alpha");
  const double gamma = context.attributes().number("gamma");
  map_floats(context, [&](auto x) {
    return gamma * (x > 0 ? static_cast<double>(x) : alpha * std::expm1(static_cast<double>(x)));
  });
}
void celu_kernel(KernelContext& context) {
  const double alpha = context.attributes().number("alpha");
  map_floats(context, [&](auto x) {
    return x > 0 ? static_cast<double>(x) : alpha * std::expm1(static_cast<double>(x) / alpha);
  });
}
void thresholded_relu_kernel(KernelContext& context) {
  const double alpha = context.attributes().number("alpha");
  map_floats(context, [&](auto x) { return x > alpha ? x : static_cast<decltype(x)>(0); });
}
void hard_sigmoid_kernel(KernelContext& context) {
  const double alpha = context.attributes().number("alpha");
  const double beta = context.attributes().number("beta");
  map_floats(context, [&](auto x) {
    const double y = alpha * static_cast<double>(x) + beta;
    return std::isnan(y) ? y : std::max(0.0, std::min(1.0, y));
  });
}

// Clip with bounds as optional inputs; min > max gives max.
void clip_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  Tensor& y = context.output(0, x.dtype(), x.shape());
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
      fail(ErrorCode::kInvalidModel, "Clip of {}", to_string(x.dtype()));
    } else {
      using Wide = std::conditional_t<std::is_arithmetic_v<T>, T, float>;
      const auto bound = [&](std::size_t index) -> std::optional<T> {
        if (!context.has(index)) return std::nullopt;
        if (context.input(index).size() != 1) {
          fail(ErrorCode::kInvalidArgument, "Clip with a bound of {}", to_string(context.input(index).shape()));
        }
        return cast(context.input(index), x.dtype()).data<T>()[0];
      };
      const std::optional<T> low = bound(1), high = bound(2);
      const auto in = x.data<T>();
      const auto out = y.mutable_data<T>();
      for (std::size_t i = 0; i < in.size(); ++i) {
        out[i] = in[i];
        if (low && static_cast<Wide>(out[i]) < static_cast<Wide>(*low)) out[i] = *low;
        if (high && static_cast<Wide>(out[i]) > static_cast<Wide>(*high)) out[i] = *high;
      }
    }
  });
}

AttributeDef number_attribute(std::string_view name, double fallback) {
  return {name, AttributeKind::kFloat, false, Attribute(fallback)};
}

OpDef with_numbers(std::string_view name, std::vector<AttributeDef> attributes, void (*reference)(KernelContext&)) {
  return {.name = name,
          .inputs = {{"X"}},
          .outputs = {{"Y"}},
          .attributes = std::move(attributes),
          .infer = infer_same_as_first,
          .reference = reference};
}

OpDef plain(std::string_view name, void (*infer)(InferContext&), void (*reference)(KernelContext&)) {
  return {.name = name, .inputs = {{"X"}}, .outputs = {{"Y"}}, .infer = infer, .reference = reference};
}

}  // namespace

std::span<const OpDef> unary_ops() {
  static const std::vector<OpDef> ops = {
      plain("Abs", infer_abs, abs_kernel),
      plain("Neg", infer_neg, neg_kernel),
      plain("Sign", infer_same_as_first, sign_kernel),
      plain("Relu", infer_same_as_first, relu_kernel),
      float_op<ceil_of>("Ceil"),
      float_op<floor_of>("Floor"),
      float_op<round_of>("Round"),
      float_op<sqrt_of>("Sqrt"),
      float_op<exp_of>("Exp"),
      float_op<log_of>("Log"),
      float_op<erf_of>("Erf"),
      float_op<tanh_of>("Tanh"),
      float_op<sin_of>("Sin"),
      float_op<cos_of>("Cos"),
      float_op<tan_of>("Tan"),
      float_op<sinh_of>("Sinh"),
      float_op<cosh_of>("Cosh"),
      float_op<asin_of>("Asin"),
      float_op<acos_of>("Acos"),
      float_op<atan_of>("Atan"),
      float_op<asinh_of>("Asinh"),
      float_op<acosh_of>("Acosh"),
      float_op<atanh_of>("Atanh"),
      float_op<sigmoid>("Sigmoid"),
      float_op<softplus>("Softplus"),
      float_op<softsign>("Softsign"),
      float_op<mish>("Mish"),
      float_op<hard_swish>("HardSwish"),
      float_op<reciprocal>("Reciprocal"),
      with_numbers("LeakyRelu", {number_attribute("alpha", 0.01)}, leaky_relu_kernel),
      with_numbers("Elu", {number_attribute("alpha", 1.0)}, elu_kernel),
      with_numbers("Celu", {number_attribute("alpha", 1.0)}, celu_kernel),
      with_numbers(
          "Selu",
          {number_attribute("alpha", 1.67326319217681884765625), number_attribute("gamma", 1.05070102214813232421875)},
          selu_kernel),
      with_numbers("ThresholdedRelu", {number_attribute("alpha", 1.0)}, thresholded_relu_kernel),
      with_numbers("HardSigmoid", {number_attribute("alpha", 0.2), number_attribute("beta", 0.5)}, hard_sigmoid_kernel),
      {.name = "Clip",
       .inputs = {{"input"}, {"min", Arity::kOptional}, {"max", Arity::kOptional}},
       .outputs = {{"output"}},
       .infer = infer_same_as_first,
       .reference = clip_kernel},
  };
  return ops;
}

}  // namespace weft
