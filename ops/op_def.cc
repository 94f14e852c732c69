#include "ops/op_def.h"

#include <algorithm>

namespace weft {
namespace {

const AttributeDef* find_definition(const OpDef& def, std::string_view name) {
  for (const AttributeDef& attribute : def.attributes) {
    if (attribute.name == name) return &attribute;
  }
  return nullptr;
}

template <class T>
const T& expect(const Attribute& attribute, std::string_view name) {
  if (const T* value = std::get_if<T>(&attribute)) return *value;
  fail(ErrorCode::kInvalidModel, "attribute {} is of the wrong kind", name);
}

}  // namespace

// --- AttributeReader -------------------------------------------------------------------------------

const Attribute& AttributeReader::find(std::string_view name) const {
  const auto found = attributes_->find(name);
  if (found != attributes_->end()) return found->second;
  const AttributeDef* definition = find_definition(*def_, name);
  if (definition == nullptr) {
    fail(ErrorCode::kInternal, "operator {} has no attribute {}", def_->name, name);
  }
  if (!definition->fallback) fail(ErrorCode::kInvalidModel, "attribute {} is missing", name);
  return *definition->fallback;
}

bool AttributeReader::has(std::string_view name) const {
  if (attributes_->find(name) != attributes_->end()) return true;
  const AttributeDef* definition = find_definition(*def_, name);
  return definition != nullptr && definition->fallback.has_value();
}

std::int64_t AttributeReader::integer(std::string_view name) const { return expect<std::int64_t>(find(name), name); }
double AttributeReader::number(std::string_view name) const { return expect<double>(find(name), name); }
const std::string& AttributeReader::text(std::string_view name) const { return expect<std::string>(find(name), name); }
const std::vector<std::int64_t>& AttributeReader::integers(std::string_view name) const {
  return expect<std::vector<std::int64_t>>(find(name), name);
}
const std::vector<double>& AttributeReader::numbers(std::string_view name) const {
  return expect<std::vector<double>>(find(name), name);
}
const std::vector<std::string>& AttributeReader::texts(std::string_view name) const {
  return expect<std::vector<std::string>>(find(name), name);
}
const Tensor& AttributeReader::tensor(std::string_view name) const { return expect<Tensor>(find(name), name); }
DType AttributeReader::type(std::string_view name) const { return expect<DType>(find(name), name); }

// --- InferContext ----------------------------------------------------------------------------------

InferContext::InferContext(const OpDef& def, const Attributes& attributes, std::span<const Input> inputs,
                           std::size_t output_count, std::function<Dim()> fresh_symbol, InferSubgraph infer_subgraph)
    : def_(&def),
      attributes_(def, attributes),
      inputs_(inputs),
      results_(output_count),
      fresh_symbol_(std::move(fresh_symbol)),
      infer_subgraph_(std::move(infer_subgraph)) {}

bool InferContext::has(std::size_t input) const { return input < inputs_.size() && inputs_[input].type != nullptr; }

DType InferContext::dtype(std::size_t input) const {
  if (!has(input)) fail(ErrorCode::kInvalidModel, "input {} is missing", input);
  return inputs_[input].type->dtype;
}

bool InferContext::has_shape(std::size_t input) const { return has(input) && inputs_[input].type->shape.has_value(); }

const Shape& InferContext::shape(std::size_t input) const {
  if (!has(input)) fail(ErrorCode::kInvalidModel, "input {} is missing", input);
  if (!inputs_[input].type->shape) throw UnknownRank{};
  return *inputs_[input].type->shape;
}

const std::vector<Dim>* InferContext::elements(std::size_t input) const {
  return has(input) ? inputs_[input].elements : nullptr;
}

std::optional<std::vector<std::int64_t>> InferContext::integers(std::size_t input) const {
  if (const std::vector<Dim>* known = elements(input)) {
    std::vector<std::int64_t> result;
    result.reserve(known->size());
    for (const Dim& dim : *known) {
      if (!dim.is_constant()) return std::nullopt;
      result.push_back(dim.value());
    }
    return result;
  }
  const Tensor* contents = tensor(input);
  if (contents == nullptr || !is_integer(contents->dtype())) return std::nullopt;
  return contents->to_ints();
}

const Tensor* InferContext::tensor(std::size_t input) const { return has(input) ? inputs_[input].tensor : nullptr; }

const TensorType& InferContext::type(std::size_t input) const {
  dtype(input);
  return *inputs_[input].type;
}

void InferContext::set_type(std::size_t output, TensorType type) {
  set_dtype(output, type.dtype);
  results_.at(output).type = std::move(type);
}

void InferContext::set_dtype(std::size_t output, DType dtype) {
  if (output >= results_.size()) return;
  results_[output].type.dtype = dtype;
  results_[output].has_dtype = true;
}

void InferContext::set_shape(std::size_t output, Shape shape) {
  if (output < results_.size()) results_[output].type.shape = std::move(shape);
}

void InferContext::set(std::size_t output, DType dtype, Shape shape) {
  set_dtype(output, dtype);
  set_shape(output, std::move(shape));
}

void InferContext::set_elements(std::size_t output, std::vector<Dim> elements) {
  if (output < results_.size() && elements.size() <= kMaxTrackedElements) {
    results_[output].elements = std::move(elements);
  }
}

void InferContext::set_result(std::size_t output, Result result) {
  if (output < results_.size()) results_[output] = std::move(result);
}

std::vector<InferContext::Result> InferContext::infer_subgraph(std::size_t index, std::span<const Input> inputs) const {
  if (!infer_subgraph_) fail(ErrorCode::kInternal, "{} has no subgraphs here", def_->name);
  return infer_subgraph_(index, inputs);
}

// --- KernelContext ---------------------------------------------------------------------------------

KernelContext::KernelContext(const OpDef& def, const Node& node, std::span<const Tensor* const> inputs,
                             std::size_t output_count, Allocate allocate, RunSubgraph run_subgraph)
    : def_(&def),
      node_(&node),
      attributes_(def, node.attributes),
      inputs_(inputs),
      outputs_(output_count),
      set_(output_count, false),
      allocate_(std::move(allocate)),
      run_subgraph_(std::move(run_subgraph)) {}

const Tensor& KernelContext::input(std::size_t index) const {
  if (!has(index)) fail(ErrorCode::kInvalidModel, "input {} is missing", index);
  return *inputs_[index];
}

bool KernelContext::wants(std::size_t output) const {
  return output < node_->outputs.size() && node_->outputs[output].valid();
}

Tensor& KernelContext::output(std::size_t index, DType dtype, Extents shape) {
  if (index >= outputs_.size()) fail(ErrorCode::kInternal, "{} has no output {}", def_->name, index);
  outputs_[index] =
      allocate_ ? allocate_(index, dtype, std::move(shape)) : Tensor::uninitialized(dtype, std::move(shape));
  set_[index] = true;
  return outputs_[index];
}

void KernelContext::set_output(std::size_t index, Tensor tensor) {
  if (index >= outputs_.size()) return;
  outputs_[index] = std::move(tensor);
  set_[index] = true;
}

std::vector<Tensor> KernelContext::run_subgraph(std::size_t index, std::span<const Tensor> inputs) const {
  if (!run_subgraph_) fail(ErrorCode::kInternal, "{} has no subgraphs here", def_->name);
  return run_subgraph_(index, inputs);
}

std::vector<Tensor> KernelContext::take_outputs() {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (!set_[i] && wants(i)) {
      fail(ErrorCode::kInternal, "the kernel of {} left output {} unset", def_->name, i);
    }
  }
  return std::move(outputs_);
}

