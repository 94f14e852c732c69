// Convolutions of one channel each (depthwise): sums of shifted planes.
#pragma once

#include "runtime/kernels/lattice.h"

namespace weft::runtime {

class ChannelConvolution {
 public:
  // The spatial extents of input and output.
  ChannelConvolution(const Window& window, std::span<const std::int64_t> input, std::span<const std::int64_t> output);

  std::size_t scratch_size() const;  // floats that run() needs
  std::size_t output_size() const { return lattice_.output_size(); }
  std::size_t taps() const { return lattice_.taps().size(); }
  // Channels worth handing to a thread at a time.
  std::size_t together() const;

  // y[outputs, output_size()] of channel x by w[outputs, taps()], plus bias (null: none). x is 0 where it ends.
  void run(const float* x, const float* w, const float* bias, std::size_t outputs, float* y, float* scratch) const;

 private:
  std::size_t plane_floats() const;

  Lattice lattice_;
  std::size_t height_ = 0, width_ = 0;  // of windows that move by one element in two dimensions; 0: others
  std::size_t rows_ = 0, columns_ = 0;  // of their output
  std::vector<tile::Run> runs_;
};

}  // namespace weft::runtime
