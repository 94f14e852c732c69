// Where a chunk of keys and values lies, panel by panel, and the products with it.
// Compiled once per instruction set, included by attention_simd.cc only.
#if defined(WEFT_ATTENTION_PANELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_ATTENTION_PANELS_INL_H
#undef WEFT_ATTENTION_PANELS_INL_H
#else
#define WEFT_ATTENTION_PANELS_INL_H
#endif

#include <algorithm>
#include <type_traits>

#include "hwy/highway.h"
#include "runtime/kernels/attention_micro-inl.h"
#include "runtime/kernels/attention_simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

constexpr std::size_t kPanels = kChunkKeys / kPanelKeys;

// The hardware does not see rows coming that are far apart.
inline HWY_ATTR void PrefetchRow(const float* row, std::size_t size) {
  for (std::size_t i = 0; i < size; i += 64 / sizeof(float)) hwy::Prefetch(row + i);
}

// What a pass over a chunk reads.
struct Reads {
  bool keys, values;
};

class ChunkPanels {
 public:
  // whole: all rows of the task read the same keys.
  HWY_ATTR ChunkPanels(const AttentionTask& task, bool whole) : a_(task), width_(RoundUp(task.value_size)) {
    direct_ = a_.element != Element::kF32 && whole && a_.rows.size() == 1 && a_.segments[0].keys.blocks != nullptr &&
              a_.segments[0].values.blocks != nullptr;
  }

  // For a chunk that is packed: kChunkKeys times a key's size and a value's, rounded up.
  void SetRoom(float* keys, float* values) {
    keys_ = keys;
    values_ = values;
  }
  void SetChunk(std::size_t begin, std::size_t end) {
    begin_ = begin;
    end_ = end;
  }

  // Finds panels [first, last) of the chunk, packing what is not in blocks of f32.
  HWY_ATTR void Locate(const AttentionSegment& segment, std::size_t first, std::size_t last, Reads reads) {
    in_blocks_ = segment.keys.blocks != nullptr && a_.element == Element::kF32;
    value_stride_ = a_.value_size;
    for (std::size_t j = first; j < last; ++j) {
      const std::size_t token = begin_ + j * kPanelKeys;
      const std::size_t count = HWY_MIN(kPanelKeys, end_ - token);
      const std::size_t next_count = HWY_MIN(kPanelKeys, end_ - token - count);
      if (segment.keys.blocks == nullptr) PrefetchRows(segment.keys, token + count, next_count, a_.size);
      if (segment.values.blocks == nullptr) PrefetchRows(segment.values, token + count, next_count, a_.value_size);
      LocateKeys(segment, j, count, reads.keys);
      LocateValues(segment, j, count, reads.values);
    }
  }

  // q: packed queries of `rows` rows. Writes their scores of panels [first, last).
  HWY_ATTR void Score(const float* q, std::size_t rows, std::size_t first, std::size_t last, float* scores) const {
    if (direct_) {
      return WithHalves([&](auto element) HWY_ATTR {
        ScoreRows<decltype(element), 1, true>(q, half_keys_ + 2 * first, half_values_ + 2 * first, last - first,
                                              a_.size, scores + first * kPanelKeys);
      });
    }
    WithRows<kBlockRows>(rows, [&](auto constant) HWY_ATTR {
      const auto score = [&](auto in_blocks) HWY_ATTR {
        ScoreRows<Single, constant.value, in_blocks.value>(q, key_blocks_ + 2 * first, value_blocks_ + 2 * first,
                                                           last - first, a_.size, scores + first * kPanelKeys);
      };
      in_blocks_ ? score(std::true_type()) : score(std::false_type());
    });
  }

  // Adds what weights give of panels [first, last) to results times corrections.
  HWY_ATTR void Add(const float* weights, std::size_t rows, std::size_t first, std::size_t last,
                    const float* corrections, float* results) const {
    const std::size_t tokens = HWY_MIN(last * kPanelKeys, end_ - begin_) - first * kPanelKeys;
    if (direct_) {
      return WithHalves([&](auto element) HWY_ATTR {
        AddRows<decltype(element), 1>(weights + first * kPanelKeys, half_values_ + 2 * first,
                                      next_half_keys_ + 2 * first, a_.value_size, tokens, corrections, results, width_);
      });
    }
    WithRows<kBlockRows>(rows, [&](auto constant) HWY_ATTR {
      AddRows<Single, constant.value>(weights + first * kPanelKeys, value_blocks_ + 2 * first, next_blocks_ + 2 * first,
                                      value_stride_, tokens, corrections, results, width_);
    });
  }

 private:
  static HWY_ATTR void PrefetchRows(const AttentionSource& source, std::size_t token, std::size_t count,
                                    std::size_t size) {
    for (std::size_t t = token; t < token + count; ++t) PrefetchRow(source.base + t * source.stride, size);
  }

  // Blocks of panel `panel` of a cache. A second one without tokens is the first.
  template <class T>
  HWY_ATTR void PointAtBlocks(const AttentionSource& source, std::size_t panel, std::size_t offset,
                              const T** to) const {
    const bool second = panel * kPanelKeys + kBlockKeys < a_.end;
    to[0] = reinterpret_cast<const T*>(source.blocks[2 * panel] + offset);
    to[1] = second ? reinterpret_cast<const T*>(source.blocks[2 * panel + 1] + offset) : to[0];
  }

  // body(type of the halves that blocks hold)
  template <class Body>
  HWY_ATTR void WithHalves(const Body& body) const {
    a_.element == Element::kBF16 ? body(Halves<true>()) : body(Halves<false>());
  }

