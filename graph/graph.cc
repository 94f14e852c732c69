#include "graph/graph.h"

#include <algorithm>
#include <set>

namespace weft {

std::string to_string(const TensorType& type) {
  const std::string inside = is_container(type.dtype) ? fmt::format("<{}>", to_string(type.element)) : "";
  return fmt::format("{}{}{}", to_string(type.dtype), inside, type.shape ? to_string(*type.shape) : "[*]");
}

void Origin::merge(const Origin& other) {
  const auto append = [](std::vector<std::string>& to, const std::vector<std::string>& from) {
    for (const std::string& item : from) {
      if (std::find(to.begin(), to.end(), item) == to.end()) to.push_back(item);
    }
  };
  append(nodes, other.nodes);
  append(sources, other.sources);
}

bool operator_equal(const Attribute& a, const Attribute& b) {
  if (a.index() != b.index()) return false;
  const auto same_bits = [](double x, double y) {
    return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y);
  };
  if (const auto* x = std::get_if<double>(&a)) return same_bits(*x, std::get<double>(b));
  if (const auto* x = std::get_if<std::vector<double>>(&a)) {
    const auto& y = std::get<std::vector<double>>(b);
    return std::equal(x->begin(), x->end(), y.begin(), y.end(), same_bits);
  }
  if (const auto* x = std::get_if<Tensor>(&a)) return x->identical(std::get<Tensor>(b));
  if (const auto* x = std::get_if<std::int64_t>(&a)) return *x == std::get<std::int64_t>(b);
  if (const auto* x = std::get_if<std::string>(&a)) return *x == std::get<std::string>(b);
  if (const auto* x = std::get_if<DType>(&a)) return *x == std::get<DType>(b);
  if (const auto* x = std::get_if<std::vector<std::int64_t>>(&a)) {
    return *x == std::get<std::vector<std::int64_t>>(b);
  }
  return std::get<std::vector<std::string>>(a) == std::get<std::vector<std::string>>(b);
}

Graph Graph::clone() const {
  Graph copy(name_);
  copy.values_ = values_;
  copy.first_ = first_;
  copy.last_ = last_;
  copy.live_nodes_ = live_nodes_;
  copy.inputs_ = inputs_;
  copy.outputs_ = outputs_;
  copy.states_ = states_;
  copy.names_ = names_;
  copy.fresh_symbols_ = fresh_symbols_;
  copy.metadata = metadata;
  copy.nodes_.resize(nodes_.size());
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const NodeSlot& from = nodes_[i];
    NodeSlot& to = copy.nodes_[i];
    to.previous = from.previous;
    to.next = from.next;
    to.live = from.live;
    to.position = from.position;
    to.node.op = from.node.op;
    to.node.inputs = from.node.inputs;
    to.node.outputs = from.node.outputs;
    to.node.attributes = from.node.attributes;
    to.node.origin = from.node.origin;
    for (const Subgraph& subgraph : from.node.subgraphs) {
      to.node.subgraphs.push_back({subgraph.name, std::make_unique<Graph>(subgraph.graph->clone())});
    }
  }
  return copy;
}

// --- Building --------------------------------------------------------------------------------------

std::string Graph::unique_name(std::string_view hint) const {
  std::string name = hint.empty() ? "v" : std::string(hint);
  if (names_.find(name) == names_.end()) return name;
  for (std::size_t i = values_.size();; ++i) {
    std::string candidate = fmt::format("{}_{}", name, i);
    if (names_.find(candidate) == names_.end()) return candidate;
  }
}

ValueId Graph::new_value(Value value) {
  const ValueId id{static_cast<std::uint32_t>(values_.size())};
  names_.emplace(value.name, id);
  values_.push_back({std::move(value), true});
  return id;
}

ValueId Graph::add_input(std::string name, TensorType type) {
  if (name.empty() || names_.contains(name)) {
    fail(ErrorCode::kInvalidModel, "graph input \"{}\": the name is {}", name, name.empty() ? "empty" : "taken");
  }
  Value value;
  value.name = std::move(name);
  value.type = std::move(type);
  value.kind = ValueKind::kInput;
  const ValueId id = new_value(std::move(value));
  inputs_.push_back(id);
  return id;
}

ValueId Graph::add_constant(Tensor tensor, std::string name_hint) {
  Value value;
  value.name = unique_name(name_hint.empty() ? "c" : name_hint);
  value.type = {tensor.dtype(), to_shape(tensor.shape())};
  value.kind = ValueKind::kConstant;
  if ((is_integer(tensor.dtype()) || tensor.dtype() == DType::kBool) && tensor.size() <= 256) {
    const std::vector<std::int64_t> numbers = tensor.aligned().to_ints();
    value.elements = std::vector<Dim>(numbers.begin(), numbers.end());
  }
  value.tensor = std::move(tensor);
  return new_value(std::move(value));
}

