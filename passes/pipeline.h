// Graph optimization: what to run, and the report of what happened.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace weft {

// Where a rule stopped that had begun to fit.
struct NearMiss {
  std::string node;    // name of the node (of the imported file) where it stopped
  std::string source;  // line of the exported program, when known
  std::string found;   // that node as text: "%y = Softmax(%x: f32[B, 4, S, T]) axis=1 -> f32[B, 4, S, T]"
  std::string reason;  // what was expected: "Transpose wanted, Add found", "epsilon is not a known constant"
  int depth = 0;       // how many pattern nodes had matched
  Origin matched;      // of the nodes that had, and of the one where it stopped
};

struct RuleReport {
  std::string name;
  std::string pass;  // that ran it
  int applied = 0;
  std::vector<NearMiss> near_misses;  // deepest first, of the last run of the pass
  std::size_t kept_misses = 5;
};

struct PassReport {
  std::vector<RuleReport> rules;  // in pipeline order, every rule that ran, those with 0 included
  int ops_before = 0;
  int ops_after = 0;
};

struct PassOptions {
  // Names of the passes to run, in order; see default_passes().
  std::vector<std::string> passes;
  // verify() after every rewrite (always after every pass).
  bool verify_rewrites = false;
  // Called after every rewrite with the graph that optimize() was given, which is valid then, the pass and the rule.
  std::function<void(const Graph& graph, std::string_view pass, std::string_view rule)> after_rewrite = nullptr;
  // Passes of the caller's own, by the names that `passes` calls them: they change the graph and return in how many
  // places. They run on subgraphs first, as all passes do, and count as one rewrite a graph.
  std::map<std::string, std::function<int(Graph&)>, std::less<>> own_passes = {};
  // Near misses kept of each rule.
  std::size_t kept_misses = 5;
};

// Names of all passes, and of those that run by default ("all"), in order.
std::vector<std::string> all_passes();
std::vector<std::string> default_passes();
// Those that only spell each idea one way and fold what is known: no fusion.
std::vector<std::string> canonical_passes();
// "all", "none", or a comma-separated list; Error kInvalidArgument naming the closest pass.
std::vector<std::string> parse_pass_list(std::string_view text);

// Rewrites graph in place (subgraphs included). The graph's interface (names, order and dtypes of
// inputs and outputs) is kept. Error kInternal when a rule breaks the graph.
PassReport optimize(Graph& graph, const PassOptions& options = {.passes = default_passes()});

// Does a cache stay from step to step as it was set, as a decoder's keys and values of the encoder do? So says the
// graph: past is a state that is its own next value, or present is past, or there is no output of that name, or it is a
// constant without elements (files with a branch for the first step give one where the other has nothing to give).
bool cache_stays(const Graph& graph, ValueId past, std::string_view present_name);

// Turns into states the pairs of names (past input, present output) where present = Concat(past, new) along the axis of
// time, and those that only attention reads of caches that stay. Caches are [B, heads, P, size] of f32, f16 or bf16.
// any_layout: and caches that are transposed, flattened, or hold keys and values side by side, if attention reads of
// them what it read before with new tokens behind, or buffers of which it reads only what is written; each part that
// attention reads becomes a state [B, heads, P, size], named "past" or "past.0", "past.1", ... Where places in a buffer
// depend on an input, that is taken to be what a decode loop feeds, positions i64[S] that follow those past or a mask
// [B, P + S] of ones, and goes. For decode loops, after fusion; not in "all". Returns how many pairs became states.
int lift_cache_states(Graph& graph, const std::vector<std::pair<std::string, std::string>>& pairs,
                      bool any_layout = true);

// Gives extents of inputs that a Concat needs to be equal to something else that expression as their name: a cache
// [N, size, P] that is joined to [12 * B, size, S] is one [12 * B, size, P]. The graph's interface says so afterwards;
// for decode loops, before fusion. Returns how many names went.
int unify_extents(Graph& graph);

// A run of more than this many positions computes only the last position of outputs that keep_last_position() changed.
inline constexpr std::int64_t kAllPositions = 32;
// Of each output [B, S, ...] named, where the operators at the end treat positions one by one (norms, products with
// weights, elementwise ones): the output becomes [B, 1, ...] in runs of more than kAllPositions positions (prompts) and
// stays whole in shorter ones (steps, drafts). For decode loops, after fusion. Returns how many were changed.
int keep_last_position(Graph& graph, const std::vector<std::string>& outputs);

// A Softmax along the last axis whose result, masked, scaled, cast or reshaped, multiplies a computed value from the
// left: attention that is not one operator.
struct AttentionWeights {
  ValueId weights;  // [..., S, T], as they enter the product
  ValueId values;   // [..., T, D]
};
// In execution order; subgraphs are not looked into.
std::vector<AttentionWeights> find_attention_weights(const Graph& graph);
// The value and all that is computed from its contents; what depends on its shape alone is not.
std::set<ValueId> computed_from(const Graph& graph, ValueId source);

// What `weft explain` counts.
struct FusionCounts {
  int attention_cores = 0, attention_fused = 0;  // softmax-attention sites; fused or arrived as one op
  int norms = 0, norms_fused = 0;                // LayerNorm and RMSNorm sites
  int qkv = 0, qkv_fused = 0;                    // projections feeding one attention; computed by one Linear
  int softmax_left = 0;
};
FusionCounts count_fusions(const Graph& graph);

}  // namespace weft
