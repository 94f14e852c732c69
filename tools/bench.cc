// weft bench
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "runtime/generate/generator.h"
#include "runtime/profile.h"
#include "runtime/session.h"
#include "tools/commands.h"
#include "tools/inputs.h"
#include "tools/machine_limits.h"
#include "tools/profile_report.h"

namespace weft::tools {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double milliseconds(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

// The most memory this process has held. Not getrusage's, which counts what started it.
double peak_megabytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

// What one execution of a workload took: milliseconds of a run, by phase.
using Sample = std::map<std::string, double>;

struct Workload {
  std::string name;
  std::map<std::string, double> tokens;  // of a run, by phase
  std::function<Sample()> execute;
  std::function<void(runtime::Profile*)> set_profile;
  std::function<runtime::CacheUsage()> cache_usage = {};  // of generation
};

// --- Workloads ---------------------------------------------------------------------------------------

// Positions of the first integer input: tokens of an encoder's run.
double token_count(const Graph& graph, const runtime::TensorMap& inputs) {
  for (const ValueId id : graph.inputs()) {
    const auto found = inputs.find(graph.value(id).name);
    if (found == inputs.end()) continue;
    const DType dtype = found->second.dtype();
    if (found->second.rank() == 2 && (dtype == DType::kI64 || dtype == DType::kI32))
      return static_cast<double>(found->second.size());
  }
  return 0;
}

runtime::CompileOptions compile_options(const BenchOptions& options) {
  runtime::CompileOptions compile;
  compile.passes = parse_pass_list(options.passes);
  compile.packed_folder = options.packed;
  if (const auto dtype = parse_dtype(options.cache_dtype)) compile.cache_dtype = *dtype;
  return compile;
}

std::vector<Workload> run_workloads(const BenchOptions& options, const std::shared_ptr<runtime::ThreadPool>& pool) {
  const auto model = runtime::Model::load(options.model, compile_options(options));
  const auto session = std::make_shared<runtime::Session>(model, pool);
  std::vector<Workload> workloads;
  for (const std::string& dims : options.random.empty() ? std::vector<std::string>{""} : options.random) {
    auto inputs =
        std::make_shared<const runtime::TensorMap>(random_inputs(model->graph(), parse_bindings(dims), options.seed));
    Workload workload;
    workload.name = dims.empty() ? "run" : dims;
    workload.tokens["run"] = token_count(model->graph(), *inputs);
    workload.execute = [session, inputs] {
      const Clock::time_point start = Clock::now();
      session->run(*inputs);
      return Sample{{"run", milliseconds(Clock::now() - start)}};
    };
    workload.set_profile = [session](runtime::Profile* profile) { session->set_profile(profile); };
    workloads.push_back(std::move(workload));
  }
  return workloads;
}

// Extent V of the logits [B, S, V].
std::int64_t vocabulary(const runtime::GenerationModel& model) {
  const Graph& graph = (model.decoder_with_past ? model.decoder_with_past : model.decoder)->graph();
  for (const Output& output : graph.outputs()) {
    const auto& shape = graph.value(output.value).type.shape;
    if (output.name == "logits" && shape && !shape->empty() && shape->back().is_constant())
      return shape->back().value();
  }
  return 100;
}

std::vector<std::int64_t> random_tokens(std::size_t count, std::int64_t vocabulary, std::uint64_t seed) {
  const std::int64_t first = std::min<std::int64_t>(vocabulary - 1, 5);  // beyond the special ones
  const auto range = static_cast<std::uint64_t>(std::clamp<std::int64_t>(vocabulary - first, 1, 20000));
  std::vector<std::int64_t> tokens(count);
  std::uint64_t state = seed * 2 + 1;
  for (std::int64_t& token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = first + static_cast<std::int64_t>((state >> 33) % range);
  }
  return tokens;
}

// The prompt's pass ends with the first token; what follows is divided by the steps.
Sample generate_once(runtime::Generator& generator, const std::vector<runtime::Request>& requests,
                     const runtime::GenerationConfig& config, runtime::Profile* profile) {
  if (profile != nullptr) profile->set_phase("prefill");
  const Clock::time_point start = Clock::now();
  Clock::time_point first = start, last = start;
  std::size_t steps = 0;
  runtime::Callbacks callbacks;
  callbacks.on_step = [&] {
    last = Clock::now();
    if (steps++ > 0) return;
    first = last;
    if (profile != nullptr) profile->set_phase("decode");
  };
  generator.generate(requests, config, callbacks, requests.size());
  Sample sample{{"prefill", milliseconds(first - start)}};
  if (steps > 1) sample["decode"] = milliseconds(last - first) / static_cast<double>(steps - 1);
  return sample;
}

// "8x128": a batch of 8 prompts of 128 tokens; "128": one.
std::pair<int, int> parse_size(const std::string& text) {
  int batch = 1, length = 0;
  char rest = 0;
  const bool both = std::sscanf(text.c_str(), "%dx%d%c", &batch, &length, &rest) == 2;
  if (!both) batch = 1;
  if ((!both && std::sscanf(text.c_str(), "%d%c", &length, &rest) != 1) || batch < 1 || length < 1)
    fail(ErrorCode::kInvalidArgument, "--prompt-length is N or BxN, not \"{}\"", text);
  return {batch, length};
}

std::vector<Workload> generation_workloads(const BenchOptions& options,
                                           const std::shared_ptr<runtime::ThreadPool>& pool) {
  auto model = runtime::GenerationModel::load(options.model, compile_options(options));
  const std::int64_t tokens = vocabulary(model);
  const auto generator = std::make_shared<runtime::Generator>(std::move(model), pool);
  runtime::GenerationConfig config;
  config.max_new_tokens = options.new_tokens;
  config.num_beams = options.num_beams;
  config.decoder_start_token_id = 0;
  std::vector<Workload> workloads;
  for (const std::string& size : options.prompt_lengths) {
    const auto [batch, length] = parse_size(size);
    std::vector<runtime::Request> requests(static_cast<std::size_t>(batch));
    for (std::size_t i = 0; i < requests.size(); ++i)
      requests[i].input_ids = random_tokens(static_cast<std::size_t>(length), tokens, options.seed + i);
    Workload workload;
    workload.name = fmt::format("prompt {}", length);
    if (batch > 1) workload.name += fmt::format(", batch {}", batch);
    if (options.num_beams > 1) workload.name += fmt::format(", {} beams", options.num_beams);
    workload.tokens["prefill"] = static_cast<double>(length) * batch;
    workload.tokens["decode"] = batch;
    const auto profile = std::make_shared<runtime::Profile*>(nullptr);
    workload.execute = [=] { return generate_once(*generator, requests, config, *profile); };
    workload.cache_usage = [=] { return generator->cache_usage(); };
    workload.set_profile = [=](runtime::Profile* given) {
      *profile = given;
      generator->set_profile(given);
    };
    workloads.push_back(std::move(workload));
  }
  return workloads;
}

// --- Measuring ---------------------------------------------------------------------------------------

struct Statistics {
  double min = 0, median = 0;
};

Statistics statistics_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2]};
}

