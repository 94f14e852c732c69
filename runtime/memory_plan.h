// Laying out buffers with known lifetimes in one arena.
#pragma once

#include <cstddef>
#include <span>

namespace weft::runtime {

struct MemoryRequest {
  std::size_t bytes = 0;
  std::size_t first = 0, last = 0;  // steps at which it is written first and read last
  std::size_t offset = 0;           // the answer, a multiple of 64
};

// Sets offsets such that requests alive at the same step do not overlap; largest first, each at the
// lowest offset that is free. Returns the bytes needed. Every buffer is followed by 64 readable bytes.
std::size_t plan_memory(std::span<MemoryRequest> requests);

}  // namespace weft::runtime
