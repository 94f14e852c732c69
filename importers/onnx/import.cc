// From a parsed model to a Graph: scopes, functions, captures, order.
#include <algorithm>
#include <set>

#include "importers/onnx/lower_microsoft.h"
#include "importers/onnx/onnx.h"
#include "importers/onnx/structure.h"
#include "ops/builder.h"

namespace weft::onnx {
namespace {

constexpr std::int64_t kMinIrVersion = 3, kMaxIrVersion = 14;
constexpr std::int64_t kMinOpset = 1, kMaxOpset = 28;
// Functions that call each other twice a level grow without bound: nodes that calls may add to a model.
constexpr std::size_t kMaxInlinedNodes = 500'000;

// Names of values in reach of a node, in one graph or function body.
using Scope = std::map<std::string, ValueId, std::less<>>;

// What the nodes of one body are read with.
struct Body {
  Graph* graph;
  Scope scope;
  const OpsetImports* opsets;
  const std::vector<AttributeProto>* arguments = nullptr;  // of the function call, if in one
  std::string prefix;                                      // of node names, in functions
  int depth = 0;
};

class Importer {
 public:
  Importer(const ModelProto& model, TensorLoader& tensors, const ImportOptions& options)
      : model_(model), tensors_(tensors), options_(options), functions_(model) {}

  Graph run() {
    functions_.check_supported(*model_.graph);
    Graph graph(model_.graph->name.empty() ? "main" : std::string(model_.graph->name));
    Body body{&graph, {}, &model_.opsets, nullptr, "", 0};
    add_inputs(*model_.graph, body);
    import_body(*model_.graph, body);
    if (!model_.producer_name.empty()) {
      graph.metadata["producer"] = fmt::format("{} {}", model_.producer_name, model_.producer_version);
    }
    graph.metadata["ir_version"] = std::to_string(model_.ir_version);
    for (const auto& [domain, version] : model_.opsets) {
      graph.metadata["opset." + (domain.empty() ? "ai.onnx" : domain)] = std::to_string(version);
    }
    for (const auto& [key, value] : model_.metadata) {
      if (key == "weft.producer")  // of the model that weft made this file from
        graph.metadata["producer"] = value;
      else
        graph.metadata["model." + std::string(key)] = value;
    }
    verify(graph);
    return graph;
  }

 private:
  // --- Inputs and constants ----------------------------------------------------------------------------

  Dim dim_of(const DimProto& dim, Graph& graph) {
    constexpr std::int64_t kLargest = std::int64_t{1} << 40;
    if (dim.value && *dim.value > kLargest) fail(ErrorCode::kInvalidModel, "an extent of {}", *dim.value);
    if (dim.value && *dim.value > 0) return *dim.value;
    if (dim.symbol.empty()) return graph.fresh_symbol();
    const auto fixed = options_.fixed_dims.find(dim.symbol);
    if (fixed != options_.fixed_dims.end()) return fixed->second;
    // Exporters write sums of names ("past_sequence_length + 1"); anything else is a name.
    if (dim.symbol.find(" + ") != std::string_view::npos || dim.symbol.find('*') != std::string_view::npos) {
      try {
        return Dim::parse(dim.symbol);
      } catch (const Error&) {
      }
    }
    return Dim::symbol(dim.symbol);
  }

  TensorType type_of(const ValueInfoProto& info, Graph& graph) {
    return with_frame([&] { return fmt::format("in input \"{}\"", info.name); },
                      [&] {
                        TensorType type = base_type(info.type);
                        if (info.type.shape) {
                          element_count(Extents(info.type.shape->size(), 1));  // bounds the rank
                          type.shape.emplace();
                          for (const DimProto& dim : *info.type.shape) type.shape->push_back(dim_of(dim, graph));
                        }
                        return type;
                      });
  }

