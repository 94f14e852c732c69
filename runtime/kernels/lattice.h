// A channel laid out so that each tap of a sliding window reads contiguous values, whatever the strides, dilations and
// padding: what convolutions and pools run on.
//
// Padded, and split into phases by the remainder of its coordinates modulo the strides, tap t of output o lies at
// grid(o) + taps()[t], where grid(o) counts outputs in rows as wide as a phase. The grid has points between the ends of
// rows that belong to no output; they are computed and left out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "ops/window.h"

namespace weft::runtime {

class Lattice {
 public:
  // The spatial extents of input and output.
  Lattice(const Window& window, std::span<const std::int64_t> input, std::span<const std::int64_t> output);

  std::size_t plane_size() const { return plane_size_; }       // elements of one channel laid out
  std::size_t grid_size() const { return grid_size_; }         // points from the first output to the last
  std::size_t output_size() const { return row_starts_.size() * row_length_; }
  std::span<const std::ptrdiff_t> taps() const { return taps_; }
  bool is_plain() const { return plain_; }                     // the channel as it is serves as its plane
  bool is_dense() const { return row_starts_.size() == 1; }    // every point of the grid is an output, in order

  // plane[plane_size()] of a channel; `fill` outside of the input.
  void lay_out(const float* channel, float fill, float* plane) const;

  // Calls body(point - first, output, count) for each run of outputs among the grid points [first, first + count).
  template <class Body>
  void for_each_run(std::size_t first, std::size_t count, const Body& body) const {
    auto row = std::upper_bound(row_starts_.begin(), row_starts_.end(), first);
    for (auto r = static_cast<std::size_t>(row - row_starts_.begin()) - 1; r < row_starts_.size(); ++r) {
      const std::size_t begin = std::max(row_starts_[r], first);
      const std::size_t end = std::min(row_starts_[r] + row_length_, first + count);
      if (row_starts_[r] >= first + count) return;
      if (begin < end) body(begin - first, r * row_length_ + begin - row_starts_[r], end - begin);
    }
  }

 private:
  struct Axis {
    std::int64_t input = 0, stride = 1, pad = 0;
    std::int64_t extent = 0;             // of a phase
    std::vector<std::int64_t> phases;    // remainders that some tap reads
    std::size_t pitch = 1;               // between neighbours, in a plane
    std::size_t phase_pitch = 0;         // between phases
    std::size_t phase_of(std::int64_t offset) const;
  };
  struct Layer;  // what laying out one combination of phases goes by
  void lay_out_axis(const Layer& layer, std::size_t axis, const float* from, float* to) const;

  std::vector<Axis> axes_;
  std::vector<std::ptrdiff_t> taps_;
  std::vector<std::size_t> row_starts_;  // on the grid
  std::size_t row_length_ = 1;
  std::size_t plane_size_ = 1, grid_size_ = 1;
  bool plain_ = true;
};

}  // namespace weft::runtime
