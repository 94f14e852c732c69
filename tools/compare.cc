// weft compare
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "importers/onnx/onnx.h"
#include "ops/op_def.h"
#include "passes/bisect.h"
#include "passes/promote.h"
#include "runtime/session.h"
#include "tools/commands.h"
#include "tools/inputs.h"
#include "tools/npz.h"

namespace weft::tools {
namespace {

// What a model means: evaluated without passes and, where its operators allow, in double precision.
struct Reference {
  std::vector<Tensor> outputs;
  bool in_double = true;
};

std::vector<Tensor> widened(std::span<const Tensor> inputs) {
  std::vector<Tensor> wide;
  for (const Tensor& input : inputs) wide.push_back(in_double_precision(input));
  return wide;
}

Reference evaluate(const Graph& graph, std::span<const Tensor> inputs) {
  try {
    return {evaluate_graph(in_double_precision(graph), widened(inputs)), true};
  } catch (const Error&) {
    return {evaluate_graph(graph, inputs), false};
  }
}

runtime::TensorMap by_name(const Graph& graph, std::span<const Tensor> inputs) {
  runtime::TensorMap named;
  for (std::size_t i = 0; i < inputs.size(); ++i) named[graph.value(graph.inputs()[i]).name] = inputs[i];
  return named;
}

std::vector<Tensor> run_optimized(const Graph& graph, std::span<const Tensor> inputs, const std::string& passes,
                                  int threads) {
  runtime::CompileOptions compile;
  compile.passes = parse_pass_list(passes);
  runtime::Session session(runtime::Model::compile(graph.clone(), compile),
                           std::make_shared<runtime::ThreadPool>(threads));
  return session.run(by_name(graph, inputs));
}

struct Culprit {
  std::string text;
  FailingGraph part;
};

// The first operator of the optimized graph whose kernel alone is off.
std::optional<Culprit> find_wrong_kernel(const Graph& graph, std::span<const Tensor> inputs,
                                         const CompareOptions& options) {
  Graph optimized = graph.clone();
  optimize(optimized, {.passes = parse_pass_list(options.passes)});
  const auto contents = evaluate_all_values(in_double_precision(optimized), widened(inputs));
  for (const NodeId id : optimized.nodes()) {
    const Node& node = optimized.node(id);
    if (node.outputs.empty() || !node.outputs[0].valid()) continue;
    FailingGraph part = cut_out(optimized, node.outputs[0], 1, contents);
    const Reference expected = evaluate(part.graph, part.inputs);
    const std::vector<Tensor> actual = run_optimized(part.graph, part.inputs, "none", options.threads);
    if (!difference_of(actual[0], expected.outputs[0]).exceeds(options.tolerance)) continue;
    return Culprit{fmt::format("the kernel of {}", describe(node)), std::move(part)};
  }
  return std::nullopt;
}

std::optional<Culprit> find_culprit(const Graph& graph, std::span<const Tensor> inputs, const CompareOptions& options) {
  auto wrong = find_wrong_rewrite(graph, inputs, {.passes = parse_pass_list(options.passes)}, options.tolerance);
  if (!wrong) return find_wrong_kernel(graph, inputs, options);
  const std::string rule = wrong->rule == wrong->pass ? "" : fmt::format(", rule {}", wrong->rule);
  return Culprit{fmt::format("pass {}{}: rewrite {} of {}", wrong->pass, rule, wrong->number, wrong->rewrites),
                 std::move(wrong->smallest)};
}

void write_culprit(const Culprit& culprit, const std::string& prefix) {
  export_onnx(culprit.part.graph, prefix + ".onnx");
  std::map<std::string, Tensor, std::less<>> named;
  for (auto& [name, tensor] : by_name(culprit.part.graph, culprit.part.inputs)) named[name] = tensor;
  write_npz(prefix + ".npz", named);
  fmt::print("{} ({} operators) and its inputs {} show it alone\n", prefix + ".onnx", culprit.part.graph.node_count(),
             prefix + ".npz");
}

void print_row(const std::string& name, const Difference& difference, bool exceeds) {
  const std::string_view verdict = exceeds ? "DIFFERS" : "ok";
  if (!difference.other.empty()) {
    fmt::print("{:<8} {}: {}\n", verdict, name, difference.other);
    return;
  }
  const double relative = difference.magnitude > 0 ? difference.largest / difference.magnitude : difference.largest;
  fmt::print("{:<8} {}: {:.3g} apart, {:.3g} of the largest magnitude {:.6g}", verdict, name, difference.largest,
             relative, difference.magnitude);
  if (difference.largest > 0) {
    fmt::print("; element {} is {:.9g} instead of {:.9g}", difference.element, difference.actual, difference.expected);
  }
  fmt::print("\n");
}

}  // namespace

int compare(const CompareOptions& options) {
  const Graph graph = import_onnx(options.model);
  const std::vector<Tensor> inputs = runtime::match_inputs(graph, gather_inputs(options.given, graph));
  const Reference expected = evaluate(graph, inputs);
  const std::vector<Tensor> actual = run_optimized(graph, inputs, options.passes, options.threads);
  if (!expected.in_double) fmt::print("in single precision: an operator has no definition in double\n");
  bool differs = false;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const Difference difference = difference_of(actual[i], expected.outputs[i]);
    const bool exceeds = difference.exceeds(options.tolerance);
    print_row(graph.outputs()[i].name, difference, exceeds);
    differs = differs || exceeds;
  }
  if (!differs) return 0;
  const std::optional<Culprit> culprit = find_culprit(graph, inputs, options);
  if (!culprit) {
    fmt::print("no single rewrite or kernel is off by more than {:g}: differences add up\n", options.tolerance);
    return 1;
  }
  fmt::print("introduced by {}\n", culprit->text);
  write_culprit(*culprit, options.output);
  return 1;
}

}  // namespace weft::tools