std::map<std::string, Statistics> summarize(const std::vector<Sample>& samples) {
  std::map<std::string, std::vector<double>> values;
  for (const Sample& sample : samples) {
    for (const auto& [phase, ms] : sample) values[phase].push_back(ms);
  }
  std::map<std::string, Statistics> result;
  for (auto& [phase, list] : values) result[phase] = statistics_of(std::move(list));
  return result;
}

// One profiled execution; the profile holds its runs.
json profile_once(const Workload& workload, runtime::Profile& profile) {
  profile.clear();
  workload.set_profile(&profile);
  workload.execute();
  workload.set_profile(nullptr);
  return profile_json(profile);
}

// Bytes of one execution: new keys and values, and what was copied of older ones (blocks that beams part from).
json cache_report(const Workload& workload) {
  const runtime::CacheUsage before = workload.cache_usage();
  workload.execute();
  const runtime::CacheUsage after = workload.cache_usage();
  return {{"bytes_appended", after.bytes_appended - before.bytes_appended},
          {"bytes_copied", after.bytes_copied - before.bytes_copied},
          {"peak_bytes", after.peak_bytes}};
}

json measure(const Workload& workload, const BenchOptions& options, runtime::Profile& profile) {
  std::vector<Sample> samples;
  workload.execute();  // binds
  for (int i = 0; i < options.repeat; ++i) samples.push_back(workload.execute());
  const double peak = peak_megabytes();
  const json profiled = profile_once(workload, profile);
  json report = {{"workload", workload.name}, {"repeat", options.repeat}, {"peak_rss_mb", peak}};
  for (const auto& [phase, statistics] : summarize(samples)) {
    json row = {{"min_ms", statistics.min}, {"median_ms", statistics.median}};
    const auto tokens = workload.tokens.find(phase);
    if (tokens != workload.tokens.end() && tokens->second > 0 && statistics.median > 0)
      row["tokens_per_second"] = tokens->second / statistics.median * 1e3;
    if (profiled["phases"].contains(phase)) {
      const json& cost = profiled["phases"][phase];
      const double runs_per_sample = phase == "decode" ? 1 : cost["runs"].get<double>();  // encoder and decoder
      row["gflop"] = cost["gflop"].get<double>() * runs_per_sample;
      row["gbytes"] = cost["gbytes"].get<double>() * runs_per_sample;
    }
    report["phases"][phase] = std::move(row);
  }
  if (options.profile) report["profile"] = profiled;
  if (workload.cache_usage) report["cache"] = cache_report(workload);
  return report;
}

