// Copies between strided arrays, as fast as memory allows: runs by memcpy, exchanged axes by blocks.
#pragma once

#include "graph/tensor.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

// Strides of both sides in elements of `size` bytes (1, 2, 4 or 8); the target's must be positive and no two of its
// elements may be one. The same bytes for any number of threads.
struct StridedCopy {
  Extents shape;
  Extents from_strides, to_strides;
  std::size_t size;
};

void strided_copy(ThreadPool& pool, const StridedCopy& copy, const std::byte* from, std::byte* to);

// body(first, last) for parts of [0, count) units of `bytes` bytes each, on the pool when there is enough work.
template <class Body>
void for_units(ThreadPool& pool, std::size_t count, std::size_t bytes, const Body& body) {
  constexpr std::size_t kGrain = 64 * 1024;  // bytes worth handing to a thread
  const std::size_t each = std::max<std::size_t>(1, kGrain / std::max<std::size_t>(bytes, 1));
  pool.parallel_for((count + each - 1) / each,
                    [&](std::size_t part) { body(part * each, std::min(count, (part + 1) * each)); });
}

}  // namespace weft::runtime
