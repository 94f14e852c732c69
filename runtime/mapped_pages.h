// Files mapped into this process, and giving their pages back.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace weft::runtime {

// Read-only mappings of files, as they were when this was made. Empty where the system does not tell.
class MappedPages {
 public:
  MappedPages();

  // Lets go of the pages that lie wholly in this memory, if it is mapped from a file: they no longer count as this
  // process's memory, and reading them again brings them back.
  void release(std::span<const std::byte> memory) const;
  // The file that this memory is mapped from; null: none.
  const std::string* file_of(const std::byte* memory) const;

 private:
  struct Range {
    std::uintptr_t begin, end;
    std::string path;
  };
  const Range* find(const std::byte* memory) const;
  std::vector<Range> ranges_;  // by address
};

}  // namespace weft::runtime
