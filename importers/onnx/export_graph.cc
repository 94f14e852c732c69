#include "importers/onnx/export_graph.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "importers/onnx/export_messages.h"
#include "importers/onnx/schema.h"
#include "ops/builder.h"

namespace weft::onnx {
namespace {

constexpr std::string_view kDomain = "weft";
constexpr std::string_view kMetadataPrefix = "weft.";
// Attributes of weft's own, which say how inputs are grouped.
constexpr std::array<std::string_view, 3> kOwnAttributes = {"num_carried", "num_states", "num_inputs"};

// The IR version that came with the release of ONNX that has the operator set.
std::int64_t ir_version_of(std::int64_t opset) { return opset <= 22 ? 10 : opset == 23 ? 11 : opset == 24 ? 12 : 13; }

std::int64_t newest_needed(const Graph& graph, std::int64_t base) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    // What has no definition by smaller operators can only be written as itself.
    const OpDef* def = find_op(node.op);
    if (def != nullptr && def->decompose == nullptr) base = std::max(base, standard_since(node.op));
    for (const Subgraph& subgraph : node.subgraphs) base = newest_needed(*subgraph.graph, base);
  }
  return base;
}

bool uses(const Graph& graph, std::string_view op) {
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.op == op) return true;
    for (const Subgraph& subgraph : node.subgraphs) {
      if (uses(*subgraph.graph, op)) return true;
    }
  }
  return false;
}

// The metadata of the model goes on; where it came from is kept under a name of weft's.
void write_metadata(Writer& model, std::string_view key, std::string_view value) {
  constexpr std::string_view kModelPrefix = "model.";
  if (key.starts_with(kModelPrefix))
    model.message(14, entry_message(key.substr(kModelPrefix.size()), value));
  else if (key == "producer")
    model.message(14, entry_message("weft.producer", value));
}

// Names of the values of one graph in the file. No name is used twice in the whole model.
using Names = std::map<ValueId, std::string>;

class Exporter {
 public:
  Exporter(ExportTarget target, DataFile* data) : target_(target), data_(data) {}

  std::string run(const Graph& graph) {
    opset_ = base_opset(graph);
    Writer model;
    Names names;
    for (const ValueId id : graph.inputs()) names[id] = take(graph.value(id).name);
    for (const State& state : graph.states()) names[state.current] = take(graph.value(state.current).name);
    const Writer body = graph_message(graph, names, graph.inputs(), true);
    model.integer(1, ir_version_of(opset_)).text(2, "weft");
    model.message(7, body);
    model.message(8, opset_message("", opset_));
    for (const std::string& domain : domains_) model.message(8, opset_message(domain, 1));
    for (const auto& [key, value] : graph.metadata) write_metadata(model, key, value);
    for (const Writer& function : function_messages_) model.message(25, function);
    return model.data();
  }

 private:
  std::int64_t base_opset(const Graph& graph) const {
    if (target_ == ExportTarget::kFunctions) return newest_needed(graph, 20);
    return newest_needed(graph, uses(graph, "Swish") ? 24 : 23);
  }

  static std::string take(const std::string& wanted, std::set<std::string>& taken) {
    std::string name = wanted;
    for (int i = 1; !taken.insert(name).second; ++i) name = fmt::format("{}_{}", wanted, i);
    return name;
  }
  std::string take(const std::string& wanted) { return take(wanted, taken_); }

  // names: those of the graph's inputs that outer values stand for. declared: inputs that are the message's own.
  Writer graph_message(const Graph& graph, Names& names, std::span<const ValueId> declared, bool top) {
    Writer message;
    std::vector<std::pair<std::string, ValueId>> outputs;
    for (const Output& output : graph.outputs()) outputs.emplace_back(output.name, output.value);
    for (const State& state : graph.states()) outputs.emplace_back(state.name + ".next", state.next);
    // An output is named by the value it is, unless that has a name already: then an Identity names it.
    std::vector<std::pair<ValueId, std::string>> copies;
    std::vector<std::string> output_names;
    for (const auto& [name, id] : outputs) {
      const std::string chosen = top && !taken_.contains(name) ? (taken_.insert(name), name) : take(name);
      output_names.push_back(chosen);
      if (graph.value(id).kind == ValueKind::kResult && !names.contains(id))
        names[id] = chosen;
      else
        copies.emplace_back(id, chosen);
    }
    for (const ValueId id : graph.values()) {
      if (!names.contains(id)) names[id] = take(graph.value(id).name);
    }
    for (const NodeId id : graph.nodes()) message.message(1, node_message(graph, graph.node(id), names));
    for (const auto& [id, name] : copies) {
      Writer node;
      node.text(1, names.at(id)).text(2, name).text(4, "Identity");
      message.message(1, node);
    }
    message.text(2, graph.name());
    for (const ValueId id : graph.values()) {
      const Value& value = graph.value(id);
      const bool initial = value.kind == ValueKind::kConstant || (value.kind == ValueKind::kInput && value.tensor);
      if (initial) message.message(5, initializer(names.at(id), *value.tensor));
    }
    for (const ValueId id : declared) message.message(11, value_info(names.at(id), graph.value(id).type));
    for (const State& state : graph.states()) {
      message.message(11, value_info(names.at(state.current), graph.value(state.current).type));
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      message.message(12, value_info(output_names[i], graph.value(outputs[i].second).type));
    }
    return message;
  }