// --- Schema ----------------------------------------------------------------------------------------

std::string describe(const Node& node) {
  if (node.origin.nodes.empty()) return fmt::format("node {}", node.op);
  return fmt::format("node \"{}\" ({})", node.origin.nodes.front(), node.op);
}

namespace {

void check_arity(std::string_view what, std::span<const Parameter> parameters, std::span<const ValueId> given) {
  const bool variadic = !parameters.empty() && parameters.back().arity == Arity::kVariadic;
  if (given.size() > parameters.size() && !variadic) {
    fail(ErrorCode::kInvalidModel, "{} {}s given, at most {} wanted", given.size(), what, parameters.size());
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].arity != Arity::kRequired) continue;
    if (i >= given.size() || (!given[i].valid() && what == "input")) {
      fail(ErrorCode::kInvalidModel, "{} \"{}\" is missing", what, parameters[i].name);
    }
  }
}

}  // namespace

void check_schema(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  with_frame([&] { return "in " + describe(node); },
             [&] {
               const OpDef& def = get_op(node.op);
               check_arity("input", def.inputs, node.inputs);
               check_arity("output", def.outputs, node.outputs);
               for (const auto& [name, attribute] : node.attributes) {
                 const AttributeDef* definition = find_definition(def, name);
                 if (definition == nullptr) {
                   fail(ErrorCode::kInvalidModel, "operator {} has no attribute \"{}\"", def.name, name);
                 }
                 if (attribute.index() != static_cast<std::size_t>(definition->kind)) {
                   fail(ErrorCode::kInvalidModel, "attribute \"{}\" is of the wrong kind", name);
                 }
               }
               for (const AttributeDef& definition : def.attributes) {
                 if (definition.required && !node.attributes.contains(definition.name)) {
                   fail(ErrorCode::kInvalidModel, "attribute \"{}\" is missing", definition.name);
                 }
               }
               if (node.subgraphs.size() != def.subgraphs.size()) {
                 fail(ErrorCode::kInvalidModel, "{} subgraphs given, {} wanted", node.subgraphs.size(),
                      def.subgraphs.size());
               }
             });
}

}  // namespace weft
