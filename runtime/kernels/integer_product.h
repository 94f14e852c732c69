// Products of 8-bit matrices with zero points, exact: what MatMulInteger, QLinearMatMul and their kin share.
#pragma once

#include <span>
#include <vector>

#include "graph/tensor.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

// B [K, N] of u8 or i8 as panels of i8, u8 shifted by 128.
class PackedBytes {
 public:
  PackedBytes() = default;
  PackedBytes(const std::uint8_t* bytes, bool is_signed, std::size_t depth, std::size_t columns);

  std::size_t depth() const { return depth_; }
  std::size_t columns() const { return columns_; }

 private:
  friend class IntegerMatrix;
  bool shifted_ = false;
  std::size_t depth_ = 0, columns_ = 0, padded_depth_ = 0;
  Tensor panels_;                   // i8, aligned for vectors
  std::vector<std::int32_t> sums_;  // of columns
};

// Rows of bytes, as the left side of products. The bytes are used in place where they can be.
class IntegerMatrix {
 public:
  // bytes [rows, depth], zero points of one row each, or one for all. Uses the pool.
  void set(const std::uint8_t* bytes, bool is_signed, std::size_t rows, std::size_t depth,
           std::span<const std::int32_t> zeros, ThreadPool& pool);
  // y[rows, columns] = (a - a_zero) (b - b_zero); b_zeros: one for each column, or one for all.
  void multiply(const PackedBytes& b, std::span<const std::int32_t> b_zeros, std::int32_t* y, ThreadPool& pool) const;

 private:
  std::size_t rows_ = 0, depth_ = 0, stride_ = 0;
  const std::uint8_t* bytes_ = nullptr;
  std::vector<std::uint8_t> own_;
  std::vector<std::int32_t> zeros_, sums_;  // of rows, as shifted
};

// Zero points as integers; 0 where the tensor is absent.
std::vector<std::int32_t> zero_points(const Tensor* tensor);

}  // namespace weft::runtime
