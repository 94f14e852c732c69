// From a Graph to an ONNX model. Operators that opset 20 has not become model-local functions holding
// their definition, one per distinct use, named "<operator>__<number>".
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include "importers/onnx/onnx.h"
#include "importers/onnx/schema.h"
#include "importers/onnx/tensors.h"
#include "importers/onnx/wire.h"
#include "ops/builder.h"

namespace weft::onnx {
namespace {

constexpr std::int64_t kIrVersion = 10;
constexpr std::int64_t kOpset = 20;
constexpr std::string_view kDomain = "weft";
// A message may not reach 2 GiB; beyond this the weights go into a file beside the model.
constexpr std::size_t kMaxInline = std::size_t{1500} << 20;

// Canonical operators that opset 20 lacks, or has in another form.
constexpr std::array<std::string_view, 7> kFunctions = {
    "Attention", "CacheAppend", "GroupNormalization", "Linear", "RMSNormalization", "Rotary", "Swish"};
// Attributes of weft's own, which say how inputs are grouped.
constexpr std::array<std::string_view, 2> kOwnAttributes = {"num_carried", "num_states"};

bool is_function(std::string_view op) {
  return std::find(kFunctions.begin(), kFunctions.end(), op) != kFunctions.end();
}

Writer entry(std::string_view key, std::string_view value) {
  Writer writer;
  writer.text(1, key).text(2, value);
  return writer;
}

Writer opset(std::string_view domain, std::int64_t version) {
  Writer writer;
  writer.text(1, domain).integer(2, version);
  return writer;
}

Writer value_info(std::string_view name, const TensorType& type) {
  Writer tensor;
  tensor.integer(1, from_dtype(is_container(type.dtype) ? type.element : type.dtype));
  if (type.shape) {
    Writer shape;
    for (const Dim& dim : *type.shape) {
      Writer one;
      if (dim.is_constant())
        one.integer(1, dim.value());
      else
        one.text(2, dim.symbol_name().value_or(dim.to_string()));
      shape.message(1, one);
    }
    tensor.message(2, shape);
  }
  Writer wrapped;
  wrapped.message(1, tensor);
  const auto wrap = [&](int field) {
    Writer element, outer;
    element.message(1, wrapped);
    outer.message(field, element);
    wrapped = std::move(outer);
  };
  constexpr int kSequenceType = 4, kOptionalType = 9;
  if (type.dtype == DType::kSequence || type.dtype == DType::kOptionalSequence) wrap(kSequenceType);
  if (type.dtype == DType::kOptional || type.dtype == DType::kOptionalSequence) wrap(kOptionalType);
  Writer info;
  info.text(1, name).message(2, wrapped);
  return info;
}

Writer tensor_message(const NamedTensor& tensor) {
  Writer writer;
  writer.raw(write_tensor_proto(tensor));
  return writer;
}

Writer attribute_message(std::string_view name, const Attribute& attribute) {
  Writer writer;
  writer.text(1, name);
  const auto kind = [&](AttributeType type) { writer.integer(20, static_cast<std::int64_t>(type)); };
  if (const auto* i = std::get_if<std::int64_t>(&attribute)) {
    writer.integer(3, *i);
    kind(AttributeType::kInt);
  } else if (const auto* f = std::get_if<double>(&attribute)) {
    writer.number32(2, static_cast<float>(*f));
    kind(AttributeType::kFloat);
  } else if (const auto* s = std::get_if<std::string>(&attribute)) {
    writer.text(4, *s);
    kind(AttributeType::kString);
  } else if (const auto* is = std::get_if<std::vector<std::int64_t>>(&attribute)) {
    for (const std::int64_t value : *is) writer.integer(8, value);
    kind(AttributeType::kInts);
  } else if (const auto* fs = std::get_if<std::vector<double>>(&attribute)) {
    for (const double value : *fs) writer.number32(7, static_cast<float>(value));
    kind(AttributeType::kFloats);
  } else if (const auto* ss = std::get_if<std::vector<std::string>>(&attribute)) {
    for (const std::string& value : *ss) writer.text(9, value);
    kind(AttributeType::kStrings);
  } else if (const auto* t = std::get_if<Tensor>(&attribute)) {
    writer.message(5, tensor_message({"", *t}));
    kind(AttributeType::kTensor);
  } else {
    writer.integer(3, from_dtype(std::get<DType>(attribute)));
    kind(AttributeType::kInt);
  }
  return writer;
}

// Names of the values of one graph in the file. No name is used twice in the whole model.
using Names = std::map<ValueId, std::string>;

class Exporter {
 public:
  explicit Exporter(std::ofstream* data = nullptr, std::string data_name = {})
      : data_(data), data_name_(std::move(data_name)) {}

  std::string run(const Graph& graph) {
    Writer model;
    model.integer(1, kIrVersion).text(2, "weft");
    Names names;
    for (const ValueId id : graph.inputs()) names[id] = take(graph.value(id).name);
    for (const State& state : graph.states()) names[state.current] = take(graph.value(state.current).name);
    const Writer body = graph_message(graph, names, graph.inputs(), true);
    model.message(7, body);
    model.message(8, opset("", kOpset));
    if (!functions_.empty()) model.message(8, opset(kDomain, 1));
    for (const Writer& function : function_messages_) model.message(25, function);
    return model.data();
  }

