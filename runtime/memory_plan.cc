#include "runtime/memory_plan.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace weft::runtime {
namespace {

constexpr std::size_t kAlignment = 64;

std::size_t padded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment; }

}  // namespace

std::size_t plan_memory(std::span<MemoryRequest> requests) {
  std::vector<std::size_t> order(requests.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return requests[a].bytes != requests[b].bytes ? requests[a].bytes > requests[b].bytes : a < b;
  });
  std::vector<std::size_t> placed;  // by offset
  std::size_t total = 0;
  for (const std::size_t index : order) {
    MemoryRequest& request = requests[index];
    const std::size_t size = padded(request.bytes);
    std::size_t offset = 0;
    for (const std::size_t other : placed) {
      const MemoryRequest& there = requests[other];
      if (there.first > request.last || there.last < request.first) continue;
      if (offset + size <= there.offset) break;
      offset = std::max(offset, there.offset + padded(there.bytes));
    }
    request.offset = offset;
    total = std::max(total, offset + size);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset,
                                   [&](std::size_t at, std::size_t other) { return at < requests[other].offset; }),
                  index);
  }
  return total;
}

}  // namespace weft::runtime
