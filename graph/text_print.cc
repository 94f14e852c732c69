#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "graph/text.h"
#include "graph/text_common.h"

namespace weft {
namespace {

constexpr std::int64_t kDecimalElements = 16;

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      result += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7f)
      result += fmt::format("\\x{:02x}", byte);
    else
      result += c;
  }
  return result + "\"";
}

std::string name_text(std::string_view name) {
  const bool bare = !name.empty() && std::all_of(name.begin(), name.end(), is_name_char);
  return "%" + (bare ? std::string(name) : quoted(name));
}

// Shortest text that reads back as the same number, and as a float.
template <class T>
std::string float_text(T value) {
  if (std::isnan(value)) return std::signbit(value) ? "-nan" : "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string base64(std::span<const std::byte> bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto at = [&](std::size_t k) { return i + k < bytes.size() ? static_cast<unsigned>(bytes[i + k]) : 0u; };
    const unsigned block = at(0) << 16 | at(1) << 8 | at(2);
    for (std::size_t k = 0; k < 4; ++k) {
      text += i + k <= bytes.size() ? kBase64[block >> (18 - 6 * k) & 63] : '=';
    }
  }
  return text;
}

bool has_nan(const Tensor& tensor) {
  if (is_narrow(tensor.dtype())) return false;
  return visit_dtype(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_floating_point_v<T>) {
      const auto data = tensor.data<T>();
      return std::any_of(data.begin(), data.end(), [](T x) { return std::isnan(x); });
    } else if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      const auto data = tensor.data<T>();
      return std::any_of(data.begin(), data.end(), [](T x) { return std::isnan(static_cast<float>(x)); });
    } else {
      return false;
    }
  });
}

std::string elements_text(const Tensor& tensor) {
  std::vector<std::string> parts;
  visit_dtype(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (const T& x : tensor.data<T>()) {
      if constexpr (std::is_same_v<T, std::string>)
        parts.push_back(quoted(x));
      else if constexpr (std::is_same_v<T, bool>)
        parts.push_back(x ? "true" : "false");
      else if constexpr (std::is_integral_v<T>)
        parts.push_back(std::to_string(x));
      else if constexpr (std::is_floating_point_v<T>)
        parts.push_back(float_text(x));
      else
        parts.push_back(float_text(static_cast<float>(x)));
    }
  });
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

// Contents after the type. NaN has a payload that decimals lose.
std::string tensor_text(const Tensor& given, std::int64_t elide_above) {
  if (given.size() > elide_above) return "...";
  const Tensor tensor = given.aligned();
  const bool decimal = tensor.dtype() == DType::kString ||
                       (!is_narrow(tensor.dtype()) && tensor.size() <= kDecimalElements && !has_nan(tensor));
  return decimal ? elements_text(tensor) : "base64 " + quoted(base64(tensor.bytes()));
}

class Printer {
 public:
  Printer(const TextOptions& options, int depth)
      : options_(options), indent_(static_cast<std::size_t>(depth) * 2, ' ') {}

  std::string run(const Graph& graph) {
    std::vector<std::string> inputs, outputs;
    for (const ValueId id : graph.inputs()) {
      const Value& value = graph.value(id);
      std::string text = typed(value);
      if (value.tensor) text += " = " + tensor_text(*value.tensor, options_.elide_above);
      inputs.push_back(std::move(text));
    }
    for (const Output& output : graph.outputs()) {
      outputs.push_back(quoted(output.name) + " = " + name_text(graph.value(output.value).name));
    }
    std::string text = fmt::format("graph {}({}) -> ({}) {{\n", quoted(graph.name()), fmt::join(inputs, ", "),
                                   fmt::join(outputs, ", "));
    for (const auto& [key, value] : graph.metadata) line(text, fmt::format("meta {} = {}", quoted(key), quoted(value)));
    for (const State& state : graph.states()) {
      line(text, fmt::format("state {}: {} -> {}", quoted(state.name), typed(graph.value(state.current)),
                             name_text(graph.value(state.next).name)));
    }
    for (const ValueId id : graph.values()) {
      const Value& value = graph.value(id);
      if (value.kind != ValueKind::kConstant) continue;
      line(text, fmt::format("const {} = {}", typed(value), tensor_text(*value.tensor, options_.elide_above)));
    }
    for (const NodeId id : graph.nodes()) line(text, node_text(graph, graph.node(id)));
    return text + indent_ + "}\n";
  }

