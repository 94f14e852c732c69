// Products of f32 matrices on kernels of weft's own: packed weights, any number of rows, a fused epilogue.
//
// One accumulator per element of the result takes its terms in the order of K, whatever the number of rows, threads or
// vector lanes: a row's result has the same bytes alone and in any batch.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "runtime/kernels/simd.h"

namespace weft::runtime {
class ThreadPool;
}

namespace weft::runtime::gemm {

// A [K, N] matrix as the kernels read it: panels of panel_columns() columns one after another, in each the rows one
// after another; the last panel is as narrow as whole vectors allow and filled up with zeros. One contiguous buffer,
// aligned to 64 bytes. How wide a panel is depends on the instruction set in use.
struct PackedShape {
  std::size_t k = 0, n = 0;
};
std::size_t panel_columns();
std::size_t panel_count(const PackedShape& shape);
// Floats that the buffer takes.
std::size_t packed_size(const PackedShape& shape);
// Packs panels [first, last), which may be done by several threads. Element (k, n) of the source is the float number
// k * k_stride + n * n_stride from `source` on, which may be at any address.
void pack(const PackedShape& shape, const std::byte* source, std::size_t k_stride, std::size_t n_stride,
          std::size_t first, std::size_t last, float* packed);

// c = activation(a b + bias) + residual; bias and residual may be null.
struct Product {
  const float* a = nullptr;  // [M, K]
  std::size_t a_stride = 0;  // floats between rows
  std::size_t rows = 0;      // M
  const float* packed = nullptr;
  // The matrix as it lies, [K, N]; null: all of it is packed. Else `packed` holds the columns behind its last whole
  // panel alone, of one row without bias, activation and residual nothing. For few rows: they do not earn the packing.
  const float* loose = nullptr;
  PackedShape shape;
  const float* bias = nullptr;  // [N]
  simd::Activation activation = simd::Activation::kNone;
  const float* residual = nullptr;  // [M, N]
  std::size_t residual_stride = 0;
  float* c = nullptr;  // [M, N]; overlaps none of the others
  std::size_t c_stride = 0;
};

// Rows [row, row_end) of the columns of panels [panel, panel_end).
struct Block {
  std::size_t row, row_end, panel, panel_end;
};
void multiply(const Product& product, const Block& block);

// Products cut into blocks for so many threads. Only rows and shapes of the products matter: a schedule serves any
// data.
struct Task {
  std::size_t product;
  Block block;
};
std::vector<Task> schedule(std::span<const Product> products, int threads);
void multiply(std::span<const Product> products, std::span<const Task> tasks, ThreadPool& pool);

}  // namespace weft::runtime::gemm
