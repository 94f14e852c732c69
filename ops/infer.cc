// Inference of a node inside a graph.
#include <algorithm>
#include <set>

#include "ops/op_def.h"

namespace weft {
namespace {

using Input = InferContext::Input;
using Result = InferContext::Result;

std::vector<Input> inputs_of(const Graph& graph, const Node& node) {
  std::vector<Input> inputs;
  inputs.reserve(node.inputs.size());
  for (const ValueId id : node.inputs) {
    if (!id.valid()) {
      inputs.push_back({});
      continue;
    }
    const Value& value = graph.value(id);
    inputs.push_back({&value.type, value.elements ? &*value.elements : nullptr,
                      value.kind == ValueKind::kConstant ? &*value.tensor : nullptr});
  }
  return inputs;
}

void collect_symbols(std::span<const Input> inputs, std::set<std::string>& symbols) {
  for (const Input& input : inputs) {
    if (input.type == nullptr || !input.type->shape) continue;
    for (const Dim& dim : *input.type->shape) {
      for (std::string& name : dim.symbols()) symbols.insert(std::move(name));
    }
  }
}

// Types of a subgraph's outputs for these inputs. Symbols that it made itself mean nothing outside:
// dims that contain one become new symbols of the outer graph.
std::vector<Result> infer_inside(Graph& outer, Graph& inner, std::span<const Input> inputs) {
  if (inputs.size() != inner.inputs().size()) {
    fail(ErrorCode::kInvalidModel, "subgraph \"{}\" takes {} inputs, {} given", inner.name(), inner.inputs().size(),
         inputs.size());
  }
  std::set<std::string> known;
  collect_symbols(inputs, known);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Value& value = inner.value(inner.inputs()[i]);
    if (inputs[i].type == nullptr) continue;
    value.type = *inputs[i].type;
    value.elements.reset();
    if (inputs[i].elements != nullptr) {
      value.elements = *inputs[i].elements;
      for (const Dim& dim : *inputs[i].elements) {
        for (std::string& name : dim.symbols()) known.insert(std::move(name));
      }
    }
  }
  // What was inferred before has symbols that may mean something else in the new inputs.
  for (const ValueId id : inner.values()) {
    Value& value = inner.value(id);
    if (value.kind != ValueKind::kResult) continue;
    value.type.shape.reset();
    value.elements.reset();
  }
  infer_graph(inner);
  const auto foreign = [&](const Dim& dim) {
    const std::vector<std::string> names = dim.symbols();
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return !known.contains(name); });
  };
  std::vector<Result> results;
  for (const Output& output : inner.outputs()) {
    const Value& value = inner.value(output.value);
    Result result{value.type, true, value.elements};
    if (result.type.shape) {
      for (Dim& dim : *result.type.shape) {
        if (foreign(dim)) dim = outer.fresh_symbol();
      }
    }
    if (result.elements && std::any_of(result.elements->begin(), result.elements->end(), foreign)) {
      result.elements.reset();
    }
    results.push_back(std::move(result));
  }
  return results;
}

// Keeps what was known before where this inference knows less.
void refine(Result& result, const TensorType& before, const std::set<std::string>& fresh) {
  if (!before.shape || before.dtype != result.type.dtype) return;
  if (!result.type.shape) {
    result.type.shape = before.shape;
    return;
  }
  if (before.shape->size() != result.type.shape->size()) return;
  for (std::size_t i = 0; i < before.shape->size(); ++i) {
    Dim& dim = (*result.type.shape)[i];
    const std::optional<std::string> name = dim.symbol_name();
    const Dim& old = (*before.shape)[i];
    if ((name && fresh.contains(*name)) || (old.is_constant() && !dim.is_constant())) dim = old;
  }
}

}  // namespace

void infer_node(Graph& graph, NodeId id) {
  Node& node = graph.node(id);
  with_frame([&] { return "in " + describe(node); },
             [&] {
               const OpDef& def = get_op(node.op);
               const std::vector<Input> inputs = inputs_of(graph, node);
               std::set<std::string> fresh;
               InferContext context(
                   def, node.attributes, inputs, node.outputs.size(),
                   [&] {
                     Dim symbol = graph.fresh_symbol();
                     fresh.insert(*symbol.symbol_name());
                     return symbol;
                   },
                   [&](std::size_t index, std::span<const Input> given) {
                     return infer_inside(graph, *node.subgraphs.at(index).graph, given);
                   });
               try {
                 def.infer(context);
               } catch (const UnknownRank&) {
               }
               for (std::size_t i = 0; i < node.outputs.size(); ++i) {
                 if (!node.outputs[i].valid()) continue;
                 Result& result = context.results()[i];
                 Value& value = graph.value(node.outputs[i]);
                 if (!result.has_dtype) fail(ErrorCode::kInternal, "{} infers no dtype for output {}", def.name, i);
                 refine(result, value.type, fresh);
                 value.type = std::move(result.type);
                 value.elements = std::move(result.elements);
                 // A dtype without integer contents, or a shape that disagrees, cannot have elements.
                 if (value.elements && !is_integer(value.type.dtype) && value.type.dtype != DType::kBool) {
                   value.elements.reset();
                 }
               }
             });
}

void infer_graph(Graph& graph) {
  for (const NodeId id : graph.nodes()) infer_node(graph, id);
}

}  // namespace weft