  void add_inputs(const GraphProto& proto, Body& body) {
    std::map<std::string_view, Tensor> initial;
    for (const TensorProto& tensor : proto.initializers) {
      if (!initial.emplace(tensor.name, tensors_.load(tensor)).second) {
        fail(ErrorCode::kInvalidModel, "initializer \"{}\" is given twice", tensor.name);
      }
    }
    for (const SparseTensorProto& tensor : proto.sparse_initializers) {
      if (!initial.emplace(tensor.values.name, tensors_.load(tensor)).second) {
        fail(ErrorCode::kInvalidModel, "initializer \"{}\" is given twice", tensor.values.name);
      }
    }
    for (const ValueInfoProto& input : proto.inputs) {
      const auto given = initial.find(input.name);
      // Before IR version 4 initializers had to be inputs too.
      if (given != initial.end() && model_.ir_version < 4) continue;
      const ValueId id = body.graph->add_input(std::string(input.name), type_of(input, *body.graph));
      if (given != initial.end()) {
        body.graph->value(id).tensor = given->second.aligned();
        initial.erase(given);
      }
      define(body, input.name, id);
    }
    for (auto& [name, tensor] : initial) {
      define(body, name, body.graph->add_constant(std::move(tensor), std::string(name)));
    }
  }

  void add_constants(const GraphProto& proto, Body& body) {
    for (const TensorProto& tensor : proto.initializers) {
      define(body, tensor.name, body.graph->add_constant(tensors_.load(tensor), std::string(tensor.name)));
    }
    for (const SparseTensorProto& tensor : proto.sparse_initializers) {
      const std::string_view name = tensor.values.name;
      define(body, name, body.graph->add_constant(tensors_.load(tensor), std::string(name)));
    }
  }

  static void define(Body& body, std::string_view name, ValueId id) {
    if (!body.scope.emplace(std::string(name), id).second) {
      fail(ErrorCode::kInvalidModel, "value \"{}\" is defined twice", name);
    }
  }

  static ValueId resolve(const Body& body, std::string_view name) {
    if (name.empty()) return {};
    const auto found = body.scope.find(name);
    if (found == body.scope.end()) {
      fail(ErrorCode::kInvalidModel, "value \"{}\" is used but never defined", name);
    }
    return found->second;
  }

  // --- Bodies --------------------------------------------------------------------------------------------

  void import_body(const GraphProto& proto, Body& body) {
    import_nodes(proto.nodes, body);
    for (const ValueInfoProto& output : proto.outputs) {
      body.graph->add_output(std::string(output.name), resolve(body, output.name));
    }
  }

  // Nodes in the given order if it is one of execution (nearly always), else sorted.
  void import_nodes(const std::vector<NodeProto>& nodes, Body& body) {
    for (const std::size_t index : execution_order(nodes)) {
      const NodeProto& node = nodes[index];
      with_frame([&] { return fmt::format("in node \"{}\" ({})", node_label(node), node.op_type); },
                 [&] { import_node(node, body); });
    }
  }

