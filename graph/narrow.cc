#include "graph/narrow.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace weft {
namespace {

// How the top codes of a format are spent.
enum class Specials : std::uint8_t {
  kIeee,      // infinities and NaNs
  kNanOnly,   // the code of all ones is NaN
  kUnsigned,  // "fnuz": the code of negative zero is NaN, no infinity
  kNone,
};

struct Format {
  int exponent_bits, mantissa_bits, bias;
  Specials specials;
};

bool is_narrow_integer(DType dtype) {
  return dtype == DType::kI4 || dtype == DType::kU4 || dtype == DType::kI2 || dtype == DType::kU2;
}

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::kF8E4M3FN: return {4, 3, 7, Specials::kNanOnly};
    case DType::kF8E4M3FNUZ: return {4, 3, 8, Specials::kUnsigned};
    case DType::kF8E5M2: return {5, 2, 15, Specials::kIeee};
    case DType::kF8E5M2FNUZ: return {5, 2, 16, Specials::kUnsigned};
    case DType::kF4E2M1: return {2, 1, 1, Specials::kNone};
    default: fail(ErrorCode::kInternal, "{} is no narrow float", to_string(dtype));
  }
}

int sign_shift(const Format& f) { return f.exponent_bits + f.mantissa_bits; }

// The largest finite code without its sign.
unsigned largest_code(const Format& f) {
  const unsigned all = (1u << sign_shift(f)) - 1;
  switch (f.specials) {
    case Specials::kIeee: return (((1u << f.exponent_bits) - 1) << f.mantissa_bits) - 1;
    case Specials::kNanOnly: return all - 1;
    default: return all;
  }
}

// Where there is no NaN: negative zero.
unsigned nan_code(const Format& f) {
  if (f.specials == Specials::kUnsigned || f.specials == Specials::kNone) return 1u << sign_shift(f);
  return f.specials == Specials::kIeee ? largest_code(f) + 3 : (1u << sign_shift(f)) - 1;
}

double magnitude(const Format& f, unsigned code) {
  const int exponent = static_cast<int>(code >> f.mantissa_bits);
  const unsigned mantissa = code & ((1u << f.mantissa_bits) - 1);
  const double scale = std::ldexp(1.0, -f.mantissa_bits);
  if (exponent == 0) return std::ldexp(mantissa * scale, 1 - f.bias);
  return std::ldexp(1.0 + mantissa * scale, exponent - f.bias);
}

float decode_float(const Format& f, std::uint8_t bits) {
  const unsigned code = bits & ((1u << sign_shift(f)) - 1);
  const bool negative = (bits >> sign_shift(f) & 1) != 0;
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  if (f.specials == Specials::kUnsigned && negative && code == 0) return kNaN;
  if (f.specials == Specials::kNanOnly && code > largest_code(f)) return kNaN;
  if (f.specials == Specials::kIeee && code > largest_code(f)) {
    if (code != largest_code(f) + 1) return kNaN;
    return negative ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
  }
  const auto value = static_cast<float>(magnitude(f, code));
  return negative ? -value : value;
}

std::uint8_t encode_float(const Format& f, double value, bool saturate) {
  const unsigned sign = std::signbit(value) ? 1u << sign_shift(f) : 0u;
  const unsigned top = largest_code(f);
  const bool signed_nan = f.specials == Specials::kIeee || f.specials == Specials::kNanOnly;
  if (std::isnan(value)) return static_cast<std::uint8_t>((signed_nan ? sign : 0) | nan_code(f));
  const double x = std::abs(value);
  unsigned code = 0;
  if (std::isfinite(x) && x > 0) {
    const int smallest = 1 - f.bias;
    const int exponent = std::max(std::ilogb(x), smallest);
    const double steps = std::nearbyint(std::ldexp(x, f.mantissa_bits - exponent));  // in units of the last place
    // A carry into the next binade is a carry into the exponent field.
    const double whole = steps + std::ldexp(static_cast<double>(exponent - smallest), f.mantissa_bits);
    code = whole > top ? top + 1 : static_cast<unsigned>(whole);
  } else if (std::isinf(x)) {
    code = top + 1;
  }
  if (code > top) {
    if (saturate || f.specials == Specials::kNone) return static_cast<std::uint8_t>(sign | top);
    if (f.specials == Specials::kIeee) return static_cast<std::uint8_t>(sign | (top + 1));
    return static_cast<std::uint8_t>((signed_nan ? sign : 0) | nan_code(f));
  }
  if (f.specials == Specials::kUnsigned && code == 0) return 0;
  return static_cast<std::uint8_t>(sign | code);
}

// Powers of two from 2^-127 to 2^127; 0xff is NaN.
std::uint8_t encode_scale(double value, bool saturate, Rounding rounding) {
  constexpr std::uint8_t kNaN = 0xff;
  if (std::isnan(value) || std::signbit(value) || (std::isinf(value) && !saturate)) return value == 0 ? 0 : kNaN;
  if (std::isinf(value)) return 0xfe;
  if (value == 0) return 0;
  int exponent = std::ilogb(value);
  const double fraction = std::ldexp(value, -exponent);  // [1, 2)
  if (rounding == Rounding::kUp ? fraction > 1 : rounding == Rounding::kNearest && fraction >= 1.5) ++exponent;
  if (exponent > 127) return saturate ? 0xfe : kNaN;
  return static_cast<std::uint8_t>(exponent < -127 ? 0 : exponent + 127);
}

}  // namespace

float narrow_to_float(DType dtype, std::uint8_t bits) {
  if (is_narrow_integer(dtype)) {
    const bool is_signed = dtype == DType::kI4 || dtype == DType::kI2;
    return is_signed ? static_cast<float>(static_cast<std::int8_t>(bits)) : static_cast<float>(bits);
  }
  if (dtype == DType::kF8E8M0) {
    return bits == 0xff ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, static_cast<int>(bits) - 127);
  }
  return decode_float(format_of(dtype), bits);
}

std::uint8_t narrow_from_double(DType dtype, double value, bool saturate, Rounding rounding) {
  if (dtype == DType::kF8E8M0) return encode_scale(value, saturate, rounding);
  if (!is_narrow_integer(dtype)) return encode_float(format_of(dtype), value, saturate);
  constexpr double kFar = 9e15;
  const auto whole = std::isnan(value) ? 0 : static_cast<std::int64_t>(std::clamp(value, -kFar, kFar));
  const int bits = packed_bits(dtype);
  const auto low = static_cast<std::int64_t>(static_cast<std::uint64_t>(whole) & ((1u << bits) - 1));
  const bool is_signed = dtype == DType::kI4 || dtype == DType::kI2;
  const bool negative = is_signed && (low >> (bits - 1)) != 0;
  return static_cast<std::uint8_t>(negative ? low - (1 << bits) : low);
}

int packed_bits(DType dtype) {
  switch (dtype) {
    case DType::kI4:
    case DType::kU4:
    case DType::kF4E2M1: return 4;
    case DType::kI2:
    case DType::kU2: return 2;
    default: return 8 * static_cast<int>(element_size(dtype));
  }
}

std::pair<double, double> narrow_range(DType dtype) {
  switch (dtype) {
    case DType::kI4: return {-8, 7};
    case DType::kU4: return {0, 15};
    case DType::kI2: return {-2, 1};
    case DType::kU2: return {0, 3};
    case DType::kF8E8M0: return {std::ldexp(1.0, -127), std::ldexp(1.0, 127)};
    default: {
      const Format f = format_of(dtype);
      const double largest = magnitude(f, largest_code(f));
      return {-largest, largest};
    }
  }
}

}  // namespace weft