  // The halves of a panel and, coming nearer, those of the next one.
  HWY_ATTR void PointAtHalves(const AttentionSegment& segment, const AttentionSource& source, std::size_t panel,
                              std::size_t offset, std::size_t size, const std::uint16_t** halves) const {
    const std::uint16_t* next[2];
    PointAtBlocks(source, panel, offset, halves);
    PointAtBlocks(source, HWY_MIN(panel + 1, segment.last - 1), offset, next);
    for (std::size_t i = 0; i < kBlockKeys * size; i += 64 / sizeof(*halves[0])) {
      hwy::Prefetch(next[0] + i);
      hwy::Prefetch(next[1] + i);
    }
  }

  HWY_ATTR void LocateKeys(const AttentionSegment& segment, std::size_t j, std::size_t count, bool wanted) {
    const AttentionSource& keys = segment.keys;
    const std::size_t at = begin_ / kPanelKeys + j;
    if (direct_) {
      PointAtBlocks(keys, at, a_.key_offset, half_keys_ + 2 * j);
      return PointAtBlocks(keys, HWY_MIN(at + kPanels, segment.last - 1), a_.key_offset, next_half_keys_ + 2 * j);
    }
    if (in_blocks_) {
      PointAtBlocks(keys, at, a_.key_offset, key_blocks_ + 2 * j);
      return PointAtBlocks(keys, HWY_MIN(at + kPanels, segment.last - 1), a_.key_offset, next_blocks_ + 2 * j);
    }
    float* panel = keys_ + j * kPanelKeys * a_.size;
    key_blocks_[2 * j] = next_blocks_[2 * j] = panel;
    key_blocks_[2 * j + 1] = next_blocks_[2 * j + 1] = panel + kBlockKeys * a_.size;
    if (!wanted) return;
    if (keys.blocks != nullptr) return WidenKeys(segment, at, panel);
    if (count < kPanelKeys) std::fill(panel, panel + kPanelKeys * a_.size, 0.0f);
    StoreKeys<kPanelKeys>(keys.base + at * kPanelKeys * keys.stride, keys.stride, count, a_.size, panel, 0);
  }

  HWY_ATTR void WidenKeys(const AttentionSegment& segment, std::size_t panel, float* to) const {
    const F d;
    const std::uint16_t* halves[2];
    PointAtHalves(segment, segment.keys, panel, a_.key_offset, a_.size, halves);
    WithHalves([&](auto element) HWY_ATTR {
      for (std::size_t i = 0; i < a_.size; ++i) {
        for (std::size_t n = 0; n < kVectors; ++n)
          hn::StoreU(LoadKeys<decltype(element), true>(halves, n, i), d, to + i * kPanelKeys + n * kLanes);
      }
    });
  }

  HWY_ATTR void LocateValues(const AttentionSegment& segment, std::size_t j, std::size_t count, bool wanted) {
    const AttentionSource& values = segment.values;
    const std::size_t token = begin_ + j * kPanelKeys, at = token / kPanelKeys;
    if (direct_) return PointAtBlocks(values, at, a_.value_offset, half_values_ + 2 * j);
    if (values.blocks != nullptr && a_.element == Element::kF32)
      return PointAtBlocks(values, at, a_.value_offset, value_blocks_ + 2 * j);
    const float* panel = values.base + token * values.stride;
    if (values.blocks == nullptr && width_ == a_.value_size && a_.rows.size() <= kBlockRows) {
      value_stride_ = values.stride;
    } else {
      float* copy = values_ + j * kPanelKeys * width_;
      if (wanted && values.blocks != nullptr) {
        WidenValues(segment, at, count, copy);
      } else if (wanted) {
        for (std::size_t t = 0; t < count; ++t) CopyValue(panel + t * values.stride, copy + t * width_);
      }
      panel = copy;
      value_stride_ = width_;
    }
    value_blocks_[2 * j] = panel;
    value_blocks_[2 * j + 1] = count > kBlockKeys ? panel + kBlockKeys * value_stride_ : panel;
  }

  // What is read beyond a row belongs to the next one, or is the padding of the block.
  HWY_ATTR void WidenValues(const AttentionSegment& segment, std::size_t panel, std::size_t count, float* to) const {
    const F d;
    const std::uint16_t* halves[2];
    PointAtHalves(segment, segment.values, panel, a_.value_offset, a_.value_size, halves);
    WithHalves([&](auto element) HWY_ATTR {
      for (std::size_t t = 0; t < count; ++t, to += width_) {
        const std::uint16_t* from = halves[t / kBlockKeys] + t % kBlockKeys * a_.value_size;
        for (std::size_t e = 0; e < width_; e += kLanes) hn::StoreU(decltype(element)::Load(from + e), d, to + e);
      }
    });
  }

  HWY_ATTR void CopyValue(const float* from, float* to) const {
    const F d;
    std::size_t e = 0;
    for (; e + kLanes <= a_.value_size; e += kLanes) hn::StoreU(hn::LoadU(d, from + e), d, to + e);
    for (; e < a_.value_size; ++e) to[e] = from[e];
  }

  const AttentionTask& a_;
  std::size_t width_;  // E rounded up
  float *keys_ = nullptr, *values_ = nullptr;
  std::size_t begin_ = 0, end_ = 0;  // keys of the chunk
  bool in_blocks_ = false;           // keys; else panels in one piece
  const float* key_blocks_[2 * kPanels];
  const float* value_blocks_[2 * kPanels];
  const float* next_blocks_[2 * kPanels];  // keys of the next chunk
  bool direct_ = false;                    // one row reads halves where they are
  const std::uint16_t* half_keys_[2 * kPanels];
  const std::uint16_t* half_values_[2 * kPanels];
  const std::uint16_t* next_half_keys_[2 * kPanels];
  std::size_t value_stride_ = 0;
};

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
