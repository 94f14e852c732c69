// What a mask means, told from samples of it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "passes/mask_samples.h"

namespace weft {

enum class PaddingTest : std::uint8_t { kNone, kNotZero, kOne, kPositive, kZero };

// Positions are those of Attention (docs/operators.md): a query's is counted from the first or the last key.
struct MaskClass {
  bool queries_at_end = false;
  bool is_causal = false;
  std::int64_t left_window = -1, right_window = -1, chunk = 0;
  PaddingTest padding = PaddingTest::kNone;  // keys of the source that may be attended
  double fill = 0;                           // added where a key is excluded; -inf of bool masks; 0: none is
  bool fill_per_condition = false;           // added twice where both exclude
  std::vector<double> slopes;                // of each head: adds slope * (t - p), and nothing of the above

  bool by_position() const { return is_causal || left_window >= 0 || right_window >= 0 || chunk > 0; }
};

// The class that gives every number of every sample exactly, if there is one; where the source holds integers, if need
// be, only of those samples in which it holds ones and zeros. Slopes are told up to what softmax does not see,
// a number per row.
std::optional<MaskClass> classify_mask(const MaskSamples& samples, std::string& reason);

}  // namespace weft
