#include "runtime/bind_inputs.h"

#include <algorithm>
#include <numeric>

namespace weft::runtime {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substitution = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substitution});
    }
  }
  return row.back();
}

// Binds bare symbols and checks constants; compound dims are checked once all symbols are known.
void match_shape(const Value& value, const Tensor& tensor, Bindings& bindings) {
  if (!value.type.shape) return;
  const Shape& declared = *value.type.shape;
  if (static_cast<std::int64_t>(declared.size()) != tensor.rank()) {
    fail(ErrorCode::kInvalidArgument, "input \"{}\" is declared as {}, a tensor of shape {} is given", value.name,
         to_string(value.type), to_string(tensor.shape()));
  }
  for (std::size_t i = 0; i < declared.size(); ++i) {
    const std::int64_t extent = tensor.shape()[i];
    if (const auto symbol = declared[i].symbol_name()) {
      const auto [place, added] = bindings.emplace(*symbol, extent);
      if (!added && place->second != extent) {
        fail(ErrorCode::kInvalidArgument, "input \"{}\" of shape {} makes {} = {}, but another input makes it {}",
             value.name, to_string(tensor.shape()), *symbol, extent, place->second);
      }
    } else if (declared[i].is_constant() && declared[i].value() != extent) {
      fail(ErrorCode::kInvalidArgument, "input \"{}\" is declared as {}, a tensor of shape {} is given", value.name,
           to_string(value.type), to_string(tensor.shape()));
    }
  }
}

void check_compound_dims(const Value& value, const Tensor& tensor, const Bindings& bindings) {
  if (!value.type.shape) return;
  for (std::size_t i = 0; i < value.type.shape->size(); ++i) {
    const Dim& dim = (*value.type.shape)[i];
    if (dim.is_constant() || dim.symbol_name()) continue;
    const std::optional<std::int64_t> expected = dim.evaluate(bindings);
    if (expected && *expected != tensor.shape()[i]) {
      fail(ErrorCode::kInvalidArgument, "input \"{}\" of shape {}: axis {} should be {} = {}", value.name,
           to_string(tensor.shape()), i, dim.to_string(), *expected);
    }
  }
}

// The graph input whose value decides an If, or an invalid id.
ValueId deciding_input(const Graph& graph, const Node& node) {
  if (node.op != "If") return {};
  ValueId condition = node.inputs[0];
  while (graph.value(condition).kind == ValueKind::kResult) {
    const Node& maker = graph.node(graph.value(condition).producer);
    if (maker.op != "Squeeze" && maker.op != "Reshape" && maker.op != "Identity") return {};
    condition = maker.inputs[0];
  }
  return graph.value(condition).kind == ValueKind::kInput ? condition : ValueId();
}

// Whether a run reads an input: not if nothing but branches does that another input's value keeps from running.
bool is_read(const Graph& graph, ValueId input, const std::map<ValueId, const Tensor*>& given) {
  const bool used = std::ranges::any_of(graph.value(input).uses, [&](const Use& use) {
    const Node& node = graph.node(use.node);
    const ValueId condition = deciding_input(graph, node);
    const auto decides = condition.valid() ? given.find(condition) : given.end();
    if (decides == given.end() || use.input == 0 || decides->second->size() != 1) return true;
    const Graph& branch = *node.subgraphs[decides->second->item() != 0 ? 0 : 1].graph;
    return is_read(branch, branch.inputs()[use.input - 1], {});
  });
  return used || graph.is_output(input);
}

}  // namespace

std::string closest(std::string_view word, std::span<const std::string> candidates) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 2) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::vector<Tensor> match_inputs(const Graph& graph, const TensorMap& given) {
  std::vector<std::string> names;
  for (const ValueId id : graph.inputs()) names.push_back(graph.value(id).name);
  for (const auto& [name, tensor] : given) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string near = closest(name, names);
    fail(ErrorCode::kInvalidArgument, "the model has no input \"{}\"{}", name,
         near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
  }
  std::vector<Tensor> ordered;
  for (const ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    const auto found = given.find(value.name);
    if (found == given.end() && !value.tensor) {
      fail(ErrorCode::kInvalidArgument, "input \"{}\" ({}) is missing", value.name, to_string(value.type));
    }
    ordered.push_back(found != given.end() ? found->second : *value.tensor);
  }
  return check_inputs(graph, ordered);
}

std::vector<Tensor> check_inputs(const Graph& graph, std::span<const Tensor> given) {
  if (given.size() != graph.inputs().size()) {
    fail(ErrorCode::kInvalidArgument, "the model has {} inputs, {} are given", graph.inputs().size(), given.size());
  }
  std::vector<Tensor> result;
  result.reserve(given.size());
  Bindings bindings;
  std::map<ValueId, const Tensor*> by_id;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const Value& value = graph.value(graph.inputs()[i]);
    const Tensor& tensor = given[i];
    by_id[graph.inputs()[i]] = &tensor;
    if (tensor.dtype() != value.type.dtype) {
      fail(ErrorCode::kInvalidArgument, "input \"{}\" is declared as {}, {} is given", value.name,
           to_string(value.type), to_string(tensor.dtype()));
    }
  }
  std::vector<std::size_t> unread;
  for (std::size_t i = 0; i < given.size(); ++i) {
    // An input that this run does not read may be a placeholder, whose symbols say nothing about the others'.
    const bool read = graph.value(graph.inputs()[i]).uses.empty() || is_read(graph, graph.inputs()[i], by_id);
    Bindings own;
    match_shape(graph.value(graph.inputs()[i]), given[i], read ? bindings : own);
    if (!read) unread.push_back(i);
    result.push_back(given[i].aligned());
  }
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (std::ranges::find(unread, i) != unread.end()) continue;
    check_compound_dims(graph.value(graph.inputs()[i]), result[i], bindings);
  }
  return result;
}

}  // namespace weft::runtime