  Writer initializer(const std::string& name, const Tensor& tensor) {
    constexpr std::size_t kSmall = 1024;
    if (data_ == nullptr || is_object(tensor.dtype()) || is_narrow(tensor.dtype()) || tensor.byte_size() < kSmall) {
      return tensor_message(name, tensor);
    }
    constexpr std::size_t kAlignment = 64;
    const std::size_t offset = (data_->size + kAlignment - 1) / kAlignment * kAlignment;
    data_->stream.write(std::string(offset - data_->size, '\0').data(),
                        static_cast<std::streamsize>(offset - data_->size));
    data_->stream.write(reinterpret_cast<const char*>(tensor.bytes().data()),
                        static_cast<std::streamsize>(tensor.byte_size()));
    data_->size = offset + tensor.byte_size();
    return external_tensor(name, tensor, data_->name, offset);
  }

  Writer node_message(const Graph& graph, const Node& node, const Names& names) {
    Writer message;
    std::size_t inputs = node.inputs.size();
    if (node.op == "If") inputs = 1;
    if (node.op == "Loop")
      inputs = 2 + static_cast<std::size_t>(std::get<std::int64_t>(node.attributes.at("num_carried")));
    if (node.op == "Scan") {
      inputs = static_cast<std::size_t>(std::get<std::int64_t>(node.attributes.at("num_states")) +
                                        std::get<std::int64_t>(node.attributes.at("num_scan_inputs")));
    }
    if (node.op == "SequenceMap")
      inputs = static_cast<std::size_t>(std::get<std::int64_t>(node.attributes.at("num_inputs")));
    for (std::size_t i = 0; i < inputs; ++i) {
      message.text(1, node.inputs[i].valid() ? names.at(node.inputs[i]) : std::string());
    }
    for (const ValueId id : node.outputs) message.text(2, id.valid() ? names.at(id) : std::string());
    if (!node.origin.nodes.empty()) message.text(3, take(node.origin.nodes.front(), node_names_));
    const auto [domain, op] = spelling_of(graph, node);
    message.text(4, op);
    for (const auto& [name, attribute] : node.attributes) {
      const bool own = std::find(kOwnAttributes.begin(), kOwnAttributes.end(), name) != kOwnAttributes.end();
      if (!own && !name.starts_with(kMetadataPrefix)) message.message(5, attribute_message(name, attribute));
    }
    for (const Subgraph& subgraph : node.subgraphs) {
      message.message(5, subgraph_message(subgraph, node, inputs, names));
    }
    if (!domain.empty()) {
      message.text(7, domain);
      domains_.insert(domain);
    }
    for (const auto& [name, attribute] : node.attributes) {
      // Attributes of files are f32: what they lose goes along.
      const double* number = std::get_if<double>(&attribute);
      if (number != nullptr && std::isfinite(*number) && static_cast<double>(static_cast<float>(*number)) != *number)
        message.message(9, entry_message(fmt::format("{}{}", kMetadataPrefix, name), fmt::format("{}", *number)));
      if (name.starts_with(kMetadataPrefix))
        message.message(9, entry_message(name, std::to_string(std::get<std::int64_t>(attribute))));
    }
    if (!node.origin.nodes.empty())
      message.message(9, entry_message("weft.nodes", fmt::format("{}", fmt::join(node.origin.nodes, "\n"))));
    if (!node.origin.sources.empty()) {
      message.message(9, entry_message("weft.sources", fmt::format("{}", fmt::join(node.origin.sources, "\n"))));
    }
    return message;
  }

