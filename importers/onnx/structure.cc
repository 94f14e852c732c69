#include "importers/onnx/structure.h"

#include <algorithm>

#include "importers/onnx/lower.h"
#include "ops/op_def.h"

namespace weft::onnx {
namespace {

constexpr std::string_view kOwnDomain = "weft";

// Where the innermost frame of a Python stack trace starts that is not PyTorch's own; the innermost if all are.
std::size_t innermost_frame(std::string_view trace) {
  constexpr std::string_view kFrame = "File \"";
  const std::size_t last = trace.rfind(kFrame);
  for (std::size_t at = last; at != std::string_view::npos; at = at == 0 ? at - 1 : trace.rfind(kFrame, at - 1)) {
    const std::string_view path = trace.substr(at, trace.find('"', at + kFrame.size()) - at);
    if (path.find("/torch/") == std::string_view::npos) return at;
  }
  return last;
}

// "modeling_bert.py:312 in forward"
std::string source_line(std::string_view trace) {
  const std::size_t at = innermost_frame(trace);
  if (at == std::string_view::npos) return {};
  std::string_view rest = trace.substr(at + 6);
  const std::size_t quote = rest.find('"');
  if (quote == std::string_view::npos) return {};
  std::string_view file = rest.substr(0, quote);
  file = file.substr(file.find_last_of('/') + 1);
  rest = rest.substr(quote);
  const std::size_t line_at = rest.find("line ");
  if (line_at == std::string_view::npos) return std::string(file);
  const std::string_view after = rest.substr(line_at + 5);
  const std::string_view line = after.substr(0, after.find_first_not_of("0123456789"));
  std::string result = fmt::format("{}:{}", file, line);
  if (const std::size_t in = after.find("in "); in != std::string_view::npos) {
    const std::string_view function = after.substr(in + 3);
    result += fmt::format(" in {}", function.substr(0, function.find_first_of("\n\r ")));
  }
  return result;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    lines.emplace_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

}  // namespace

std::string node_label(const NodeProto& node) {
  if (!node.name.empty()) return std::string(node.name);
  return node.outputs.empty() ? std::string(node.op_type) : std::string(node.outputs[0]);
}

Origin origin_of(const NodeProto& node, const std::string& prefix) {
  Origin origin;
  // Written by our own exporter: the node stands for several.
  if (const auto own = node.metadata.find("weft.nodes"); own != node.metadata.end()) {
    origin.nodes = lines_of(own->second);
    const auto sources = node.metadata.find("weft.sources");
    if (sources != node.metadata.end()) origin.sources = lines_of(sources->second);
    return origin;
  }
  origin.nodes.push_back(prefix + node_label(node));
  const auto trace = node.metadata.find("pkg.torch.onnx.stack_trace");
  if (trace != node.metadata.end()) {
    std::string source = source_line(trace->second);
    if (!source.empty()) origin.sources.push_back(std::move(source));
  }
  return origin;
}

void collect_free_names(const GraphProto& graph, std::vector<std::string_view>& free) {
  std::set<std::string_view> known(free.begin(), free.end());  // defined here, or noted
  for (const ValueInfoProto& input : graph.inputs) known.insert(input.name);
  for (const TensorProto& tensor : graph.initializers) known.insert(tensor.name);
  for (const SparseTensorProto& tensor : graph.sparse_initializers) known.insert(tensor.values.name);
  for (const NodeProto& node : graph.nodes) known.insert(node.outputs.begin(), node.outputs.end());
  const auto note = [&](std::string_view name) {
    if (!name.empty() && known.insert(name).second) free.push_back(name);
  };
  for (const NodeProto& node : graph.nodes) {
    for (const std::string_view input : node.inputs) note(input);
    for (const AttributeProto& attribute : node.attributes) {
      if (!attribute.graph) continue;
      std::vector<std::string_view> inner;
      collect_free_names(*attribute.graph, inner);
      for (const std::string_view name : inner) note(name);
    }
  }
  for (const ValueInfoProto& output : graph.outputs) note(output.name);
}

std::vector<AttributeProto> resolve_attributes(const NodeProto& node, const std::vector<AttributeProto>* arguments) {
  std::vector<AttributeProto> result;
  std::set<std::string_view> names;
  for (const AttributeProto& attribute : node.attributes) {
    if (!names.insert(attribute.name).second) {
      fail(ErrorCode::kInvalidModel, "attribute \"{}\" is given twice", attribute.name);
    }
    if (attribute.reference.empty()) {
      result.push_back(attribute);
      continue;
    }
    if (arguments == nullptr) {
      fail(ErrorCode::kInvalidModel, "attribute \"{}\" refers to a function's attribute outside a function",
           attribute.name);
    }
    for (const AttributeProto& argument : *arguments) {
      if (argument.name != attribute.reference) continue;
      if (argument.type != attribute.type && attribute.type != AttributeType::kUndefined) {
        fail(ErrorCode::kInvalidModel, "attribute \"{}\" refers to \"{}\", which is of another type", attribute.name,
             attribute.reference);
      }
      result.push_back(argument);
      result.back().name = attribute.name;
    }
  }
  return result;
}

std::vector<std::size_t> execution_order(const std::vector<NodeProto>& nodes) {
  std::map<std::string_view, std::size_t> producer;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string_view output : nodes[i].outputs) {
      if (!output.empty() && !producer.emplace(output, i).second) {
        fail(ErrorCode::kInvalidModel, "value \"{}\" is defined twice", output);
      }
    }
  }
  std::vector<std::size_t> waiting(nodes.size(), 0);
  std::vector<std::vector<std::size_t>> followers(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    std::vector<std::string_view> read(nodes[i].inputs.begin(), nodes[i].inputs.end());
    for (const AttributeProto& attribute : nodes[i].attributes) {
      if (attribute.graph) collect_free_names(*attribute.graph, read);
    }
    std::set<std::size_t> before;
    for (const std::string_view name : read) {
      const auto found = producer.find(name);
      if (found != producer.end()) before.insert(found->second);
    }
    waiting[i] = before.size();
    for (const std::size_t k : before) followers[k].push_back(i);
  }
  std::set<std::size_t> ready;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (waiting[i] == 0) ready.insert(i);
  }
  std::vector<std::size_t> order;
  while (!ready.empty()) {
    const std::size_t i = *ready.begin();
    ready.erase(ready.begin());
    order.push_back(i);
    for (const std::size_t k : followers[i]) {
      if (--waiting[k] == 0) ready.insert(k);
    }
  }
  if (order.size() != nodes.size()) fail(ErrorCode::kInvalidModel, "the nodes form a cycle");
  return order;
}