NodeId Graph::add_node(NodeSpec spec, std::span<const OutputSpec> outputs, NodeId before) {
  const NodeId id{static_cast<std::uint32_t>(nodes_.size())};
  NodeSlot slot;
  slot.live = true;
  slot.node.op = std::move(spec.op);
  slot.node.inputs = std::move(spec.inputs);
  slot.node.attributes = std::move(spec.attributes);
  slot.node.subgraphs = std::move(spec.subgraphs);
  slot.node.origin = std::move(spec.origin);
  for (const ValueId input : slot.node.inputs) {
    if (input.valid() && !contains(input)) fail(ErrorCode::kInternal, "input of an unknown value");
  }
  nodes_.push_back(std::move(slot));
  ++live_nodes_;
  link(id, before);
  for (std::size_t i = 0; i < nodes_[id.index].node.inputs.size(); ++i) {
    const ValueId input = nodes_[id.index].node.inputs[i];
    if (input.valid()) add_use(input, {id, static_cast<std::uint32_t>(i)});
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].absent) {
      nodes_[id.index].node.outputs.push_back({});
      continue;
    }
    Value value;
    value.name = unique_name(outputs[i].name.empty() ? nodes_[id.index].node.op : outputs[i].name);
    value.type = outputs[i].type;
    value.producer = id;
    value.output_index = static_cast<std::uint32_t>(i);
    const ValueId output = new_value(std::move(value));
    nodes_[id.index].node.outputs.push_back(output);
  }
  return id;
}

void Graph::add_output(std::string name, ValueId value) {
  if (!contains(value)) fail(ErrorCode::kInternal, "output of an unknown value");
  outputs_.push_back({std::move(name), value});
}

ValueId Graph::add_state(std::string name, TensorType type) {
  Value value;
  value.name = unique_name(name);
  value.type = std::move(type);
  value.kind = ValueKind::kInput;
  const ValueId current = new_value(std::move(value));
  states_.push_back({std::move(name), current, {}});
  return current;
}

void Graph::set_state_next(std::string_view state, ValueId next) {
  for (State& candidate : states_) {
    if (candidate.name == state) {
      candidate.next = next;
      return;
    }
  }
  fail(ErrorCode::kInternal, "no state {}", state);
}

void Graph::make_state(std::string name, ValueId current, std::size_t output_index) {
  const auto input = std::find(inputs_.begin(), inputs_.end(), current);
  if (input == inputs_.end() || output_index >= outputs_.size()) {
    fail(ErrorCode::kInternal, "a state is made of a graph input and a graph output");
  }
  inputs_.erase(input);
  const ValueId next = outputs_[output_index].value;
  outputs_.erase(outputs_.begin() + static_cast<std::ptrdiff_t>(output_index));
  states_.push_back({std::move(name), current, next});
}

// --- Reading ---------------------------------------------------------------------------------------

bool Graph::contains(NodeId id) const { return id.index < nodes_.size() && nodes_[id.index].live; }
bool Graph::contains(ValueId id) const { return id.index < values_.size() && values_[id.index].live; }

const Value& Graph::value(ValueId id) const {
  if (!contains(id)) fail(ErrorCode::kInternal, "no value with index {}", id.index);
  return values_[id.index].value;
}
Value& Graph::value(ValueId id) { return const_cast<Value&>(static_cast<const Graph*>(this)->value(id)); }
const Node& Graph::node(NodeId id) const {
  if (!contains(id)) fail(ErrorCode::kInternal, "no node with index {}", id.index);
  return nodes_[id.index].node;
}
Node& Graph::node(NodeId id) { return const_cast<Node&>(static_cast<const Graph*>(this)->node(id)); }

std::vector<NodeId> Graph::nodes() const {
  std::vector<NodeId> result;
  result.reserve(live_nodes_);
  for (NodeId id = first_; id.valid(); id = nodes_[id.index].next) result.push_back(id);
  return result;
}

std::vector<ValueId> Graph::values() const {
  std::vector<ValueId> result;
  for (std::uint32_t i = 0; i < values_.size(); ++i) {
    if (values_[i].live) result.push_back(ValueId{i});
  }
  return result;
}

std::optional<ValueId> Graph::find_value(std::string_view name) const {
  const auto found = names_.find(name);
  if (found == names_.end()) return std::nullopt;
  return found->second;
}

bool Graph::is_output(ValueId id) const {
  return std::any_of(outputs_.begin(), outputs_.end(), [&](const Output& output) { return output.value == id; }) ||
         std::any_of(states_.begin(), states_.end(), [&](const State& state) { return state.next == id; });
}

std::size_t Graph::use_count(ValueId id) const {
  std::size_t count = value(id).uses.size();
  for (const Output& output : outputs_) count += output.value == id;
  for (const State& state : states_) count += state.next == id;
  return count;
}

NodeId Graph::next_node(NodeId id) const {
  node(id);
  return nodes_[id.index].next;
}

bool Graph::precedes(NodeId a, NodeId b) const {
  node(a);
  node(b);
  return nodes_[a.index].position < nodes_[b.index].position;
}

Dim Graph::fresh_symbol() {
  std::set<std::string> taken;
  for (const ValueSlot& slot : values_) {
    if (!slot.live || !slot.value.type.shape) continue;
    for (const Dim& dim : *slot.value.type.shape) {
      if (dim.is_constant()) continue;
      for (std::string& symbol : dim.symbols()) taken.insert(std::move(symbol));
    }
  }
  for (;;) {
    std::string name = fmt::format("u{}", fresh_symbols_++);
    if (!taken.contains(name)) return Dim::symbol(name);
  }
}

