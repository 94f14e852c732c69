// The part of a graph that makes an attention mask.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "passes/mask_samples.h"
#include "passes/mask_tables.h"

namespace weft {

constexpr std::int64_t kLeastThreshold = 8;  // smaller ones show in samples as they are

// The nodes behind a value down to sizes, constants and graph inputs.
struct Cone {
  std::vector<NodeId> nodes;  // in execution order
  std::set<ValueId> sizes;    // integers that inference knows in terms of symbols
  ValueId source;
  std::map<ValueId, BandTable> tables;   // constants larger than the samples
  std::vector<std::int64_t> thresholds;  // magnitudes, sorted, unique
  bool is_rounded = false;
};

// nullopt, with the reason, where the mask depends on what no sample can stand for.
std::optional<Cone> find_cone(const Graph& graph, const MaskUse& use, std::string& reason);

// Does the operator compare positions, so that an integer of its may be a threshold?
bool is_threshold_reader(std::string_view op);
// The magnitude of a constant that may be one.
std::optional<std::int64_t> threshold_of(const Graph& graph, ValueId id);
// Is the symbol one of the scores' extents?
bool appears_in(const MaskUse& use, const std::string& symbol);

}  // namespace weft
