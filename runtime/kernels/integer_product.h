// Products of 8-bit matrices with zero points, exact: what MatMulInteger, QLinearMatMul and their kin share.
#pragma once

#include <span>
#include <vector>

#include "graph/tensor.h"
#include "runtime/kernels/simd.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

// B [K, N] of u8 or i8, its rows `pitch` bytes apart, as panels of i8, u8 shifted by 128.
class PackedBytes {
 public:
  PackedBytes() = default;
  PackedBytes(const std::uint8_t* bytes, bool is_signed, std::size_t depth, std::size_t columns, std::size_t pitch);

  std::size_t depth() const { return depth_; }
  std::size_t columns() const { return columns_; }

 private:
  friend class IntegerMatrix;
  friend class ScaledBytes;
  bool shifted_ = false;
  std::size_t depth_ = 0, columns_ = 0, padded_depth_ = 0;
  Tensor panels_;                   // i8, aligned for vectors
  std::vector<std::int32_t> sums_;  // of columns
};

// B with a zero point, a scale and a bias for each column, as the right side of products that give floats.
class ScaledBytes {
 public:
  // One zero point and one scale for each column, or one for all; `bias`: one for each column, or empty.
  ScaledBytes(PackedBytes bytes, std::span<const std::int32_t> zeros, std::span<const float> scales,
              std::span<const float> bias);

  const PackedBytes& bytes() const { return bytes_; }

 private:
  friend class IntegerMatrix;
  PackedBytes bytes_;
  std::vector<std::int32_t> zeros_;  // as shifted; empty: all 0
  std::vector<float> scales_, bias_;
};

// One product of several with the same left side.
struct ScaledPart {
  const ScaledBytes* b;
  float* y;  // [rows, columns]
  simd::Activation activation = simd::Activation::kNone;
  const float* residual = nullptr;  // [rows, columns], added where there is no activation; null: none
};

// Rows of bytes, as the left side of products. The bytes are used in place where they can be.
class IntegerMatrix {
 public:
  // bytes [rows, depth], zero points of one row each, or one for all. Uses the pool.
  void set(const std::uint8_t* bytes, bool is_signed, std::size_t rows, std::size_t depth,
           std::span<const std::int32_t> zeros, ThreadPool& pool);
  // y[rows, columns] = (a - a_zero) (b - b_zero); b_zeros: one for each column, or one for all.
  void multiply(const PackedBytes& b, std::span<const std::int32_t> b_zeros, std::int32_t* y, ThreadPool& pool) const;
  // The same as floats, of each part: y = activation(float(sums) * (scale * b_scale) + bias) + residual. One zero point
  // for all rows.
  void multiply(std::span<const ScaledPart> parts, float scale, ThreadPool& pool);

 private:
  struct Prepared;  // what a run makes of a part
  void multiply_task(const Prepared& prepared, std::size_t task) const;

  std::size_t rows_ = 0, depth_ = 0, stride_ = 0;
  const std::uint8_t* bytes_ = nullptr;
  std::vector<std::uint8_t> own_;
  std::vector<std::int32_t> zeros_, sums_;  // of rows, as shifted
  std::vector<std::int32_t> shifts_;        // of the columns of all parts
  std::vector<float> scales_;
};

// Zero points as integers; 0 where the tensor is absent.
std::vector<std::int32_t> zero_points(const Tensor* tensor);

}  // namespace weft::runtime
