#include "runtime/kernels/lattice.h"

#include <algorithm>
#include <numeric>

namespace weft::runtime {
namespace {

using tile::copy_rows;

void copy_rows(const std::uint8_t* x, std::size_t x_stride, std::size_t step, std::uint8_t* y, std::size_t y_stride,
               std::size_t rows, std::size_t count) {
  for (std::size_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    if (step == 1) {
      std::copy_n(x, count, y);
    } else {
      for (std::size_t i = 0; i < count; ++i) y[i] = x[i * step];
    }
  }
}

}  // namespace

std::pair<std::int64_t, std::int64_t> Lattice::Axis::inside(std::int64_t phase) const {
  const auto points = [&](std::int64_t n) {
    return std::clamp<std::int64_t>(n > 0 ? (n + stride - 1) / stride : 0, 0, extent);
  };
  const std::int64_t begin = points(pad - phase);
  return {begin, std::max(begin, points(input + pad - phase))};
}

Lattice::Lattice(const Window& window, std::span<const std::int64_t> input, std::span<const std::int64_t> output) {
  const std::size_t rank = input.size();
  check_size(DType::kI64, window.kernel);
  check_size(DType::kI64, output);
  for (std::size_t i = 0; i < rank; ++i) {
    Axis axis;
    axis.input = input[i];
    axis.stride = window.strides[i];
    axis.pad = window.pads_begin[i];
    const std::int64_t reach = (output[i] - 1) * axis.stride + (window.kernel[i] - 1) * window.dilations[i] + 1;
    const bool as_is = axis.stride == 1 && axis.pad == 0 && reach <= axis.input;
    plain_ = plain_ && as_is;
    axis.extent = as_is ? axis.input : (reach + axis.stride - 1) / axis.stride;
    // Remainders of taps repeat after so many.
    const std::int64_t phases = std::min(window.kernel[i], axis.stride / std::gcd(axis.stride, window.dilations[i]));
    for (std::int64_t k = 0; k < phases; ++k) axis.phases.push_back(k * window.dilations[i] % axis.stride);
    axes_.push_back(std::move(axis));
  }
  Extents plane;
  for (const Axis& axis : axes_) {
    plane.push_back(axis.extent);
    plane.push_back(static_cast<std::int64_t>(axis.phases.size()));
  }
  check_size(DType::kU8, plane);
  for (std::size_t i = rank; i-- > 0;) {
    axes_[i].pitch = plane_size_;
    plane_size_ *= static_cast<std::size_t>(axes_[i].extent);
  }
  for (std::size_t i = rank; i-- > 0;) {
    axes_[i].phase_pitch = plane_size_;
    plane_size_ *= axes_[i].phases.size();
  }
  taps_ = {0};
  row_starts_ = {0};
  for (std::size_t i = 0; i < rank; ++i) {
    const Axis& axis = axes_[i];
    std::vector<std::ptrdiff_t> taps;
    for (const std::ptrdiff_t base : taps_) {
      for (std::int64_t k = 0; k < window.kernel[i]; ++k) {
        const std::int64_t offset = k * window.dilations[i];
        const std::size_t phase = static_cast<std::size_t>(k) % axis.phases.size();
        taps.push_back(base + static_cast<std::ptrdiff_t>(phase * axis.phase_pitch +
                                                          static_cast<std::size_t>(offset / axis.stride) * axis.pitch));
      }
    }
    taps_ = std::move(taps);
    grid_size_ += static_cast<std::size_t>(output[i] - 1) * axis.pitch;
  }
  std::size_t first_row_axis = rank;  // axes from here on lie densely in a row
  while (first_row_axis > 0) {
    --first_row_axis;
    row_length_ *= static_cast<std::size_t>(output[first_row_axis]);
    if (axes_[first_row_axis].extent != output[first_row_axis]) break;
  }
  for (std::size_t i = 0; i < first_row_axis; ++i) {
    std::vector<std::size_t> starts;
    for (const std::size_t base : row_starts_) {
      for (std::int64_t o = 0; o < output[i]; ++o)
        starts.push_back(base + static_cast<std::size_t>(o) * axes_[i].pitch);
    }
    row_starts_ = std::move(starts);
  }
}

struct Lattice::Layer {
  std::vector<std::int64_t> phases;  // one an axis
  std::vector<std::size_t> pitches;  // of the input
};

std::vector<tile::Run> Lattice::runs(std::size_t first, std::size_t count) const {
  std::vector<tile::Run> result;
  const auto row = std::upper_bound(row_starts_.begin(), row_starts_.end(), first);
  for (auto r = static_cast<std::size_t>(row - row_starts_.begin()) - 1; r < row_starts_.size(); ++r) {
    if (row_starts_[r] >= first + count) break;
    const std::size_t begin = std::max(row_starts_[r], first);
    const std::size_t end = std::min(row_starts_[r] + row_length_, first + count);
    if (begin < end) result.push_back({begin - first, r * row_length_ + begin - row_starts_[r], end - begin});
  }
  return result;
}

template <class T>
void Lattice::lay_out(const T* channel, T fill, T* plane) const {
  std::size_t combinations = 1;
  for (const Axis& axis : axes_) combinations *= axis.phases.size();
  Layer layer{std::vector<std::int64_t>(axes_.size()), std::vector<std::size_t>(axes_.size(), 1)};
  for (std::size_t i = axes_.size() - 1; i > 0; --i) {
    layer.pitches[i - 1] = layer.pitches[i] * static_cast<std::size_t>(axes_[i].input);
  }
  for (std::size_t c = 0; c < combinations; ++c) {
    std::size_t rest = c;
    for (std::size_t i = axes_.size(); i-- > 0; rest /= axes_[i].phases.size()) {
      layer.phases[i] = axes_[i].phases[rest % axes_[i].phases.size()];
    }
    lay_out_axis(layer, fill, 0, channel, plane + c * (plane_size_ / combinations));
  }
}

template <class T>
void Lattice::lay_out_axis(const Layer& layer, T fill, std::size_t i, const T* from, T* to) const {
  const Axis& axis = axes_[i];
  const std::int64_t shift = layer.phases[i] - axis.pad;
  const auto [begin, end] = axis.inside(layer.phases[i]);
  const auto pitch = static_cast<std::int64_t>(axis.pitch);
  std::fill(to, to + begin * pitch, fill);
  std::fill(to + end * pitch, to + axis.extent * pitch, fill);
  const auto rows = static_cast<std::size_t>(end - begin);
  const T* first = from + (begin * axis.stride + shift) * static_cast<std::int64_t>(layer.pitches[i]);
  const std::size_t step = static_cast<std::size_t>(axis.stride) * layer.pitches[i];
  to += begin * pitch;
  if (i + 1 == axes_.size()) {
    copy_rows(first, 0, step, to, 0, 1, rows);
  } else if (i + 2 == axes_.size()) {
    lay_out_rows(layer, fill, first, step, to, rows);
  } else {
    for (std::size_t q = 0; q < rows; ++q) lay_out_axis(layer, fill, i + 1, first + q * step, to + q * axis.pitch);
  }
}

// Rows of the last axis.
template <class T>
void Lattice::lay_out_rows(const Layer& layer, T fill, const T* from, std::size_t from_stride, T* to,
                           std::size_t rows) const {
  const Axis& axis = axes_.back();
  const auto [begin, end] = axis.inside(layer.phases.back());
  const std::int64_t first = begin * axis.stride + layer.phases.back() - axis.pad;
  const auto extent = static_cast<std::size_t>(axis.extent);
  if (end - begin < axis.extent) {
    for (std::size_t r = 0; r < rows; ++r) {
      std::fill(to + r * extent, to + r * extent + begin, fill);
      std::fill(to + r * extent + end, to + (r + 1) * extent, fill);
    }
  }
  copy_rows(from + first, from_stride, static_cast<std::size_t>(axis.stride), to + begin, extent, rows,
            static_cast<std::size_t>(end - begin));
}

template void Lattice::lay_out(const float*, float, float*) const;
template void Lattice::lay_out(const std::uint8_t*, std::uint8_t, std::uint8_t*) const;

}  // namespace weft::runtime
