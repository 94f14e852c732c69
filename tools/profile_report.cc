#include "tools/profile_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/model.h"

namespace weft::tools {
namespace {

using nlohmann::json;
using runtime::Profile;

constexpr double kNanosecondsPerMs = 1e6;

struct Sum {
  double ns = 0, flops = 0, bytes = 0;
  std::size_t count = 0;  // of steps

  void add(const Profile::Step& step) {
    ns += static_cast<double>(step.end - step.start);
    flops += step.cost.flops;
    bytes += step.cost.bytes;
    ++count;
  }
};

std::string site_of(const Node& node) {
  const std::vector<std::string>& nodes = node.origin.nodes;
  if (nodes.empty()) return node.op;
  if (nodes.size() == 1) return fmt::format("{} {}", node.op, nodes[0]);
  return fmt::format("{} {} and {} more", node.op, nodes[0], nodes.size() - 1);
}

// Of one phase.
struct Totals {
  double ns = 0, inside_ns = 0, flops = 0, bytes = 0;
  std::size_t runs = 0;
  std::map<std::string, Sum> ops, sites, scopes;

  void add(const Profile::Run& run) {
    const Graph& graph = run.model->graph();
    ++runs;
    ns += static_cast<double>(run.end - run.start);
    for (const Profile::Step& step : run.steps) {
      const Node& node = graph.node(step.node);
      ops[node.op].add(step);
      sites[site_of(node)].add(step);
      scopes[scope_of(node)].add(step);
      inside_ns += static_cast<double>(step.end - step.start);
      flops += step.cost.flops;
      bytes += step.cost.bytes;
    }
  }
};

json rows(const std::map<std::string, Sum>& sums, double runs) {
  std::vector<const std::pair<const std::string, Sum>*> sorted;
  for (const auto& entry : sums) sorted.push_back(&entry);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto* a, const auto* b) { return a->second.ns > b->second.ns; });
  json result = json::array();
  for (const auto* entry : sorted) {
    const Sum& sum = entry->second;
    result.push_back({{"name", entry->first},
                      {"count", static_cast<double>(sum.count) / runs},
                      {"ms", sum.ns / kNanosecondsPerMs / runs},
                      {"gflop", sum.flops / 1e9 / runs},
                      {"gbytes", sum.bytes / 1e9 / runs}});
  }
  return result;
}

