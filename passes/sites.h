// What became of each place of an imported graph that is expected to fuse.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "passes/pipeline.h"

namespace weft {

enum class SiteKind : std::uint8_t {
  kAttention,    // the softmax of an attention core, or an operator that is one
  kSoftmax,      // any other
  kNorm,         // a LayerNorm or RMSNorm and their kin: the root of a mean of squares, or an operator that is one
  kRotary,       // halves or pairs turned by angles, or an operator that turns them
  kProjections,  // the products that make q, k and v (k and v, where q reads something else) of one core
  kCache,  // keys or values that a decoder is given of the tokens before, and gives back: optimize() knows of none
};
std::string_view to_string(SiteKind kind);  // "attention", "softmax", "norms", "rotary", "qkv", "caches"

enum class SiteEnd : std::uint8_t {
  kFused,     // into one operator, or it arrived as one
  kNotFused,  // its parts are still there
  kRemoved,   // computed before the run, equal to another, or nobody reads it
  kPlain,     // a softmax that is no part of attention: there is nothing to fuse
};

struct Site {
  SiteKind kind = SiteKind::kAttention;
  std::string node;    // its name in the file; without a name, the operator and what it makes
  std::string source;  // line of the exported program, when known
  std::string scope;   // of a node in a subgraph: "then_branch of /If"
  SiteEnd end = SiteEnd::kRemoved;
  std::string into;  // kFused: the operator, as text
  std::string rule;  // kNotFused: which rule came closest, and where it stopped
  std::optional<NearMiss> near_miss;
  std::string reason;  // kNotFused without a near miss: what else is known; kFused: what of it is left as it was
};

struct Explanation {
  PassReport report;
  std::vector<Site> sites;  // in execution order, by kind
};

// optimize(), with an account of every site of the graph as it was given, subgraphs included. Sites are followed by
// the origins that rewrites merge.
Explanation optimize_and_explain(Graph& graph, const PassOptions& options = {.passes = default_passes()});

// Sites of this kind, and how many of them are not fused.
struct SiteCount {
  int sites = 0, fused = 0, not_fused = 0;
};
SiteCount count_sites(const Explanation& explanation, SiteKind kind);

}  // namespace weft
