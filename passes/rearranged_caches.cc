// A cache in a layout of the file's own becomes the states that attention reads: only new tokens are rearranged then.
#include "passes/rearranged_caches.h"

#include <algorithm>
#include <map>

#include "passes/cache_buffers.h"
#include "passes/node_util.h"
#include "passes/rule.h"
#include "passes/size_builder.h"

namespace weft {
namespace {

// What the movers make of new tokens alone, that is of a cache of length 0.
class NewTokens {
 public:
  NewTokens(Builder& builder, ValueId past, const CacheUse& use) : b_(builder) {
    if (!use.is_buffer) time_ = (*shape_of(builder.graph(), past))[use.time].symbol_name();
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
    if (op == "TensorScatter" || op == "ScatterND" || op == "ScatterElements") {
      values_[outputs[0]] = data_of(inputs[op == "TensorScatter" ? 1 : 2]);
      return;
    }
    const std::size_t data = op == "Concat" ? inputs.size() : 1;
    std::vector<ValueId> moved;
    for (std::size_t i = 0; i < data; ++i) {
      if (const ValueId input = data_of(inputs[i]); input.valid()) moved.push_back(input);
    }
    if (moved.empty() || !written_) {
      for (const ValueId output : outputs) values_[output] = {};
      return;
    }
    for (std::size_t i = data; i < inputs.size(); ++i) moved.push_back(numbers_of(inputs[i]));
    if (!written_) {
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
    if (is_constant(b_.graph(), id) || !elements || !time_) return id;
    std::vector<std::int64_t> numbers;
    bool same = true;
    for (const Dim& dim : *elements) {
      const Dim now = dim.substitute({{*time_, Dim(0)}});
      same = same && now == dim;
      numbers.push_back(now.is_constant() ? now.value() : -1);
      written_ = written_ && (same || now.is_constant());
    }
    return same ? id : b_.ints(numbers).id();
  }

  Builder& b_;
  std::optional<std::string> time_;
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

// A cache on its way to states.
struct Lifted {
  const CachePair* pair = nullptr;
  CacheUse use;
  std::vector<std::pair<NodeId, ValueId>> added;  // new tokens of each view, before its first reader
  Dim length;                                     // tokens past
  std::vector<ValueId> states;
};

using Names = std::map<std::string, Dim, std::less<>>;

// Extents of the cache and of what it becomes that are asked for: from other inputs, and from the state.
void take_over_sizes(Graph& graph, const Lifted& cache, const std::set<ValueId>& going, const Names& lengths) {
  SizeBuilder sizes(graph, going);
  for (const NodeId id : cache.use.sizes) {
    const ValueId output = graph.node(id).outputs[0];
    if (graph.use_count(output) > 0) {
      const auto& elements = graph.value(output).elements;
      if (!elements) fail(ErrorCode::kUnsupported, "sizes of the cache are not known");
      std::vector<Dim> dims;
      for (const Dim& dim : *elements) dims.push_back(dim.substitute(lengths));
      const ValueId size = sizes.sizes(dims, false);
      if (!size.valid()) fail(ErrorCode::kUnsupported, "sizes of the cache are used in another way");
      graph.replace_uses(output, size);
    }
    graph.erase_node(id);
  }
}

void read_state(Graph& graph, const CacheView& view, ValueId next) {
  for (const Use& use : view.readers) {
    graph.set_input(use.node, use.input, next);
    Node& attention = graph.node(use.node);
    if (rank_of(graph, attention.inputs[1]) == 4 && rank_of(graph, attention.inputs[2]) == 4)
      attention.attributes.erase("kv_num_heads");
  }
}

void remove_input(Graph& graph, ValueId input) {
  const auto at = std::ranges::find(graph.inputs(), input) - graph.inputs().begin();
  graph.remove_input(static_cast<std::size_t>(at));
}

std::vector<std::pair<NodeId, ValueId>> new_tokens(Graph& graph, ValueId past, const CacheUse& use) {
  std::vector<std::pair<NodeId, ValueId>> result;
  for (const CacheView& view : use.views) {
    const NodeId before = first_reader(graph, view);
    Builder b(graph, before, graph.node(graph.value(view.value).producer).origin);
    const Expr added = NewTokens(b, past, use).of(view);
    const bool fits = added && b.rank(added) == 4 && b.dim(added, 1).is(view.heads) && b.dim(added, 3).is(view.size);
    if (!fits) return {};
    result.emplace_back(before, added.id());
  }
  return result;
}

std::size_t output_of(const Graph& graph, const std::string& name) {
  std::size_t index = 0;
  while (graph.outputs()[index].name != name) ++index;
  return index;
}

std::optional<Lifted> read(Graph& graph, const CachePair& pair, CacheRefusal& refusal) {
  auto use = read_cache_use(graph, pair.past, graph.outputs()[output_of(graph, pair.present_name)].value, refusal);
  if (!use || (use->is_buffer && !sees_only_what_is_written(graph, *use, refusal))) return std::nullopt;
  Lifted cache{&pair, *std::move(use), {}, {}, {}};
  cache.added = new_tokens(graph, pair.past, cache.use);
  if (!cache.added.empty()) return cache;
  refusal = {"new tokens cannot be rearranged without those past", first_reader(graph, cache.use.views[0]),
             static_cast<int>(cache.use.movers.size())};
  return std::nullopt;
}

void refuse(const Graph& graph, const CacheRefusal& refusal, CacheLift& lift) {
  if (refusal.node.valid())
    lift.near_miss = near_miss_at(graph, refusal.node, refusal.depth, refusal.reason);
  else
    lift.reason = refusal.reason;
}

// Keys and values of one Attention have one length: both or none of them are cut to what is written.
void drop_half_buffers(const Graph& graph, std::vector<Lifted>& caches) {
  std::map<NodeId, int> buffers;
  for (const Lifted& cache : caches) {
    for (const CacheView& view : cache.use.views) {
      for (const Use& reader : view.readers) buffers[reader.node] += cache.use.is_buffer ? 1 : 0;
    }
  }
  std::erase_if(caches, [&](const Lifted& cache) {
    return std::ranges::any_of(cache.use.views, [&](const CacheView& view) {
      return std::ranges::any_of(view.readers, [&](const Use& reader) {
        const std::vector<ValueId>& inputs = graph.node(reader.node).inputs;
        return buffers[reader.node] == 1 && inputs[1] != inputs[2];
      });
    });
  });
}

void make_states(Graph& graph, Lifted& cache) {
  const CacheUse& use = cache.use;
  graph.remove_output(output_of(graph, cache.pair->present_name));
  for (std::size_t i = 0; i < use.views.size(); ++i) {
    const CacheView& view = use.views[i];
    const auto& [before, added] = cache.added[i];
    const Shape shape = {(*shape_of(graph, added))[0], view.heads, cache.length, view.size};
    const std::string own =
        use.views.size() == 1 ? cache.pair->past_name : fmt::format("{}.{}", cache.pair->past_name, i);
    const DType dtype = graph.value(added).type.dtype;
    cache.states.push_back(graph.add_state(own, {dtype, shape, dtype}));
    Builder b(graph, before, graph.node(graph.value(view.value).producer).origin);
    const Expr next = b.make("CacheAppend", {cache.states.back(), added}, {{"axis", std::int64_t{2}}});
    graph.set_state_next(own, next);
    read_state(graph, view, next);
  }
}

// What a decode loop feeds says nothing new: positions that follow those past, a mask that masks nothing.
void fill_in_loop_inputs(Graph& graph, const std::set<ValueId>& inputs, const Dim& past) {
  for (const ValueId input : inputs) {
    SizeBuilder sizes(graph, {input});
    const Shape shape = *shape_of(graph, input);
    Builder b(graph, graph.nodes().front());
    Expr contents;
    if (shape.size() == 2) {
      const ValueId extents = sizes.sizes(shape, false);
      if (!extents.valid()) continue;
      b.set_before(graph.next_node(graph.value(extents).producer));
      contents = b.make("ConstantOfShape", {extents}, {{"value", Tensor::of<std::int64_t>({1}, {1})}});
    } else {
      const ValueId start = sizes.sizes({past}, true), end = sizes.sizes({past + shape[0]}, true);
      if (!start.valid() || !end.valid()) continue;
      b.set_before(graph.next_node(graph.value(end).producer));
      contents = b.make("Range", {start, end, b.scalar(DType::kI64, 1).id()});
    }
    graph.replace_uses(input, b.cast(contents, b.dtype(input)));
    remove_input(graph, input);
  }
}

// Those that may become states; of the others it is said why not.
std::vector<Lifted> read_all(Graph& graph, const std::vector<CachePair>& pairs, std::vector<CacheLift>& lifts) {
  std::vector<Lifted> caches;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    CacheRefusal refusal;
    if (auto cache = read(graph, pairs[i], refusal))
      caches.push_back(*std::move(cache));
    else
      refuse(graph, refusal, lifts[i]);
  }
  drop_half_buffers(graph, caches);
  return caches;
}

// Returns how many became states.
std::size_t lift(Graph& graph, const std::vector<CachePair>& pairs, std::vector<CacheLift>& lifts) {
  std::vector<Lifted> caches = read_all(graph, pairs, lifts);
  if (caches.empty()) return 0;
  Names lengths;
  std::set<ValueId> loop_inputs, going;
  std::optional<Dim> buffer_length;
  for (Lifted& cache : caches) {
    const Dim given = (*shape_of(graph, cache.pair->past))[cache.use.time];
    if (cache.use.is_buffer && !buffer_length) buffer_length = graph.fresh_symbol();
    cache.length = cache.use.is_buffer ? *buffer_length : given;
    const Dim all = cache.length + (*shape_of(graph, cache.added[0].second))[2];
    if (cache.use.is_buffer && given.symbol_name()) lengths[*given.symbol_name()] = all;
    for (const std::string& total : cache.use.totals) lengths[total] = all;
    going.insert(cache.pair->past);
    loop_inputs.insert(cache.use.written_by.begin(), cache.use.written_by.end());
  }
  for (Lifted& cache : caches) make_states(graph, cache);
  for (const Lifted& cache : caches) take_over_sizes(graph, cache, going, lengths);
  std::map<NodeId, const CacheUse*> cut;
  for (const Lifted& cache : caches) {
    if (!cache.use.is_buffer || cache.use.buffer) continue;
    for (const NodeId reader : readers_of(cache.use)) cut.try_emplace(reader, &cache.use);
  }
  cut_masks(graph, cut);
  erase_dead(graph);
  for (const Lifted& cache : caches) {
    remove_input(graph, cache.pair->past);
    if (cache.states.size() == 1) graph.rename_value(cache.states[0], cache.pair->past_name);
  }
  replace_symbols(graph, lengths);
  fill_in_loop_inputs(graph, loop_inputs, caches[0].length);
  verify(graph);
  infer_graph(graph);
  for (const Lifted& cache : caches) {
    CacheLift& done = lifts[static_cast<std::size_t>(cache.pair - pairs.data())];
    for (const ValueId state : cache.states) done.states.push_back(graph.value(state).name);
  }
  return caches.size();
}

// Of those that nothing is known of yet.
void give_reason(std::vector<CacheLift>& lifts, const std::string& reason) {
  for (CacheLift& lift : lifts) {
    if (lift.states.empty() && !lift.near_miss && lift.reason.empty()) lift.reason = reason;
  }
}

}  // namespace

std::vector<CacheLift> lift_rearranged_caches(Graph& graph, const std::vector<CachePair>& pairs) {
  std::vector<CacheLift> lifts;
  for (const CachePair& pair : pairs) lifts.push_back({pair.past_name, {}, {}, {}});
  Graph trial = graph.clone();
  try {
    if (lift(trial, pairs, lifts) > 0) graph = std::move(trial);
  } catch (const Error& error) {
    give_reason(lifts, error.message());  // the caches stay inputs and outputs
  }
  give_reason(lifts, "keys and values of one attention are not both buffers");
  return lifts;
}

}  // namespace weft
