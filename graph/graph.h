// The IR: a typed graph in single-assignment form. Knows no operator by name.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "graph/dim.h"
#include "graph/dtype.h"
#include "graph/error.h"
#include "graph/tensor.h"

namespace weft {

// An index that cannot be confused with another kind of index. Default: refers to nothing.
template <class Tag>
struct Id {
  std::uint32_t index = std::numeric_limits<std::uint32_t>::max();
  bool valid() const { return index != std::numeric_limits<std::uint32_t>::max(); }
  explicit operator bool() const { return valid(); }
  friend auto operator<=>(Id, Id) = default;
};
using ValueId = Id<struct ValueTag>;
using NodeId = Id<struct NodeTag>;

// What is known before a run about a tensor.
struct TensorType {
  DType dtype = DType::kF32;
  std::optional<Shape> shape;   // nullopt: unknown rank
  DType element = DType::kF32;  // of containers: the dtype of the tensors inside

  friend bool operator==(const TensorType&, const TensorType&) = default;
};
// "f32[B, S, 768]", "i64[]", "f32[*]" for an unknown rank, "sequence<f32>[*]"
std::string to_string(const TensorType& type);

class Graph;

using Attribute = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>, std::vector<double>,
                               std::vector<std::string>, Tensor, DType>;
bool operator_equal(const Attribute& a, const Attribute& b);  // tensors by bits, doubles by bits
using Attributes = std::map<std::string, Attribute, std::less<>>;

// Where a node came from: names of nodes of the imported file, and lines of the exported program
// ("modeling_gpt2.py:312 in forward") when the exporter recorded them. Rewrites merge origins.
struct Origin {
  std::vector<std::string> nodes;
  std::vector<std::string> sources;

  void merge(const Origin& other);  // appends what is not there yet
};

enum class ValueKind : std::uint8_t {
  kInput,     // given at each run (a graph input or the current value of a state)
  kConstant,  // `tensor` holds it
  kResult,    // output `output_index` of `producer`
};

struct Use {
  NodeId node;
  std::uint32_t input = 0;  // index into Node::inputs
  friend auto operator<=>(const Use&, const Use&) = default;
};

struct Value {
  std::string name;  // unique in its graph, never empty
  TensorType type;
  ValueKind kind = ValueKind::kResult;
  NodeId producer;
  std::uint32_t output_index = 0;
  // kConstant: the contents. kInput: the default taken when the caller gives none.
  std::optional<Tensor> tensor;
  // Contents of a small integer or bool tensor in terms of the symbols, when inference knows them.
  std::optional<std::vector<Dim>> elements;
  std::vector<Use> uses;  // by nodes of this graph; outputs and states are not listed here
};

struct Subgraph {
  std::string name;  // "then_branch", "else_branch", "body"
  std::unique_ptr<Graph> graph;
};

// An operator application. Inputs may be invalid ids (an optional input left out); so may outputs.
// Subgraphs capture nothing: values of the outer graph reach them as inputs of the node.
struct Node {
  std::string op;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  Attributes attributes;
  std::vector<Subgraph> subgraphs;
  Origin origin;
};

struct Output {
  std::string name;  // of the graph's interface; the value may be named otherwise, or be shared
  ValueId value;
};

// A value kept between runs: a run reads `current` and leaves `next` for the one that follows.
// `current` is a kInput value, not listed in Graph::inputs().
struct State {
  std::string name;
  ValueId current;
  ValueId next;
};

// What add_node takes.
struct NodeSpec {
  std::string op;
  std::vector<ValueId> inputs;
  Attributes attributes;
  std::vector<Subgraph> subgraphs;
  Origin origin;
};

struct OutputSpec {
  std::string name;  // a hint: made unique; empty: derived from the op
  TensorType type;
  bool absent = false;  // leaves an invalid id at this position
};

// A movable value type; clone() copies it. Not thread-safe while modified. References that value()
// and node() return stay valid until the next add_*. Ids of erased nodes and values are not reused.
// Errors of misuse (an id of another graph, erasing a node in use) are kInternal.
class Graph {
 public:
  explicit Graph(std::string name = "main") : name_(std::move(name)) {}
  Graph(Graph&&) noexcept = default;
  Graph& operator=(Graph&&) noexcept = default;
  Graph clone() const;

  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }

  // --- Building --------------------------------------------------------------------------------
  ValueId add_input(std::string name, TensorType type);
  ValueId add_constant(Tensor tensor, std::string name_hint = {});
  // Adds a node before `before` (at the end if invalid). Inputs must exist already.
  NodeId add_node(NodeSpec spec, std::span<const OutputSpec> outputs, NodeId before = {});
  void add_output(std::string name, ValueId value);
  // current is added as a kInput value of that type; next is set later.
  ValueId add_state(std::string name, TensorType type);
  void set_state_next(std::string_view state, ValueId next);
  // Turns graph input `current` and graph output `next` into a state; both leave the interface.
  void make_state(std::string name, ValueId current, std::size_t output_index);

  // --- Reading ---------------------------------------------------------------------------------
  const Value& value(ValueId id) const;
  Value& value(ValueId id);
  const Node& node(NodeId id) const;
  Node& node(NodeId id);  // change inputs only through set_input
  std::span<const ValueId> inputs() const { return inputs_; }
  std::span<const Output> outputs() const { return outputs_; }
  std::span<const State> states() const { return states_; }
  // Live nodes in execution order (a topological one, kept by insertion position).
  std::vector<NodeId> nodes() const;
  std::size_t node_count() const { return live_nodes_; }
  bool contains(NodeId id) const;
  bool contains(ValueId id) const;
  // Live values in order of creation.
  std::vector<ValueId> values() const;
  std::optional<ValueId> find_value(std::string_view name) const;
  // True when a graph output or a state's next is this value.
  bool is_output(ValueId id) const;
  // Uses by nodes plus appearances among outputs and states.
  std::size_t use_count(ValueId id) const;
  // The node that follows in execution order, invalid at the end.
  NodeId next_node(NodeId id) const;
  // Does a come before b in execution order?
  bool precedes(NodeId a, NodeId b) const;
  // "B", "u0", ...: a symbol that no type of this graph uses yet.
  Dim fresh_symbol();

  // --- Changing --------------------------------------------------------------------------------
  void set_input(NodeId node, std::size_t index, ValueId value);
  void set_output(std::size_t index, ValueId value);
  // Every use (by nodes, outputs, states) of `from` becomes one of `to`. The caller answers for
  // order: `to` must be defined before the first use.
  void replace_uses(ValueId from, ValueId to);
  // The node's outputs must have no uses left; they go with it.
  void erase_node(NodeId id);
  // A constant or unused input value without uses.
  void erase_value(ValueId id);
  void remove_input(std::size_t index);  // the input must be unused
  void remove_output(std::size_t index);
  void move_before(NodeId node, NodeId before);
  void rename_value(ValueId id, std::string_view name_hint);

  // A name like hint that no value of the graph has.
  std::string unique_name(std::string_view hint) const;

  // Free-form text carried through import and export (producer, domain versions, ...).
  std::map<std::string, std::string, std::less<>> metadata;

 private:
  struct NodeSlot {
    Node node;
    NodeId previous, next;
    bool live = false;
    std::uint64_t position = 0;  // grows along the order
  };
  struct ValueSlot {
    Value value;
    bool live = false;
  };

  ValueId new_value(Value value);
  void link(NodeId id, NodeId before);
  void unlink(NodeId id);
  void renumber();
  void add_use(ValueId value, Use use);
  void remove_use(ValueId value, Use use);

  std::string name_;
  std::vector<NodeSlot> nodes_;
  std::vector<ValueSlot> values_;
  NodeId first_, last_;
  std::size_t live_nodes_ = 0;
  std::vector<ValueId> inputs_;
  std::vector<Output> outputs_;
  std::vector<State> states_;
  std::map<std::string, ValueId, std::less<>> names_;
  std::uint32_t fresh_symbols_ = 0;
};

// Checks the structure: ids alive, one producer, uses consistent, inputs defined before use, names
// unique, states wired, constants of their declared type, subgraphs likewise. Error kInvalidModel
// naming the node or value.
void verify(const Graph& graph);

// Equal up to ids: same interface, nodes in the same order, names, types, attributes, tensors by
// bits. Origins and metadata are compared too. On difference, *difference (if given) says which.
bool equal(const Graph& a, const Graph& b, std::string* difference = nullptr);

}  // namespace weft