 private:
  void line(std::string& text, const std::string& content) const { text += indent_ + "  " + content + "\n"; }

  static std::string typed(const Value& value) { return name_text(value.name) + ": " + to_string(value.type); }

  std::string node_text(const Graph& graph, const Node& node) const {
    std::vector<std::string> outputs, inputs;
    for (const ValueId id : node.outputs) outputs.push_back(id.valid() ? typed(graph.value(id)) : "_");
    for (const ValueId id : node.inputs) inputs.push_back(id.valid() ? name_text(graph.value(id).name) : "_");
    std::string text = fmt::format("{} = {}({})", fmt::join(outputs, ", "), node.op, fmt::join(inputs, ", "));
    if (!node.attributes.empty()) {
      std::vector<std::string> attributes;
      for (const auto& [name, attribute] : node.attributes)
        attributes.push_back(name + " = " + attribute_text(attribute));
      text += fmt::format(" {{{}}}", fmt::join(attributes, ", "));
    }
    for (const Subgraph& subgraph : node.subgraphs) {
      std::string inner = Printer(options_, static_cast<int>(indent_.size() / 2) + 1).run(*subgraph.graph);
      inner.pop_back();
      text += " " + quoted(subgraph.name) + " " + inner;
    }
    if (options_.origins && (!node.origin.nodes.empty() || !node.origin.sources.empty())) {
      text += "  #";
      for (const std::string& name : node.origin.nodes) text += " " + quoted(name);
      for (const std::string& source : node.origin.sources) text += " @ " + quoted(source);
    }
    return text;
  }

  // Kinds can be told apart: 1 and 1.0, [1] and [1.0]; empty lists say their kind.
  static std::string attribute_text(const Attribute& attribute) {
    std::vector<std::string> parts;
    if (const auto* i = std::get_if<std::int64_t>(&attribute)) return std::to_string(*i);
    if (const auto* f = std::get_if<double>(&attribute)) return float_text(*f);
    if (const auto* s = std::get_if<std::string>(&attribute)) return quoted(*s);
    if (const auto* d = std::get_if<DType>(&attribute)) return "type " + std::string(to_string(*d));
    if (const auto* t = std::get_if<Tensor>(&attribute)) {
      return fmt::format("tensor {} = {}", to_string(TensorType{t->dtype(), to_shape(t->shape())}),
                         tensor_text(*t, std::numeric_limits<std::int64_t>::max()));
    }
    if (const auto* is = std::get_if<std::vector<std::int64_t>>(&attribute)) {
      return is->empty() ? "ints []" : fmt::format("[{}]", fmt::join(*is, ", "));
    }
    if (const auto* fs = std::get_if<std::vector<double>>(&attribute)) {
      for (const double value : *fs) parts.push_back(float_text(value));
      return fs->empty() ? "floats []" : fmt::format("[{}]", fmt::join(parts, ", "));
    }
    const auto& ss = std::get<std::vector<std::string>>(attribute);
    for (const std::string& value : ss) parts.push_back(quoted(value));
    return ss.empty() ? "strings []" : fmt::format("[{}]", fmt::join(parts, ", "));
  }

  const TextOptions& options_;
  std::string indent_;
};

}  // namespace

std::string print(const Graph& graph, const TextOptions& options) { return Printer(options, 0).run(graph); }

}  // namespace weft
