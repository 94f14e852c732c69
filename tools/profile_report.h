// A runtime::Profile as tables, as JSON and as a trace for Chrome (chrome://tracing, Perfetto).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/profile.h"
#include "tools/machine_limits.h"

namespace weft::tools {

// Per phase: time by operator, by node ("site": a fused node names the nodes of the file it stands for) and by scope of
// the PyTorch module (numbers of layers as "*"). With the rate of multiply-adds and of reading constants and caches.
// {"phases": {NAME: {"runs", "ms", "outside_ms", "gflop", "gbytes", "ops": [...], "sites": [...], "scopes": [...]}}},
// times in milliseconds a run, largest first.
nlohmann::json profile_json(const runtime::Profile& profile);

// The same as text; sites: at most so many rows of single nodes.
std::string profile_table(const nlohmann::json& profile, const MachineLimits& limits, std::size_t sites);

// Trace events of all runs: runs and their nodes, microseconds.
void write_trace(const runtime::Profile& profile, const std::string& path);

// "model.layers.*.self_attn" of a node: the path that all its original nodes share, without the node's own name.
std::string scope_of(const Node& node);

}  // namespace weft::tools