// --- Changing --------------------------------------------------------------------------------------

void Graph::add_use(ValueId id, Use use) { value(id).uses.push_back(use); }

void Graph::remove_use(ValueId id, Use use) {
  std::vector<Use>& uses = value(id).uses;
  const auto found = std::find(uses.begin(), uses.end(), use);
  if (found == uses.end()) fail(ErrorCode::kInternal, "a use is missing");
  uses.erase(found);
}

void Graph::set_input(NodeId id, std::size_t index, ValueId replacement) {
  Node& target = node(id);
  if (index >= target.inputs.size()) fail(ErrorCode::kInternal, "no input {}", index);
  const Use use{id, static_cast<std::uint32_t>(index)};
  if (target.inputs[index].valid()) remove_use(target.inputs[index], use);
  target.inputs[index] = replacement;
  if (replacement.valid()) add_use(replacement, use);
}

void Graph::set_output(std::size_t index, ValueId replacement) {
  value(replacement);
  outputs_.at(index).value = replacement;
}

void Graph::replace_uses(ValueId from, ValueId to) {
  if (from == to) return;
  value(to);
  const std::vector<Use> uses = value(from).uses;
  for (const Use& use : uses) set_input(use.node, use.input, to);
  for (Output& output : outputs_) {
    if (output.value == from) output.value = to;
  }
  for (State& state : states_) {
    if (state.next == from) state.next = to;
  }
}

void Graph::erase_node(NodeId id) {
  Node& target = node(id);
  for (const ValueId output : target.outputs) {
    if (output.valid() && use_count(output) != 0) {
      fail(ErrorCode::kInternal, "erasing node {} while {} is used", target.op, value(output).name);
    }
  }
  for (std::size_t i = 0; i < target.inputs.size(); ++i) {
    if (target.inputs[i].valid()) {
      remove_use(target.inputs[i], {id, static_cast<std::uint32_t>(i)});
    }
  }
  for (const ValueId output : target.outputs) {
    if (!output.valid()) continue;
    names_.erase(values_[output.index].value.name);
    values_[output.index] = {};
  }
  unlink(id);
  nodes_[id.index] = {};
  --live_nodes_;
}

void Graph::erase_value(ValueId id) {
  if (value(id).kind == ValueKind::kResult || use_count(id) != 0 ||
      std::find(inputs_.begin(), inputs_.end(), id) != inputs_.end()) {
    fail(ErrorCode::kInternal, "erasing value {} while it is used", value(id).name);
  }
  names_.erase(value(id).name);
  values_[id.index] = {};
}

void Graph::remove_input(std::size_t index) {
  const ValueId id = inputs_[index];
  if (use_count(id) != 0) fail(ErrorCode::kInternal, "removing input {} in use", value(id).name);
  inputs_.erase(inputs_.begin() + static_cast<std::ptrdiff_t>(index));
  names_.erase(value(id).name);
  values_[id.index] = {};
}

void Graph::remove_output(std::size_t index) { outputs_.erase(outputs_.begin() + static_cast<std::ptrdiff_t>(index)); }

void Graph::move_before(NodeId id, NodeId before) {
  node(id);
  if (id == before) return;
  unlink(id);
  link(id, before);
}

void Graph::rename_value(ValueId id, std::string_view name_hint) {
  Value& target = value(id);
  if (target.name == name_hint) return;
  std::string name = unique_name(name_hint);
  names_.erase(target.name);
  target.name = name;
  names_.emplace(std::move(name), id);
}

void Graph::link(NodeId id, NodeId before) {
  NodeSlot& slot = nodes_[id.index];
  slot.next = before;
  slot.previous = before.valid() ? nodes_[before.index].previous : last_;
  if (slot.previous.valid()) {
    nodes_[slot.previous.index].next = id;
  } else {
    first_ = id;
  }
  if (before.valid()) {
    nodes_[before.index].previous = id;
  } else {
    last_ = id;
  }
  constexpr std::uint64_t kGap = std::uint64_t{1} << 20;
  const std::uint64_t low = slot.previous.valid() ? nodes_[slot.previous.index].position : 0;
  const std::uint64_t high = before.valid() ? nodes_[before.index].position : low + 2 * kGap;
  slot.position = low + (high - low) / 2;
  if (slot.position == low) renumber();
}

void Graph::unlink(NodeId id) {
  const NodeSlot& slot = nodes_[id.index];
  if (slot.previous.valid()) {
    nodes_[slot.previous.index].next = slot.next;
  } else {
    first_ = slot.next;
  }
  if (slot.next.valid()) {
    nodes_[slot.next.index].previous = slot.previous;
  } else {
    last_ = slot.previous;
  }
}

void Graph::renumber() {
  std::uint64_t position = 0;
  for (NodeId id = first_; id.valid(); id = nodes_[id.index].next) {
    nodes_[id.index].position = position += std::uint64_t{1} << 20;
  }
}

}  // namespace weft
