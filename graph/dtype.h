// Element types of tensors.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "graph/error.h"

namespace weft {

enum class DType : std::uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kI16,
  kI32,
  kI64,
  kU8,
  kU16,
  kU32,
  kU64,
  kBool,
  kString,
  // Narrow types, one element a byte (graph/narrow.h): moved, cast and quantized, not computed with.
  kI4,
  kU4,
  kI2,
  kU2,
  kF4E2M1,
  kF8E4M3FN,
  kF8E4M3FNUZ,
  kF8E5M2,
  kF8E5M2FNUZ,
  kF8E8M0,
  // Containers, whose elements are tensors (TensorType::element says of what): a sequence, a tensor that may be
  // absent, a sequence that may be absent. Their shape is their length: that of an optional is 0 or 1.
  kSequence,
  kOptional,
  kOptionalSequence,
};

// IEEE 754 binary16, stored as its bits. Conversions round to nearest even.
struct Float16 {
  std::uint16_t bits = 0;
  Float16() = default;
  explicit Float16(float value);
  explicit operator float() const;
  static Float16 from_bits(std::uint16_t bits);
};

// The upper half of a binary32, stored as its bits. Conversions round to nearest even.
struct BFloat16 {
  std::uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value);
  explicit operator float() const;
  static BFloat16 from_bits(std::uint16_t bits);
};

// "f32", "i64", "bool", "string", ...
std::string_view to_string(DType dtype);
std::optional<DType> parse_dtype(std::string_view name);

// Bytes of one element in memory; Error kInternal for strings and containers, whose elements are objects.
std::size_t element_size(DType dtype);

bool is_float(DType dtype);           // f32 f16 bf16 f64
bool is_integer(DType dtype);         // i8..i64, u8..u64
bool is_signed_integer(DType dtype);  // i8..i64
inline bool is_numeric(DType dtype) { return is_float(dtype) || is_integer(dtype); }
inline bool is_narrow(DType dtype) { return dtype >= DType::kI4 && dtype <= DType::kF8E8M0; }
inline bool is_container(DType dtype) { return dtype >= DType::kSequence; }
// Elements are C++ objects, not bytes.
inline bool is_object(DType dtype) { return dtype == DType::kString || is_container(dtype); }

// DType of a C++ type. bool is one byte, 0 or 1.
template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<std::int8_t> {
  static constexpr DType value = DType::kI8;
};
template <>
struct DTypeOf<std::int16_t> {
  static constexpr DType value = DType::kI16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<std::uint16_t> {
  static constexpr DType value = DType::kU16;
};
template <>
struct DTypeOf<std::uint32_t> {
  static constexpr DType value = DType::kU32;
};
template <>
struct DTypeOf<std::uint64_t> {
  static constexpr DType value = DType::kU64;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::kBool;
};
template <>
struct DTypeOf<std::string> {
  static constexpr DType value = DType::kString;
};
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

template <class T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<T>{}) with the C++ type of dtype: of numbers one can compute with, bool and string. Error
// kUnsupported for the rest. To move elements of any type, see visit_storage (graph/tensor.h).
template <class Body>
decltype(auto) visit_dtype(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kF32: return body(TypeTag<float>{});
    case DType::kF16: return body(TypeTag<Float16>{});
    case DType::kBF16: return body(TypeTag<BFloat16>{});
    case DType::kF64: return body(TypeTag<double>{});
    case DType::kI8: return body(TypeTag<std::int8_t>{});
    case DType::kI16: return body(TypeTag<std::int16_t>{});
    case DType::kI32: return body(TypeTag<std::int32_t>{});
    case DType::kI64: return body(TypeTag<std::int64_t>{});
    case DType::kU8: return body(TypeTag<std::uint8_t>{});
    case DType::kU16: return body(TypeTag<std::uint16_t>{});
    case DType::kU32: return body(TypeTag<std::uint32_t>{});
    case DType::kU64: return body(TypeTag<std::uint64_t>{});
    case DType::kBool: return body(TypeTag<bool>{});
    case DType::kString: return body(TypeTag<std::string>{});
    default: break;
  }
  fail(ErrorCode::kUnsupported, "no kernel takes tensors of {}", to_string(dtype));
}

}  // namespace weft
