// weft explain
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "importers/onnx/onnx.h"
#include "passes/sites.h"
#include "runtime/generate/decoder_graph.h"
#include "tools/commands.h"
#include "tools/trace.h"

namespace weft::tools {
namespace {

constexpr SiteKind kKinds[] = {SiteKind::kAttention, SiteKind::kSoftmax,     SiteKind::kNorm,
                               SiteKind::kRotary,    SiteKind::kProjections, SiteKind::kCache};

nlohmann::json to_json(const NearMiss& miss) {
  nlohmann::json entry = {{"node", miss.node}, {"found", miss.found}, {"reason", miss.reason}, {"depth", miss.depth}};
  if (!miss.source.empty()) entry["source"] = miss.source;
  return entry;
}

nlohmann::json to_json(const Site& site) {
  static constexpr std::string_view kEnds[] = {"fused", "not_fused", "removed", "plain"};
  nlohmann::json entry = {
      {"kind", to_string(site.kind)}, {"node", site.node}, {"result", kEnds[static_cast<std::size_t>(site.end)]}};
  if (!site.source.empty()) entry["source"] = site.source;
  if (!site.scope.empty()) entry["scope"] = site.scope;
  if (!site.into.empty()) entry["into"] = site.into;
  if (!site.reason.empty()) entry["reason"] = site.reason;
  if (site.near_miss) {
    entry["rule"] = site.rule;
    entry["near_miss"] = to_json(*site.near_miss);
  }
  return entry;
}

nlohmann::json to_json(const Explanation& explanation, const FusionCounts& left) {
  nlohmann::json sites = nlohmann::json::array(), rules = nlohmann::json::array();
  for (const Site& site : explanation.sites) sites.push_back(to_json(site));
  for (const RuleReport& rule : explanation.report.rules) {
    nlohmann::json misses = nlohmann::json::array();
    for (const NearMiss& miss : rule.near_misses) misses.push_back(to_json(miss));
    rules.push_back({{"name", rule.name}, {"applied", rule.applied}, {"near_misses", std::move(misses)}});
  }
  const auto count = [&](SiteKind kind) { return count_sites(explanation, kind); };
  return {{"attention", {{"cores", count(SiteKind::kAttention).sites}, {"fused", count(SiteKind::kAttention).fused}}},
          {"norms", {{"sites", count(SiteKind::kNorm).sites}, {"fused", count(SiteKind::kNorm).fused}}},
          {"rotary", {{"sites", count(SiteKind::kRotary).sites}, {"fused", count(SiteKind::kRotary).fused}}},
          {"qkv", {{"sites", count(SiteKind::kProjections).sites}, {"fused", count(SiteKind::kProjections).fused}}},
          {"caches", {{"inputs", count(SiteKind::kCache).sites}, {"states", count(SiteKind::kCache).fused}}},
          {"softmax_left", left.softmax_left},
          {"sites", std::move(sites)},
          {"rules", std::move(rules)},
          {"ops_before", explanation.report.ops_before},
          {"ops_after", explanation.report.ops_after}};
}

std::string at(const std::string& source) { return source.empty() ? "" : "  " + source; }

void print_site(const Site& site) {
  const std::string where = site.scope.empty() ? "" : fmt::format(" ({})", site.scope);
  const bool is_cache = site.kind == SiteKind::kCache;
  switch (site.end) {
    case SiteEnd::kFused:
      fmt::print("  {:<10} {}{}\n             {}\n", is_cache ? "state" : "fused", site.node, where, site.into);
      if (!site.reason.empty()) fmt::print("             {}\n", site.reason);
      return;
    case SiteEnd::kRemoved: fmt::print("  removed    {}{}\n", site.node, where); return;
    case SiteEnd::kPlain:
      fmt::print("  plain      {}{}: weighs nothing{}\n", site.node, where, at(site.source));
      return;
    case SiteEnd::kNotFused: break;
  }
  fmt::print("  {:<10} {}{}{}\n", is_cache ? "NO STATE" : "NOT FUSED", site.node, where, at(site.source));
  if (!site.near_miss) {
    fmt::print("             {}\n", site.reason);
    return;
  }
  const NearMiss& miss = *site.near_miss;
  fmt::print("             {} stopped after {} nodes at {}{}\n", site.rule, miss.depth, miss.node, at(miss.source));
  fmt::print("             found:  {}\n             reason: {}\n", miss.found, miss.reason);
}

void print_sites(const Explanation& explanation) {
  for (const SiteKind kind : kKinds) {
    const SiteCount count = count_sites(explanation, kind);
    if (count.sites == 0 && (kind == SiteKind::kSoftmax || kind == SiteKind::kRotary || kind == SiteKind::kCache)) {
      continue;
    }
    fmt::print("{:<10} {} of {} {}\n", to_string(kind), count.fused, count.sites,
               kind == SiteKind::kCache ? "are states of a session" : "fused");
    for (const Site& site : explanation.sites) {
      if (site.kind == kind) print_site(site);
    }
  }
}

void print_rules(const PassReport& report) {
  fmt::print("operators  {} before, {} after\n\n", report.ops_before, report.ops_after);
  for (const RuleReport& rule : report.rules) {
    if (rule.applied > 0) fmt::print("{:<40} applied {}\n", rule.name, rule.applied);
  }
}

// Kinds of "attention,norms,rotary,qkv,caches".
std::vector<SiteKind> parse_kinds(std::string_view text) {
  std::vector<SiteKind> kinds;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find(',', start), text.size());
    const std::string_view word = text.substr(start, end - start);
    const auto found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                    [&](SiteKind k) { return to_string(k) == word && k != SiteKind::kSoftmax; });
    if (found == std::end(kKinds))
      fail(ErrorCode::kInvalidArgument, "--require takes attention, norms, rotary, qkv and caches, not \"{}\"", word);
    kinds.push_back(*found);
    start = end + 1;
  }
  return kinds;
}

}  // namespace

int explain(const ExplainOptions& options) {
  const std::vector<SiteKind> required = parse_kinds(options.require);
  const std::vector<std::string> passes = parse_pass_list(options.passes);
  Graph graph = import_onnx(options.model);
  const std::vector<Site> caches = runtime::explain_caches(graph.clone(), passes);
  Explanation explanation =
      optimize_and_explain(graph, {.passes = passes, .after_rewrite = trace_to(options.trace_passes)});
  explanation.sites.insert(explanation.sites.end(), caches.begin(), caches.end());
  if (options.json) {
    fmt::print("{}\n", to_json(explanation, count_fusions(graph)).dump(1));
  } else {
    print_sites(explanation);
    print_rules(explanation.report);
  }
  int missing = 0;
  for (const SiteKind kind : required) {
    const int left = count_sites(explanation, kind).not_fused;
    if (left > 0)
      fmt::print(stderr, "--require {}: {} {}\n", to_string(kind), left,
                 kind == SiteKind::kCache ? "no states" : "not fused");
    missing += left;
  }
  return missing > 0 ? 1 : 0;
}

}  // namespace weft::tools
