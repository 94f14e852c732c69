#include "ops/builder.h"

#include "ops/shape_util.h"

namespace weft {
namespace {

Expr binary(std::string_view op, Expr a, Expr b) { return a.builder().make(op, {a.id(), b.id()}); }

Expr number(Expr like, double value) { return like.builder().scalar_like(like, value); }

}  // namespace

Expr operator+(Expr a, Expr b) { return binary("Add", a, b); }
Expr operator-(Expr a, Expr b) { return binary("Sub", a, b); }
Expr operator*(Expr a, Expr b) { return binary("Mul", a, b); }
Expr operator/(Expr a, Expr b) { return binary("Div", a, b); }
Expr operator+(Expr a, double b) { return a + number(a, b); }
Expr operator-(Expr a, double b) { return a - number(a, b); }
Expr operator*(Expr a, double b) { return a * number(a, b); }
Expr operator/(Expr a, double b) { return a / number(a, b); }
Expr operator-(double a, Expr b) { return number(b, a) - b; }
Expr operator/(double a, Expr b) { return number(b, a) / b; }
Expr operator-(Expr a) { return a.builder().unary("Neg", a); }

Builder::Builder(Graph& graph, NodeId before, Origin origin)
    : graph_(&graph), before_(before), origin_(std::move(origin)) {}

Expr Builder::make(std::string_view op, std::initializer_list<ValueId> inputs, Attributes attributes,
                   std::string_view name_hint) {
  return make(op, std::span<const ValueId>(inputs.begin(), inputs.size()), std::move(attributes), name_hint);
}

Expr Builder::make(std::string_view op, std::span<const ValueId> inputs, Attributes attributes,
                   std::string_view name_hint) {
  const Expr result = make_many(op, inputs, 1, std::move(attributes)).front();
  if (!name_hint.empty()) graph_->rename_value(result, name_hint);
  return result;
}

std::vector<Expr> Builder::make_many(std::string_view op, std::span<const ValueId> inputs, std::size_t output_count,
                                     Attributes attributes, std::vector<Subgraph> subgraphs) {
  NodeSpec spec;
  spec.op = op;
  spec.inputs.assign(inputs.begin(), inputs.end());
  while (!spec.inputs.empty() && !spec.inputs.back().valid()) spec.inputs.pop_back();
  spec.attributes = std::move(attributes);
  spec.subgraphs = std::move(subgraphs);
  spec.origin = origin_;
  const std::vector<OutputSpec> outputs(output_count);
  const NodeId node = graph_->add_node(std::move(spec), outputs, before_);
  check_schema(*graph_, node);
  infer_node(*graph_, node);
  std::vector<Expr> result;
  for (const ValueId output : graph_->node(node).outputs) result.emplace_back(*this, output);
  return result;
}

Expr Builder::constant(Tensor tensor, std::string_view name_hint) {
  return wrap(graph_->add_constant(std::move(tensor), std::string(name_hint)));
}

Expr Builder::ints(std::vector<std::int64_t> values) { return constant(Tensor::vector<std::int64_t>(values)); }

Expr Builder::scalar(DType dtype, double value) { return constant(Tensor::full(dtype, {}, value)); }

const Dim& Builder::dim(ValueId id, std::int64_t axis) const {
  const Shape& known = shape(id);
  return known[static_cast<std::size_t>(normalize_axis(axis, static_cast<std::int64_t>(known.size())))];
}

const Shape& Builder::shape(ValueId id) const {
  const Value& value = graph_->value(id);
  if (!value.type.shape) {
    fail(ErrorCode::kInvalidModel, "the rank of value \"{}\" is not known", value.name);
  }
  return *value.type.shape;
}

Expr Builder::mean(Expr x, std::vector<std::int64_t> axes, bool keepdims) {
  return make("ReduceMean", {x.id(), ints(std::move(axes)).id()}, {{"keepdims", std::int64_t{keepdims}}});
}

Expr Builder::sum(Expr x, std::vector<std::int64_t> axes, bool keepdims) {
  return make("ReduceSum", {x.id(), ints(std::move(axes)).id()}, {{"keepdims", std::int64_t{keepdims}}});
}

Expr Builder::transpose(Expr x, std::vector<std::int64_t> perm) {
  return make("Transpose", {x.id()}, {{"perm", std::move(perm)}});
}

Expr Builder::reshape(Expr x, std::vector<std::int64_t> shape) {
  return make("Reshape", {x.id(), ints(std::move(shape)).id()});
}

Expr Builder::unsqueeze(Expr x, std::vector<std::int64_t> axes) {
  return make("Unsqueeze", {x.id(), ints(std::move(axes)).id()});
}

Expr Builder::squeeze(Expr x, std::vector<std::int64_t> axes) {
  return make("Squeeze", {x.id(), ints(std::move(axes)).id()});
}

Expr Builder::concat(std::span<const ValueId> xs, std::int64_t axis) { return make("Concat", xs, {{"axis", axis}}); }

Expr Builder::slice(Expr x, std::int64_t axis, std::int64_t start, std::int64_t end) {
  return make("Slice", {x.id(), ints({start}).id(), ints({end}).id(), ints({axis}).id()});
}

Expr Builder::cast(Expr x, DType to) {
  if (dtype(x) == to) return x;
  return make("Cast", {x.id()}, {{"to", to}});
}

Expr Builder::softmax(Expr x, std::int64_t axis) { return make("Softmax", {x.id()}, {{"axis", axis}}); }

Expr Builder::extent_of(Expr x, std::int64_t axis) {
  const Expr shape = shape_of(x);
  return make("Gather", {shape.id(), ints({axis}).id()}, {{"axis", std::int64_t{0}}});
}

// --- Decompositions --------------------------------------------------------------------------------

Expansion::Expansion(Graph& graph, const OpDef& def, const Node& node, std::span<const ValueId> inputs, NodeId before)
    : Builder(graph, before, node.origin),
      attributes_(def, node.attributes),
      inputs_(inputs.begin(), inputs.end()),
      results_(node.outputs.size()) {}

Expr Expansion::input(std::size_t index) {
  if (!has(index)) fail(ErrorCode::kInvalidModel, "input {} is missing", index);
  return wrap(inputs_[index]);
}

void Expansion::set_output(std::size_t index, Expr value) {
  if (index < results_.size()) results_[index] = value.id();
}

bool expand_node(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const OpDef& def = get_op(node.op);
  if (def.decompose == nullptr) return false;
  const std::vector<ValueId> outputs = node.outputs;
  // The Expansion reads attributes while nodes are added, which moves the node.
  Node copy;
  copy.op = node.op;
  copy.inputs = node.inputs;
  copy.outputs = node.outputs;
  copy.attributes = node.attributes;
  copy.origin = node.origin;
  Expansion expansion(graph, def, copy, copy.inputs, id);
  with_frame([&] { return "in the decomposition of " + describe(copy); }, [&] { def.decompose(expansion); });
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].valid()) graph.replace_uses(outputs[i], expansion.results()[i]);
  }
  graph.erase_node(id);
  return true;
}

Graph decomposition_graph(const Node& node, std::span<const TensorType> input_types) {
  const OpDef& def = get_op(node.op);
  if (def.decompose == nullptr) {
    fail(ErrorCode::kInternal, "{} has no decomposition", node.op);
  }
  Graph graph(node.op);
  std::vector<ValueId> inputs;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) {
      inputs.emplace_back();
      continue;
    }
    const std::size_t parameter = std::min(i, def.inputs.size() - 1);
    std::string name(def.inputs[parameter].name);
    if (def.inputs[parameter].arity == Arity::kVariadic) name += fmt::format("_{}", i - parameter);
    inputs.push_back(graph.add_input(std::move(name), input_types[i]));
  }
  Expansion expansion(graph, def, node, inputs, {});
  expansion.set_origin({});
  with_frame([&] { return "in the decomposition of " + describe(node); }, [&] { def.decompose(expansion); });
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    graph.add_output(std::string(def.outputs[std::min(i, def.outputs.size() - 1)].name), expansion.results()[i]);
  }
  return graph;
}

}  // namespace weft
