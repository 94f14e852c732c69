#include "runtime/generate/decoder_graph.h"

#include <algorithm>
#include <map>

#include "passes/cache_lifts.h"
#include "passes/split_source.h"
#include "runtime/generate/model_folder.h"

namespace weft::runtime {
namespace {

constexpr std::string_view kUseCache = "use_cache_branch";

// Inputs that stay the same at every step.
std::vector<std::string> source_inputs(const Graph& graph) {
  if (find_input(graph, "decoder_input_ids") && find_input(graph, "input_ids")) return {"input_ids", "attention_mask"};
  return {"encoder_hidden_states", "encoder_attention_mask"};
}

std::string described_states(const Graph& graph, const std::vector<std::string>& names) {
  std::string text;
  for (const State& state : graph.states()) {
    if (std::find(names.begin(), names.end(), state.name) == names.end()) continue;
    text +=
        fmt::format("{}state %{} {}", text.empty() ? "" : ", ", state.name, to_string(graph.value(state.current).type));
  }
  return text;
}

Site site_of(const Graph& graph, CacheLift lift) {
  Site site;
  site.kind = SiteKind::kCache;
  site.node = std::move(lift.past);
  site.end = lift.states.empty() ? SiteEnd::kNotFused : SiteEnd::kFused;
  site.into = described_states(graph, lift.states);
  if (lift.near_miss) site.rule = "lift-cache-states";
  site.near_miss = std::move(lift.near_miss);
  site.reason = std::move(lift.reason);
  return site;
}

// Caches that go by that name, each for the same reason.
std::vector<Site> unnamed_sites(const Graph& graph, const std::string& reason) {
  std::vector<Site> sites;
  for (const ValueId id : graph.inputs()) {
    if (is_past(graph.value(id).name)) sites.push_back(site_of(graph, {graph.value(id).name, {}, {}, reason}));
  }
  return sites;
}

std::vector<Site> lifted_sites(Graph& graph, const std::vector<std::string>& passes) {
  const auto pairs = cache_pairs(graph);
  if (pairs.empty()) return {};
  unify_extents(graph);
  optimize(graph, {.passes = passes});
  split_decoder_source(graph, false, true);
  std::vector<Site> sites;
  for (CacheLift& lift : lift_and_explain_caches(graph, pairs)) sites.push_back(site_of(graph, std::move(lift)));
  return sites;
}

}  // namespace

void choose_branch(Graph& graph, bool with_past) {
  for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
    const ValueId id = graph.inputs()[i];
    if (graph.value(id).name != kUseCache) continue;
    graph.replace_uses(id, graph.add_constant(Tensor::of<bool>({1}, {with_past})));
    graph.remove_input(i);
    break;
  }
  optimize(graph, {.passes = {"fold-constants", "inline-branches", "dead-code"}});
  for (std::size_t i = graph.inputs().size(); i-- > 0;) {
    if (graph.use_count(graph.inputs()[i]) == 0) graph.remove_input(i);
  }
}

std::vector<std::pair<std::string, std::string>> cache_pairs(const Graph& graph) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const ValueId id : graph.inputs()) {
    const std::string& name = graph.value(id).name;
    if (is_past(name)) pairs.emplace_back(name, present_name(name));
  }
  return pairs;
}

std::optional<Graph> split_decoder_source(Graph& graph, bool of_steps, bool has_caches) {
  const std::string prefix = of_steps ? "source_of_steps." : "source.";
  auto source = split_source(graph, source_inputs(graph), prefix);
  std::vector<std::pair<std::string, std::string>> states;
  for (std::size_t i = 0; source && has_caches && i < source->outputs().size(); ++i)
    states.emplace_back(source->outputs()[i].name, source->outputs()[i].name);
  lift_cache_states(graph, states, false);
  return source;
}

std::vector<Site> explain_caches(Graph graph, const std::vector<std::string>& passes) {
  const FileIo io = describe_io(graph);
  if (!io.caches || !io.tokens) return unnamed_sites(graph, "no input is tokens, integers [B, S]");
  std::map<ValueId, std::string> in_file;
  for (const ValueId id : graph.inputs()) in_file[id] = graph.value(id).name;
  try {
    name_decoder_io(graph, {});
  } catch (const Error& error) {
    return unnamed_sites(graph, error.message());
  }
  std::map<std::string, std::string> names;
  for (const auto& [id, name] : in_file) names[graph.value(id).name] = name;
  if (io.branch) choose_branch(graph, true);
  std::vector<Site> sites = lifted_sites(graph, passes);
  for (Site& site : sites) site.node = names.at(site.node);
  return sites;
}

}  // namespace weft::runtime
