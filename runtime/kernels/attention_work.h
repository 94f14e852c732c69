// What the tasks of one attention are: rows that read the same blocks go together, few rows over many keys are cut
// into parts of the keys.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/cache.h"
#include "runtime/kernels/attention_simd.h"

namespace weft::runtime {

struct AttentionShape {
  std::int64_t batch = 0, queries = 0, keys = 0;  // B, S, T
  std::int64_t heads = 0, key_heads = 0;
  std::int64_t size = 0, value_size = 0;  // D, E

  std::int64_t group() const { return heads / key_heads; }
  std::int64_t rows() const { return queries * group(); }  // of one batch row and key head
};

// One task for each key head.
struct AttentionItem {
  std::uint32_t batch_rows = 0, batch_row_count = 0;  // range of AttentionWork::batch_rows
  std::uint32_t first_row = 0, row_count = 0;         // of the batch rows' query rows, see AttentionWork::row()
  std::uint32_t segments = 0, segment_count = 0;      // range of AttentionWork::segments; none: one, not in blocks
  std::uint32_t part = 0;                             // keys [part * kPartKeys, ...)
};

// How far results depend on it: the number of parts, which depends on S and T alone, and nothing else.
class AttentionWork {
 public:
  // Up to so many queries at a time, keys are cut into parts: decoding, and prompts that hardly are.
  static constexpr std::int64_t kFewQueries = 16;
  static constexpr std::int64_t kPartKeys = 512;
  static_assert(kPartKeys % simd::kChunkKeys == 0);

  // keys, values: the caches if both are, in their layouts, else null. shared: all batch rows read the same keys.
  // Keeps its memory from one call to the next.
  void plan(const AttentionShape& shape, const CacheState* keys, const CacheState* values, bool shared, int threads);

  std::span<const AttentionItem> items() const { return items_; }
  std::int64_t parts() const { return parts_; }
  std::span<const std::uint32_t> batch_rows(const AttentionItem& item) const {
    return std::span(batch_rows_).subspan(item.batch_rows, item.batch_row_count);
  }
  std::span<const simd::AttentionSegment> segments(const AttentionItem& item) const {
    return std::span(segments_).subspan(item.segments, item.segment_count);
  }

 private:
  void add(std::span<const std::uint32_t> batch_rows, std::int64_t part);
  void add_tiles(std::span<const std::uint32_t> batch_rows, std::int64_t part);
  void add_together(std::span<const std::uint32_t> batch_rows, std::int64_t part);
  void add_segments(std::span<const std::uint32_t> places, std::size_t first, std::size_t last);
  bool same_panel(std::uint32_t a, std::uint32_t b, std::size_t panel) const;
  std::uint32_t row_of(std::size_t place) const { return current_[place]; }

  AttentionShape shape_;
  const CacheState *keys_ = nullptr, *values_ = nullptr;
  std::int64_t parts_ = 1, tile_ = 0;
  std::vector<AttentionItem> items_;
  std::vector<std::uint32_t> batch_rows_;
  std::vector<simd::AttentionSegment> segments_;
  // Rows of segments: lists of query rows, kept apart because segments point into them.
  std::vector<std::vector<std::uint32_t>> row_lists_;
  std::size_t row_lists_used_ = 0;
  std::span<const std::uint32_t> current_;  // batch rows of the item in the making
  std::vector<std::uint32_t> pending_, together_;
};

}  // namespace weft::runtime
