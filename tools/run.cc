// weft run, weft bench
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "importers/onnx/onnx.h"
#include "runtime/session.h"
#include "tools/commands.h"
#include "tools/inputs.h"
#include "tools/npz.h"
#include "tools/trace.h"

namespace weft::tools {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

std::shared_ptr<const runtime::Model> load(const std::string& path, const std::string& passes,
                                           std::size_t max_memory = 0, const std::string& trace_folder = {}) {
  runtime::CompileOptions options;
  options.after_rewrite = trace_to(trace_folder);
  options.passes = parse_pass_list(passes);
  options.max_memory = max_memory;
  return runtime::Model::load(path, options);
}

runtime::TensorMap gather_inputs(const RunOptions& options, const Graph& graph) {
  runtime::TensorMap inputs;
  if (options.use_random) inputs = random_inputs(graph, parse_bindings(options.random), options.seed);
  if (!options.inputs.empty()) {
    for (auto& [name, tensor] : read_npz(options.inputs)) inputs[name] = std::move(tensor);
  }
  for (const std::string& setting : options.settings) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos)
      fail(ErrorCode::kInvalidArgument, "--set wants NAME=file.npy, not \"{}\"", setting);
    inputs[setting.substr(0, equals)] = read_npy(setting.substr(equals + 1));
  }
  return inputs;
}

}  // namespace

int run(const RunOptions& options) {
  const auto model = load(options.model, options.passes, options.max_memory, options.trace_passes);
  runtime::Session session(model, std::make_shared<runtime::ThreadPool>(options.threads));
  const std::vector<Tensor> outputs = session.run(gather_inputs(options, model->graph()));
  std::map<std::string, Tensor, std::less<>> named;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::string& name = model->graph().outputs()[i].name;
    fmt::print("{}: {}{}  {}\n", name, to_string(outputs[i].dtype()), to_string(outputs[i].shape()),
               summarize(outputs[i]));
    named[name] = outputs[i];
  }
  if (!options.output.empty()) write_npz(options.output, named);
  return 0;
}

int bench(const BenchOptions& options) {
  const Clock::time_point start = Clock::now();
  const auto model = load(options.model, options.passes);
  auto pool = std::make_shared<runtime::ThreadPool>(options.threads);
  runtime::Session session(model, pool);
  const double load_ms = milliseconds(Clock::now() - start);
  const runtime::TensorMap inputs = random_inputs(model->graph(), parse_bindings(options.random), options.seed);
  session.run(inputs);  // binds
  std::vector<double> times;
  for (int i = 0; i < std::max(options.repeat, 1); ++i) {
    const Clock::time_point before = Clock::now();
    session.run(inputs);
    times.push_back(milliseconds(Clock::now() - before));
  }
  std::sort(times.begin(), times.end());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double peak_mb = static_cast<double>(usage.ru_maxrss) / 1024;
  if (options.json) {
    const nlohmann::json report = {{"min_ms", times.front()},    {"median_ms", times[times.size() / 2]},
                                   {"load_ms", load_ms},         {"peak_rss_mb", peak_mb},
                                   {"threads", pool->threads()}, {"repeat", times.size()}};
    fmt::print("{}\n", report.dump());
  } else {
    fmt::print("min {:.3f} ms, median {:.3f} ms over {} runs on {} threads; load {:.1f} ms; peak {:.1f} MB\n",
               times.front(), times[times.size() / 2], times.size(), pool->threads(), load_ms, peak_mb);
  }
  return 0;
}

}  // namespace weft::tools
