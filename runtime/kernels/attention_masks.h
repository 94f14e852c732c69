// The masks of attention: what a query row may look at, and what is added to its scores.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/op_def.h"
#include "runtime/kernels/attention_work.h"
#include "runtime/kernels/kernel.h"

namespace weft::runtime {

// Attributes of the operator (docs/operators.md).
struct AttentionMaskSettings {
  bool causal = false;
  bool queries_at_end = false;  // query s is at key position s + T - S, else at s
  std::int64_t left = -1, right = -1, chunk = 0;
  double softcap = 0;
  float fill = 0;
  bool fill_per_condition = false;

  AttentionMaskSettings() = default;
  explicit AttentionMaskSettings(const AttributeReader& attributes);
};

// Keys before a query that an Attention looks at at most; -1: all.
std::int64_t attention_window(const Node& node);

class AttentionMasks {
 public:
  // Whether the kernel reads the node's masks in their dtypes.
  static bool takes(const Graph& graph, const Node& node);

  // Error kInvalidModel when masks do not fit.
  void check(const BindContext& context, std::int64_t batch, std::int64_t heads) const;
  // Reads this run's masks. Keeps its memory from one call to the next.
  void prepare(const RunContext& context, const AttentionShape& shape);
  // Fills in the masks of query s of head h.
  void apply(simd::AttentionRow& row, const AttentionMaskSettings& settings, float scale, std::int64_t b,
             std::int64_t h, std::int64_t s) const;

  bool has_sinks() const { return sinks_ != nullptr; }
  float sink(std::int64_t h) const { return sinks_ != nullptr ? sinks_[h] : 0; }
  std::size_t key_stride() const { return static_cast<std::size_t>(strides_[3]); }

 private:
  // Key padding of one batch row.
  struct Padding {
    std::int64_t first = 0, last = 0;  // attended keys are within [first, last)
    bool whole = true;                 // and are all of them
  };

  void prepare_mask(const Tensor& mask, const AttentionShape& shape);
  void prepare_padding(const Tensor& padding, const AttentionShape& shape);
  // Is a key in [first, last) attended by padding and by the mask, whose row begins at `offset`?
  bool attends(const Padding& padding, const std::uint8_t* bits, std::int64_t offset, std::int64_t first,
               std::int64_t last) const;

  AttentionShape shape_;
  const float* mask_ = nullptr;
  const std::uint8_t* mask_bits_ = nullptr;
  std::int64_t strides_[4] = {0, 0, 0, 1};  // of the mask, broadcast to [B, H, S, T]
  std::vector<std::uint8_t> padding_;       // [B, T]
  std::vector<Padding> rows_;               // [B], empty without padding
  const float* slopes_ = nullptr;
  const float* sinks_ = nullptr;
};

}  // namespace weft::runtime
