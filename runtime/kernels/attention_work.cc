#include "runtime/kernels/attention_work.h"

#include <algorithm>
#include <numeric>

namespace weft::runtime {
namespace {

constexpr std::int64_t kPanel = static_cast<std::int64_t>(simd::kPanelKeys);
constexpr std::int64_t kTile = static_cast<std::int64_t>(simd::kTaskRows);

std::int64_t divide_up(std::int64_t x, std::int64_t y) { return (x + y - 1) / y; }

}  // namespace

void AttentionWork::plan(const AttentionShape& shape, const CacheState* keys, const CacheState* values, bool shared,
                         int threads) {
  shape_ = shape;
  keys_ = keys;
  values_ = values;
  items_.clear();
  batch_rows_.clear();
  segments_.clear();
  row_lists_used_ = 0;
  const bool few = shape.queries <= kFewQueries;
  parts_ = few ? std::max<std::int64_t>(divide_up(shape.keys, kPartKeys), 1) : 1;
  // Large tiles pack keys once for more rows, but there have to be some for every thread.
  tile_ = kTile;
  while (tile_ > kTile / 4 &&
         shape.batch * shape.key_heads * divide_up(shape.rows(), tile_) * parts_ < std::int64_t{3} * threads) {
    tile_ /= 2;
  }
  const bool groups = few && (shared || (keys != nullptr && values != nullptr));
  for (std::int64_t part = 0; part < parts_; ++part) {
    pending_.resize(static_cast<std::size_t>(shape.batch));
    std::iota(pending_.begin(), pending_.end(), 0);
    while (!pending_.empty()) {
      together_.clear();
      const std::uint32_t leader = pending_.front();
      const auto begin = static_cast<std::size_t>(part * kPartKeys / kPanel);
      const auto taken = [&](std::uint32_t row) {
        const bool with = row == leader || (groups && (shared || same_panel(leader, row, begin)));
        if (with) together_.push_back(row);
        return with;
      };
      pending_.erase(std::remove_if(pending_.begin(), pending_.end(), taken), pending_.end());
      add(together_, part);
    }
  }
}

// Rows whose part of the cache has been dropped are not told apart: nobody looks there. Who shares the second block of
// a panel shares the first.
bool AttentionWork::same_panel(std::uint32_t a, std::uint32_t b, std::size_t panel) const {
  const auto same = [&](const CacheState& cache) {
    const std::size_t count = cache.blocks(a).size();
    const auto dropped = static_cast<std::size_t>(cache.first_token() / kPanel);
    const std::size_t first = 2 * std::max(panel, dropped);
    if (first >= count) return true;
    const std::size_t at = std::min(first + 1, count - 1);
    return cache.blocks(a)[at] == cache.blocks(b)[at];
  };
  return same(*keys_) && same(*values_);
}

void AttentionWork::add(std::span<const std::uint32_t> batch_rows, std::int64_t part) {
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(kTile / shape_.rows(), 1));
  for (std::size_t i = 0; i < batch_rows.size(); i += most) {
    const auto some = batch_rows.subspan(i, std::min(most, batch_rows.size() - i));
    some.size() == 1 || keys_ == nullptr ? add_tiles(some, part) : add_together(some, part);
  }
}

// Rows that read the same keys throughout.
void AttentionWork::add_tiles(std::span<const std::uint32_t> batch_rows, std::int64_t part) {
  const std::int64_t rows = shape_.rows() * static_cast<std::int64_t>(batch_rows.size());
  AttentionItem item;
  item.batch_rows = static_cast<std::uint32_t>(batch_rows_.size());
  item.batch_row_count = static_cast<std::uint32_t>(batch_rows.size());
  item.part = static_cast<std::uint32_t>(part);
  batch_rows_.insert(batch_rows_.end(), batch_rows.begin(), batch_rows.end());
  // Later tiles have more keys where attention is causal: they come first.
  for (std::int64_t tile = divide_up(rows, tile_) - 1; tile >= 0; --tile) {
    item.first_row = static_cast<std::uint32_t>(tile * tile_);
    item.row_count = static_cast<std::uint32_t>(std::min(tile_, rows - tile * tile_));
    items_.push_back(item);
  }
}

// Rows of caches that share the first panel of the part, and perhaps more.
void AttentionWork::add_together(std::span<const std::uint32_t> batch_rows, std::int64_t part) {
  AttentionItem item;
  item.batch_rows = static_cast<std::uint32_t>(batch_rows_.size());
  item.batch_row_count = static_cast<std::uint32_t>(batch_rows.size());
  item.row_count = static_cast<std::uint32_t>(shape_.rows()) * item.batch_row_count;
  item.part = static_cast<std::uint32_t>(part);
  item.segments = static_cast<std::uint32_t>(segments_.size());
  batch_rows_.insert(batch_rows_.end(), batch_rows.begin(), batch_rows.end());
  current_ = batch_rows;
  std::vector<std::uint32_t> places(batch_rows.size());
  std::iota(places.begin(), places.end(), 0);
  const std::int64_t first = std::max(part * kPartKeys, std::max(keys_->first_token(), values_->first_token()));
  const std::int64_t last = std::min((part + 1) * kPartKeys, shape_.keys);
  add_segments(places, static_cast<std::size_t>(first / kPanel), static_cast<std::size_t>(divide_up(last, kPanel)));
  item.segment_count = static_cast<std::uint32_t>(segments_.size()) - item.segments;
  items_.push_back(item);
}

// The rows at `places` of current_ share panels from `first` to where they part, and so on for each that parts.
void AttentionWork::add_segments(std::span<const std::uint32_t> places, std::size_t first, std::size_t last) {
  if (first >= last) return;
  const auto together_at = [&](std::size_t panel) {
    return std::all_of(places.begin(), places.end(),
                       [&](std::uint32_t place) { return same_panel(row_of(places[0]), row_of(place), panel); });
  };
  std::size_t end = first;
  while (end < last && together_at(end)) ++end;
  if (end > first) {
    if (row_lists_used_ == row_lists_.size()) row_lists_.emplace_back();
    std::vector<std::uint32_t>& list = row_lists_[row_lists_used_++];
    list.clear();
    for (const std::uint32_t place : places) {
      for (std::int64_t r = 0; r < shape_.rows(); ++r) {
        list.push_back(place * static_cast<std::uint32_t>(shape_.rows()) + static_cast<std::uint32_t>(r));
      }
    }
    simd::AttentionSegment segment;
    segment.first = first;
    segment.last = end;
    segment.keys.blocks = keys_->blocks(row_of(places[0])).data();
    segment.values.blocks = values_->blocks(row_of(places[0])).data();
    segment.rows = list;
    segments_.push_back(segment);
  }
  if (end == last) return;
  std::vector<std::uint32_t> rest(places.begin(), places.end()), some;
  while (!rest.empty()) {
    some.clear();
    const std::uint32_t leader = row_of(rest[0]);
    const auto taken = [&](std::uint32_t place) {
      const bool with = same_panel(leader, row_of(place), end);
      if (with) some.push_back(place);
      return with;
    };
    rest.erase(std::remove_if(rest.begin(), rest.end(), taken), rest.end());
    add_segments(std::vector<std::uint32_t>(some), end, last);
  }
}

}  // namespace weft::runtime