void add_shares(json& report, const MachineLimits& limits) {
  for (auto& [phase, row] : report["phases"].items()) {
    if (!row.contains("gflop")) continue;
    const double seconds = row["median_ms"].get<double>() / 1e3;
    if (limits.gflops > 0) row["fma_percent"] = row["gflop"].get<double>() / seconds / limits.gflops * 100;
    if (limits.gbytes > 0) row["bandwidth_percent"] = row["gbytes"].get<double>() / seconds / limits.gbytes * 100;
  }
}

void print_report(const json& report, const MachineLimits& limits) {
  for (const auto& [phase, row] : report["phases"].items()) {
    fmt::print("{}: {}: min {:.3f} ms, median {:.3f} ms", report["workload"].get<std::string>(), phase,
               row["min_ms"].get<double>(), row["median_ms"].get<double>());
    if (row.contains("tokens_per_second")) fmt::print(", {:.0f} tokens/s", row["tokens_per_second"].get<double>());
    if (row.contains("fma_percent")) fmt::print(", {:.0f}% of multiply-adds", row["fma_percent"].get<double>());
    if (row.contains("bandwidth_percent")) fmt::print(", {:.0f}% of bandwidth", row["bandwidth_percent"].get<double>());
    fmt::print("\n");
  }
  if (report.contains("cache") && report["cache"]["bytes_appended"] > 0) {
    const double appended = report["cache"]["bytes_appended"].get<double>();
    const double copied = report["cache"]["bytes_copied"].get<double>();
    fmt::print(
        "{}: cache: {:.2f} MB of new keys and values, {:.2f} MB copied, in all {:.2f} times the new; peak {:.1f} MB\n",
        report["workload"].get<std::string>(), appended / 1e6, copied / 1e6, (appended + copied) / appended,
        report["cache"]["peak_bytes"].get<double>() / 1e6);
  }
  if (report.contains("profile")) fmt::print("{}\n", profile_table(report["profile"], limits, 20));
}

// For every line of standard input, the number of a workload: medians of as many executions as fit in 0.4 s, one line
// of JSON. Others may be measured in between.
int serve(const std::vector<Workload>& workloads, double load_ms) {
  constexpr double kBudget = 400;
  json ready = {{"load_ms", load_ms}, {"ready", json::array()}};
  for (const Workload& workload : workloads) {
    workload.execute();
    ready["ready"].push_back(workload.name);
  }
  std::cout << ready.dump() << std::endl;
  std::size_t index = 0;
  while (std::cin >> index) {
    if (index >= workloads.size()) fail(ErrorCode::kInvalidArgument, "there is no workload {}", index);
    std::vector<Sample> samples;
    const Clock::time_point start = Clock::now();
    while (samples.size() < 2 || milliseconds(Clock::now() - start) < kBudget)
      samples.push_back(workloads[index].execute());
    json answer = json::object();
    for (const auto& [phase, statistics] : summarize(samples)) answer[phase] = statistics.median;
    std::cout << answer.dump() << std::endl;
  }
  std::cout << json{{"peak_rss_mb", peak_megabytes()}}.dump() << std::endl;
  return 0;
}

}  // namespace

int bench(const BenchOptions& options) {
  if (!options.prompt_lengths.empty() && !options.random.empty())
    fail(ErrorCode::kInvalidArgument, "--random times runs, --prompt-length generation: give one of them");
  const auto pool = std::make_shared<runtime::ThreadPool>(options.threads);
  const Clock::time_point start = Clock::now();
  const std::vector<Workload> workloads =
      options.prompt_lengths.empty() ? run_workloads(options, pool) : generation_workloads(options, pool);
  const double load_ms = milliseconds(Clock::now() - start);
  if (options.first) {
    workloads.front().execute();
    const json report = {{"load_ms", load_ms},
                         {"first_result_ms", milliseconds(Clock::now() - start)},
                         {"peak_rss_mb", peak_megabytes()}};
    fmt::print("{}\n", report.dump());
    return 0;
  }
  if (options.serve) return serve(workloads, load_ms);
  runtime::Profile profile;
  std::vector<json> reports;
  for (const Workload& workload : workloads) reports.push_back(measure(workload, options, profile));
  const double peak = peak_megabytes();
  if (!options.trace.empty()) write_trace(profile, options.trace);
  const MachineLimits limits = machine_limits(pool->threads());  // last: it takes memory of its own
  for (json& report : reports) add_shares(report, limits);
  if (options.json) {
    const json all = {{"load_ms", load_ms},
                      {"threads", pool->threads()},
                      {"peak_rss_mb", peak},
                      {"limits", {{"gflops", limits.gflops}, {"gbytes", limits.gbytes}}},
                      {"workloads", reports}};
    fmt::print("{}\n", all.dump());
    return 0;
  }
  for (const json& report : reports) print_report(report, limits);
  fmt::print("{} threads; load {:.1f} ms; peak {:.1f} MB; this machine: {:.0f} GFLOP/s, {:.1f} GB/s\n", pool->threads(),
             load_ms, peak, limits.gflops, limits.gbytes);
  return 0;
}

}  // namespace weft::tools
