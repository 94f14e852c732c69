// A channel laid out so that each tap of a sliding window reads contiguous values, whatever the strides, dilations and
// padding: what convolutions and pools run on.
//
// Padded, and split into phases by the remainder of its coordinates modulo the strides, tap t of output o lies at
// grid(o) + taps()[t], where grid(o) counts outputs in rows as wide as a phase. The grid has points between the ends of
// rows that belong to no output; they are computed and left out.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "ops/window.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {

class Lattice {
 public:
  // The spatial extents of input and output.
  Lattice(const Window& window, std::span<const std::int64_t> input, std::span<const std::int64_t> output);

  std::size_t plane_size() const { return plane_size_; }  // elements of one channel laid out
  std::size_t grid_size() const { return grid_size_; }    // points from the first output to the last
  std::size_t output_size() const { return row_starts_.size() * row_length_; }
  std::span<const std::ptrdiff_t> taps() const { return taps_; }
  bool is_plain() const { return plain_; }                   // the channel as it is serves as its plane
  bool is_dense() const { return row_starts_.size() == 1; }  // every point of the grid is an output, in order

  // plane[plane_size()] of a channel; `fill` outside of the input. T: float or std::uint8_t.
  template <class T>
  void lay_out(const T* channel, T fill, T* plane) const;

  // Where the outputs among grid points [first, first + count) are (from `first`) and belong.
  std::vector<tile::Run> runs(std::size_t first, std::size_t count) const;

 private:
  struct Axis {
    std::int64_t input = 0, stride = 1, pad = 0;
    std::int64_t extent = 0;                                                 // of a phase
    std::vector<std::int64_t> phases;                                        // remainders that some tap reads
    std::size_t pitch = 1;                                                   // between neighbours, in a plane
    std::size_t phase_pitch = 0;                                             // between phases
    std::pair<std::int64_t, std::int64_t> inside(std::int64_t phase) const;  // its points [begin, end) on the input
  };
  struct Layer;  // what laying out one combination of phases goes by
  template <class T>
  void lay_out_axis(const Layer& layer, T fill, std::size_t axis, const T* from, T* to) const;
  template <class T>
  void lay_out_rows(const Layer& layer, T fill, const T* from, std::size_t from_stride, T* to, std::size_t rows) const;

  std::vector<Axis> axes_;
  std::vector<std::ptrdiff_t> taps_;
  std::vector<std::size_t> row_starts_;  // on the grid
  std::size_t row_length_ = 1;
  std::size_t plane_size_ = 1, grid_size_ = 1;
  bool plain_ = true;
};

}  // namespace weft::runtime
