#include <algorithm>
#include <set>

#include "graph/graph.h"

namespace weft {
namespace {

class Verifier {
 public:
  explicit Verifier(const Graph& graph) : graph_(graph) {}

  void run() {
    check_values();
    for (const ValueId id : graph_.inputs()) define_input(id, "graph input");
    for (const State& state : graph_.states()) define_input(state.current, "state");
    for (const ValueId id : graph_.values()) {
      if (graph_.value(id).kind == ValueKind::kConstant) defined_.insert(id);
    }
    for (const NodeId id : graph_.nodes()) check_node(id);
    for (const Output& output : graph_.outputs()) check_defined(output.value, "graph output \"" + output.name + "\"");
    for (const State& state : graph_.states()) check_defined(state.next, "state \"" + state.name + "\"");
    check_output_names();
  }

 private:
  template <class... Args>
  [[noreturn]] static void broken(fmt::format_string<Args...> format, Args&&... args) {
    fail(ErrorCode::kInvalidModel, format, std::forward<Args>(args)...);
  }

  void check_values() {
    std::set<std::string> names;
    for (const ValueId id : graph_.values()) {
      const Value& value = graph_.value(id);
      if (value.name.empty() || !names.insert(value.name).second) {
        broken("the name \"{}\" is empty or taken twice", value.name);
      }
      if (value.kind == ValueKind::kConstant) {
        if (!value.tensor) broken("constant \"{}\" has no contents", value.name);
        if (value.tensor->dtype() != value.type.dtype || !value.type.shape ||
            *value.type.shape != to_shape(value.tensor->shape())) {
          broken("constant \"{}\" is not of its type {}", value.name, to_string(value.type));
        }
      }
      for (const Use& use : value.uses) {
        if (!graph_.contains(use.node) || use.input >= graph_.node(use.node).inputs.size() ||
            graph_.node(use.node).inputs[use.input] != id) {
          broken("value \"{}\" lists a use that is none", value.name);
        }
      }
    }
  }

  void define_input(ValueId id, std::string_view what) {
    if (!graph_.contains(id) || graph_.value(id).kind != ValueKind::kInput) broken("a {} is no input value", what);
    if (!defined_.insert(id).second) broken("\"{}\" is an input twice", graph_.value(id).name);
  }

  void check_defined(ValueId id, const std::string& user) const {
    if (!graph_.contains(id)) broken("{} refers to no value", user);
    if (!defined_.contains(id)) broken("{} reads \"{}\" before it is defined", user, graph_.value(id).name);
  }

  void check_node(NodeId id) {
    const Node& node = graph_.node(id);
    const std::string label = node.origin.nodes.empty() ? node.op : node.op + " \"" + node.origin.nodes[0] + "\"";
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!node.inputs[i].valid()) continue;
      check_defined(node.inputs[i], label);
      const auto& uses = graph_.value(node.inputs[i]).uses;
      const Use use{id, static_cast<std::uint32_t>(i)};
      if (std::count(uses.begin(), uses.end(), use) != 1) broken("{}: input {} is not among the uses", label, i);
    }
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      if (!node.outputs[i].valid()) continue;
      if (!graph_.contains(node.outputs[i])) broken("{}: output {} is no value", label, i);
      const Value& value = graph_.value(node.outputs[i]);
      if (value.kind != ValueKind::kResult || value.producer != id || value.output_index != i) {
        broken("{}: value \"{}\" names another producer", label, value.name);
      }
      defined_.insert(node.outputs[i]);
    }
    for (const Subgraph& subgraph : node.subgraphs) {
      if (!subgraph.graph) broken("{}: subgraph \"{}\" is missing", label, subgraph.name);
      with_frame([&] { return "in subgraph \"" + subgraph.name + "\" of " + label; }, [&] { verify(*subgraph.graph); });
    }
  }

  void check_output_names() const {
    std::set<std::string> names;
    for (const Output& output : graph_.outputs()) {
      if (output.name.empty() || !names.insert(output.name).second) {
        broken("the output name \"{}\" is empty or taken twice", output.name);
      }
    }
  }

  const Graph& graph_;
  std::set<ValueId> defined_;
};

// Compares two graphs value by value in order of appearance.
class Comparison {
 public:
  Comparison(const Graph& a, const Graph& b) : a_(a), b_(b) {}

