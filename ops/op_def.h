// What an operator is: schema, inference, and its meaning as a reference kernel or a decomposition.
//
// weft's operators are those of ONNX in one canonical form, the newest signature of each (axes of
// reductions, Squeeze, Unsqueeze, Pad, Split sizes ... are inputs), plus the fused operators that
// passes/ introduce. Importers lower older versions to it; nothing behind them sees an opset.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace weft {

class Expansion;  // ops/builder.h

enum class Arity : std::uint8_t { kRequired, kOptional, kVariadic };

struct Parameter {
  std::string_view name;
  Arity arity = Arity::kRequired;
};

enum class AttributeKind : std::uint8_t { kInt, kFloat, kString, kInts, kFloats, kStrings, kTensor, kType };

struct AttributeDef {
  std::string_view name;
  AttributeKind kind = AttributeKind::kInt;
  bool required = false;
  std::optional<Attribute> fallback = std::nullopt;  // value when absent (none: absent has a meaning)
};

class AttributeReader;
class InferContext;
class KernelContext;

struct OpDef {
  std::string_view name;
  std::vector<Parameter> inputs;
  std::vector<Parameter> outputs;
  std::vector<AttributeDef> attributes = {};
  std::vector<std::string_view> subgraphs = {};  // names, in order
  void (*infer)(InferContext&) = nullptr;
  // Exactly one of the two gives the meaning.
  void (*reference)(KernelContext&) = nullptr;
  void (*decompose)(Expansion&) = nullptr;
  bool commutative = false;   // f(a, b) == f(b, a)
  bool associative = false;   // for pattern matching only, rewrites never reassociate floats
  bool deterministic = true;  // false: never folded nor merged (random number generators)
};

// Attributes of a node seen through its schema: absent ones read as their fallback.
class AttributeReader {
 public:
  AttributeReader(const OpDef& def, const Attributes& attributes) : def_(&def), attributes_(&attributes) {}

  bool has(std::string_view name) const;  // given, or has a fallback
  // Error kInvalidModel when absent or of another kind.
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  const std::vector<std::int64_t>& integers(std::string_view name) const;
  const std::vector<double>& numbers(std::string_view name) const;
  const std::vector<std::string>& texts(std::string_view name) const;
  const Tensor& tensor(std::string_view name) const;
  DType type(std::string_view name) const;

 private:
  const Attribute& find(std::string_view name) const;
  const OpDef* def_;
  const Attributes* attributes_;
};

// Inference: from types (and small integer contents) of the inputs to those of the outputs. The same
// function serves symbolic shapes at compile time and concrete ones when a Session binds.
class InferContext {
 public:
  struct Input {
    const TensorType* type = nullptr;            // null: absent
    const std::vector<Dim>* elements = nullptr;  // known integer contents, or null
    const Tensor* tensor = nullptr;              // known contents (a constant), or null
  };
  struct Result {
    TensorType type;
    bool has_dtype = false;
    std::optional<std::vector<Dim>> elements;
  };
  // Infers subgraph `index` for given input types; returns the types of its outputs.
  using InferSubgraph = std::function<std::vector<Result>(std::size_t index, std::span<const Input> inputs)>;

  InferContext(const OpDef& def, const Attributes& attributes, std::span<const Input> inputs, std::size_t output_count,
               std::function<Dim()> fresh_symbol, InferSubgraph infer_subgraph = {});

  std::size_t input_count() const { return inputs_.size(); }
  std::size_t output_count() const { return results_.size(); }
  bool has(std::size_t input) const;
  DType dtype(std::size_t input) const;  // Error kInvalidModel when absent
  const TensorType& type(std::size_t input) const;
  bool has_shape(std::size_t input) const;  // rank known
  // The shape; when the rank is unknown, inference of this node ends here without an error: outputs
  // whose dtype was set have unknown rank. So set dtypes first.
  const Shape& shape(std::size_t input) const;
  std::int64_t rank(std::size_t input) const { return static_cast<std::int64_t>(shape(input).size()); }
  // Contents of a small integer input in terms of symbols; null when unknown.
  const std::vector<Dim>* elements(std::size_t input) const;
  // The same when every element is a known number.
  std::optional<std::vector<std::int64_t>> integers(std::size_t input) const;
  const Tensor* tensor(std::size_t input) const;

  const AttributeReader& attributes() const { return attributes_; }
  std::int64_t integer(std::string_view name) const { return attributes_.integer(name); }

