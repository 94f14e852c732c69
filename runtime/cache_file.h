// Caches of a session in a file: a prompt's keys and values, computed once and read by later processes.
#pragma once

#include <filesystem>
#include <span>

#include "graph/graph.h"
#include "runtime/cache.h"
#include "runtime/packed_file.h"

namespace weft::runtime {

// The file begins with `key`, the identity of the model; blocks that rows share are written once. Replaces the file
// when it is complete. Error kIo.
void write_caches(const std::filesystem::path& path, const PackedKey& key, std::span<const State> states,
                  std::span<const CacheState> caches);

// Caches as write_caches() had them, with the options of `caches`, which stay as they are. Error kIo when the file
// cannot be read; kInvalidArgument when it is of another model or version, or damaged: whatever its bytes, nothing is
// read beyond it and no more memory asked for than it is large.
std::vector<CacheState> read_caches(const std::filesystem::path& path, const PackedKey& key,
                                    std::span<const State> states, std::span<const CacheState> caches);

}  // namespace weft::runtime
