// Operands walked together as NumPy broadcasts them.
#pragma once

#include <array>

#include "graph/tensor.h"

namespace weft::runtime {

// How kOperands are walked, axes that all take in one stride joined. The last axis is the row: along it an operand
// either advances by one or stays.
template <std::size_t kOperands>
class Broadcast {
 public:
  Broadcast(const Extents& out, const std::array<const Extents*, kOperands>& operands) {
    std::array<Extents, kOperands> all;
    for (std::size_t k = 0; k < kOperands; ++k) all[k] = strides(out, *operands[k]);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (out[i] == 1) continue;
      Axis axis{out[i], {}};
      bool joins = !axes_.empty();
      for (std::size_t k = 0; k < kOperands; ++k) {
        axis.strides[k] = all[k][i];
        joins = joins && axes_.back().strides[k] == axis.strides[k] * axis.extent;
      }
      if (joins) {
        axes_.back() = {axes_.back().extent * axis.extent, axis.strides};
      } else {
        axes_.push_back(axis);
      }
    }
    if (axes_.empty()) axes_.push_back({1, {}});
  }

  bool advances(std::size_t operand) const { return axes_.back().strides[operand] != 0; }

  // body(flat position, count, offsets of the operands) for runs within rows that make up [first, last).
  template <class Body>
  void for_runs(std::size_t first, std::size_t last, const Body& body) const {
    const auto length = static_cast<std::size_t>(axes_.back().extent);
    while (first < last) {
      const std::size_t row = first / length, column = first % length;
      const std::size_t count = std::min(length - column, last - first);
      std::array<std::size_t, kOperands> at = offsets(row);
      for (std::size_t k = 0; k < kOperands; ++k) at[k] += advances(k) ? column : 0;
      body(first, count, at);
      first += count;
    }
  }

 private:
  struct Axis {
    std::int64_t extent;
    std::array<std::int64_t, kOperands> strides;
  };

  // Where the operands' rows begin.
  std::array<std::size_t, kOperands> offsets(std::size_t row) const {
    auto rest = static_cast<std::int64_t>(row);
    std::array<std::size_t, kOperands> result{};
    for (std::size_t i = axes_.size() - 1; i-- > 0;) {
      const std::int64_t index = rest % axes_[i].extent;
      rest /= axes_[i].extent;
      for (std::size_t k = 0; k < kOperands; ++k) result[k] += static_cast<std::size_t>(index * axes_[i].strides[k]);
    }
    return result;
  }

  static Extents strides(const Extents& out, const Extents& own) {
    Extents result(out.size(), 0);
    const Extents dense = row_major_strides(own);
    for (std::size_t i = 0; i < own.size(); ++i) {
      if (own[i] != 1) result[out.size() - own.size() + i] = dense[i];
    }
    return result;
  }

  std::vector<Axis> axes_;
};

}  // namespace weft::runtime