  void import_node(const NodeProto& node, Body& body) {
    std::vector<ValueId> inputs;
    for (const std::string_view name : node.inputs) inputs.push_back(resolve(body, name));
    const FunctionProto* function = functions_.find(node);
    if (function != nullptr && !is_own_function(node)) return inline_function(node, *function, inputs, body);
    const std::int64_t opset = is_own_function(node) ? 1 : opset_of(node, body);
    Builder builder(*body.graph, {}, origin_of(node, body.prefix));
    Lowering lowering(node, opset, resolve_attributes(node, body.arguments), std::move(inputs), builder, tensors_);
    lowering.set_inliner(
        [&](const GraphProto& graph, std::span<const ValueId> given) { return inline_graph(graph, given, body); });
    const std::vector<ValueId> values = lower(lowering, body);
    lowering.check_all_read();
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i].empty()) continue;
      if (i >= values.size() || !values[i].valid()) {
        fail(ErrorCode::kUnsupported, "output {} of {}", i, node.op_type);
      }
      define(body, node.outputs[i], values[i]);
      const Value& value = body.graph->value(values[i]);
      // Values keep the file's names; an alias (of Identity, say) keeps the older one.
      if (value.kind == ValueKind::kResult && body.graph->node(value.producer).origin.nodes == builder.origin().nodes) {
        body.graph->rename_value(values[i], node.outputs[i]);
      }
    }
  }

  std::vector<ValueId> lower(Lowering& lowering, Body& body) {
    const NodeProto& node = lowering.node();
    if (is_own_function(node)) {
      return lowering.pass(own_operator(node.op_type), lowering.inputs());
    }
    if (node.op_type == "If" || node.op_type == "Loop" || node.op_type == "Scan" || node.op_type == "SequenceMap") {
      return lower_control(lowering, body);
    }
    const LowerFunction special =
        node.domain == kMicrosoftDomain ? find_microsoft_lowering(node.op_type) : find_lowering(node.op_type);
    if (special != nullptr) return special(lowering);
    return lowering.pass(node.op_type, lowering.inputs());
  }

  std::int64_t opset_of(const NodeProto& node, const Body& body) const {
    const auto found = body.opsets->find(node.domain);
    if (found == body.opsets->end()) {
      if (!node.domain.empty()) return 1;
      fail(ErrorCode::kInvalidModel, "no version of the default operator set is imported");
    }
    if (node.domain.empty() && (found->second < kMinOpset || found->second > kMaxOpset)) {
      fail(ErrorCode::kUnsupported, "operator set {}; weft reads {} to {}", found->second, kMinOpset, kMaxOpset);
    }
    return found->second;
  }

  void inline_function(const NodeProto& node, const FunctionProto& function, const std::vector<ValueId>& inputs,
                       Body& caller) {
    if (caller.depth > kMaxCallDepth) fail(ErrorCode::kInvalidModel, "functions are nested too deeply");
    inlined_nodes_ += function.nodes.size();
    if (inlined_nodes_ > kMaxInlinedNodes) {
      fail(ErrorCode::kInvalidModel, "the calls of functions add more than {} nodes", kMaxInlinedNodes);
    }
    std::vector<AttributeProto> arguments = resolve_attributes(node, caller.arguments);
    for (const AttributeProto& fallback : function.attribute_defaults) {
      const bool given = std::any_of(arguments.begin(), arguments.end(),
                                     [&](const AttributeProto& a) { return a.name == fallback.name; });
      if (!given) arguments.push_back(fallback);
    }
    Body body{caller.graph, {}, &function.opsets, &arguments, caller.prefix + node_label(node) + "/", caller.depth + 1};
    if (inputs.size() > function.inputs.size() || node.outputs.size() > function.outputs.size()) {
      fail(ErrorCode::kInvalidModel, "function \"{}\" is called with too many inputs or outputs", function.name);
    }
    for (std::size_t i = 0; i < function.inputs.size(); ++i) {
      define(body, function.inputs[i], i < inputs.size() ? inputs[i] : ValueId());
    }
    import_nodes(function.nodes, body);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      if (!node.outputs[i].empty()) define(caller, node.outputs[i], resolve(body, function.outputs[i]));
    }
  }

  std::vector<ValueId> inline_graph(const GraphProto& proto, std::span<const ValueId> inputs, const Body& outer) {
    Body body{outer.graph, outer.scope, outer.opsets, outer.arguments, outer.prefix, outer.depth + 1};
    if (body.depth > kMaxCallDepth) fail(ErrorCode::kInvalidModel, "subgraphs are nested too deeply");
    if (proto.inputs.size() != inputs.size()) {
      fail(ErrorCode::kInvalidModel, "subgraph \"{}\" takes {} inputs, {} wanted", proto.name, proto.inputs.size(),
           inputs.size());
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) define(body, proto.inputs[i].name, inputs[i]);
    add_constants(proto, body);
    import_nodes(proto.nodes, body);
    std::vector<ValueId> outputs;
    for (const ValueInfoProto& output : proto.outputs) outputs.push_back(resolve(body, output.name));
    return outputs;
  }

  // --- If, Loop, Scan --------------------------------------------------------------------------------

  std::vector<ValueId> lower_control(Lowering& l, Body& body) {
    const bool is_if = l.op() == "If";
    const std::vector<std::string_view> names =
        is_if ? std::vector<std::string_view>{"then_branch", "else_branch"} : std::vector<std::string_view>{"body"};
    std::vector<const GraphProto*> graphs;
    std::vector<std::string_view> captured;
    for (const std::string_view name : names) {
      const AttributeProto* attribute = l.find(name);
      if (attribute == nullptr || !attribute->graph) {
        fail(ErrorCode::kInvalidModel, "attribute \"{}\" is missing", name);
      }
      graphs.push_back(attribute->graph.get());
      collect_free_names(*attribute->graph, captured);
    }
    std::vector<ValueId> inputs = l.inputs();
    Attributes attributes = l.schema_attributes(l.op());
    if (l.op() == "Loop") {
      inputs.resize(std::max<std::size_t>(inputs.size(), 2));
      attributes["num_carried"] = static_cast<std::int64_t>(inputs.size()) - 2;
    } else if (l.op() == "SequenceMap") {
      attributes["num_inputs"] = static_cast<std::int64_t>(inputs.size());
    } else if (l.op() == "Scan") {
      const ValueId lengths = l.opset() < 9 ? batch_scan(l, inputs, attributes) : ValueId();
      const std::int64_t scanned = l.integer("num_scan_inputs", 0), given = static_cast<std::int64_t>(inputs.size());
      if (scanned < 1 || scanned > given) {
        fail(ErrorCode::kInvalidModel, "Scan over {} of {} inputs", scanned, given);
      }
      attributes["num_states"] = given - scanned;
      if (lengths.valid()) {
        attributes["has_lengths"] = std::int64_t{1};
        inputs.push_back(lengths);
      }
    }
    std::vector<TensorType> formal = formal_types(l, inputs, attributes, body);
    if (attributes.contains("has_lengths")) formal.pop_back();
    for (const std::string_view name : captured) inputs.push_back(resolve(body, name));
    std::vector<Subgraph> subgraphs;
    for (std::size_t i = 0; i < graphs.size(); ++i) {
      subgraphs.push_back({std::string(names[i]), import_subgraph(*graphs[i], formal, captured, body)});
    }
    const auto values = l.builder().make_many(l.op(), inputs, std::max<std::size_t>(l.output_count(), 1),
                                              std::move(attributes), std::move(subgraphs));
    return {values.begin(), values.end()};
  }

  // Scan of opset 8 runs once for each row of a batch, and scans the axis after it. Returns sequence_lens, or nothing.
  static ValueId batch_scan(Lowering& l, std::vector<ValueId>& inputs, Attributes& attributes) {
    if (inputs.empty()) fail(ErrorCode::kInvalidModel, "Scan without inputs");
    const ValueId lengths = inputs[0];
    inputs.erase(inputs.begin());
    attributes["batched"] = std::int64_t{1};
    if (const auto directions = l.integers("directions")) attributes["scan_input_directions"] = *directions;
    return lengths;
  }

  // Types of a body's own inputs as far as the node's inputs say.
  std::vector<TensorType> formal_types(Lowering& l, const std::vector<ValueId>& inputs, const Attributes& attributes,
                                       const Body& body) {
    std::vector<TensorType> types;
    if (l.op() == "If") return types;
    if (l.op() == "Loop") {
      types.push_back({DType::kI64, Shape{}});
      types.push_back({DType::kBool, Shape{}});
    }
    const std::size_t first = l.op() == "Loop" ? 2 : 0;
    const std::size_t states = attributes.contains("num_states")
                                   ? static_cast<std::size_t>(std::get<std::int64_t>(attributes.at("num_states")))
                                   : inputs.size();
    for (std::size_t i = first; i < inputs.size(); ++i) {
      TensorType type = body.graph->value(inputs[i]).type;
      if (l.op() == "SequenceMap") {
        if (type.dtype == DType::kSequence) type = {type.element, std::nullopt};
      } else if (attributes.contains("batched")) {
        type.shape.reset();
      } else if (l.op() == "Loop") {
        type.shape.reset();  // may change from one iteration to the next
      } else if (i >= states && type.shape && !type.shape->empty()) {
        type.shape->erase(type.shape->begin());
      }
      types.push_back(std::move(type));
    }
    return types;
  }

  std::unique_ptr<Graph> import_subgraph(const GraphProto& proto, const std::vector<TensorType>& formal,
                                         const std::vector<std::string_view>& captured, const Body& outer) {
    auto graph = std::make_unique<Graph>(proto.name.empty() ? "body" : std::string(proto.name));
    Body body{graph.get(), {}, outer.opsets, outer.arguments, outer.prefix, outer.depth + 1};
    if (body.depth > kMaxCallDepth) fail(ErrorCode::kInvalidModel, "subgraphs are nested too deeply");
    if (proto.inputs.size() < formal.size()) {
      fail(ErrorCode::kInvalidModel, "subgraph \"{}\" takes {} inputs, {} wanted", proto.name, proto.inputs.size(),
           formal.size());
    }
    for (std::size_t i = 0; i < formal.size(); ++i) {
      define(body, proto.inputs[i].name, graph->add_input(std::string(proto.inputs[i].name), formal[i]));
    }
    for (const std::string_view name : captured) {
      const Value& value = outer.graph->value(resolve(outer, name));
      const ValueId id = graph->add_input(std::string(name), value.type);
      graph->value(id).elements = value.elements;
      define(body, name, id);
    }
    add_constants(proto, body);
    import_body(proto, body);
    return graph;
  }

  const ModelProto& model_;
  TensorLoader& tensors_;
  const ImportOptions& options_;
  FunctionTable functions_;
  std::size_t inlined_nodes_ = 0;
};

