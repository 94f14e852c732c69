// A cache in a layout of the file's own becomes the states that attention reads: only new tokens are rearranged then.
#include "passes/rearranged_caches.h"

#include <algorithm>
#include <map>

#include "ops/builder.h"
#include "passes/node_util.h"

namespace weft {
namespace {

// What the movers make of new tokens alone, that is of a cache of length 0.
class NewTokens {
 public:
  NewTokens(Builder& builder, ValueId past, const CacheUse& use)
      : b_(builder), time_(*(*shape_of(builder.graph(), past))[use.time].symbol_name()) {
    values_[past] = {};
    for (const NodeId id : use.movers) move(id);
  }

  // f32[B, heads, S, size]; invalid when it cannot be written.
  Expr of(const CacheView& view) {
    const auto found = values_.find(view.value);
    if (!written_ || found == values_.end() || !found->second.valid()) return {};
    const Expr value = b_.wrap(found->second);
    if (b_.rank(value) == 4) return value;
    return b_.transpose(b_.reshape(value, {0, 0, view.heads, view.size}), {0, 2, 1, 3});
  }

 private:
  // Values that hold nothing but what is past have no elements: they are invalid here.
  void move(NodeId id) {
    const std::vector<ValueId> inputs = b_.graph().node(id).inputs, outputs = b_.graph().node(id).outputs;
    const std::string op = b_.graph().node(id).op;
    const Attributes attributes = b_.graph().node(id).attributes;
    std::vector<ValueId> moved;
    const std::size_t data = op == "Concat" ? inputs.size() : 1;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const ValueId input = i < data ? data_of(inputs[i]) : numbers_of(inputs[i]);
      if (i < data && !input.valid()) continue;
      moved.push_back(input);
    }
    const bool is_empty = op == "Concat" ? moved.empty() : !data_of(inputs[0]).valid();
    if (is_empty || !written_) {
      for (const ValueId output : outputs) values_[output] = {};
    } else if (op == "Concat" && moved.size() == 1) {
      values_[outputs[0]] = moved[0];
    } else {
      const std::vector<Expr> results = b_.make_many(op, moved, outputs.size(), attributes);
      for (std::size_t i = 0; i < outputs.size(); ++i) values_[outputs[i]] = results[i];
    }
  }

  ValueId data_of(ValueId id) const {
    const auto found = values_.find(id);
    return found == values_.end() ? id : found->second;
  }

  // Integers that say how to move, without those past.
  ValueId numbers_of(ValueId id) {
    if (!id.valid()) return {};
    const auto elements = b_.graph().value(id).elements;
    if (is_constant(b_.graph(), id) || !elements) return id;
    std::vector<std::int64_t> numbers;
    bool same = true;
    for (const Dim& dim : *elements) {
      const Dim now = dim.substitute({{time_, Dim(0)}});
      same = same && now == dim;
      numbers.push_back(now.is_constant() ? now.value() : -1);
      written_ = written_ && (same || now.is_constant());
    }
    return same ? id : b_.ints(numbers).id();
  }

  Builder& b_;
  std::string time_;
  std::map<ValueId, ValueId> values_;
  bool written_ = true;
};

NodeId first_reader(const Graph& graph, const CacheView& view) {
  NodeId first = view.readers.front().node;
  for (const Use& use : view.readers) {
    if (graph.precedes(use.node, first)) first = use.node;
  }
  return first;
}

// Extents of the cache that are asked for, read off a state instead.
class SizesOfState {
 public:
  SizesOfState(const Graph& graph, ValueId past, const CacheUse& use)
      : use_(use), time_((*shape_of(graph, past))[use.time]), batch_((*shape_of(graph, use.views[0].value))[0]) {}

  bool covers(const Graph& graph) const {
    return std::ranges::all_of(use_.sizes, [&](NodeId id) {
      const auto& elements = graph.value(graph.node(id).outputs[0]).elements;
      return graph.use_count(graph.node(id).outputs[0]) == 0 ||
             (elements && std::ranges::all_of(*elements, [&](const Dim& dim) {
                return dim.is_constant() || dim == time_ || dim == batch_;
              }));
    });
  }

  void take_over(Graph& graph, ValueId state) const {
    for (const NodeId id : use_.sizes) {
      const ValueId output = graph.node(id).outputs[0];
      if (graph.use_count(output) > 0) {
        Builder b(graph, id, graph.node(id).origin);
        const std::vector<Dim> elements = *graph.value(output).elements;
        std::vector<ValueId> parts;
        for (const Dim& dim : elements) {
          const std::int64_t axis = dim == time_ ? 2 : 0;
          parts.push_back(dim.is_constant() ? b.ints({dim.value()})
                                            : b.make("Shape", {state}, {{"start", axis}, {"end", axis + 1}}));
        }
        graph.replace_uses(output, parts.size() == 1 ? parts[0] : b.concat(parts, 0).id());
      }
      graph.erase_node(id);
    }
  }

 private:
  const CacheUse& use_;
  Dim time_, batch_;
};

void read_state(Graph& graph, const CacheView& view, ValueId next) {
  for (const Use& use : view.readers) {
    graph.set_input(use.node, use.input, next);
    Node& attention = graph.node(use.node);
    if (rank_of(graph, attention.inputs[1]) == 4 && rank_of(graph, attention.inputs[2]) == 4)
      attention.attributes.erase("kv_num_heads");
    infer_node(graph, use.node);
  }
}

}  // namespace

bool lift_rearranged_cache(Graph& graph, const std::string& name, ValueId past, std::size_t output,
                           std::string& reason) {
  const auto use = read_cache_use(graph, past, graph.outputs()[output].value, reason);
  if (!use) return false;
  const SizesOfState sizes(graph, past, *use);
  if (!sizes.covers(graph)) {
    reason = "sizes of the cache are used in another way";
    return false;
  }
  std::vector<Expr> added;
  std::vector<Builder> builders;
  builders.reserve(use->views.size());
  for (const CacheView& view : use->views) {
    const NodeId before = first_reader(graph, view);
    Builder& b = builders.emplace_back(graph, before, graph.node(graph.value(view.value).producer).origin);
    added.push_back(NewTokens(b, past, *use).of(view));
    if (!added.back() || b.rank(added.back()) != 4 || !b.dim(added.back(), 1).is(view.heads) ||
        !b.dim(added.back(), 3).is(view.size)) {
      reason = "new tokens cannot be told from the cache's";
      erase_dead(graph);
      return false;
    }
  }
  const Dim length = (*shape_of(graph, past))[use->time];
  graph.remove_output(output);
  for (std::size_t i = 0; i < use->views.size(); ++i) {
    const CacheView& view = use->views[i];
    const std::string own = use->views.size() == 1 ? name : fmt::format("{}.{}", name, i);
    const Shape shape = {(*shape_of(graph, view.value))[0], view.heads, length, view.size};
    const ValueId state = graph.add_state(own, {DType::kF32, shape, DType::kF32});
    if (i == 0) sizes.take_over(graph, state);
    const Expr next = builders[i].make("CacheAppend", {state, added[i].id()}, {{"axis", std::int64_t{2}}});
    graph.set_state_next(own, next);
    read_state(graph, view, next);
  }
  erase_dead(graph);
  const auto inputs = graph.inputs();
  graph.remove_input(static_cast<std::size_t>(std::ranges::find(inputs, past) - inputs.begin()));
  if (use->views.size() == 1) graph.rename_value(graph.states().back().current, name);
  return true;
}

}  // namespace weft
