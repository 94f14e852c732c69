// Attention over panels of keys, compiled for every instruction set and chosen at run time: scores are products of
// packed query rows and key panels, weights an online softmax over chunks of keys, results sums over value rows.
//
// What a row gets depends on nothing but its query, its keys and its masks: each score is one chain of multiply-adds
// over D, each result one chain over the keys, and chunks lie at multiples of kChunkKeys. Tiles, rows that share a
// task and threads change nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "graph/dtype.h"

namespace weft::runtime::simd {

inline constexpr std::size_t kPanelKeys = 16;   // keys of a panel
inline constexpr std::size_t kBlockKeys = 8;    // tokens of a block of a cache: half a panel
inline constexpr std::size_t kChunkKeys = 128;  // keys of a step of the online softmax
inline constexpr std::size_t kTaskRows = 512;   // query rows of a task, at most
static_assert(kChunkKeys % kPanelKeys == 0 && kPanelKeys == 2 * kBlockKeys);

// How blocks hold numbers. Halves become f32 where they are read: all arithmetic is f32.
enum class Element : std::uint8_t { kF32, kF16, kBF16 };
inline Element element_of(DType dtype) {
  return dtype == DType::kF16 ? Element::kF16 : dtype == DType::kBF16 ? Element::kBF16 : Element::kF32;
}

// Where keys or values of one head lie. Either panel j is at blocks[2 j] and blocks[2 j + 1] + the task's offset (keys
// [D][kBlockKeys], values [kBlockKeys][E]), the second only if there are tokens in it, or, with blocks null, token t is
// at base + t * stride.
struct AttentionSource {
  const std::byte* const* blocks = nullptr;
  const float* base = nullptr;
  std::size_t stride = 0;
};

// Panels [first, last) that the rows of the task listed in `rows` read from the same place; empty: all rows, in order.
// Every row is in at most one segment of a panel, and meets its segments in the order of panels.
struct AttentionSegment {
  std::size_t first = 0, last = 0;
  AttentionSource keys, values;
  std::span<const std::uint32_t> rows;
};

struct AttentionRow {
  const float* q = nullptr;  // [D]
  float* out = nullptr;      // [E]
  // attention_partial(E) floats for finish_attention, or null: the task sees all keys and writes `out`.
  float* partial = nullptr;
  std::size_t first = 0, last = 0;          // keys [first, last) are looked at
  std::size_t allowed = 0, forbidden = 0;   // of these, keys [allowed, forbidden) are attended
  const float* mask = nullptr;              // [T], additive, or
  const std::uint8_t* mask_bits = nullptr;  // [T], nonzero: attend
  const std::uint8_t* padding = nullptr;    // [T], nonzero: attend; null: all
  float slope = 0;                          // adds slope * (t - position)
  float position = 0;
  float sink = 0;     // see AttentionTask::has_sinks
  float fill = 0;     // added to scores that are not attended: -inf, or what a model uses for it
  bool plain = true;  // none of the above applies: keys [first, last) are attended, and scale > 0
};

struct AttentionTask {
  std::span<const AttentionRow> rows;  // at most kTaskRows
  std::span<const AttentionSegment> segments;
  Element element = Element::kF32;               // of blocks
  std::size_t key_offset = 0, value_offset = 0;  // bytes from a block to the head's part of it
  std::size_t begin = 0, end = 0;                // keys of this task; begin is a multiple of kChunkKeys
  std::size_t size = 0, value_size = 0;          // D, E
  float scale = 1;
  float softcap = 0;                // > 0: scores become softcap * tanh(score / softcap) before masks
  bool fill_per_condition = false;  // fill is added once for position and once for padding
  bool zero_masked_rows = false;    // rows without a key become 0 instead of NaN
  bool has_sinks = false;           // sink is one more score that only takes its share
  std::size_t mask_key_stride = 1;  // 0: one element for all keys
  float* scratch = nullptr;         // attention_scratch(D, E) floats, at a multiple of 64 bytes
};

std::size_t attention_scratch(std::size_t size, std::size_t value_size);
// Floats of one row of a task that looks at some of the keys: maximum, sum, and weighted values.
std::size_t attention_partial(std::size_t value_size);
void attend(const AttentionTask& task);
// Joins the `count` partial results of a row, which lie one after the other, in order.
void finish_attention(const AttentionTask& task, const AttentionRow& row, const float* partials, std::size_t count);

// Copies `count` keys of `size` floats, `stride` apart, to lanes [at, at + count) of a block [size][kBlockKeys] of such
// elements; halves are rounded to nearest even.
void store_keys(const float* keys, std::size_t stride, std::size_t count, std::size_t size, Element element,
                std::byte* block, std::size_t at);

}  // namespace weft::runtime::simd