// path: of the model's file, or empty.
Graph import_mapped(MappedFile file, const std::filesystem::path& folder, const std::filesystem::path& path,
                    const ImportOptions& options) {
  const ModelProto model = parse_model({file.bytes.get(), file.size});
  if (!model.graph) fail(ErrorCode::kInvalidModel, "the file holds no model");
  if (model.ir_version < kMinIrVersion || model.ir_version > kMaxIrVersion) {
    fail(ErrorCode::kUnsupported, "IR version {}; weft reads {} to {}", model.ir_version, kMinIrVersion, kMaxIrVersion);
  }
  TensorLoader tensors(file.bytes, folder, path);
  return Importer(model, tensors, options).run();
}

}  // namespace
}  // namespace weft::onnx

namespace weft {

Graph import_onnx(const std::filesystem::path& path, const ImportOptions& options) {
  return with_frame([&] { return "while importing " + path.filename().string(); },
                    [&] {
                      const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
                      return onnx::import_mapped(map_file(path.string()), folder, path, options);
                    });
}

Graph import_onnx(std::span<const std::byte> bytes, const std::filesystem::path& folder, const ImportOptions& options) {
  Tensor copy = Tensor::of<std::uint8_t>({static_cast<std::int64_t>(bytes.size())},
                                         std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
  auto owner = std::make_shared<Tensor>(std::move(copy));
  const std::byte* first = owner->bytes().data();
  return onnx::import_mapped({std::shared_ptr<const std::byte>(owner, first), bytes.size()}, folder, {}, options);
}

}  // namespace weft
