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

#include "hwy/highway.h"
#include "runtime/kernels/attention_masking-inl.h"
#include "runtime/kernels/attention_panels-inl.h"
#include "runtime/kernels/attention_simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

constexpr std::size_t kStripRows = 32;  // rows between two passes over a chunk: their scores stay in the first cache
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kOnes[] = {1, 1, 1, 1, 1, 1, 1, 1};
static_assert(std::size(kOnes) >= kBlockRows);

class Attender {
 public:
  explicit HWY_ATTR Attender(const AttentionTask& task)
      : a_(task),
        width_(RoundUp(task.value_size)),
        whole_(a_.segments.size() == 1 && a_.segments[0].rows.empty()),
        panels_(a_, whole_) {
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
    float* const values = take(kChunkKeys * width_);
    queries_ = take(rows * a_.size);
    tile_queries_ = take(kBlockRows * a_.size);
    float* const keys = take(kChunkKeys * a_.size);
    maxima_ = take(a_.rows.size());
    corrections_ = take(a_.rows.size());
    std::fill(sums_, sums_ + a_.rows.size() * kPanelKeys, 0.0f);
    std::fill(results_, results_ + rows * width_, 0.0f);
    std::fill(maxima_, maxima_ + a_.rows.size(), kLowest);
    panels_.SetRoom(keys, values);
  }

  HWY_ATTR void Run() {
    if (whole_) {
      for (std::size_t r = 0; r < a_.rows.size(); r += kBlockRows) PackQueries(r, queries_ + r * a_.size);
    }
    for (begin_ = a_.begin; begin_ < a_.end; begin_ += kChunkKeys) {
      end_ = HWY_MIN(begin_ + kChunkKeys, a_.end);
      panels_.SetChunk(begin_, end_);
      if (!SetRanges(0, a_.rows.size())) continue;
      whole_ ? RunWhole() : RunSegments();
    }
    for (std::size_t r = 0; r < a_.rows.size(); ++r) {
      const float* const later = a_.rows[HWY_MIN(r + kBlockRows, a_.rows.size() - 1)].out;
      for (std::size_t e = 0; e < a_.value_size; e += 64 / sizeof(float)) __builtin_prefetch(later + e, 1);
      Emit(r);
    }
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
    for (std::size_t r = row + count; r < HWY_MIN(row + count + kBlockRows, a_.rows.size()); ++r) {
      PrefetchRow(a_.rows[r].q, a_.size);
    }
    // Lanes beyond the last row repeat it; nobody reads what comes of them.
    const auto query = [&](std::size_t r) { return a_.rows[row + HWY_MIN(r, count - 1)].q; };
    TransposeRows(hn::CappedTag<float, kBlockRows>(), query, a_.size, to, kBlockRows);
  }

  // All rows read the same keys: strips of them, so that what a strip needs stays in the first cache.
  HWY_ATTR void RunWhole() {
    panels_.Locate(a_.segments[0], first_panel_, last_panel_, {true, true});
    for (std::size_t strip = 0; strip < a_.rows.size(); strip += kStripRows) {
      const std::size_t end = HWY_MIN(strip + kStripRows, a_.rows.size());
      for (const bool scoring : {true, false}) {
        for (std::size_t r = strip; r < end; r += kBlockRows) {
          const std::size_t rows = HWY_MIN(kBlockRows, end - r);
          if (!SetRanges(r, r + rows)) continue;
          if (scoring) {
            panels_.Score(queries_ + r * a_.size, rows, first_panel_, last_panel_, scores_ + r * kChunkKeys);
            Weigh(r, rows);
          } else {
            panels_.Add(scores_ + r * kChunkKeys, rows, first_panel_, last_panel_, corrections_ + r,
                        results_ + r * width_);
          }
        }
      }
    }
  }

  // body(segment, its panels of this chunk, some of its rows)
  template <class Body>
  HWY_ATTR void ForEachPart(Reads reads, const Body& body) {
    const std::size_t chunk = begin_ / kPanelKeys;
    for (const AttentionSegment& segment : a_.segments) {
      const std::size_t first = HWY_MAX(segment.first, chunk + first_panel_);
      const std::size_t last = HWY_MIN(segment.last, chunk + last_panel_);
      if (first >= last) continue;
      panels_.Locate(segment, first - chunk, last - chunk, reads);
      for (std::size_t r = 0; r < segment.rows.size(); r += kBlockRows) {
        body(first - chunk, last - chunk, segment.rows.subspan(r, HWY_MIN(kBlockRows, segment.rows.size() - r)));
      }
    }
  }

