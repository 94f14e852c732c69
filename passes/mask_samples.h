// What the sub-graph of an attention mask computes, found by running it on small sizes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft {

// Where a mask is used.
struct MaskUse {
  ValueId mask;                     // bool, or float: added to the scores
  Dim batch, heads, queries, keys;  // of the scores [B, H, S, T]
  bool excludes = false;            // a bool mask says which keys may not be attended
};

// Integer constants of the sub-graph that may be thresholds of positions, window sizes above all. They are
// replaced by small numbers so that small sizes show their effect: numbers that lie close together keep
// their distances.
struct Threshold {
  std::int64_t value = 0;  // in the graph, its magnitude
  std::int64_t small = 0;  // what stood for it in a sample
};

// One batch row of one run, and one head where heads differ.
struct MaskSample {
  std::int64_t queries = 0, keys = 0, head = 0;
  std::vector<double> padding;  // contents of the source for this batch row, [T]; empty without source
  std::vector<double> values;   // [S, T]; of a bool mask: 1 where a key may be attended, else 0
  std::vector<Threshold> thresholds;
};

struct MaskSamples {
  ValueId source;               // graph input [B, T] that the mask depends on; invalid when it depends on sizes alone
  bool source_is_exact = true;  // false: it may have more columns than there are keys
  bool source_is_integer = false;
  bool is_bool = false;
  bool is_rounded = false;  // f16 or bf16 on the way: what larger sizes give is not that of smaller ones
  std::int64_t heads = 1;   // of which there are samples: 1 where all are equal
  std::vector<MaskSample> samples;
};

// nullopt, with the reason, when the mask depends on anything but sizes and one input [B, T], or cannot be run apart
// from the rest of the graph.
std::optional<MaskSamples> sample_mask(const Graph& graph, const MaskUse& use, std::string& reason);

}  // namespace weft
