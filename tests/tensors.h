// Tensors of random contents, the same for the same seed, and how far two are apart.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>

#include "graph/tensor.h"

namespace weft {

// Evenly in [-scale, scale).
inline Tensor random_floats(Extents shape, std::uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  Tensor tensor = Tensor::uninitialized(DType::kF32, std::move(shape));
  for (float& x : tensor.mutable_data<float>()) x = scale * (static_cast<float>(random()) / 2147483648.0f - 1.0f);
  return tensor;
}

inline Tensor random_bytes(DType dtype, Extents shape, std::uint32_t seed) {
  std::mt19937 random(seed);
  Tensor tensor = Tensor::uninitialized(dtype, std::move(shape));
  for (std::byte& x : tensor.mutable_bytes()) x = static_cast<std::byte>(random());
  return tensor;
}

// Of f32, NaN equal to NaN; of others 0 or infinity.
inline double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  if (a.shape() != b.shape() || a.dtype() != DType::kF32) return a.identical(b) ? 0 : INFINITY;
  double largest = 0;
  for (std::size_t i = 0; i < a.data<float>().size(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    largest = std::max(largest, std::isnan(x) != std::isnan(y) ? INFINITY : std::abs(x - y));
  }
  return largest;
}

}  // namespace weft
