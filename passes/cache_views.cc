#include "passes/cache_views.h"

#include <algorithm>
#include <map>
#include <set>

#include "passes/label_run.h"
#include "passes/node_util.h"

namespace weft {
namespace {

bool only_moves(std::string_view op) {
  static constexpr std::string_view kMovers[] = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten",
                                                 "Concat",    "Slice",   "Split",   "Gather"};
  return std::ranges::find(kMovers, op) != std::end(kMovers);
}

// Writes other elements over some of its first input, or behind them.
bool writes_into(std::string_view op) {
  return op == "ScatterND" || op == "ScatterElements" || op == "TensorScatter" || op == "Pad";
}

// Follows a cache through the graph as long as it is only moved.
class Follower {
 public:
  Follower(const Graph& graph, ValueId past) : graph_(graph), pending_{past} {}

  std::optional<CacheUse> follow(ValueId present, CacheRefusal& refusal) {
    while (!pending_.empty()) {
      const ValueId id = pending_.back();
      pending_.pop_back();
      if (!moved_.insert(id).second) continue;
      if (graph_.is_output(id) && id != present) {
        refuse(refusal, graph_.value(id).producer,
               fmt::format("%{}, made of the cache, is an output of the graph", graph_.value(id).name));
        return std::nullopt;
      }
      for (const Use& use : graph_.value(id).uses) {
        if (!take(use, id, refusal)) return std::nullopt;
      }
    }
    CacheUse result;
    result.movers = in_order(movers_);
    result.sizes = in_order(sizes_);
    result.scatters = scatters_;
    for (const auto& [value, view] : views_) result.views.push_back(view);
    if (result.views.empty()) {
      refuse(refusal, result.movers.empty() ? NodeId() : result.movers.back(), "no attention reads the cache");
      return std::nullopt;
    }
    return result;
  }

 private:
  // The deepest node is the one.
  void refuse(CacheRefusal& refusal, NodeId node, std::string reason) const {
    refusal = {std::move(reason), node, static_cast<int>(movers_.size())};
  }

  bool take(const Use& use, ValueId id, CacheRefusal& refusal) {
    const Node& node = graph_.node(use.node);
    if (node.op == "Shape") {
      sizes_.insert(use.node);
      return true;
    }
    if (node.op == "Attention" && (use.input == 1 || use.input == 2)) return read_view(use, id, refusal);
    const bool writes = use.input == 0 && writes_into(node.op);
    scatters_ = scatters_ || writes;
    if (!writes && !only_moves(node.op)) {
      refuse(refusal, use.node,
             fmt::format("Attention, or what only moves elements, wanted to read the cache, {} found", node.op));
      return false;
    }
    movers_.insert(use.node);
    for (const ValueId output : node.outputs) {
      if (output.valid()) pending_.push_back(output);
    }
    return true;
  }

  bool read_view(const Use& use, ValueId id, CacheRefusal& refusal) {
    const Shape* shape = shape_of(graph_, id);
    const std::int64_t heads = attributes_of(graph_.node(use.node)).integer("kv_num_heads");
    CacheView view{id, {}, 0, 0};
    if (shape != nullptr && shape->size() == 4 && (*shape)[1].is_constant() && (*shape)[3].is_constant()) {
      view.heads = (*shape)[1].value();
      view.size = (*shape)[3].value();
    } else if (shape != nullptr && shape->size() == 3 && (*shape)[2].is_constant() && heads > 0) {
      view.heads = heads;
      view.size = (*shape)[2].value() / heads;
    } else {
      refuse(refusal, use.node, "attention reads the cache in a shape that is not known");
      return false;
    }
    CacheView& known = views_.try_emplace(id, view).first->second;
    if (known.heads != view.heads) {
      refuse(refusal, use.node, "attention reads the cache with different numbers of heads");
      return false;
    }
    known.readers.push_back(use);
    return true;
  }

  std::vector<NodeId> in_order(const std::set<NodeId>& nodes) const {
    std::vector<NodeId> result(nodes.begin(), nodes.end());
    std::ranges::sort(result, [&](NodeId a, NodeId b) { return graph_.precedes(a, b); });
    return result;
  }

  const Graph& graph_;
  std::vector<ValueId> pending_;
  std::set<ValueId> moved_;
  std::set<NodeId> movers_, sizes_;
  std::map<ValueId, CacheView> views_;
  bool scatters_ = false;
};

// [B, heads, T, size] token after token: [T][B * heads * size].
std::vector<std::vector<float>> tokens_of(const CacheView& view, const Tensor& tensor) {
  const bool flat = tensor.rank() == 3;
  const std::int64_t batch = tensor.extent(0), length = tensor.extent(flat ? 1 : 2);
  const float* data = tensor.data<float>().data();
  std::vector<std::vector<float>> tokens(static_cast<std::size_t>(length));
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t h = 0; h < view.heads; ++h) {
      for (std::int64_t t = 0; t < length; ++t) {
        const std::int64_t row = flat ? (b * length + t) * view.heads + h : (b * view.heads + h) * length + t;
        const float* from = data + row * view.size;
        auto& token = tokens[static_cast<std::size_t>(t)];
        token.insert(token.end(), from, from + view.size);
      }
    }
  }
  return tokens;
}

// How a run is told of the tokens before: by the extent of the cache's axis of time, or by positions in a buffer.
struct Case {
  std::int64_t past, others;
};

Tensor labelled_cache(const Graph& graph, LabelRun& run, ValueId past, const CacheUse& use, std::int64_t buffer) {
  Extents extents = run.extents_of(graph.value(past));
  if (buffer > 0) extents[use.time] = buffer;
  return labels(std::move(extents), 1, -1);
}

