#include "runtime/mapped_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>

namespace weft::runtime {

MappedPages::MappedPages() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    std::string addresses, permissions, offset, device, path;
    unsigned long inode = 0;
    if (!(fields >> addresses >> permissions >> offset >> device >> inode) || inode == 0 || permissions != "r--p")
      continue;
    std::getline(fields >> std::ws, path);
    const std::size_t dash = addresses.find('-');
    ranges_.push_back({std::stoull(addresses.substr(0, dash), nullptr, 16),
                       std::stoull(addresses.substr(dash + 1), nullptr, 16), std::move(path)});
  }
}

const MappedPages::Range* MappedPages::find(const std::byte* memory) const {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                      [](std::uintptr_t at, const Range& range) { return at < range.begin; });
  if (after == ranges_.begin() || address >= std::prev(after)->end) return nullptr;
  return &*std::prev(after);
}

const std::string* MappedPages::file_of(const std::byte* memory) const {
  const Range* range = find(memory);
  return range != nullptr ? &range->path : nullptr;
}

void MappedPages::release(std::span<const std::byte> memory) const {
  const Range* range = memory.empty() ? nullptr : find(memory.data());
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
  if (range == nullptr || begin + memory.size() > range->end) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t first = (begin + page - 1) / page * page, last = (begin + memory.size()) / page * page;
  // Clean pages of a file: nothing is lost.
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace weft::runtime