  HWY_ATTR void RunSegments() {
    ForEachPart({true, false}, [&](std::size_t first, std::size_t last, std::span<const std::uint32_t> rows) HWY_ATTR {
      for (std::size_t r = 0; r < rows.size(); ++r) {
        const float* q = a_.rows[rows[r]].q;
        for (std::size_t i = 0; i < a_.size; ++i) tile_queries_[i * kBlockRows + r] = q[i];
      }
      panels_.Score(tile_queries_, rows.size(), first, last, tile_scores_);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        std::memcpy(scores_ + rows[r] * kChunkKeys + first * kPanelKeys,
                    tile_scores_ + r * kChunkKeys + first * kPanelKeys, (last - first) * kPanelKeys * sizeof(float));
      }
    });
    for (std::size_t r = 0; r < a_.rows.size(); r += kBlockRows) Weigh(r, HWY_MIN(kBlockRows, a_.rows.size() - r));
    for (std::size_t r = 0; r < a_.rows.size(); ++r) Correct(r);
    ForEachPart({false, true}, [&](std::size_t first, std::size_t last, std::span<const std::uint32_t> rows) HWY_ATTR {
      for (std::size_t r = 0; r < rows.size(); ++r) {
        std::memcpy(tile_scores_ + r * kChunkKeys + first * kPanelKeys,
                    scores_ + rows[r] * kChunkKeys + first * kPanelKeys, (last - first) * kPanelKeys * sizeof(float));
        std::memcpy(tile_results_ + r * width_, results_ + rows[r] * width_, width_ * sizeof(float));
      }
      panels_.Add(tile_scores_, rows.size(), first, last, kOnes, tile_results_);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        std::memcpy(results_ + rows[r] * width_, tile_results_ + r * width_, width_ * sizeof(float));
      }
    });
  }

  // Turns the scores that a block of rows has of the chunk into weights, relative to each row's highest score so far.
  // What the row's results have been until now is to be multiplied by corrections_.
  HWY_ATTR void Weigh(std::size_t first_row, std::size_t count) {
    const F d;
    HWY_ALIGN float scales[kPanelKeys], old[kPanelKeys], references[kPanelKeys], corrections[kPanelKeys];
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t r = first_row + i;
      old[i] = maxima_[r];
      scales[i] = Log2Scale(a_.rows[r]);
      maxima_[r] = Highest(r);
      // With nothing but -inf so far any finite reference does: 2^-inf is 0.
      references[i] = maxima_[r] == kLowest ? 0.0f : maxima_[r];
    }
    std::fill(scales + count, scales + kPanelKeys, 0.0f);
    std::fill(old + count, old + kPanelKeys, 0.0f);
    std::fill(references + count, references + kPanelKeys, 0.0f);
    for (std::size_t i = 0; i < count; i += kLanes) {
      const V below = hn::Sub(hn::Load(d, old + i), hn::Load(d, references + i));
      hn::Store(Exp2(hn::Mul(below, hn::Load(d, scales + i))), d, corrections + i);
    }
    for (std::size_t i = 0; i < count; ++i) {
      corrections_[first_row + i] = corrections[i];
      AddWeights(first_row + i, references[i], scales[i], corrections[i]);
    }
  }

  // Of the row's scores, those of this chunk and before; keys that it does not look at score -inf.
  HWY_ATTR float Highest(std::size_t r) const {
    const F d;
    const AttentionRow& row = a_.rows[r];
    float* scores = scores_ + r * kChunkKeys;
    const std::size_t from = first_panel_ * kPanelKeys, to = last_panel_ * kPanelKeys;
    const std::size_t first = HWY_MAX(row.first, begin_) - begin_;
    const std::size_t last = HWY_MIN(row.last, end_) - HWY_MIN(begin_, HWY_MIN(row.last, end_));
    if (first >= last) {
      std::fill(scores + from, scores + to, kLowest);
      return maxima_[r];
    }
    if (!row.plain) ApplyMasks(a_, row, begin_, end_, first, last, scores);
    if (from < first) std::fill(scores + from, scores + first, kLowest);
    if (last < to) std::fill(scores + last, scores + to, kLowest);
    V highest = hn::Set(d, maxima_[r]);
    for (std::size_t t = from; t < to; t += kLanes) highest = hn::Max(highest, hn::LoadU(d, scores + t));
    return hn::ReduceMax(d, highest);
  }

  HWY_ATTR void AddWeights(std::size_t r, float reference, float log2_scale, float correction) const {
    const F d;
    float* scores = scores_ + r * kChunkKeys;
    float* sums = sums_ + r * kPanelKeys;
    const V factor = hn::Set(d, log2_scale), shift = hn::Set(d, reference), corrected = hn::Set(d, correction);
    V total[kVectors];
    for (std::size_t n = 0; n < kVectors; ++n) total[n] = hn::Mul(hn::LoadU(d, sums + n * kLanes), corrected);
    for (std::size_t t = first_panel_ * kPanelKeys; t < last_panel_ * kPanelKeys; t += kPanelKeys) {
      HWY_UNROLL(4)
      for (std::size_t n = 0; n < kVectors; ++n) {
        float* at = scores + t + n * kLanes;
        const V weight = Exp2(hn::Mul(hn::Sub(hn::LoadU(d, at), shift), factor));
        hn::StoreU(weight, d, at);
        total[n] = hn::Add(total[n], weight);
      }
    }
    for (std::size_t n = 0; n < kVectors; ++n) hn::StoreU(total[n], d, sums + n * kLanes);
  }

  HWY_ATTR void Correct(std::size_t r) const {
    const F d;
    float* results = results_ + r * width_;
    const V correction = hn::Set(d, corrections_[r]);
    for (std::size_t e = 0; e < width_; e += kLanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, results + e), correction), d, results + e);
    }
  }

  // From scores to powers of 2.
  float Log2Scale(const AttentionRow& row) const { return row.plain ? a_.scale * kLog2E : kLog2E; }

  HWY_ATTR void Emit(std::size_t r) const {
    const AttentionRow& row = a_.rows[r];
    float parts[kPanelKeys];
    std::copy_n(sums_ + r * kPanelKeys, kPanelKeys, parts);
    for (std::size_t half = kPanelKeys / 2; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) parts[i] += parts[half + i];
    }
    const float sum = parts[0];
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
  float *sums_, *results_, *tile_results_, *scores_, *tile_scores_, *queries_, *tile_queries_;
  float *maxima_, *corrections_;
  bool whole_;  // all rows read the same keys
  ChunkPanels panels_;
  std::size_t begin_ = 0, end_ = 0;               // keys of the chunk
  std::size_t first_panel_ = 0, last_panel_ = 0;  // of the chunk
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
