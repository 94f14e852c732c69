// A decoder's graph on its way to sessions: which of its inputs are caches, and what becomes of them.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "passes/sites.h"

namespace weft::runtime {

// Of a file with both decoders the one that use_cache_branch chooses: inputs that only the other reads go.
void choose_branch(Graph& graph, bool with_past);

// Inputs that are caches with the outputs that follow them, by name. After name_decoder_io().
std::vector<std::pair<std::string, std::string>> cache_pairs(const Graph& graph);

// See split_source(). The decoder keeps what it takes of its source as states if it has states beside. Decoders of
// prompts and of steps call it differently: one does not know what the other's is.
std::optional<Graph> split_decoder_source(Graph& graph, bool of_steps, bool has_caches);

// What becomes of each cache of a decoder, as it was imported, when GenerationModel loads its file alone: kFused into
// states of the session, or kNotFused, which copies it at every step. Of a file with both decoders, that of the steps.
// Sites are named as the file names its inputs. No caches: none. What cannot be told, as which output follows a cache,
// is a reason and no error.
std::vector<Site> explain_caches(Graph graph, const std::vector<std::string>& passes = default_passes());

}  // namespace weft::runtime
