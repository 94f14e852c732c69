// What runs along one axis of a tensor of f32, cut into tasks of rows or of blocks of columns.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ops/index_util.h"
#include "ops/shape_util.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

// A tensor as [outer, extent, inner].
struct AxisLines {
  std::size_t outer = 1, extent = 1, inner = 1;

  // given: the axis, counted from either end. Error kInvalidModel if there is none.
  AxisLines(const Extents& shape, std::int64_t given) {
    const auto axis = static_cast<std::size_t>(normalize_axis(given, static_cast<std::int64_t>(shape.size())));
    outer = static_cast<std::size_t>(product(shape, 0, axis));
    extent = static_cast<std::size_t>(shape[axis]);
    inner = static_cast<std::size_t>(product(shape, axis + 1, shape.size()));
  }

  // body(offset of the first element, columns): one row where inner is 1, else some columns with the stride `inner`.
  template <class Body>
  void for_each(ThreadPool& pool, const Body& body) const {
    constexpr std::size_t kGrain = 8 * 1024;  // elements worth handing to a thread
    constexpr std::size_t kColumns = 64;
    if (extent == 0) return;
    const std::size_t blocks = (inner + kColumns - 1) / kColumns, tasks = outer * blocks;
    const std::size_t together = std::max<std::size_t>(1, kGrain / (extent * std::min(inner, kColumns) + 1));
    pool.parallel_for((tasks + together - 1) / together, [&](std::size_t i) {
      for (std::size_t task = i * together; task < std::min(tasks, (i + 1) * together); ++task) {
        const std::size_t first = task % blocks * kColumns;
        body(task / blocks * extent * inner + first, std::min(kColumns, inner - first));
      }
    });
  }
};

}  // namespace weft::runtime