std::string_view own_operator(std::string_view function_name) {
  return function_name.substr(0, function_name.find("__"));
}

bool is_own_function(const NodeProto& node) {
  return node.domain == kOwnDomain && find_op(own_operator(node.op_type)) != nullptr;
}

FunctionTable::FunctionTable(const ModelProto& model) {
  for (const FunctionProto& function : model.functions) {
    if (!functions_.emplace(std::array{function.domain, function.name, function.overload}, &function).second) {
      fail(ErrorCode::kInvalidModel, "function \"{}\" is defined twice", function.name);
    }
  }
}

const FunctionProto* FunctionTable::find(const NodeProto& node) const {
  const auto found = functions_.find(std::array{node.domain, node.op_type, node.overload});
  return found == functions_.end() ? nullptr : found->second;
}

void FunctionTable::check_supported(const GraphProto& graph) {
  std::map<std::string, Unsupported> missing;
  scan(graph.nodes, missing, {});
  if (missing.empty()) return;
  std::string text;
  for (const auto& [op, entry] : missing) {
    text += fmt::format("{}{} ({} node{}, the first is \"{}\")", text.empty() ? "" : ", ", op, entry.count,
                        entry.count == 1 ? "" : "s", entry.first);
  }
  fail(ErrorCode::kUnsupported, "the model has operators that weft does not have: {}", text);
}

void FunctionTable::scan(const std::vector<NodeProto>& nodes, std::map<std::string, Unsupported>& missing,
                         std::set<const FunctionProto*> inside) {
  for (const NodeProto& node : nodes) {
    for (const AttributeProto& attribute : node.attributes) {
      if (attribute.graph) scan(attribute.graph->nodes, missing, inside);
    }
    if (is_own_function(node)) continue;
    if (const FunctionProto* function = find(node)) {
      if (!inside.insert(function).second) {
        fail(ErrorCode::kInvalidModel, "function \"{}\" calls itself", function->name);
      }
      if (inside.size() > kMaxCallDepth) fail(ErrorCode::kInvalidModel, "functions are nested too deeply");
      if (scanned_.insert(function).second) scan(function->nodes, missing, inside);
      inside.erase(function);
      continue;
    }
    if (is_known(node.domain, node.op_type)) continue;
    const std::string name =
        node.domain.empty() ? std::string(node.op_type) : fmt::format("{}.{}", node.domain, node.op_type);
    Unsupported& entry = missing[name];
    if (entry.count++ == 0) entry.first = node_label(node);
  }
}

}  // namespace weft::onnx
