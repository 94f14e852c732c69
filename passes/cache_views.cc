#include "passes/cache_views.h"

#include <algorithm>
#include <map>
#include <set>

#include "passes/node_util.h"

namespace weft {
namespace {

bool only_moves(std::string_view op) {
  static constexpr std::string_view kMovers[] = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten",
                                                 "Concat",    "Slice",   "Split",   "Gather"};
  return std::ranges::find(kMovers, op) != std::end(kMovers);
}

// Follows a cache through the graph as long as it is only moved.
class Follower {
 public:
  Follower(const Graph& graph, ValueId past) : graph_(graph), pending_{past} {}

  std::optional<CacheUse> follow(ValueId present, std::string& reason) {
    while (!pending_.empty()) {
      const ValueId id = pending_.back();
      pending_.pop_back();
      if (!moved_.insert(id).second) continue;
      if (graph_.is_output(id) && id != present) {
        reason = fmt::format("%{}, made of the cache, is an output of the graph", graph_.value(id).name);
        return std::nullopt;
      }
      for (const Use& use : graph_.value(id).uses) {
        if (!take(use, id, reason)) return std::nullopt;
      }
    }
    CacheUse result{{}, in_order(movers_), in_order(sizes_), 0};
    for (const auto& [value, view] : views_) result.views.push_back(view);
    if (result.views.empty()) {
      reason = "no attention reads the cache";
      return std::nullopt;
    }
    return result;
  }

 private:
  bool take(const Use& use, ValueId id, std::string& reason) {
    const Node& node = graph_.node(use.node);
    if (node.op == "Shape") {
      sizes_.insert(use.node);
      return true;
    }
    if (node.op == "Attention" && (use.input == 1 || use.input == 2)) return read_view(node, use, id, reason);
    if (!only_moves(node.op)) {
      reason = fmt::format("{} ({}) reads the cache", report_name(node), node.op);
      return false;
    }
    movers_.insert(use.node);
    for (const ValueId output : node.outputs) {
      if (output.valid()) pending_.push_back(output);
    }
    return true;
  }

