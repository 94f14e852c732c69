// A task chunk by chunk of keys: scores, weights relative to the highest so far, results.
// Compiled once per instruction set, included by attention_simd.cc only.
#if defined(WEFT_ATTENTION_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_ATTENTION_SIMD_INL_H
#undef WEFT_ATTENTION_SIMD_INL_H
#else
#define WEFT_ATTENTION_SIMD_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "runtime/kernels/attention_micro-inl.h"
#include "runtime/kernels/attention_simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

constexpr std::size_t kPanels = kChunkKeys / kPanelKeys;
constexpr std::size_t kStripRows = 32;  // rows between two passes over a chunk: their scores stay in the first cache
constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.44269504088896341f;

class Attender {
 public:
  explicit HWY_ATTR Attender(const AttentionTask& task) : a_(task), width_(RoundUp(task.value_size)) {
    float* free = a_.scratch;
    const auto take = [&](std::size_t count) HWY_ATTR {
      float* taken = free;
      free += count;
      return taken;
    };
    const std::size_t rows = (a_.rows.size() + kBlockRows - 1) / kBlockRows * kBlockRows;
    sums_ = take(a_.rows.size() * kPanelKeys);
    results_ = take(rows * width_);
    tile_results_ = take(kBlockRows * width_);
    scores_ = take(rows * kChunkKeys);
    tile_scores_ = take(kBlockRows * kChunkKeys);
    values_ = take(kChunkKeys * width_);
    queries_ = take(rows * a_.size);
    tile_queries_ = take(kBlockRows * a_.size);
    keys_ = take(kChunkKeys * a_.size);
    maxima_ = take(a_.rows.size());
    std::fill(sums_, sums_ + a_.rows.size() * kPanelKeys, 0.0f);
    std::fill(results_, results_ + rows * width_, 0.0f);
    std::fill(maxima_, maxima_ + a_.rows.size(), kLowest);
    whole_ = a_.segments.size() == 1 && a_.segments[0].rows.empty();
  }

  HWY_ATTR void Run() {
    if (whole_) {
      for (std::size_t r = 0; r < a_.rows.size(); r += kBlockRows) PackQueries(r, queries_ + r * a_.size);
    }
    for (begin_ = a_.begin; begin_ < a_.end; begin_ += kChunkKeys) {
      end_ = HWY_MIN(begin_ + kChunkKeys, a_.end);
      if (!SetRanges(0, a_.rows.size())) continue;
      whole_ ? RunWhole() : RunSegments();
    }
    for (std::size_t r = 0; r < a_.rows.size(); ++r) Emit(r);
  }

 private:
  // Panels of the chunk that some row of [from, to) looks at; false for none.
  HWY_ATTR bool SetRanges(std::size_t from, std::size_t to) {
    std::size_t first = end_, last = begin_;
    for (std::size_t r = from; r < to; ++r) {
      if (a_.rows[r].first >= a_.rows[r].last) continue;
      first = HWY_MIN(first, a_.rows[r].first);
      last = HWY_MAX(last, a_.rows[r].last);
    }
    first = HWY_MAX(first, begin_);
    last = HWY_MIN(last, end_);
    if (first >= last) return false;
    first_panel_ = (first - begin_) / kPanelKeys;
    last_panel_ = (last - begin_ + kPanelKeys - 1) / kPanelKeys;
    return true;
  }

  HWY_ATTR void PackQueries(std::size_t row, float* to) const {
    const std::size_t count = HWY_MIN(kBlockRows, a_.rows.size() - row);
    for (std::size_t r = 0; r < count; ++r) {
      const float* q = a_.rows[row + r].q;
      for (std::size_t i = 0; i < a_.size; ++i) to[i * kBlockRows + r] = q[i];
    }
  }

