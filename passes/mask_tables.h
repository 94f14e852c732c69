// Constant tables that masks are cut from: [1, 1, 1024, 1024] of zeros and ones, causal or a window.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "graph/dim.h"
#include "graph/tensor.h"

namespace weft {

// A matrix (axes before the last two are 1) whose element i, j depends on j - i alone and changes at few places.
struct BandTable {
  DType dtype = DType::kBool;
  Extents shape;
  std::vector<std::int64_t> changes;  // sorted: values[k] holds for changes[k - 1] <= j - i < changes[k]
  std::vector<double> values;         // one more than changes
};

// Small enough that samples of masks see all of it, or known beyond what they see: a count 0, 1, 2, ..., or one row
// for each head of numbers in equal steps.
bool is_covered_by_samples(const Tensor& tensor, const Dim& heads);
std::optional<BandTable> read_band_table(const Tensor& tensor);
// The same with its changes elsewhere and at most 64 rows and columns.
Tensor make_band_table(const BandTable& table, const std::function<std::int64_t(std::int64_t)>& moved);

}  // namespace weft