  // What the node gives beyond its own inputs is captured: the subgraph reads it by its outer name.
  Writer subgraph_message(const Subgraph& subgraph, const Node& node, std::size_t own_inputs, const Names& outer) {
    const Graph& graph = *subgraph.graph;
    const std::size_t captured = node.inputs.size() - own_inputs;
    const std::size_t declared = graph.inputs().size() - captured;
    Names names;
    for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
      const ValueId id = graph.inputs()[i];
      names[id] = i < declared ? take(graph.value(id).name) : outer.at(node.inputs[own_inputs + i - declared]);
    }
    Writer attribute;
    attribute.text(1, subgraph.name);
    attribute.message(6, graph_message(graph, names, graph.inputs().first(declared), false));
    attribute.integer(20, static_cast<std::int64_t>(AttributeType::kGraph));
    return attribute;
  }

  // The domain and operator that the file calls.
  std::pair<std::string, std::string> spelling_of(const Graph& graph, const Node& node) {
    const std::size_t mark = node.op.find(kDomainMark);
    if (mark != std::string::npos) return {node.op.substr(0, mark), node.op.substr(mark + kDomainMark.size())};
    const std::int64_t since = standard_since(node.op);
    if (since != 0 && since <= opset_) return {"", node.op};
    return {std::string(kDomain), function_name(graph, node)};
  }

  // The function for this use of the operator, written when it is the first of its kind.
  std::string function_name(const Graph& graph, const Node& node) {
    std::string key = node.op;
    std::vector<TensorType> types;
    for (const ValueId id : node.inputs) {
      types.push_back(id.valid() ? graph.value(id).type : TensorType{});
      key += id.valid() ? " " + to_string(types.back()) : " _";
    }
    key += fmt::format(" {}", called_outputs(node)) + (spells_halves(graph, node) ? " halves" : "");
    for (const auto& [name, attribute] : node.attributes) key += " " + name + attribute_message(name, attribute).data();
    const auto found = functions_.find(key);
    if (found != functions_.end()) return found->second;
    const std::string name = fmt::format("{}__{}", node.op, functions_.size());
    functions_[key] = name;
    Graph body = function_body(node, types, target_, graph);
    expand_newer(body);
    function_messages_.push_back(function_message(name, node, body));
    return name;
  }

  // Outputs up to the last that the call names.
  static std::size_t called_outputs(const Node& node) {
    std::size_t count = node.outputs.size();
    while (count > 0 && !node.outputs[count - 1].valid()) --count;
    return count;
  }

  // Functions call no functions: in a body stand only operators that the operator set of the file has.
  void expand_newer(Graph& body) const {
    for (bool changed = true; changed;) {
      changed = false;
      for (const NodeId id : body.nodes()) {
        const std::string& op = body.node(id).op;
        const OpDef* def = find_op(op);
        const std::int64_t since = standard_since(op);
        if (def == nullptr || def->decompose == nullptr || (since != 0 && since <= opset_)) continue;
        changed = expand_node(body, id) || changed;
      }
    }
  }

  // Whether the body of the function depends on more than its types.
  bool spells_halves(const Graph& graph, const Node& node) const {
    return target_ != ExportTarget::kFunctions && node.op == "Rotary" && has_equal_halves(graph, node.inputs[1]) &&
           has_equal_halves(graph, node.inputs[2]);
  }

  Writer function_message(const std::string& name, const Node& node, const Graph& body) const {
    Writer message;
    message.text(1, name);
    Names names;
    std::size_t next = 0;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!node.inputs[i].valid()) {  // the call leaves it out, but it keeps its place
        message.text(4, fmt::format("absent_{}", i));
        continue;
      }
      const ValueId id = body.inputs()[next++];
      message.text(4, names[id] = body.value(id).name);
    }
    for (const ValueId id : body.values()) names[id] = body.value(id).name;
    const auto outputs = body.outputs().first(std::min(called_outputs(node), body.outputs().size()));
    for (const Output& output : outputs) message.text(5, "output_" + output.name);
    for (const auto& [attribute, value] : node.attributes) message.text(6, attribute);
    for (const ValueId id : body.values()) {
      if (body.value(id).kind != ValueKind::kConstant) continue;
      Writer constant;
      constant.text(2, names.at(id)).text(4, "Constant");
      constant.message(5, attribute_message("value", *body.value(id).tensor));
      message.message(7, constant);
    }
    for (const NodeId id : body.nodes()) {
      const Node& inner = body.node(id);
      Writer one;
      for (const ValueId input : inner.inputs) one.text(1, input.valid() ? names.at(input) : std::string());
      for (const ValueId output : inner.outputs) one.text(2, output.valid() ? names.at(output) : std::string());
      const std::size_t mark = inner.op.find(kDomainMark);
      one.text(4, mark == std::string::npos ? inner.op : inner.op.substr(mark + kDomainMark.size()));
      for (const auto& [attribute, value] : inner.attributes) one.message(5, attribute_message(attribute, value));
      message.message(7, one);
    }
    for (const Output& output : outputs) {
      Writer copy;
      copy.text(1, names.at(output.value)).text(2, "output_" + output.name).text(4, "Identity");
      message.message(7, copy);
    }
    message.message(9, opset_message("", opset_)).text(10, kDomain);
    return message;
  }

  ExportTarget target_;
  DataFile* data_;
  std::int64_t opset_ = 0;
  std::set<std::string> domains_;
  std::set<std::string> taken_;       // of values
  std::set<std::string> node_names_;  // which some runtimes want unique too
  std::map<std::string, std::string> functions_;
  std::vector<Writer> function_messages_;
};

}  // namespace

std::string serialize_model(const Graph& graph, ExportTarget target, DataFile* data) {
  return Exporter(target, data).run(graph);
}

}  // namespace weft::onnx