  // Points key_panels_ and value_panels_ at panels [first, last) of the chunk, packing what is not in blocks.
  HWY_ATTR void Locate(const AttentionSegment& segment, std::size_t first, std::size_t last) {
    const std::size_t chunk = begin_ / kPanelKeys;
    for (std::size_t j = first; j < last; ++j) {
      const std::size_t token = begin_ + j * kPanelKeys;
      const std::size_t count = HWY_MIN(kPanelKeys, end_ - token);
      if (segment.keys.blocks != nullptr) {
        key_panels_[j] = segment.keys.blocks[chunk + j] + a_.key_offset;
        const std::size_t next = HWY_MIN(chunk + j + kPanels, segment.last - 1);
        next_panels_[j] = segment.keys.blocks[next] + a_.key_offset;
      } else {
        float* panel = keys_ + j * kPanelKeys * a_.size;
        if (count < kPanelKeys) std::fill(panel, panel + kPanelKeys * a_.size, 0.0f);
        StoreKeys(segment.keys.base + token * segment.keys.stride, segment.keys.stride, count, a_.size, panel, 0);
        key_panels_[j] = next_panels_[j] = panel;
      }
      if (segment.values.blocks != nullptr) {
        value_panels_[j] = segment.values.blocks[chunk + j] + a_.value_offset;
        value_stride_ = a_.value_size;
      } else if (width_ == a_.value_size && a_.rows.size() <= kBlockRows) {
        value_panels_[j] = segment.values.base + token * segment.values.stride;
        value_stride_ = segment.values.stride;
      } else {
        float* panel = values_ + j * kPanelKeys * width_;
        for (std::size_t t = 0; t < count; ++t) {
          std::memcpy(panel + t * width_, segment.values.base + (token + t) * segment.values.stride,
                      a_.value_size * sizeof(float));
        }
        value_panels_[j] = panel;
        value_stride_ = width_;
      }
    }
  }

  HWY_ATTR void Score(const float* q, std::size_t rows, std::size_t first, std::size_t last, float* scores) const {
    WithRows<kBlockRows>(rows, [&](auto constant) HWY_ATTR {
      ScoreRows<constant.value>(q, key_panels_ + first, value_panels_ + first, last - first, a_.size,
                                scores + first * kPanelKeys);
    });
  }
  HWY_ATTR void Add(const float* weights, std::size_t rows, std::size_t first, std::size_t last, float* results) const {
    const std::size_t tokens = HWY_MIN(last * kPanelKeys, end_ - begin_) - first * kPanelKeys;
    WithRows<kBlockRows>(rows, [&](auto constant) HWY_ATTR {
      AddRows<constant.value>(weights + first * kPanelKeys, value_panels_ + first, next_panels_ + first, value_stride_,
                              tokens, results, width_);
    });
  }

  // All rows read the same keys: strips of them, so that what a strip needs stays in the first cache.
  HWY_ATTR void RunWhole() {
    Locate(a_.segments[0], first_panel_, last_panel_);
    for (std::size_t strip = 0; strip < a_.rows.size(); strip += kStripRows) {
      const std::size_t end = HWY_MIN(strip + kStripRows, a_.rows.size());
      for (const bool scoring : {true, false}) {
        for (std::size_t r = strip; r < end; r += kBlockRows) {
          const std::size_t rows = HWY_MIN(kBlockRows, end - r);
          if (!SetRanges(r, r + rows)) continue;
          if (scoring) {
            Score(queries_ + r * a_.size, rows, first_panel_, last_panel_, scores_ + r * kChunkKeys);
            for (std::size_t i = r; i < r + rows; ++i) Weigh(i);
          } else {
            Add(scores_ + r * kChunkKeys, rows, first_panel_, last_panel_, results_ + r * width_);
          }
        }
      }
    }
  }

