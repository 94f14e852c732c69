#include "ops/cast.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

template <class T>
constexpr bool kHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

double parse_number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') {
    fail(ErrorCode::kInvalidArgument, "Cast: \"{}\" is not a number", text);
  }
  return value;
}

template <class From>
std::string to_text(From x) {
  if constexpr (std::is_integral_v<From>) {
    return std::to_string(x);
  } else {
    const auto value = [&] {
      if constexpr (kHalf<From>)
        return static_cast<float>(x);
      else
        return x;
    }();
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "INF" : "-INF";
    return fmt::format("{}", value);
  }
}

template <class From, class To>
To convert(const From& x) {
  if constexpr (std::is_same_v<From, To>) {
    return x;
  } else if constexpr (std::is_same_v<From, std::string>) {
    return number_cast<To>(parse_number(x));
  } else if constexpr (std::is_same_v<To, std::string>) {
    return to_text(x);
  } else if constexpr (kHalf<From>) {
    return number_cast<To>(static_cast<double>(static_cast<float>(x)));
  } else if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
    return static_cast<To>(x);  // wraps
  } else {
    return number_cast<To>(static_cast<double>(x));
  }
}

void infer_cast(InferContext& context) {
  context.set_dtype(0, context.attributes().type("to"));
  context.set_shape(0, context.shape(0));
  const DType to = context.attributes().type("to");
  const auto* elements = context.elements(0);
  if (elements == nullptr || (!is_integer(to) && to != DType::kBool)) return;
  if (to == DType::kI64 || context.dtype(0) == DType::kBool) {
    context.set_elements(0, *elements);
    return;
  }
  // Dims fit 32 bits in any tensor that exists; narrower types and bool only when known.
  std::vector<Dim> result;
  for (const Dim& dim : *elements) {
    if (to == DType::kBool) {
      if (!dim.is_constant() && !dim.always_positive()) return;
      result.push_back(dim.is(0) ? Dim(0) : Dim(1));
    } else if (to == DType::kI32 || to == DType::kU64) {
      result.push_back(dim);
    } else {
      return;
    }
  }
  context.set_elements(0, std::move(result));
}

void cast_kernel(KernelContext& context) {
  const AttributeReader& attributes = context.attributes();
  const std::string& mode = attributes.text("round_mode");
  CastOptions options;
  options.saturate = attributes.integer("saturate") != 0;
  options.rounding = mode == "nearest" ? Rounding::kNearest : mode == "down" ? Rounding::kDown : Rounding::kUp;
  context.set_output(0, cast(context.input(0), attributes.type("to"), options));
}

Tensor from_narrow(const Tensor& x) {
  Tensor y = Tensor::uninitialized(DType::kF32, x.shape());
  const auto in = x.bytes();
  const auto out = y.mutable_data<float>();
  std::array<float, 256> table{};
  for (std::size_t code = 0; code < table.size(); ++code) {
    table[code] = narrow_to_float(x.dtype(), static_cast<std::uint8_t>(code));
  }
  for (std::size_t i = 0; i < in.size(); ++i) out[i] = table[std::to_integer<std::size_t>(in[i])];
  return y;
}

Tensor to_narrow(const Tensor& x, DType to, const CastOptions& options) {
  const Tensor wide = cast(x, DType::kF64);
  Tensor y = Tensor::uninitialized(to, x.shape());
  const auto in = wide.data<double>();
  const auto out = y.mutable_bytes();
  for (std::size_t i = 0; i < in.size(); ++i) {
    out[i] = std::byte{narrow_from_double(to, in[i], options.saturate, options.rounding)};
  }
  return y;
}

}  // namespace

Tensor cast(const Tensor& x, DType to, const CastOptions& options) {
  if (x.dtype() == to) return x;
  if (is_narrow(x.dtype())) return cast(from_narrow(x), to, options);
  if (is_narrow(to)) return to_narrow(x, to, options);
  Tensor y = Tensor::uninitialized(to, x.shape());
  visit_dtype(x.dtype(), [&](auto from_tag) {
    using From = typename decltype(from_tag)::type;
    const std::span<const From> in = x.data<From>();
    visit_dtype(to, [&](auto to_tag) {
      using To = typename decltype(to_tag)::type;
      const std::span<To> out = y.mutable_data<To>();
      for (std::size_t i = 0; i < in.size(); ++i) out[i] = convert<From, To>(in[i]);
    });
  });
  return y;
}

std::int64_t only_integer(const Tensor& x) {
  if (x.size() != 1) fail(ErrorCode::kInvalidArgument, "one element wanted, shape {} given", to_string(x.shape()));
  return cast(x, DType::kI64).data<std::int64_t>()[0];
}

std::span<const OpDef> cast_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Cast",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {{"to", AttributeKind::kType, true},
                      {"saturate", AttributeKind::kInt, false, Attribute(std::int64_t{1})},
                      {"round_mode", AttributeKind::kString, false, Attribute(std::string("up"))}},
       .infer = infer_cast,
       .reference = cast_kernel},
  };
  return ops;
}

}  // namespace weft
