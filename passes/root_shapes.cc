// Sizes are read off the inputs of the graph: what only asked an activation for its shape asks it no more, and
// layers share one computation of each size.
#include <algorithm>
#include <map>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Ordered as Dim::compare does.
struct DimLess {
  bool operator()(const Dim& a, const Dim& b) const { return Dim::compare(a, b) < 0; }
};

class SizeBuilder {
 public:
  explicit SizeBuilder(Graph& graph) : b_(graph, graph.nodes().front()) {
    for (const ValueId input : graph.inputs()) {
      const Shape* shape = shape_of(graph, input);
      for (std::size_t axis = 0; shape != nullptr && axis < shape->size(); ++axis) {
        if (const auto name = (*shape)[axis].symbol_name()) sources_.try_emplace(*name, input, axis);
      }
    }
  }

  // i64[1]; invalid when a symbol is no extent of an input, or the polynomial is not linear.
  ValueId size(const Dim& dim) {
    const auto [entry, is_new] = known_.try_emplace(dim);
    if (is_new) entry->second = build(dim);
    return entry->second;
  }

  // The elements as a tensor of the rank of what it replaces.
  ValueId sizes(const std::vector<Dim>& dims, bool is_scalar) {
    std::vector<ValueId> parts;
    for (const Dim& dim : dims) {
      parts.push_back(size(dim));
      if (!parts.back().valid()) return {};
    }
    if (parts.empty() || (is_scalar && parts.size() != 1)) return {};
    const std::pair key{parts, is_scalar};
    const auto found = joined_.find(key);
    if (found != joined_.end()) return found->second;
    ValueId result = parts.size() == 1 ? parts.front() : b_.concat(parts, 0).id();
    if (is_scalar) result = b_.squeeze(b_.wrap(result), {0});
    return joined_[key] = result;
  }

 private:
  ValueId build(const Dim& dim) {
    if (dim.is_constant()) return b_.ints({dim.value()});
    if (const auto name = dim.symbol_name()) {
      const auto source = sources_.find(*name);
      if (source == sources_.end()) return {};
      const auto& [input, axis] = source->second;
      const auto start = static_cast<std::int64_t>(axis);
      return b_.make("Shape", {input}, {{"start", start}, {"end", start + 1}});
    }
    try {
      return linear(dim);
    } catch (const Error&) {
      return {};  // a quotient by what is 0 there: not linear
    }
  }

  // c0 + c1 s1 + c2 s2 ..., found by setting symbols to 0 and 1 and checked by putting it together again.
  ValueId linear(const Dim& dim) {
    std::map<std::string, Dim, std::less<>> zeros;
    for (const std::string& name : dim.symbols()) zeros[name] = Dim(0);
    const Dim rest = dim.substitute(zeros);
    if (!rest.is_constant()) return {};
    std::vector<std::pair<std::string, std::int64_t>> terms;
    Dim sum = rest;
    for (const std::string& name : dim.symbols()) {
      auto one = zeros;
      one[name] = Dim(1);
      const Dim value = dim.substitute(one);
      if (!value.is_constant()) return {};
      terms.emplace_back(name, value.value() - rest.value());
      sum = sum + Dim(terms.back().second) * Dim::symbol(name);
    }
    if (!(sum == dim)) return {};
    Expr result;
    for (const auto& [name, factor] : terms) {
      const ValueId symbol = size(Dim::symbol(name));
      if (!symbol.valid()) return {};
      const Expr term = factor == 1 ? b_.wrap(symbol) : b_.wrap(symbol) * static_cast<double>(factor);
      result = result ? result + term : term;
    }
    return rest.is(0) ? result : result + static_cast<double>(rest.value());
  }

  Builder b_;
  std::map<std::string, std::pair<ValueId, std::size_t>, std::less<>> sources_;
  std::map<Dim, ValueId, DimLess> known_;
  std::map<std::pair<std::vector<ValueId>, bool>, ValueId> joined_;
};

bool is_size(const Value& value) {
  return value.kind == ValueKind::kResult && value.elements && value.type.dtype == DType::kI64 && value.type.shape &&
         value.type.shape->size() <= 1 && !value.elements->empty();
}

// Is it made of nothing but sizes of inputs already?
bool is_rooted(const Graph& graph, ValueId id, int depth = 0) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kResult) return value.kind == ValueKind::kConstant;
  const Node& node = graph.node(value.producer);
  if (node.op == "Shape") return graph.value(node.inputs[0]).kind == ValueKind::kInput;
  static constexpr std::string_view kArithmetic[] = {"Concat", "Squeeze", "Add", "Mul"};
  if (depth > 3 || std::find(std::begin(kArithmetic), std::end(kArithmetic), node.op) == std::end(kArithmetic)) {
    return false;
  }
  return std::all_of(node.inputs.begin(), node.inputs.end(),
                     [&](ValueId input) { return is_rooted(graph, input, depth + 1); });
}

}  // namespace

int root_shapes(Graph& graph, PassContext& context) {
  if (graph.node_count() == 0) return 0;
  std::optional<SizeBuilder> builder;
  int rooted = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& reader = graph.node(id);
    // Arithmetic on sizes is not read itself: what reads its results is.
    const bool is_arithmetic = std::all_of(reader.outputs.begin(), reader.outputs.end(), [&](ValueId output) {
      return !output.valid() || graph.value(output).elements.has_value();
    });
    if (is_arithmetic) continue;
    for (std::size_t i = 0; i < graph.node(id).inputs.size(); ++i) {
      const ValueId input = graph.node(id).inputs[i];
      if (!input.valid() || !is_size(graph.value(input)) || is_rooted(graph, input)) continue;
      if (!builder) builder.emplace(graph);
      const std::vector<Dim> elements = *graph.value(input).elements;
      const ValueId size = builder->sizes(elements, graph.value(input).type.shape->empty());
      if (!size.valid()) continue;
      graph.set_input(id, i, size);
      context.rewritten(graph, "root-shapes");
      ++rooted;
    }
  }
  erase_dead(graph);
  return rooted;
}

}  // namespace weft