 private:
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
    if (data_ == nullptr || is_object(tensor.dtype()) || tensor.byte_size() < kSmall) {
      return tensor_message({name, tensor});
    }
    constexpr std::size_t kAlignment = 64;
    const std::size_t offset = (data_size_ + kAlignment - 1) / kAlignment * kAlignment;
    data_->write(std::string(offset - data_size_, '\0').data(), static_cast<std::streamsize>(offset - data_size_));
    data_->write(reinterpret_cast<const char*>(tensor.bytes().data()),
                 static_cast<std::streamsize>(tensor.byte_size()));
    data_size_ = offset + tensor.byte_size();
    Writer proto;
    for (const std::int64_t extent : tensor.shape()) proto.integer(1, extent);
    proto.integer(2, from_dtype(tensor.dtype())).text(8, name);
    proto.message(13, entry("location", data_name_)).message(13, entry("offset", std::to_string(offset)));
    proto.message(13, entry("length", std::to_string(tensor.byte_size()))).integer(14, 1);
    return proto;
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
    for (std::size_t i = 0; i < inputs; ++i) {
      message.text(1, node.inputs[i].valid() ? names.at(node.inputs[i]) : std::string());
    }
    for (const ValueId id : node.outputs) message.text(2, id.valid() ? names.at(id) : std::string());
    if (!node.origin.nodes.empty()) message.text(3, take(node.origin.nodes.front(), node_names_));
    const bool function = is_function(node.op);
    message.text(4, function ? function_name(graph, node) : node.op);
    for (const auto& [name, attribute] : node.attributes) {
      const bool own = std::find(kOwnAttributes.begin(), kOwnAttributes.end(), name) != kOwnAttributes.end();
      if (!own) message.message(5, attribute_message(name, attribute));
    }
    for (const Subgraph& subgraph : node.subgraphs) {
      message.message(5, subgraph_message(subgraph, node, inputs, names));
    }
    if (function) message.text(7, kDomain);
    if (!node.origin.nodes.empty())
      message.message(9, entry("weft.nodes", fmt::format("{}", fmt::join(node.origin.nodes, "\n"))));
    if (!node.origin.sources.empty()) {
      message.message(9, entry("weft.sources", fmt::format("{}", fmt::join(node.origin.sources, "\n"))));
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

  // The function for this use of the operator, written when it is the first of its kind.
  std::string function_name(const Graph& graph, const Node& node) {
    std::string key = node.op;
    std::vector<TensorType> types;
    for (const ValueId id : node.inputs) {
      types.push_back(id.valid() ? graph.value(id).type : TensorType{});
      key += id.valid() ? " " + to_string(types.back()) : " _";
    }
    for (const auto& [name, attribute] : node.attributes) key += " " + name + attribute_message(name, attribute).data();
    const auto found = functions_.find(key);
    if (found != functions_.end()) return found->second;
    const std::string name = fmt::format("{}__{}", node.op, functions_.size());
    functions_[key] = name;
    function_messages_.push_back(function_message(name, node, types));
    return name;
  }

  static Writer function_message(const std::string& name, const Node& node, const std::vector<TensorType>& types) {
    const Graph body = decomposition_graph(node, types);
    Writer message;
    message.text(1, name);
    Names names;
    for (const ValueId id : body.inputs()) message.text(4, names[id] = body.value(id).name);
    for (const ValueId id : body.values()) names[id] = body.value(id).name;
    for (const Output& output : body.outputs()) message.text(5, "output_" + output.name);
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
      one.text(4, inner.op);
      for (const auto& [attribute, value] : inner.attributes) one.message(5, attribute_message(attribute, value));
      message.message(7, one);
    }
    for (const Output& output : body.outputs()) {
      Writer copy;
      copy.text(1, names.at(output.value)).text(2, "output_" + output.name).text(4, "Identity");
      message.message(7, copy);
    }
    message.message(9, opset("", kOpset)).text(10, kDomain);
    return message;
  }

  std::ofstream* data_;
  std::string data_name_;
  std::size_t data_size_ = 0;
  std::set<std::string> taken_;       // of values
  std::set<std::string> node_names_;  // which some runtimes want unique too
  std::map<std::string, std::string> functions_;
  std::vector<Writer> function_messages_;
};

std::size_t constant_bytes(const Graph& graph) {
  std::size_t total = 0;
  for (const ValueId id : graph.values()) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kConstant && !is_object(value.tensor->dtype())) total += value.tensor->byte_size();
  }
  return total;
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) fail(ErrorCode::kIo, "cannot write {}", path.string());
}

}  // namespace
}  // namespace weft::onnx

namespace weft {

std::string export_onnx(const Graph& graph) { return onnx::Exporter().run(graph); }

void export_onnx(const Graph& graph, const std::filesystem::path& path) {
  with_frame([&] { return "while writing " + path.string(); },
             [&] {
               if (onnx::constant_bytes(graph) <= onnx::kMaxInline) return onnx::write_file(path, export_onnx(graph));
               const std::filesystem::path data_path = path.string() + ".data";
               std::ofstream data(data_path, std::ios::binary);
               const std::string model = onnx::Exporter(&data, data_path.filename().string()).run(graph);
               data.close();
               if (!data) fail(ErrorCode::kIo, "cannot write {}", data_path.string());
               onnx::write_file(path, model);
             });
}

}  // namespace weft
