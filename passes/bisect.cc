#include "passes/bisect.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "ops/cast.h"
#include "ops/op_def.h"
#include "passes/promote.h"

namespace weft {
namespace {

std::vector<Tensor> evaluate_in_double(const Graph& graph, std::span<const Tensor> inputs) {
  std::vector<Tensor> wide;
  for (const Tensor& input : inputs) wide.push_back(in_double_precision(input));
  return evaluate_graph(in_double_precision(graph), wide);
}

bool agree(std::span<const Tensor> actual, std::span<const Tensor> expected, double tolerance) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (difference_of(actual[i], expected[i]).exceeds(tolerance)) return false;
  }
  return true;
}

struct Step {
  std::string pass, rule;
  Graph graph;
};

// The graph after so many rewrites.
Step rewritten(const Graph& graph, const PassOptions& options, std::size_t count) {
  Step step{"", "", graph.clone()};
  Graph working = graph.clone();
  std::size_t made = 0;
  PassOptions observed = options;
  observed.after_rewrite = [&](const Graph& whole, std::string_view pass, std::string_view rule) {
    if (++made == count) step = {std::string(pass), std::string(rule), whole.clone()};
  };
  optimize(working, observed);
  return step;
}

std::size_t count_rewrites(const Graph& graph, const PassOptions& options) {
  Graph working = graph.clone();
  std::size_t made = 0;
  PassOptions observed = options;
  observed.after_rewrite = [&](const Graph&, std::string_view, std::string_view) { ++made; };
  optimize(working, observed);
  return made;
}

// Does the pass alone compute this graph wrongly?
bool fails(const FailingGraph& part, const PassOptions& pass, double tolerance) {
  try {
    const std::vector<Tensor> expected = evaluate_in_double(part.graph, part.inputs);
    Graph optimized = part.graph.clone();
    optimize(optimized, pass);
    return !agree(evaluate_in_double(optimized, part.inputs), expected, tolerance);
  } catch (const Error&) {
    return false;  // not this failure
  }
}

// Values that are there before and after a rewrite, but are made by other nodes or of other inputs.
std::vector<ValueId> changed_values(const Graph& before, const Graph& after) {
  std::vector<ValueId> changed;
  for (const NodeId id : before.nodes()) {
    const Node& node = before.node(id);
    const bool same = after.contains(id) && after.node(id).inputs == node.inputs && after.node(id).op == node.op;
    if (same || node.outputs.empty() || !node.outputs[0].valid()) continue;
    if (after.find_value(before.value(node.outputs[0]).name)) changed.push_back(node.outputs[0]);
  }
  return changed;
}

FailingGraph smallest_failing(const Graph& before, const Graph& after, std::span<const Tensor> inputs,
                              const PassOptions& pass, double tolerance) {
  std::vector<Tensor> wide;
  for (const Tensor& input : inputs) wide.push_back(in_double_precision(input));
  const std::map<ValueId, Tensor> contents = evaluate_all_values(in_double_precision(before), wide);
  const std::vector<ValueId> changed = changed_values(before, after);
  constexpr int kMaxDepth = 16;
  for (int depth = 1; depth <= kMaxDepth; ++depth) {
    for (const ValueId output : changed) {
      FailingGraph part = cut_out(before, output, depth, contents);
      if (fails(part, pass, tolerance)) return part;
    }
  }
  return {before.clone(), {inputs.begin(), inputs.end()}};
}

bool is_integral(const Tensor& tensor) { return is_integer(tensor.dtype()) || tensor.dtype() == DType::kBool; }

}  // namespace

bool Difference::exceeds(double tolerance) const {
  return !other.empty() || !(largest <= tolerance * std::max(magnitude, 1e-30));
}