std::vector<std::string> split_path(const std::string& name) {
  std::vector<std::string> parts;
  for (std::size_t start = 0; start <= name.size();) {
    const std::size_t end = std::min(name.find('/', start), name.size());
    if (end > start) parts.push_back(name.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

// "layers.11" -> "layers.*": layers of a stack count together.
std::string without_numbers(const std::string& part) {
  std::string result;
  for (std::size_t i = 0; i < part.size();) {
    const std::size_t end = std::min(part.find('.', i), part.size());
    const std::string word = part.substr(i, end - i);
    const bool number = !word.empty() && word.find_first_not_of("0123456789") == std::string::npos;
    result += (result.empty() ? "" : ".") + (number ? std::string("*") : word);
    i = end + 1;
  }
  return result;
}

std::string format_row(const json& row, double phase_ms, const MachineLimits& limits) {
  const double ms = row["ms"];
  const double gflops = ms > 0 ? row["gflop"].get<double>() / ms * 1e3 : 0;
  const double gbytes = ms > 0 ? row["gbytes"].get<double>() / ms * 1e3 : 0;
  const auto rate = [](double value, double limit, const char* unit) {
    if (value < 0.05) return std::string();
    return limit > 0 ? fmt::format("{:.0f} {} {:3.0f}%", value, unit, value / limit * 100)
                     : fmt::format("{:.0f} {}", value, unit);
  };
  return fmt::format("{:10.4f} {:5.1f}% {:6.4g}  {:>16}  {:>14}  {}\n", ms, phase_ms > 0 ? ms / phase_ms * 100 : 0,
                     row["count"].get<double>(), rate(gflops, limits.gflops, "GF/s"),
                     rate(gbytes, limits.gbytes, "GB/s"), row["name"].get<std::string>());
}

}  // namespace

std::string scope_of(const Node& node) {
  std::vector<std::string> shared;
  bool first = true;
  for (const std::string& name : node.origin.nodes) {
    std::vector<std::string> parts = split_path(name);
    if (!parts.empty()) parts.pop_back();
    if (first) {
      shared = std::move(parts);
      first = false;
      continue;
    }
    std::size_t same = 0;
    while (same < std::min(shared.size(), parts.size()) && shared[same] == parts[same]) ++same;
    shared.resize(same);
  }
  // TorchScript repeats the path of the parent in none of its parts: the deepest parts say where.
  std::string scope;
  for (const std::string& part : shared) scope += (scope.empty() ? "" : "/") + without_numbers(part);
  if (!scope.empty()) return scope;
  return node.origin.sources.empty() ? "(no scope)" : node.origin.sources.front();
}

json profile_json(const Profile& profile) {
  std::vector<Totals> totals(profile.phases().size());
  for (const Profile::Run& run : profile.runs()) totals[run.phase].add(run);
  json phases = json::object();
  for (std::size_t i = 0; i < totals.size(); ++i) {
    const Totals& total = totals[i];
    if (total.runs == 0) continue;
    const auto runs = static_cast<double>(total.runs);
    phases[profile.phases()[i]] = {{"runs", total.runs},
                                   {"ms", total.ns / kNanosecondsPerMs / runs},
                                   {"outside_ms", (total.ns - total.inside_ns) / kNanosecondsPerMs / runs},
                                   {"gflop", total.flops / 1e9 / runs},
                                   {"gbytes", total.bytes / 1e9 / runs},
                                   {"ops", rows(total.ops, runs)},
                                   {"sites", rows(total.sites, runs)},
                                   {"scopes", rows(total.scopes, runs)}};
  }
  return {{"phases", std::move(phases)}};
}

std::string profile_table(const json& profile, const MachineLimits& limits, std::size_t sites) {
  std::string text;
  for (const auto& [name, phase] : profile["phases"].items()) {
    const double ms = phase["ms"];
    text += fmt::format("\n{}: {:.4f} ms a run over {} runs, {:.4f} ms of it between nodes\n", name, ms,
                        phase["runs"].get<std::size_t>(), phase["outside_ms"].get<double>());
    for (const char* kind : {"ops", "scopes", "sites"}) {
      text += fmt::format("\n{:>10} {:>6} {:>6}  {:>16}  {:>14}  by {}\n", "ms", "", "count", "multiply-adds", "read",
                          std::string_view(kind).substr(0, std::string_view(kind).size() - 1));
      std::size_t shown = 0;
      for (const json& row : phase[kind]) {
        if (std::string_view(kind) != "ops" && shown++ >= sites) break;
        text += format_row(row, ms, limits);
      }
    }
  }
  return text;
}

void write_trace(const Profile& profile, const std::string& path) {
  std::ofstream file(path);
  if (!file) fail(ErrorCode::kIo, "cannot write {}", path);
  const auto event = [](const std::string& name, const std::string& category, std::int64_t start, std::int64_t end,
                        json args) {
    return json{{"name", name},
                {"cat", category},
                {"ph", "X"},
                {"pid", 1},
                {"tid", 1},
                {"ts", static_cast<double>(start) / 1e3},
                {"dur", static_cast<double>(end - start) / 1e3},
                {"args", std::move(args)}}
        .dump(-1, ' ', false, json::error_handler_t::replace);
  };
  file << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[";
  const char* separator = "\n";
  for (const Profile::Run& run : profile.runs()) {
    const std::string& phase = profile.phases()[run.phase];
    file << separator << event(phase, phase, run.start, run.end, json::object());
    separator = ",\n";
    for (const Profile::Step& step : run.steps) {
      const Node& node = run.model->graph().node(step.node);
      json args = {{"node", site_of(node)}, {"scope", scope_of(node)}};
      if (!node.origin.sources.empty()) args["source"] = node.origin.sources.front();
      if (step.cost.flops > 0) args["gflop"] = step.cost.flops / 1e9;
      file << separator << event(node.op, phase, step.start, step.end, std::move(args));
    }
  }
  file << "\n]}\n";
  if (!file.flush()) fail(ErrorCode::kIo, "cannot write {}", path);
}

}  // namespace weft::tools