  std::optional<std::string> run() {
    if (a_.name() != b_.name()) return "the names of the graphs";
    if (a_.metadata != b_.metadata) return "the metadata";
    if (a_.inputs().size() != b_.inputs().size() || a_.outputs().size() != b_.outputs().size() ||
        a_.states().size() != b_.states().size() || a_.node_count() != b_.node_count()) {
      return "the numbers of inputs, outputs, states or nodes";
    }
    for (std::size_t i = 0; i < a_.inputs().size(); ++i) same(a_.inputs()[i], b_.inputs()[i]);
    for (std::size_t i = 0; i < a_.states().size(); ++i) {
      if (a_.states()[i].name != b_.states()[i].name) return "state " + a_.states()[i].name;
      same(a_.states()[i].current, b_.states()[i].current);
    }
    const auto nodes_a = a_.nodes();
    const auto nodes_b = b_.nodes();
    for (std::size_t i = 0; i < nodes_a.size() && !difference_; ++i) nodes(nodes_a[i], nodes_b[i]);
    for (std::size_t i = 0; i < a_.outputs().size(); ++i) {
      if (a_.outputs()[i].name != b_.outputs()[i].name) return "output " + a_.outputs()[i].name;
      same(a_.outputs()[i].value, b_.outputs()[i].value);
    }
    for (std::size_t i = 0; i < a_.states().size(); ++i) same(a_.states()[i].next, b_.states()[i].next);
    return difference_;
  }

 private:
  void differ(std::string what) {
    if (!difference_) difference_ = std::move(what);
  }

  void same(ValueId x, ValueId y) {
    if (x.valid() != y.valid()) return differ("an absent value");
    if (!x.valid()) return;
    const auto [place, added] = matched_.emplace(x, y);
    if (!added) {
      if (place->second != y) differ("value \"" + a_.value(x).name + "\"");
      return;
    }
    const Value& a = a_.value(x);
    const Value& b = b_.value(y);
    const bool tensors = a.tensor.has_value() == b.tensor.has_value() && (!a.tensor || a.tensor->identical(*b.tensor));
    if (a.name != b.name || !(a.type == b.type) || a.kind != b.kind || !tensors) {
      differ(fmt::format("value \"{}\" ({}) and \"{}\" ({})", a.name, to_string(a.type), b.name, to_string(b.type)));
    }
  }

  void nodes(NodeId x, NodeId y) {
    const Node& a = a_.node(x);
    const Node& b = b_.node(y);
    const std::string label = "node " + a.op;
    if (a.op != b.op || a.inputs.size() != b.inputs.size() || a.outputs.size() != b.outputs.size() ||
        a.subgraphs.size() != b.subgraphs.size() || a.attributes.size() != b.attributes.size()) {
      return differ(label + " and " + b.op);
    }
    if (a.origin.nodes != b.origin.nodes || a.origin.sources != b.origin.sources) differ("the origin of " + label);
    for (auto i = a.attributes.begin(), j = b.attributes.begin(); i != a.attributes.end(); ++i, ++j) {
      if (i->first != j->first || !operator_equal(i->second, j->second))
        differ("attribute " + i->first + " of " + label);
    }
    for (std::size_t i = 0; i < a.inputs.size(); ++i) same(a.inputs[i], b.inputs[i]);
    for (std::size_t i = 0; i < a.outputs.size(); ++i) same(a.outputs[i], b.outputs[i]);
    for (std::size_t i = 0; i < a.subgraphs.size(); ++i) {
      std::string inner;
      if (a.subgraphs[i].name != b.subgraphs[i].name || !equal(*a.subgraphs[i].graph, *b.subgraphs[i].graph, &inner)) {
        differ("subgraph of " + label + ": " + inner);
      }
    }
  }

  const Graph& a_;
  const Graph& b_;
  std::map<ValueId, ValueId> matched_;
  std::optional<std::string> difference_;
};

}  // namespace

void verify(const Graph& graph) { Verifier(graph).run(); }

bool equal(const Graph& a, const Graph& b, std::string* difference) {
  const std::optional<std::string> found = Comparison(a, b).run();
  if (found && difference != nullptr) *difference = *found;
  return !found;
}

}  // namespace weft