  void set_dtype(std::size_t output, DType dtype);
  void set_shape(std::size_t output, Shape shape);
  void set(std::size_t output, DType dtype, Shape shape);
  void set_type(std::size_t output, TensorType type);
  void set_elements(std::size_t output, std::vector<Dim> elements);
  void set_result(std::size_t output, Result result);

  // A new symbol for an extent that only the run knows.
  Dim unknown_dim() const { return fresh_symbol_(); }
  std::vector<Result> infer_subgraph(std::size_t index, std::span<const Input> inputs) const;

  std::span<Result> results() { return results_; }

 private:
  const OpDef* def_;
  AttributeReader attributes_;
  std::span<const Input> inputs_;
  std::vector<Result> results_;
  std::function<Dim()> fresh_symbol_;
  InferSubgraph infer_subgraph_;
};

// Thrown by InferContext::shape() and caught by infer_node(): not an error.
struct UnknownRank {};

// At most this many elements are tracked symbolically.
inline constexpr std::size_t kMaxTrackedElements = 256;

// One application of a reference kernel.
class KernelContext {
 public:
  // Gives the tensor an output is written to.
  using Allocate = std::function<Tensor(std::size_t output, DType dtype, Extents shape)>;
  using RunSubgraph = std::function<std::vector<Tensor>(std::size_t index, std::span<const Tensor> inputs)>;

  KernelContext(const OpDef& def, const Node& node, std::span<const Tensor* const> inputs, std::size_t output_count,
                Allocate allocate = {}, RunSubgraph run_subgraph = {});

  const Node& node() const { return *node_; }
  std::size_t input_count() const { return inputs_.size(); }
  std::size_t output_count() const { return outputs_.size(); }
  bool has(std::size_t input) const { return input < inputs_.size() && inputs_[input] != nullptr; }
  const Tensor& input(std::size_t index) const;  // Error kInvalidModel when absent
  const AttributeReader& attributes() const { return attributes_; }
  std::int64_t integer(std::string_view name) const { return attributes_.integer(name); }

  // True when somebody reads this output (it is named in the node).
  bool wants(std::size_t output) const;
  // Allocates output `index`, uninitialized; call once per output, then write through it.
  Tensor& output(std::size_t index, DType dtype, Extents shape);
  // Makes output `index` share the bytes of `tensor` (Identity, Reshape, results of subgraphs).
  void set_output(std::size_t index, Tensor tensor);

  std::vector<Tensor> run_subgraph(std::size_t index, std::span<const Tensor> inputs) const;

  // Every wanted output must be set; Error kInternal otherwise.
  std::vector<Tensor> take_outputs();

 private:
  const OpDef* def_;
  const Node* node_;
  AttributeReader attributes_;
  std::span<const Tensor* const> inputs_;
  std::vector<Tensor> outputs_;
  std::vector<bool> set_;
  Allocate allocate_;
  RunSubgraph run_subgraph_;
};

// --- The table ---------------------------------------------------------------------------------

// Null when weft has no such operator.
const OpDef* find_op(std::string_view name);
// Error kUnsupported when there is none.
const OpDef& get_op(std::string_view name);
// All operators, sorted by name.
std::span<const OpDef* const> all_ops();

// --- Services for importers, passes and runtime ------------------------------------------------

// Checks a node's inputs, outputs and attributes against its schema. Error kInvalidModel.
void check_schema(const Graph& graph, NodeId node);

// Sets types (and elements) of the node's outputs from its inputs, subgraphs included. What was
// known before and is more precise stays. Error kInvalidModel with the node as a frame.
void infer_node(Graph& graph, NodeId node);
// Every node in order.
void infer_graph(Graph& graph);

// "node "/h.0/attn/MatMul" (MatMul)" for error frames.
std::string describe(const Node& node);

// Runs one node on tensors with its reference kernel, or its decomposition where it has none.
// inputs: one per node input, null where absent. Thread safe. Errors carry the node as a frame.
std::vector<Tensor> evaluate_node(const Node& node, std::span<const Tensor* const> inputs,
                                  const KernelContext::Allocate& allocate = {});

// Runs a whole graph with reference kernels only: the oracle of tests, the engine of constant
// folding, and how subgraphs run. inputs: in the order of Graph::inputs() (states' current values
// are appended in order). Returns the outputs, then the states' next values.
std::vector<Tensor> evaluate_graph(const Graph& graph, std::span<const Tensor> inputs);

}  // namespace weft
