// weft dump, weft explain, weft optimize
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "graph/text.h"
#include "importers/onnx/onnx.h"
#include "passes/pipeline.h"
#include "tools/commands.h"

namespace weft::tools {
namespace {

nlohmann::json to_json(const FusionCounts& counts, const PassReport& report) {
  nlohmann::json rules = nlohmann::json::array();
  for (const RuleReport& rule : report.rules) {
    nlohmann::json misses = nlohmann::json::array();
    for (const NearMiss& miss : rule.near_misses) {
      nlohmann::json entry = {{"node", miss.node}, {"reason", miss.reason}};
      if (!miss.source.empty()) entry["source"] = miss.source;
      misses.push_back(std::move(entry));
    }
    rules.push_back({{"name", rule.name}, {"applied", rule.applied}, {"near_misses", std::move(misses)}});
  }
  return {{"attention", {{"cores", counts.attention_cores}, {"fused", counts.attention_fused}}},
          {"norms", {{"sites", counts.norms}, {"fused", counts.norms_fused}}},
          {"qkv", {{"sites", counts.qkv}, {"fused", counts.qkv_fused}}},
          {"softmax_left", counts.softmax_left},
          {"rules", std::move(rules)},
          {"ops_before", report.ops_before},
          {"ops_after", report.ops_after}};
}

void print_report(const FusionCounts& counts, const PassReport& report) {
  fmt::print("attention  {} of {} cores fused\n", counts.attention_fused, counts.attention_cores);
  fmt::print("qkv        {} of {} projections computed by one Linear\n", counts.qkv_fused, counts.qkv);
  fmt::print("norms      {} of {} fused\n", counts.norms_fused, counts.norms);
  fmt::print("softmax    {} left\n", counts.softmax_left);
  fmt::print("operators  {} before, {} after\n\n", report.ops_before, report.ops_after);
  for (const RuleReport& rule : report.rules) {
    if (rule.applied == 0 && rule.near_misses.empty()) continue;
    fmt::print("{:<40} applied {}\n", rule.name, rule.applied);
    if (rule.near_misses.empty()) continue;
    const NearMiss& miss = rule.near_misses.front();
    fmt::print("  nearest miss: {}{}\n    {}\n", miss.node, miss.source.empty() ? "" : " (" + miss.source + ")",
               miss.reason);
  }
}

}  // namespace

int dump(const DumpOptions& options) {
  Graph graph = import_onnx(options.model);
  if (options.stage == "canonical") {
    optimize(graph, {canonical_passes(), false});
  } else if (options.stage == "optimized") {
    optimize(graph, {parse_pass_list(options.passes), false});
  } else if (options.stage != "imported") {
    fail(ErrorCode::kInvalidArgument, "--stage is imported, canonical or optimized, not \"{}\"", options.stage);
  }
  TextOptions text;
  if (!options.full) text.elide_above = 16;
  fmt::print("{}", print(graph, text));
  return 0;
}

int explain(const ExplainOptions& options) {
  Graph graph = import_onnx(options.model);
  const PassReport report = optimize(graph, {parse_pass_list(options.passes), false});
  const FusionCounts counts = count_fusions(graph);
  if (options.json)
    fmt::print("{}\n", to_json(counts, report).dump(1));
  else
    print_report(counts, report);
  return 0;
}

int optimize_file(const OptimizeOptions& options) {
  Graph graph = import_onnx(options.model);
  const PassReport report = optimize(graph, {parse_pass_list(options.passes), false});
  export_onnx(graph, options.output);
  fmt::print("{}: {} operators, {} before\n", options.output, report.ops_after, report.ops_before);
  return 0;
}

}  // namespace weft::tools
