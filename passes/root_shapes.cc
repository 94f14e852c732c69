// Sizes are read off the inputs of the graph: what only asked an activation for its shape asks it no more, and
// layers share one computation of each size. What no sum of inputs' extents gives (frames that convolutions leave of a
// sound) is read off the first value that has it, also where it is spelled in another way.
#include <algorithm>
#include <map>
#include <random>

#include "passes/node_util.h"
#include "passes/passes.h"
#include "passes/size_builder.h"

namespace weft {
namespace {

// Are two expressions of one symbol the same size, wherever the second is a size at all? A negative one is none. Told
// by their numbers: floors of sums repeat themselves after a few thousand.
bool same_size(const Dim& a, const Dim& b) {
  constexpr std::int64_t kAll = 4096, kSamples = 256, kMost = 10'000'000;
  const std::vector<std::string> symbols = a.symbols();
  if (symbols.size() != 1 || b.symbols() != symbols) return false;
  bool any = false;
  const auto same_at = [&](std::int64_t value) {
    const Bindings bindings = {{symbols[0], value}};
    const std::int64_t other = *b.evaluate(bindings);
    any = any || other > 0;
    return other < 0 || *a.evaluate(bindings) == other;
  };
  try {
    for (std::int64_t value = kAll; value-- > 0;) {
      if (!same_at(value)) return false;
    }
    std::minstd_rand random(1);
    for (std::int64_t i = 0; i < kSamples; ++i) {
      if (!same_at(static_cast<std::int64_t>(random() % kMost))) return false;
    }
  } catch (const Error&) {  // divided by a size that may be 0, or too large
    return false;
  }
  return any;
}

// One spelling for each size, the first that was met.
class Spellings {
 public:
  const Dim& of(const Dim& dim) {
    const auto known = known_.find(dim);
    if (known != known_.end()) return known->second;
    const auto first =
        std::find_if(first_.begin(), first_.end(), [&](const Dim& other) { return same_size(other, dim); });
    const Dim spelling = first == first_.end() ? dim : *first;
    if (first == first_.end() && first_.size() < kMost) first_.push_back(dim);
    return known_.emplace(dim, spelling).first->second;
  }

 private:
  static constexpr std::size_t kMost = 64;  // are compared with others
  std::vector<Dim> first_;
  std::map<Dim, Dim, DimLess> known_;
};

// The first values with each extent: of all, and of those that rewrites are not likely to take in.
class Sources {
 public:
  struct Source {
    ValueId value;
    std::size_t axis = 0;
  };

  explicit Sources(const Graph& graph) : graph_(graph), nodes_(graph.nodes()) {
    for (const NodeId id : nodes_) {
      const Node& node = graph.node(id);
      const ValueId value = node.outputs.empty() ? ValueId() : node.outputs[0];
      const Shape* shape = value.valid() ? shape_of(graph, value) : nullptr;
      if (shape == nullptr || !is_float(graph.value(value).type.dtype)) continue;
      for (std::size_t axis = 0; axis < shape->size(); ++axis) {
        const Dim& dim = (*shape)[axis];
        if (dim.is_constant() || dim.symbol_name() || !(spellings_.of(dim) == dim)) continue;
        first_.try_emplace(dim, Source{value, axis});
        if (stays(node.op)) staying_.try_emplace(dim, Source{value, axis});
      }
    }
  }

  // One that is there before the reader.
  std::optional<Source> find(const Dim& any_spelling, NodeId reader) {
    const Dim dim = any_spelling.is_constant() ? any_spelling : spellings_.of(any_spelling);
    for (const auto* sources : {&staying_, &first_}) {
      const auto found = sources->find(dim);
      if (found == sources->end()) continue;
      const NodeId producer = graph_.value(found->second.value).producer;
      if (graph_.precedes(producer, reader)) return found->second;
    }
    return std::nullopt;
  }

  bool is_source(ValueId value, std::size_t axis) const {
    const Dim& dim = (*shape_of(graph_, value))[axis];
    const auto is_it = [&](const auto& sources) {
      const auto found = sources.find(dim);
      return found != sources.end() && found->second.value == value && found->second.axis == axis;
    };
    return is_it(staying_) || is_it(first_);
  }

  NodeId after(NodeId id) const { return *std::next(std::find(nodes_.begin(), nodes_.end(), id)); }

 private:
  static bool stays(std::string_view op) {
    static constexpr std::string_view kStaying[] = {"Transpose", "Reshape", "Gather", "Slice", "Concat", "Squeeze"};
    return std::find(std::begin(kStaying), std::end(kStaying), op) != std::end(kStaying);
  }

  const Graph& graph_;
  std::vector<NodeId> nodes_;
  Spellings spellings_;
  std::map<Dim, Source, DimLess> first_, staying_;
};

class RootedSizes {
 public:
  explicit RootedSizes(Graph& graph) : graph_(graph), inputs_(graph) {}

