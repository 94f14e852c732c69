// The sum that an attention mask is, and what each of its terms means.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "passes/mask_classes.h"

namespace weft {

// Adding a finite number of this magnitude to a score gives that number itself: the score is gone.
constexpr double kAbsorbing = -1e30;

struct MaskTerm {
  ValueId value;   // a term of the sum (of the conjunction, of bool masks), or a condition of Where
  ValueId source;  // see MaskSamples
  bool source_is_exact = true;
  bool overrides = false;            // Where put its fill in place of what the terms after it add
  std::optional<MaskClass> meaning;  // nullopt: general
};

// Use one for all attentions of a graph: the same mask usually serves every layer.
class MaskReader {
 public:
  explicit MaskReader(const Graph& graph) : graph_(graph) {}

  // reason: why the last of the general terms is general.
  std::vector<MaskTerm> read(MaskUse use, std::string& reason);

 private:
  using Key = std::tuple<ValueId, bool, std::string>;

  bool classify(const MaskUse& use, MaskTerm& term, std::string& reason);
  void sample(const MaskUse& use, MaskTerm& term, std::string& why) const;
  std::vector<MaskTerm> read_where(const MaskUse& use, const Node& where, std::string& reason);

  const Graph& graph_;
  std::map<Key, std::pair<MaskTerm, std::string>> known_;
};

// A bound of the magnitudes of a float value, as far as constants and bounded functions tell; infinity otherwise.
double bound_of(const Graph& graph, ValueId value);

}  // namespace weft
