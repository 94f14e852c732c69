#include "runtime/kernels/strided_copy.h"

#include <algorithm>
#include <cstring>

namespace weft::runtime {
namespace {

struct Axis {
  std::int64_t extent, from, to;  // strides in elements
};

// Axes of one element left out, those that both sides walk in one stride joined; never none.
std::vector<Axis> joined_axes(const StridedCopy& copy) {
  std::vector<Axis> axes;
  for (std::size_t i = 0; i < copy.shape.size(); ++i) {
    const Axis axis{copy.shape[i], copy.from_strides[i], copy.to_strides[i]};
    if (axis.extent == 1) continue;
    if (!axes.empty() && axes.back().from == axis.from * axis.extent && axes.back().to == axis.to * axis.extent) {
      axes.back() = {axes.back().extent * axis.extent, axis.from, axis.to};
    } else {
      axes.push_back(axis);
    }
  }
  if (axes.empty()) axes.push_back({1, 1, 1});
  return axes;
}

// The positions of both sides at a flat index over the outer axes, counted on from there.
class Cursor {
 public:
  Cursor(const std::vector<Axis>& axes, std::size_t flat) : axes_(&axes), index_(axes.size()) {
    auto rest = static_cast<std::int64_t>(flat);
    for (std::size_t i = axes.size(); i-- > 0;) {
      index_[i] = rest % axes[i].extent;
      rest /= axes[i].extent;
      from += index_[i] * axes[i].from;
      to += index_[i] * axes[i].to;
    }
  }
  void advance() {
    for (std::size_t i = axes_->size(); i-- > 0;) {
      const Axis& axis = (*axes_)[i];
      from += axis.from;
      to += axis.to;
      if (++index_[i] < axis.extent) return;
      from -= axis.from * axis.extent;
      to -= axis.to * axis.extent;
      index_[i] = 0;
    }
  }

  std::int64_t from = 0, to = 0;

 private:
  const std::vector<Axis>* axes_;
  Extents index_;
};

template <class W>
void copy_row(const W* from, W* to, const Axis& row) {
  if (row.to == 1 && row.from == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(row.extent) * sizeof(W));
  } else if (row.to == 1 && row.from == 0) {
    std::fill(to, to + row.extent, *from);
  } else {
    for (std::int64_t i = 0; i < row.extent; ++i) to[i * row.to] = from[i * row.from];
  }
}

constexpr std::int64_t kTile = 8;

// to[r, c] = from[c, r], where `rows` is dense in the source and `columns` in the target.
template <class W>
void copy_block(const W* from, W* to, const Axis& rows, const Axis& columns) {
  std::int64_t r = 0;
  for (; r + kTile <= rows.extent; r += kTile) {
    std::int64_t c = 0;
    for (; c + kTile <= columns.extent; c += kTile) {
      W tile[kTile][kTile];
      for (std::int64_t j = 0; j < kTile; ++j) {
        const W* source = from + r + (c + j) * columns.from;
        for (std::int64_t i = 0; i < kTile; ++i) tile[i][j] = source[i];
      }
      for (std::int64_t i = 0; i < kTile; ++i) std::memcpy(to + (r + i) * rows.to + c, tile[i], sizeof(tile[i]));
    }
    for (; c < columns.extent; ++c) {
      for (std::int64_t i = r; i < r + kTile; ++i) to[i * rows.to + c] = from[i + c * columns.from];
    }
  }
  for (; r < rows.extent; ++r) copy_row(from + r, to + r * rows.to, columns);
}

// The axis that is dense in the source while the last one is dense in the target, or none.
std::size_t exchanged_axis(const std::vector<Axis>& axes) {
  const Axis& last = axes.back();
  if (last.to != 1 || last.from == 1 || last.from == 0 || last.extent < kTile) return axes.size();
  for (std::size_t i = 0; i + 1 < axes.size(); ++i) {
    if (axes[i].from == 1 && axes[i].extent >= kTile) return i;
  }
  return axes.size();
}

constexpr std::int64_t kPart = 4 * kTile;  // rows of a block that threads share

template <class W>
void copy_words(ThreadPool& pool, std::vector<Axis> axes, const W* from, W* to) {
  const Axis columns = axes.back();
  Axis rows{1, 1, 1};
  const std::size_t exchanged = exchanged_axis(axes);
  axes.pop_back();
  if (exchanged < axes.size()) {
    rows = axes[exchanged];
    axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(exchanged));
    axes.push_back({(rows.extent + kPart - 1) / kPart, kPart * rows.from, kPart * rows.to});
  }
  std::int64_t units = 1;
  for (const Axis& axis : axes) units *= axis.extent;
  const auto bytes = static_cast<std::size_t>(std::min(rows.extent, kPart) * columns.extent) * sizeof(W);
  for_units(pool, static_cast<std::size_t>(units), bytes, [&](std::size_t first, std::size_t last) {
    Cursor cursor(axes, first);
    for (std::size_t unit = first; unit < last; ++unit, cursor.advance()) {
      if (rows.extent == 1) {
        copy_row(from + cursor.from, to + cursor.to, columns);
      } else {
        const std::int64_t done = static_cast<std::int64_t>(unit) % axes.back().extent * kPart;
        const Axis part{std::min(kPart, rows.extent - done), rows.from, rows.to};
        copy_block(from + cursor.from, to + cursor.to, part, columns);
      }
    }
  });
}

// One long run on both sides.
void copy_run(ThreadPool& pool, const std::byte* from, std::byte* to, std::size_t bytes) {
  for_units(pool, bytes, 1,
            [&](std::size_t first, std::size_t last) { std::memcpy(to + first, from + first, last - first); });
}

}  // namespace

void strided_copy(ThreadPool& pool, const StridedCopy& copy, const std::byte* from, std::byte* to) {
  if (element_count(copy.shape) == 0) return;
  std::vector<Axis> axes = joined_axes(copy);
  if (axes.size() == 1 && axes[0].from == 1 && axes[0].to == 1) {
    copy_run(pool, from, to, static_cast<std::size_t>(axes[0].extent) * copy.size);
    return;
  }
  const auto words = [&]<class W>(W) {
    copy_words(pool, std::move(axes), reinterpret_cast<const W*>(from), reinterpret_cast<W*>(to));
  };
  switch (copy.size) {
    case 1: return words(Word<1>{});
    case 2: return words(Word<2>{});
    case 4: return words(Word<4>{});
    default: return words(Word<8>{});
  }
}

}  // namespace weft::runtime