  // The elements as a tensor of the rank of what it replaces.
  ValueId sizes(const std::vector<Dim>& dims, bool is_scalar, NodeId reader) {
    std::vector<ValueId> parts;
    bool at_front = true;
    for (const Dim& dim : dims) {
      const bool respelled = is_respelled(dim, reader);
      parts.push_back(respelled ? ValueId() : inputs_.size(dim));
      if (!parts.back().valid()) {
        parts.back() = read_off(dim, reader);
        at_front = false;
      }
      if (!parts.back().valid()) return {};
    }
    if (parts.empty() || (is_scalar && parts.size() != 1)) return {};
    if (at_front) return inputs_.sizes(dims, is_scalar);
    Builder here(graph_, reader);
    const ValueId result = parts.size() == 1 ? parts.front() : here.concat(parts, 0).id();
    return is_scalar ? here.squeeze(here.wrap(result), {0}).id() : result;
  }

  // Is there, before the reader, a value with this size in another spelling, the one that counts?
  bool is_respelled(const Dim& dim, NodeId reader) {
    if (dim.is_constant() || dim.symbol_name()) return false;
    const auto source = computed().find(dim, reader);
    return source && !((*shape_of(graph_, source->value))[source->axis] == dim);
  }

  // Is it made of nothing but what sizes are read off already?
  bool is_rooted(ValueId id, int depth = 0) {
    const Value& value = graph_.value(id);
    if (value.kind != ValueKind::kResult) return value.kind == ValueKind::kConstant;
    const Node& node = graph_.node(value.producer);
    if (node.op == "Shape") return graph_.value(node.inputs[0]).kind == ValueKind::kInput || is_read_off(node);
    static constexpr std::string_view kArithmetic[] = {"Concat", "Squeeze", "Add", "Mul"};
    if (depth > 3 || std::find(std::begin(kArithmetic), std::end(kArithmetic), node.op) == std::end(kArithmetic)) {
      return false;
    }
    return std::all_of(node.inputs.begin(), node.inputs.end(),
                       [&](ValueId input) { return is_rooted(input, depth + 1); });
  }

  // Was something read off that is spelled in another way?
  bool respelled() const { return respelled_; }

 private:
  Sources& computed() {
    if (!computed_) computed_.emplace(graph_);
    return *computed_;
  }

  ValueId read_off(const Dim& dim, NodeId reader) {
    const auto source = computed().find(dim, reader);
    if (!source) return {};
    respelled_ = respelled_ || !((*shape_of(graph_, source->value))[source->axis] == dim);
    const auto [entry, is_new] = read_.try_emplace(std::pair{source->value, source->axis});
    if (is_new) {
      Builder b(graph_, computed().after(graph_.value(source->value).producer));
      const auto start = static_cast<std::int64_t>(source->axis);
      entry->second = b.make("Shape", {source->value}, {{"start", start}, {"end", start + 1}});
    }
    return entry->second;
  }

  bool is_read_off(const Node& shape) {
    const AttributeReader attributes = attributes_of(shape);
    const std::int64_t start = attributes.integer("start");
    const Value& made = graph_.value(shape.outputs[0]);
    return start >= 0 && made.elements && made.elements->size() == 1 && shape_of(graph_, shape.inputs[0]) != nullptr &&
           computed().is_source(shape.inputs[0], static_cast<std::size_t>(start));
  }

  Graph& graph_;
  SizeBuilder inputs_;
  std::optional<Sources> computed_;
  std::map<std::pair<ValueId, std::size_t>, ValueId> read_;
  bool respelled_ = false;
};

bool is_size(const Value& value) {
  return value.kind == ValueKind::kResult && value.elements && value.type.dtype == DType::kI64 && value.type.shape &&
         value.type.shape->size() <= 1 && !value.elements->empty();
}

}  // namespace

int root_shapes(Graph& graph, PassContext& context) {
  if (graph.node_count() == 0) return 0;
  std::optional<RootedSizes> builder;
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
      if (!input.valid() || !is_size(graph.value(input))) continue;
      if (!builder) builder.emplace(graph);
      const std::vector<Dim> elements = *graph.value(input).elements;
      const bool respells =
          std::any_of(elements.begin(), elements.end(), [&](const Dim& dim) { return builder->is_respelled(dim, id); });
      if (builder->is_rooted(input) && !respells) continue;
      const ValueId size = builder->sizes(elements, graph.value(input).type.shape->empty(), id);
      if (!size.valid()) continue;
      graph.set_input(id, i, size);
      context.rewritten(graph, "root-shapes");
      ++rooted;
    }
  }
  erase_dead(graph);
  if (builder && builder->respelled()) infer_graph(graph);
  return rooted;
}

}  // namespace weft