// Tokens that a buffer is long enough for. Its own length, if that is not too much to label: constants may repeat it.
std::int64_t buffer_length(const Graph& graph, ValueId past, const CacheUse& use, const Case& sizes) {
  if (!use.is_buffer) return 0;
  const Dim& own = (*shape_of(graph, past))[use.time];
  constexpr std::int64_t kMost = 1 << 20;
  std::int64_t others = sizes.others * sizes.others;
  for (const Dim& dim : *shape_of(graph, past)) others *= dim.is_constant() ? dim.value() : 1;
  if (own.is_constant() && others <= kMost) return own.value();
  return sizes.past + 2 * sizes.others;
}

// Does each view grow by the new tokens, whatever lay in the cache?
bool grows(const Graph& graph, ValueId past, ValueId present, CacheUse& use, const Case& sizes) {
  const auto time = (*shape_of(graph, past))[use.time].symbol_name();
  constexpr std::int64_t kFirstNew = 0, kLaterNew = 1 << 23;
  const std::int64_t buffer = buffer_length(graph, past, use, sizes);
  const auto sized = [&](std::int64_t length) {
    LabelRun::Sizes result{{}, sizes.others, length};
    if (time) result.symbols[*time] = buffer > 0 ? buffer : length;
    for (const std::string& total : use.totals) result.symbols[total] = length + sizes.others;
    return result;
  };
  const auto from_labels = [&](std::int64_t length) {
    LabelRun run(graph, sized(length), kFirstNew);
    run.run(use.movers, past, labelled_cache(graph, run, past, use, buffer));
    return run;
  };
  // New elements have the same numbers in both, those of the cache negative ones.
  const LabelRun beginning = from_labels(0);
  use.written_by = beginning.read();
  const LabelRun middle = from_labels(sizes.past);
  const Tensor& grown = middle.value(present);
  if (grown.rank() != rank_of(graph, past)) return false;
  const auto added = sizes.others;
  LabelRun next(graph, sized(sizes.past + added), kLaterNew);
  if (labelled_cache(graph, next, past, use, buffer).shape() != grown.shape()) return false;
  next.run(use.movers, past, grown);
  return std::ranges::all_of(use.views, [&](const CacheView& view) {
    auto first = tokens_of(view, beginning.value(view.value)), then = tokens_of(view, middle.value(view.value)),
         later = tokens_of(view, next.value(view.value));
    const auto count = static_cast<std::size_t>(added), before = static_cast<std::size_t>(sizes.past);
    if (buffer > 0) {  // what lies behind is looked at by nobody, which is for masks to show
      const auto length = static_cast<std::size_t>(buffer);
      if (first.size() != length || later.size() != length || length < before + 2 * count) return false;
      first.resize(count);
      then.resize(before + count);
      later.resize(before + 2 * count);
    }
    // What was new lies behind what was past, and at the next run all of it comes first.
    return first.size() == count && then.size() == before + count && later.size() == before + 2 * count &&
           std::equal(first.begin(), first.end(), then.begin() + sizes.past) &&
           std::equal(then.begin(), then.end(), later.begin());
  });
}

bool grows_on(const Graph& graph, ValueId past, ValueId present, CacheUse& use, CacheRefusal& refusal) {
  // Enough to tell apart what coincides at one size.
  static constexpr Case kCases[] = {{3, 2}, {2, 1}, {4, 3}};
  try {
    return std::ranges::all_of(kCases, [&](const Case& sizes) { return grows(graph, past, present, use, sizes); });
  } catch (const Error& error) {
    refusal.reason = error.message();
    return false;
  }
}

// Names of the extent T of masks [B, T] that movers may read through what they compute.
std::vector<std::string> totals_of(const Graph& graph, const std::set<ValueId>& read) {
  std::vector<std::string> totals;
  for (const ValueId id : read) {
    const Shape& shape = *shape_of(graph, id);
    if (shape.size() == 2 && shape[1].symbol_name()) totals.push_back(*shape[1].symbol_name());
  }
  return totals;
}

}  // namespace

bool is_cache_type(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

std::optional<CacheUse> read_cache_use(const Graph& graph, ValueId past, ValueId present, CacheRefusal& refusal) {
  const Shape* shape = shape_of(graph, past);
  if (shape == nullptr || !is_cache_type(graph.value(past).type.dtype)) {
    refusal = {
        fmt::format("f32, f16 or bf16 of a known rank wanted, {} found", to_string(graph.value(past).type)), {}, 0};
    return std::nullopt;
  }
  auto use = Follower(graph, past).follow(present, refusal);
  if (!use) return std::nullopt;
  refusal = {"what attention reads is not the cache with new tokens behind it", use->views[0].readers[0].node,
             static_cast<int>(use->movers.size())};
  for (const bool is_buffer : {false, true}) {
    use->is_buffer = is_buffer;
    for (use->time = 0; use->time < shape->size(); ++use->time) {
      if (!is_buffer && !(*shape)[use->time].symbol_name()) continue;
      use->buffer = is_buffer ? (*shape)[use->time].symbol_name() : std::nullopt;
      use->totals.clear();
      use->written_by.clear();
      if (grows_on(graph, past, present, *use, refusal)) return use;
      use->totals = totals_of(graph, use->written_by);
      if (!use->totals.empty() && grows_on(graph, past, present, *use, refusal)) return use;
    }
    if (!use->scatters) break;
  }
  return std::nullopt;
}

}  // namespace weft