  // body(segment, its panels of this chunk, some of its rows)
  template <class Body>
  HWY_ATTR void ForEachPart(const Body& body) {
    const std::size_t chunk = begin_ / kPanelKeys;
    for (const AttentionSegment& segment : a_.segments) {
      const std::size_t first = HWY_MAX(segment.first, chunk + first_panel_);
      const std::size_t last = HWY_MIN(segment.last, chunk + last_panel_);
      if (first >= last) continue;
      Locate(segment, first - chunk, last - chunk);
      for (std::size_t r = 0; r < segment.rows.size(); r += kBlockRows) {
        body(first - chunk, last - chunk, segment.rows.subspan(r, HWY_MIN(kBlockRows, segment.rows.size() - r)));
      }
    }
  }

  HWY_ATTR void RunSegments() {
    ForEachPart([&](std::size_t first, std::size_t last, std::span<const std::uint32_t> rows) HWY_ATTR {
      for (std::size_t r = 0; r < rows.size(); ++r) {
        const float* q = a_.rows[rows[r]].q;
        for (std::size_t i = 0; i < a_.size; ++i) tile_queries_[i * kBlockRows + r] = q[i];
      }
      Score(tile_queries_, rows.size(), first, last, tile_scores_);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        std::memcpy(scores_ + rows[r] * kChunkKeys + first * kPanelKeys,
                    tile_scores_ + r * kChunkKeys + first * kPanelKeys, (last - first) * kPanelKeys * sizeof(float));
      }
    });
    for (std::size_t r = 0; r < a_.rows.size(); ++r) Weigh(r);
    ForEachPart([&](std::size_t first, std::size_t last, std::span<const std::uint32_t> rows) HWY_ATTR {
      for (std::size_t r = 0; r < rows.size(); ++r) {
        std::memcpy(tile_scores_ + r * kChunkKeys + first * kPanelKeys,
                    scores_ + rows[r] * kChunkKeys + first * kPanelKeys, (last - first) * kPanelKeys * sizeof(float));
        std::memcpy(tile_results_ + r * width_, results_ + rows[r] * width_, width_ * sizeof(float));
      }
      Add(tile_scores_, rows.size(), first, last, tile_results_);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        std::memcpy(results_ + rows[r] * width_, tile_results_ + r * width_, width_ * sizeof(float));
      }
    });
  }

  // Turns a row's scores of the chunk into weights, relative to the highest score so far.
  HWY_ATTR void Weigh(std::size_t r) {
    const F d;
    const AttentionRow& row = a_.rows[r];
    float* scores = scores_ + r * kChunkKeys;
    const std::size_t from = first_panel_ * kPanelKeys, to = last_panel_ * kPanelKeys;
    const std::size_t first = HWY_MAX(row.first, begin_) - begin_;
    const std::size_t last = HWY_MIN(row.last, end_) - HWY_MIN(begin_, HWY_MIN(row.last, end_));
    if (first >= last) {
      std::fill(scores + from, scores + to, 0.0f);
      return;
    }
    if (!row.plain) Transform(row, first, last, scores);
    const float log2_scale = Log2Scale(row);
    std::fill(scores + from, scores + first, kLowest);
    std::fill(scores + last, scores + to, kLowest);
    V highest = hn::Set(d, maxima_[r]);
    for (std::size_t t = from; t < to; t += kLanes) highest = hn::Max(highest, hn::LoadU(d, scores + t));
    const float maximum = hn::ReduceMax(d, highest);
    // With nothing but -inf so far any finite reference does: 2^-inf is 0.
    const float reference = maximum == kLowest ? 0.0f : maximum;
    const V factor = hn::Set(d, log2_scale), shift = hn::Set(d, reference);
    V total[kVectors];
    for (std::size_t n = 0; n < kVectors; ++n) total[n] = hn::LoadU(d, sums_ + r * kPanelKeys + n * kLanes);
    if (maximum != maxima_[r] && maxima_[r] != kLowest) {
      const V correction = hn::Set(d, Exp2((maxima_[r] - reference) * log2_scale));
      for (std::size_t n = 0; n < kVectors; ++n) total[n] = hn::Mul(total[n], correction);
      float* results = results_ + r * width_;
      for (std::size_t e = 0; e < width_; e += kLanes) {
        hn::StoreU(hn::Mul(hn::LoadU(d, results + e), correction), d, results + e);
      }
    }
    maxima_[r] = maximum;
    for (std::size_t t = from; t < to; t += kPanelKeys) {
      HWY_UNROLL(4)
      for (std::size_t n = 0; n < kVectors; ++n) {
        float* at = scores + t + n * kLanes;
        const V weight = Exp2(hn::Mul(hn::Sub(hn::LoadU(d, at), shift), factor));
        hn::StoreU(weight, d, at);
        total[n] = hn::Add(total[n], weight);
      }
    }
    for (std::size_t n = 0; n < kVectors; ++n) hn::StoreU(total[n], d, sums_ + r * kPanelKeys + n * kLanes);
  }

  // Scale, soft cap, masks and slopes; first and last within the chunk.
  HWY_ATTR void Transform(const AttentionRow& row, std::size_t first, std::size_t last, float* scores) const {
    const F d;
    const V fill = hn::Set(d, row.fill), zero = hn::Zero(d), lowest = hn::Set(d, kLowest);
    const float from_position = static_cast<float>(begin_) - row.position;
    for (std::size_t t = first / kLanes * kLanes; t < last; t += kLanes) {
      const std::size_t key = begin_ + t;
      const std::size_t lanes = HWY_MIN(kLanes, end_ - key);
      V x = hn::Mul(hn::LoadU(d, scores + t), hn::Set(d, a_.scale));
      if (a_.softcap > 0) {
        const V y = hn::Mul(x, hn::Set(d, 1.0f / a_.softcap));
        x = hn::Mul(hn::IfThenElse(hn::IsNaN(y), y, hn::Tanh(d, y)), hn::Set(d, a_.softcap));
      }
      if (row.mask != nullptr) {
        x = hn::Add(x, a_.mask_key_stride == 0 ? hn::Set(d, *row.mask) : hn::LoadN(d, row.mask + key, lanes));
      } else if (row.mask_bits != nullptr) {
        x = hn::Add(x, hn::IfThenElse(Nonzero(row.mask_bits, a_.mask_key_stride, key, lanes), zero, lowest));
      }
      const V at = hn::Iota(d, static_cast<float>(t));
      if (row.slope != 0) x = hn::MulAdd(hn::Set(d, row.slope), hn::Add(at, hn::Set(d, from_position)), x);
      const float allowed = static_cast<float>(row.allowed) - static_cast<float>(begin_);
      const float forbidden = static_cast<float>(row.forbidden) - static_cast<float>(begin_);
      auto attended = hn::And(hn::Ge(at, hn::Set(d, allowed)), hn::Lt(at, hn::Set(d, forbidden)));
      if (row.padding != nullptr) {
        const auto kept = Nonzero(row.padding, 1, key, lanes);
        if (a_.fill_per_condition) {
          x = hn::Add(x, hn::IfThenElse(kept, zero, fill));
        } else {
          attended = hn::And(attended, kept);
        }
      }
      x = hn::Add(x, hn::IfThenElse(attended, zero, fill));
      hn::StoreU(x, d, scores + t);
    }
  }

  static HWY_ATTR hn::Mask<F> Nonzero(const std::uint8_t* bits, std::size_t stride, std::size_t key,
                                      std::size_t lanes) {
    const F d;
    const hn::RebindToUnsigned<F> du;
    const hn::Rebind<std::uint8_t, F> db;
    const auto bytes = stride == 0 ? hn::Set(db, *bits) : hn::LoadN(db, bits + key, lanes);
    return hn::RebindMask(d, hn::Ne(hn::PromoteTo(du, bytes), hn::Zero(du)));
  }

  // From scores to powers of 2.
  float Log2Scale(const AttentionRow& row) const { return row.plain ? a_.scale * kLog2E : kLog2E; }

  HWY_ATTR void Emit(std::size_t r) const {
    const AttentionRow& row = a_.rows[r];
    float sum = 0;
    for (std::size_t i = 0; i < kPanelKeys; ++i) sum += sums_[r * kPanelKeys + i];
    const float head[2] = {row.plain ? maxima_[r] * a_.scale : maxima_[r], sum};
    const float* results = results_ + r * width_;
    if (row.partial == nullptr) return FinishRow(a_, row, head, results);
    std::copy(head, head + 2, row.partial);
    std::memcpy(row.partial + kPanelKeys, results, width_ * sizeof(float));
  }

 public:
  // head: maximum and sum. Divides results by the sum, and writes them.
  static HWY_ATTR void FinishRow(const AttentionTask& a, const AttentionRow& row, const float* head,
                                 const float* results) {
    const F d;
    float sum = head[1], share = 1;
    if (a.has_sinks) {
      const float maximum = std::isnan(row.sink) ? row.sink : HWY_MAX(head[0], row.sink);
      const float reference = maximum == kLowest ? 0.0f : maximum;
      share = head[0] == kLowest ? 0.0f : Exp2((head[0] - reference) * kLog2E);
      sum = sum * share + Exp2((row.sink - reference) * kLog2E);
    }
    const bool nothing = sum == 0.0f;
    if (nothing || (a.zero_masked_rows && std::isnan(sum))) {
      std::fill(row.out, row.out + a.value_size, a.zero_masked_rows ? 0.0f : std::numeric_limits<float>::quiet_NaN());
      return;
    }
    const V factor = hn::Set(d, share / sum);
    std::size_t e = 0;
    for (; e + kLanes <= a.value_size; e += kLanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, results + e), factor), d, row.out + e);
    }
    if (e < a.value_size) hn::StoreN(hn::Mul(hn::LoadU(d, results + e), factor), d, row.out + e, a.value_size - e);
  }

 private:
  const AttentionTask& a_;
  std::size_t width_;  // E rounded up
  float *sums_, *results_, *tile_results_, *scores_, *tile_scores_, *values_, *queries_, *tile_queries_, *keys_;
  float* maxima_;
  bool whole_ = false;
  std::size_t begin_ = 0, end_ = 0;               // keys of the chunk
  std::size_t first_panel_ = 0, last_panel_ = 0;  // of the chunk
  const float* key_panels_[kPanels];
  const float* value_panels_[kPanels];
  const float* next_panels_[kPanels];  // keys of the next chunk
  std::size_t value_stride_ = 0;
};

void Attend(const AttentionTask& task) { Attender(task).Run(); }

void FinishAttention(const AttentionTask& task, const AttentionRow& row, const float* partials, std::size_t count) {
  const F d;
  const std::size_t width = RoundUp(task.value_size), stride = width + kPanelKeys;
  float head[2] = {kLowest, 0};
  for (std::size_t p = 0; p < count; ++p) head[0] = HWY_MAX(head[0], partials[p * stride]);
  const float reference = head[0] == kLowest ? 0.0f : head[0];
  float* results = task.scratch;
  std::fill(results, results + width, 0.0f);
  for (std::size_t p = 0; p < count; ++p) {
    const float* partial = partials + p * stride;
    const float weight = partial[0] == kLowest && partial[1] == 0.0f ? 0.0f : Exp2((partial[0] - reference) * kLog2E);
    head[1] += partial[1] * weight;
    for (std::size_t e = 0; e < width; e += kLanes) {
      const V part = hn::LoadU(d, partial + kPanelKeys + e);
      hn::StoreU(hn::MulAdd(part, hn::Set(d, weight), hn::LoadU(d, results + e)), d, results + e);
    }
  }
  Attender::FinishRow(task, row, head, results);
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
