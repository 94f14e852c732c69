// Arithmetic on integers that wraps around, defined for all of them; on floats as it is.
#pragma once

#include <concepts>
#include <cstdint>

namespace weft {

template <class T>
T wrapping_add(T a, T b) {
  if constexpr (std::integral<T>) return static_cast<T>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  return a + b;
}
template <class T>
T wrapping_subtract(T a, T b) {
  if constexpr (std::integral<T>) return static_cast<T>(static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b));
  return a - b;
}
template <class T>
T wrapping_multiply(T a, T b) {
  if constexpr (std::integral<T>) return static_cast<T>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
  return a * b;
}

// Of integers; exponent >= 0.
template <std::integral T>
T wrapping_power(T base, std::uint64_t exponent) {
  std::uint64_t result = 1, square = static_cast<std::uint64_t>(base);
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) result *= square;
    square *= square;
  }
  return static_cast<T>(result);
}

}  // namespace weft
