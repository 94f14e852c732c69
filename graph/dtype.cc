#include "graph/dtype.h"

#include <array>
#include <utility>

namespace weft {
namespace {

constexpr auto kNames = std::to_array<std::string_view>({"f32",      "f16",        "bf16",
                                                         "f64",      "i8",         "i16",
                                                         "i32",      "i64",        "u8",
                                                         "u16",      "u32",        "u64",
                                                         "bool",     "string",     "i4",
                                                         "u4",       "i2",         "u2",
                                                         "f4e2m1",   "f8e4m3fn",   "f8e4m3fnuz",
                                                         "f8e5m2",   "f8e5m2fnuz", "f8e8m0",
                                                         "sequence", "optional",   "optional_sequence"});

}  // namespace

Float16::Float16(float value) {
  const auto x = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (x >> 16) & 0x8000u;
  const std::uint32_t magnitude = x & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN stays quiet
    bits = static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    return;
  }
  if (magnitude >= 0x477ff000u) {  // rounds to infinity
    bits = static_cast<std::uint16_t>(sign | 0x7c00u);
    return;
  }
  if (magnitude < 0x38800000u) {  // subnormal half: the addition rounds at the right bit
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    return;
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  bits = static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

Float16::operator float() const {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t wide = exponent == 31 ? 0x7f800000u : (exponent + 112u) << 23;
  return std::bit_cast<float>(sign | wide | (mantissa << 13));
}

Float16 Float16::from_bits(std::uint16_t bits) {
  Float16 result;
  result.bits = bits;
  return result;
}

BFloat16::BFloat16(float value) {
  const auto x = std::bit_cast<std::uint32_t>(value);
  if ((x & 0x7fffffffu) > 0x7f800000u) {
    bits = static_cast<std::uint16_t>((x >> 16) | 0x40u);
    return;
  }
  bits = static_cast<std::uint16_t>((x + 0x7fffu + ((x >> 16) & 1u)) >> 16);
}

BFloat16::operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

BFloat16 BFloat16::from_bits(std::uint16_t bits) {
  BFloat16 result;
  result.bits = bits;
  return result;
}

std::string_view to_string(DType dtype) { return kNames.at(static_cast<std::size_t>(dtype)); }

std::optional<DType> parse_dtype(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::size_t element_size(DType dtype) {
  if (is_narrow(dtype)) return 1;
  if (is_object(dtype)) fail(ErrorCode::kInternal, "elements of {} are no bytes", to_string(dtype));
  return visit_dtype(dtype, [](auto tag) { return sizeof(typename decltype(tag)::type); });
}

bool is_float(DType dtype) { return dtype <= DType::kF64; }
bool is_integer(DType dtype) { return dtype >= DType::kI8 && dtype <= DType::kU64; }
bool is_signed_integer(DType dtype) { return dtype >= DType::kI8 && dtype <= DType::kI64; }

}  // namespace weft
