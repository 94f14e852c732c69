// Products of matrices that stay in registers, tile by tile: what convolutions, recurrent layers and quantized
// products are made of. Every element of a result is one chain of multiply-adds in the order of the depth, whatever the
// number of rows, columns or threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace weft::runtime::tile {

// Columns of a panel of `b`: two vectors of the instruction set in use, at most kMostColumns.
inline constexpr std::size_t kMostColumns = 32;
std::size_t panel_columns();
// Columns rounded up to whole panels.
inline std::size_t padded_columns(std::size_t columns) {
  const std::size_t panel = panel_columns();
  return (columns + panel - 1) / panel * panel;
}

// c[r, n] = sum over k of a[r, k] b[k, n] (plus c[r, n] if `accumulate`).
struct Product {
  const float* a;  // [rows, depth]
  std::size_t a_stride;
  std::size_t rows, depth;
  const float* b;        // panels, each [depth, panel_columns()], padded to whole panels
  std::size_t b_step;    // floats between rows of a panel
  std::size_t b_stride;  // floats between panels
  float* c;              // [rows, columns]
  std::size_t c_stride;
  std::size_t columns;
  bool accumulate;
};
void multiply(const Product& product);

// Panels [depth, columns] of rows x + offsets[k], depth = offsets.size(); columns beyond them are zero within the last
// panel.
void pack_rows(const float* x, std::span<const std::ptrdiff_t> offsets, std::size_t columns, float* panels,
               std::size_t stride);

// Operands of a product of bytes.
struct BytesProduct {
  const std::uint8_t* a;  // [rows, depth]
  std::size_t a_stride;
  std::size_t rows, depth;  // depth a multiple of 4
  const std::int8_t* b;     // panels, each [depth / 4, panel_columns(), 4]
  std::size_t b_stride;     // bytes between panels
};

// The same product of bytes, exact modulo 2^32. Depth is padded with zeros to whole groups of four, in `a` as in `b`.
struct IntegerProduct : BytesProduct {
  std::int32_t* c;
  std::size_t c_stride;
  std::size_t columns;
};
void multiply(const IntegerProduct& product);

// The same product as floats: c[r, n] = float(sum - shifts[n] - sums[r] zeros[n]) * scales[n], then + bias[n], then
// + residual[r, n]. What there is one of for each column is padded to whole panels.
struct ScaledProduct : BytesProduct {
  const std::int32_t* shifts;
  const std::int32_t* zeros;  // null: none
  const std::int32_t* sums;   // [rows], where zeros are given
  const float* scales;
  const float* bias;      // null: none
  const float* residual;  // [rows, columns] with the stride of c; null: none
  float* c;
  std::size_t c_stride;
  std::size_t columns;
};
void multiply(const ScaledProduct& product);

// Panels [depth / 4, columns, 4] of rows x + offsets[k] of bytes, each xored with `flip`; depth = offsets.size() padded
// with zeros to a multiple of 4. sums[n] = sum over k of column n.
void pack_rows(const std::uint8_t* x, std::span<const std::ptrdiff_t> offsets, std::uint8_t flip, std::size_t columns,
               std::int8_t* panels, std::size_t stride, std::int32_t* sums);
// y[i] -= a * x[i] + b * z[i], modulo 2^32.
void subtract_products(std::int32_t a, const std::int32_t* x, std::int32_t b, const std::int32_t* z, std::int32_t* y,
                       std::size_t count);
std::int32_t sum_of(const std::uint8_t* x, std::size_t count);

// c[r, n] += sum over blocks of scale[block, n] * (sum over k in block of a[r, k] (q[k, n] - 2^(bits - 1))
//            - zero[block, n] * sum over k in block of a[r, k]), for one panel of columns, or several and one row.
struct BlockProduct {
  const float* a;
  std::size_t a_stride, rows, depth;
  const std::uint32_t*
      b;                // [words, panel_columns()]: 32 / bits values each, the first lowest, with their top bit flipped
  std::size_t bits;     // 2, 4 or 8
  std::size_t block;    // values of a block, a multiple of 32 / bits
  const float* scales;  // [blocks, panel_columns()]
  const float* zeros;   // the same, less 2^(bits - 1), or null
  const float* sums;    // [rows, blocks], where zeros are given
  float* c;
  std::size_t c_stride, columns;
  float* scratch;                                           // block_scratch(rows) floats
  std::size_t panels = 1, b_stride = 0, scales_stride = 0;  // words, scales (and zeros) between panels
};
std::size_t block_scratch(std::size_t rows);
// Panels that one row is multiplied with at a time.
inline constexpr std::size_t kRowPanels = 4;
void multiply(const BlockProduct& product);

// sum over taps of weight[t] * x[offset[t] + i], plus bias, for i in [0, count).
void correlate(const float* x, std::span<const std::ptrdiff_t> offsets, const float* weights, float bias, float* y,
               std::size_t count);
// y[r, i] = bias + sum over t, k of weights[t, k] * x[r + t, i + k]: a window that moves by one element. Reads of x up
// to kMostColumns elements beyond what is needed.
struct PlaneWindow {
  const float* x;
  std::size_t x_stride;
  const float* weights;  // [height, width]
  std::size_t height, width;
  float bias;
  float* y;
  std::size_t y_stride, rows, columns;
};
// The heights that correlate_plane() takes.
inline bool has_plane_window(std::size_t height) { return height == 3 || height == 5 || height == 7; }
void correlate_plane(const PlaneWindow& window);
// y[to + i] = x[from + i] + value, i in [0, count), for each run; a value of -0.0 changes nothing.
struct Run {
  std::size_t from, to, count;
};
void copy_runs(const float* x, std::span<const Run> runs, float value, float* y);
// y[r, i] = x[r, i * step]: rows of `count`, strides in floats.
void copy_rows(const float* x, std::size_t x_stride, std::size_t step, float* y, std::size_t y_stride, std::size_t rows,
               std::size_t count);
// Largest of x[offset[t] + i] over taps (NaN wins); the sum of them.
void largest(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count);
void total(const float* x, std::span<const std::ptrdiff_t> offsets, float* y, std::size_t count);
// Of x[0 .. count): the sum, and the largest and smallest (NaN wins; -inf and inf of nothing).
float sum_of(const float* x, std::size_t count);
float largest_of(const float* x, std::size_t count);
float smallest_of(const float* x, std::size_t count);

}  // namespace weft::runtime::tile