Difference difference_of(const Tensor& actual, const Tensor& expected) {
  Difference result;
  const bool comparable = actual.dtype() == expected.dtype() || is_integral(actual) == is_integral(expected);
  if (is_object(actual.dtype()) || is_object(expected.dtype())) {
    if (!actual.identical(expected)) result.other = "contents differ";
    return result;
  }
  if (!comparable || actual.shape() != expected.shape()) {
    result.other = fmt::format("{}{} instead of {}{}", to_string(actual.dtype()), to_string(actual.shape()),
                               to_string(expected.dtype()), to_string(expected.shape()));
    return result;
  }
  const Tensor a = cast(actual.aligned(), DType::kF64), b = cast(expected.aligned(), DType::kF64);
  const auto x = a.data<double>(), y = b.data<double>();
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isfinite(y[i])) result.magnitude = std::max(result.magnitude, std::abs(y[i]));
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    const double apart = std::isfinite(x[i]) && std::isfinite(y[i]) ? std::abs(x[i] - y[i]) : INFINITY;
    if (apart <= result.largest) continue;
    result.largest = apart;
    result.element = static_cast<std::int64_t>(i);
    result.actual = x[i];
    result.expected = y[i];
  }
  return result;
}

FailingGraph cut_out(const Graph& graph, ValueId output, int depth, const std::map<ValueId, Tensor>& contents) {
  std::set<NodeId> inside;
  std::vector<ValueId> frontier = {output};
  for (int level = 0; level < depth; ++level) {
    std::vector<ValueId> next;
    for (const ValueId id : frontier) {
      const Value& value = graph.value(id);
      if (value.kind != ValueKind::kResult || !inside.insert(value.producer).second) continue;
      for (const ValueId input : graph.node(value.producer).inputs) {
        if (input.valid()) next.push_back(input);
      }
    }
    frontier = std::move(next);
  }
  FailingGraph part{Graph("part"), {}};
  std::map<ValueId, ValueId> known;
  const auto bring = [&](ValueId id) {
    if (known.contains(id)) return known.at(id);
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kConstant) return known[id] = part.graph.add_constant(*value.tensor, value.name);
    Tensor tensor = contents.at(id);
    if (tensor.dtype() != value.type.dtype && !is_object(tensor.dtype())) tensor = cast(tensor, value.type.dtype);
    TensorType type{value.type.dtype, Shape{}, value.type.element};
    for (const std::int64_t extent : tensor.shape()) type.shape->emplace_back(extent);
    if (is_container(type.dtype)) type = value.type;
    part.inputs.push_back(std::move(tensor));
    return known[id] = part.graph.add_input(value.name, type);
  };
  for (const NodeId id : graph.nodes()) {
    if (!inside.contains(id)) continue;
    const Node& node = graph.node(id);
    NodeSpec spec{node.op, {}, node.attributes, {}, node.origin};
    for (const ValueId input : node.inputs) spec.inputs.push_back(input.valid() ? bring(input) : ValueId());
    for (const Subgraph& subgraph : node.subgraphs)
      spec.subgraphs.push_back({subgraph.name, std::make_unique<Graph>(subgraph.graph->clone())});
    std::vector<OutputSpec> outputs;
    for (const ValueId made : node.outputs) {
      if (made.valid())
        outputs.push_back(
            {graph.value(made).name, {graph.value(made).type.dtype, std::nullopt, graph.value(made).type.element}});
      else
        outputs.push_back({"", {}, true});
    }
    const NodeId copy = part.graph.add_node(std::move(spec), outputs);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i].valid()) known[node.outputs[i]] = part.graph.node(copy).outputs[i];
    }
    infer_node(part.graph, copy);
  }
  part.graph.add_output(graph.value(output).name, known.at(output));
  return part;
}

std::optional<WrongRewrite> find_wrong_rewrite(const Graph& graph, std::span<const Tensor> inputs,
                                               const PassOptions& options, double tolerance) {
  const std::vector<Tensor> expected = evaluate_in_double(graph, inputs);
  const auto is_right = [&](std::size_t count) {
    return agree(evaluate_in_double(rewritten(graph, options, count).graph, inputs), expected, tolerance);
  };
  const std::size_t total = count_rewrites(graph, options);
  if (total == 0 || is_right(total)) return std::nullopt;
  std::size_t right = 0, wrong = total;
  while (wrong - right > 1) {
    const std::size_t middle = right + (wrong - right) / 2;
    (is_right(middle) ? right : wrong) = middle;
  }
  const Step before = rewritten(graph, options, right), after = rewritten(graph, options, wrong);
  PassOptions pass = options;
  pass.passes = {after.pass};
  pass.after_rewrite = nullptr;
  return WrongRewrite{wrong, total, after.pass, after.rule,
                      smallest_failing(before.graph, after.graph, inputs, pass, tolerance)};
}

}  // namespace weft
