// Adding nodes to a graph with schema check and inference at once; how importers lower, how rules
// build replacements, how decompositions are written.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "ops/op_def.h"

namespace weft {

class Builder;

// A value under construction; arithmetic on it adds nodes. Operators between an Expr and a number
// make the number a scalar constant of the Expr's dtype.
class Expr {
 public:
  Expr() = default;
  Expr(Builder& builder, ValueId id) : builder_(&builder), id_(id) {}
  ValueId id() const { return id_; }
  operator ValueId() const { return id_; }
  explicit operator bool() const { return id_.valid(); }
  Builder& builder() const { return *builder_; }

 private:
  Builder* builder_ = nullptr;
  ValueId id_;
};

Expr operator+(Expr a, Expr b);
Expr operator-(Expr a, Expr b);
Expr operator*(Expr a, Expr b);
Expr operator/(Expr a, Expr b);
Expr operator+(Expr a, double b);
Expr operator-(Expr a, double b);
Expr operator*(Expr a, double b);
Expr operator/(Expr a, double b);
Expr operator-(double a, Expr b);
Expr operator/(double a, Expr b);
Expr operator-(Expr a);

class Builder {
 public:
  // New nodes go before `before` (at the end if invalid) and carry `origin`.
  explicit Builder(Graph& graph, NodeId before = {}, Origin origin = {});

  Graph& graph() const { return *graph_; }
  const Origin& origin() const { return origin_; }
  void set_origin(Origin origin) { origin_ = std::move(origin); }
  void set_before(NodeId before) { before_ = before; }

  // Adds an operator; returns its first output. Invalid ids are absent inputs (trailing ones are
  // dropped). Errors of schema and inference carry the node as a frame.
  Expr make(std::string_view op, std::initializer_list<ValueId> inputs, Attributes attributes = {},
            std::string_view name_hint = {});
  Expr make(std::string_view op, std::span<const ValueId> inputs, Attributes attributes = {},
            std::string_view name_hint = {});
  // The same with any number of outputs (and subgraphs); absent outputs are not supported here.
  std::vector<Expr> make_many(std::string_view op, std::span<const ValueId> inputs, std::size_t output_count,
                              Attributes attributes = {}, std::vector<Subgraph> subgraphs = {});

  Expr wrap(ValueId id) { return {*this, id}; }
  Expr constant(Tensor tensor, std::string_view name_hint = {});
  Expr ints(std::vector<std::int64_t> values);  // i64[n]
  Expr scalar(DType dtype, double value);       // dtype[]
  Expr scalar_like(Expr like, double value) { return scalar(dtype(like), value); }

  DType dtype(ValueId id) const { return graph_->value(id).type.dtype; }
  // Error kInvalidModel when the rank is unknown.
  const Shape& shape(ValueId id) const;
  // The extent of one axis, which may count from the end. Error kInvalidModel when there is none.
  const Dim& dim(ValueId id, std::int64_t axis) const;
  std::int64_t rank(ValueId id) const { return static_cast<std::int64_t>(shape(id).size()); }

  // Shorthands; axes may be negative.
  Expr unary(std::string_view op, Expr x) { return make(op, {x.id()}); }
  Expr sqrt(Expr x) { return unary("Sqrt", x); }
  Expr exp(Expr x) { return unary("Exp", x); }
  Expr tanh(Expr x) { return unary("Tanh", x); }
  Expr erf(Expr x) { return unary("Erf", x); }
  Expr sigmoid(Expr x) { return unary("Sigmoid", x); }
  Expr mean(Expr x, std::vector<std::int64_t> axes, bool keepdims = true);
  Expr sum(Expr x, std::vector<std::int64_t> axes, bool keepdims = true);
  Expr matmul(Expr a, Expr b) { return make("MatMul", {a.id(), b.id()}); }
  Expr transpose(Expr x, std::vector<std::int64_t> perm);
  Expr reshape(Expr x, std::vector<std::int64_t> shape);  // ONNX rules: 0 copies, -1 infers
  Expr reshape(Expr x, Expr shape) { return make("Reshape", {x.id(), shape.id()}); }
  Expr unsqueeze(Expr x, std::vector<std::int64_t> axes);
  Expr squeeze(Expr x, std::vector<std::int64_t> axes);
  Expr concat(std::span<const ValueId> xs, std::int64_t axis);
  Expr slice(Expr x, std::int64_t axis, std::int64_t start, std::int64_t end);
  Expr cast(Expr x, DType to);  // x itself when it has that dtype
  Expr softmax(Expr x, std::int64_t axis);
  Expr where(Expr condition, Expr a, Expr b) { return make("Where", {condition.id(), a.id(), b.id()}); }
  // i64[rank] and i64[1]
  Expr shape_of(Expr x) { return make("Shape", {x.id()}); }
  Expr extent_of(Expr x, std::int64_t axis);

 private:
  Graph* graph_;
  NodeId before_;
  Origin origin_;
};

// What a decomposition sees: the inputs and attributes of the node, and a Builder.
class Expansion : public Builder {
 public:
  Expansion(Graph& graph, const OpDef& def, const Node& node, std::span<const ValueId> inputs, NodeId before);

  bool has(std::size_t index) const { return index < inputs_.size() && inputs_[index].valid(); }
  Expr input(std::size_t index);  // Error kInvalidModel when absent
  std::size_t output_count() const { return results_.size(); }
  const AttributeReader& attributes() const { return attributes_; }
  std::int64_t integer(std::string_view name) const { return attributes_.integer(name); }
  double number(std::string_view name) const { return attributes_.number(name); }
  void set_output(std::size_t index, Expr value);
  std::span<const ValueId> results() const { return results_; }

 private:
  AttributeReader attributes_;
  std::vector<ValueId> inputs_;
  std::vector<ValueId> results_;
};

// Replaces a node that has a decomposition by it, in place. Returns false if it has none.
bool expand_node(Graph& graph, NodeId node);

// A graph that is the decomposition of `op` for inputs of the given types (its parameters named as
// in the schema): the body of the ONNX function the exporter writes.
Graph decomposition_graph(const Node& node, std::span<const TensorType> input_types);

}  // namespace weft
