#include "runtime/kernels/channel_convolution.h"

#include <algorithm>

namespace weft::runtime {
namespace {

bool all_one(const std::vector<std::int64_t>& list) {
  return std::all_of(list.begin(), list.end(), [](std::int64_t n) { return n == 1; });
}

}  // namespace

ChannelConvolution::ChannelConvolution(const Window& window, std::span<const std::int64_t> input,
                                       std::span<const std::int64_t> output)
    : lattice_(window, input, output), runs_(lattice_.runs(0, lattice_.grid_size())) {
  const bool moves_by_one = window.kernel.size() == 2 && all_one(window.strides) && all_one(window.dilations);
  if (!moves_by_one || !tile::has_plane_window(static_cast<std::size_t>(window.kernel[0]))) return;
  height_ = static_cast<std::size_t>(window.kernel[0]);
  width_ = static_cast<std::size_t>(window.kernel[1]);
  rows_ = static_cast<std::size_t>(output[0]);
  columns_ = static_cast<std::size_t>(output[1]);
}

std::size_t ChannelConvolution::plane_floats() const {
  return (lattice_.plane_size() + tile::kMostColumns + 15) / 16 * 16;  // vectors may reach beyond the last row
}

std::size_t ChannelConvolution::scratch_size() const {
  return plane_floats() + (height_ > 0 ? 0 : lattice_.grid_size());
}

std::size_t ChannelConvolution::together() const {
  constexpr std::size_t kWork = 32 * 1024;  // multiply-adds
  return std::max<std::size_t>(1, kWork / std::max<std::size_t>(1, output_size() * taps()));
}

void ChannelConvolution::run(const float* x, const float* w, const float* bias, std::size_t outputs, float* y,
                             float* scratch) const {
  if (height_ > 0 || !lattice_.is_plain()) {
    lattice_.lay_out(x, 0.0f, scratch);
    x = scratch;
  }
  float* grid = scratch + plane_floats();
  for (std::size_t m = 0; m < outputs; ++m, w += taps(), y += output_size()) {
    const float added = bias != nullptr ? bias[m] : 0.0f;
    if (height_ > 0) {
      const auto pitch = static_cast<std::size_t>(lattice_.taps()[width_]);
      tile::correlate_plane({x, pitch, w, height_, width_, added, y, columns_, rows_, columns_});
      continue;
    }
    float* to = lattice_.is_dense() ? y : grid;
    tile::correlate(x, lattice_.taps(), w, added, to, lattice_.grid_size());
    if (to == grid) tile::copy_runs(grid, runs_, -0.0f, y);
  }
}

}  // namespace weft::runtime