  bool read_view(const Node& attention, const Use& use, ValueId id, std::string& reason) {
    const Shape* shape = shape_of(graph_, id);
    const std::int64_t heads = attributes_of(attention).integer("kv_num_heads");
    CacheView view{id, {}, 0, 0};
    if (shape != nullptr && shape->size() == 4 && (*shape)[1].is_constant() && (*shape)[3].is_constant()) {
      view.heads = (*shape)[1].value();
      view.size = (*shape)[3].value();
    } else if (shape != nullptr && shape->size() == 3 && (*shape)[2].is_constant() && heads > 0) {
      view.heads = heads;
      view.size = (*shape)[2].value() / heads;
    } else {
      reason = "attention reads the cache in a shape that is not known";
      return false;
    }
    CacheView& known = views_.try_emplace(id, view).first->second;
    if (known.heads != view.heads) {
      reason = "attention reads the cache with different numbers of heads";
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
};

// Elements from `first` on, each the next number in f32.
Tensor labels(Extents extents, std::int64_t first, int sign = 1) {
  constexpr std::int64_t kExact = 1 << 24;
  if (first + element_count(extents) > kExact) fail(ErrorCode::kUnsupported, "a cache too large to label");
  Tensor tensor = Tensor::uninitialized(DType::kF32, std::move(extents));
  for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(sign * first++);
  return tensor;
}

// Runs the movers with a number of its own for each element of what is joined to the cache.
class LabelRun {
 public:
  // sizes: of symbols; others are `rest`.
  LabelRun(const Graph& graph, Bindings sizes, std::int64_t rest, std::int64_t first_label)
      : graph_(graph), sizes_(std::move(sizes)), rest_(rest), label_(first_label) {}

  // Error when something the movers read beside the cache is not known.
  void run(std::span<const NodeId> movers, ValueId past, const Tensor& contents) {
    values_[past] = contents;
    for (const NodeId id : movers) {
      const Node& node = graph_.node(id);
      std::vector<const Tensor*> inputs;
      for (const ValueId input : node.inputs) {
        if (input.valid() && !values_.contains(input)) values_[input] = given(graph_.value(input));
      }
      for (const ValueId input : node.inputs) inputs.push_back(input.valid() ? &values_.at(input) : nullptr);
      const std::vector<Tensor> results = evaluate_node(node, inputs);
      for (std::size_t i = 0; i < results.size(); ++i) {
        if (node.outputs[i].valid()) values_[node.outputs[i]] = results[i].aligned();
      }
    }
  }

  Extents extents_of(const Value& value) {
    if (!value.type.shape) fail(ErrorCode::kUnsupported, "the rank of %{} is not known", value.name);
    for (const Dim& dim : *value.type.shape) bind(dim);
    return *evaluate(*value.type.shape, sizes_);
  }

  const Tensor& value(ValueId id) const { return values_.at(id); }

 private:
  void bind(const Dim& dim) {
    for (const std::string& symbol : dim.symbols()) sizes_.try_emplace(symbol, rest_);
  }

  // New elements, and integers that say how to move.
  Tensor given(const Value& value) {
    if (value.kind == ValueKind::kConstant) return value.tensor->aligned();
    if (value.type.dtype == DType::kF32) {
      Tensor tensor = labels(extents_of(value), label_);
      label_ += tensor.size();
      return tensor;
    }
    if (!value.elements || value.type.dtype != DType::kI64)
      fail(ErrorCode::kUnsupported, "%{} is not known before the run", value.name);
    std::vector<std::int64_t> numbers;
    for (const Dim& dim : *value.elements) {
      bind(dim);
      numbers.push_back(*dim.evaluate(sizes_));
    }
    return Tensor::of<std::int64_t>(extents_of(value), numbers);
  }

  const Graph& graph_;
  Bindings sizes_;
  std::int64_t rest_, label_;
  std::map<ValueId, Tensor> values_;
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

struct Sizes {
  std::int64_t past, others;
};

// Does each view grow by the new tokens as the axis `time` of the cache grows?
bool grows(const Graph& graph, ValueId past, ValueId present, const CacheUse& use, const Sizes& sizes) {
  const std::string time = *(*shape_of(graph, past))[use.time].symbol_name();
  constexpr std::int64_t kFirstNew = 0, kLaterNew = 1 << 23;
  const auto from_labels = [&](std::int64_t length) {
    LabelRun run(graph, {{time, length}}, sizes.others, kFirstNew);
    run.run(use.movers, past, labels(run.extents_of(graph.value(past)), 1, -1));
    return run;
  };
  // New elements have the same numbers in both, those of the cache negative ones.
  const LabelRun beginning = from_labels(0), middle = from_labels(sizes.past);
  const Tensor& grown = middle.value(present);
  if (grown.rank() != rank_of(graph, past)) return false;
  LabelRun next(graph, {{time, grown.extent(static_cast<int>(use.time))}}, sizes.others, kLaterNew);
  if (next.extents_of(graph.value(past)) != grown.shape()) return false;
  next.run(use.movers, past, grown);
  return std::ranges::all_of(use.views, [&](const CacheView& view) {
    const auto first = tokens_of(view, beginning.value(view.value)), then = tokens_of(view, middle.value(view.value)),
               later = tokens_of(view, next.value(view.value));
    // What was new lies behind what was past, and at the next run all of it comes first.
    return !first.empty() && then.size() == first.size() + static_cast<std::size_t>(sizes.past) &&
           later.size() == then.size() + first.size() &&
           std::equal(first.begin(), first.end(), then.begin() + sizes.past) &&
           std::equal(then.begin(), then.end(), later.begin());
  });
}

}  // namespace

std::optional<CacheUse> read_cache_use(const Graph& graph, ValueId past, ValueId present, std::string& reason) {
  const Shape* shape = shape_of(graph, past);
  if (shape == nullptr || graph.value(past).type.dtype != DType::kF32) {
    reason = "the cache is not f32 of a known rank";
    return std::nullopt;
  }
  auto use = Follower(graph, past).follow(present, reason);
  if (!use) return std::nullopt;
  // Enough to tell apart what coincides at one size.
  static constexpr Sizes kSizes[] = {{3, 2}, {2, 1}, {4, 3}};
  reason = "what attention reads is not the cache with new tokens behind it";
  for (std::size_t axis = 0; axis < shape->size(); ++axis) {
    if (!(*shape)[axis].symbol_name()) continue;
    use->time = axis;
    try {
      if (std::ranges::all_of(kSizes, [&](const Sizes& s) { return grows(graph, past, present, *use, s); })) return use;
    } catch (const Error& error) {
      reason = error.what();
    }
  }
  return std::nullopt;
}

}  // namespace weft
