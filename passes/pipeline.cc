#include "passes/pipeline.h"

#include <algorithm>
#include <numeric>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// In the order in which they run; names may repeat in a list of the user's.
constexpr Pass kPasses[] = {
    {"fold-shapes", fold_shapes},
    {"fold-constants", fold_constants},
    {"inline-branches", inline_branches},
    {"canonicalize", canonicalize},
    {"common-subexpressions", eliminate_common_subexpressions},
    {"dead-code", eliminate_dead_code},
    {"fuse-normalization", fuse_normalization},
    {"fuse-activation", fuse_activation},
    {"fuse-rotary", fuse_rotary},
    {"fuse-attention", fuse_attention},
    {"absorb-into-attention", absorb_into_attention},
    {"absorb-masks", absorb_masks},
    {"fuse-convolution", fuse_convolution},
    {"fuse-linear", fuse_linear},
    {"fuse-quantized", fuse_quantized},
    {"fuse-qkv", fuse_qkv},
    {"fuse-residual-normalization", fuse_residual_normalization},
    // Not among the default passes: at narrow widths long runs lose what wide ones and single steps gain.
    {"fuse-gate-up", fuse_gate_up},
};
constexpr std::string_view kCanonical[] = {"fold-shapes", "fold-constants", "inline-branches", "canonicalize",
                                           "common-subexpressions"};

const Pass* find_pass(std::string_view name) {
  for (const Pass& pass : kPasses) {
    if (pass.name == name) return &pass;
  }
  return nullptr;
}

std::string suggestion(std::string_view word) {
  std::string best;
  std::size_t most = 0;
  for (const Pass& pass : kPasses) {
    std::size_t shared = 0;
    for (std::size_t i = 0; i + 2 < word.size(); ++i)
      shared += pass.name.find(word.substr(i, 3)) != std::string_view::npos;
    if (shared > most) {
      most = shared;
      best = pass.name;
    }
  }
  return best.empty() ? "" : fmt::format("; did you mean \"{}\"?", best);
}

using RunPass = std::function<int(Graph&, PassContext&)>;

RunPass runner_of(std::string_view name, const PassOptions& options) {
  const auto own = options.own_passes.find(name);
  if (own != options.own_passes.end()) return [run = own->second](Graph& graph, PassContext&) { return run(graph); };
  const Pass* pass = find_pass(name);
  if (pass == nullptr) fail(ErrorCode::kInvalidArgument, "there is no pass \"{}\"{}", name, suggestion(name));
  return pass->run;
}

// Subgraphs first.
void run_pass(Graph& graph, const RunPass& run, PassContext& context) {
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id)) continue;
    for (Subgraph& subgraph : graph.node(id).subgraphs) run_pass(*subgraph.graph, run, context);
  }
  context.finish_pass(graph, run(graph, context));
  verify(graph);
}

int count_nodes(const Graph& graph) {
  int count = static_cast<int>(graph.node_count());
  for (const NodeId id : graph.nodes()) {
    for (const Subgraph& subgraph : graph.node(id).subgraphs) count += count_nodes(*subgraph.graph);
  }
  return count;
}

}  // namespace

std::vector<std::string> all_passes() {
  std::vector<std::string> names;
  for (const Pass& pass : kPasses) names.emplace_back(pass.name);
  return names;
}

std::vector<std::string> canonical_passes() {
  // Twice: canonical forms let shapes be known that were not.
  std::vector<std::string> names(std::begin(kCanonical), std::end(kCanonical));
  names.insert(names.end(), std::begin(kCanonical), std::end(kCanonical));
  return names;
}

std::vector<std::string> default_passes() {
  std::vector<std::string> names = canonical_passes();
  for (const std::string_view name :
       {"fuse-normalization", "fuse-activation", "fuse-rotary", "fuse-attention", "canonicalize",
        "absorb-into-attention", "absorb-masks", "fuse-convolution", "fuse-linear", "fuse-normalization",
        "fuse-quantized", "fuse-qkv", "fuse-quantized", "canonicalize", "absorb-into-attention",
        "fuse-residual-normalization", "fold-constants", "common-subexpressions", "dead-code"}) {
    names.emplace_back(name);
  }
  return names;
}

std::vector<std::string> parse_pass_list(std::string_view text) {
  if (text == "all") return default_passes();
  if (text == "none") return {};
  std::vector<std::string> names;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(',', start), text.size());
    const std::string_view name = text.substr(start, end - start);
    if (find_pass(name) == nullptr)
      fail(ErrorCode::kInvalidArgument, "there is no pass \"{}\"{}", name, suggestion(name));
    names.emplace_back(name);
    start = end + 1;
  }
  return names;
}

PassReport optimize(Graph& graph, const PassOptions& options) {
  PassReport report;
  report.ops_before = count_nodes(graph);
  PassContext context(graph, options);
  for (const std::string& name : options.passes) {
    const RunPass run = runner_of(name, options);
    context.start_pass(name);
    with_frame([&] { return fmt::format("in pass {}", name); }, [&] { run_pass(graph, run, context); });
  }
  report.rules = context.take_reports();
  report.ops_after = count_nodes(graph);
  return report;
}

}  // namespace weft
