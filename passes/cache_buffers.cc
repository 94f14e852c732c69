#include "passes/cache_buffers.h"

#include <algorithm>
#include <cmath>

#include "ops/builder.h"
#include "ops/cast.h"
#include "passes/label_run.h"
#include "passes/node_util.h"

namespace weft {
namespace {

constexpr std::size_t kMask = 3, kKeyPadding = 4;

ValueId input_of(const Node& node, std::size_t index) {
  return index < node.inputs.size() ? node.inputs[index] : ValueId();
}

// Positions that count from the first key, and keys no later than the query.
bool is_causal_from_start(const AttributeReader& attributes) {
  return attributes.integer("is_causal") != 0 && attributes.text("query_position") == "start" &&
         attributes.integer("right_window_size") <= 0;
}

// -inf, or so far below any score that nothing of it is left beside one that is not.
bool leaves_out(double value) { return value <= -1e30; }

// A mask [..., S, M] in a run of `added` tokens after `past`.
struct MaskValues {
  bool is_bool = false;
  Tensor numbers;  // f64
  std::int64_t columns = 0;

  double at(std::int64_t row, std::int64_t column) const {
    return numbers.data<double>()[static_cast<std::size_t>(row * columns + column)];
  }
  bool hides(double value) const { return is_bool ? value == 0 : leaves_out(value); }
  bool shows(double value) const { return is_bool ? value != 0 : value == 0; }
};

MaskValues mask_values(const Graph& graph, ValueId mask, std::int64_t past, std::int64_t added, const CacheUse& use) {
  LabelRun::Sizes sizes{{}, added, past};
  for (const std::string& total : use.totals) sizes.symbols[total] = past + added;
  if (use.buffer) sizes.symbols[*use.buffer] = past + added + 2;
  const Tensor values = LabelRun(graph, sizes, 0).computed(mask);
  return {values.dtype() == DType::kBool, cast(values, DType::kF64), values.rank() == 0 ? 0 : values.shape().back()};
}

// Some key of what is written can be seen, and nothing of what lies behind.
bool masks_behind(const Graph& graph, ValueId mask, std::int64_t past, std::int64_t added, const CacheUse& use) {
  const MaskValues values = mask_values(graph, mask, past, added, use);
  const std::int64_t written = past + added;
  if (values.columns <= written) return false;
  for (std::int64_t row = 0; row < values.numbers.size() / values.columns; ++row) {
    bool sees_one = false;
    for (std::int64_t t = 0; t < values.columns; ++t) {
      const bool hidden = values.hides(values.at(row, t));
      if (t >= written && !hidden) return false;
      sees_one = sees_one || !hidden;
    }
    if (!sees_one) return false;
  }
  return true;
}

// Does the query at position p see the keys up to p, and nothing else? Of a few positions over the whole buffer, the
// last among them, where windows and chunks would show.
bool is_causal_over(const Graph& graph, ValueId mask, std::int64_t length, const CacheUse& use) {
  constexpr std::int64_t kRows = 3;
  for (const std::int64_t past : {std::int64_t{0}, length / 2 - 1, length - kRows}) {
    if (past < 0) return false;
    const MaskValues values = mask_values(graph, mask, past, kRows, use);
    if (values.columns != length || values.numbers.size() != kRows * length) return false;
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t t = 0; t < length; ++t) {
        const double value = values.at(row, t);
        if (!(t <= past + row ? values.shows(value) : values.hides(value))) return false;
      }
    }
  }
  return true;
}

bool is_hidden_behind(const Graph& graph, const Node& attention, const CacheUse& use, std::string& reason) {
  const AttributeReader attributes = attributes_of(attention);
  const ValueId mask = input_of(attention, kMask);
  if (attributes.text("query_position") != "start") {
    reason = "positions of queries are counted from the end of the buffer";
    return false;
  }
  if (input_of(attention, kKeyPadding).valid()) {
    reason = "a padding mask is as long as the buffer";
    return false;
  }
  if (is_causal_from_start(attributes)) return true;
  if (!mask.valid()) {
    reason = "attention without a mask reads the whole buffer";
    return false;
  }
  try {
    if (masks_behind(graph, mask, 3, 2, use) && masks_behind(graph, mask, 0, 3, use) &&
        masks_behind(graph, mask, 5, 1, use)) {
      return true;
    }
    reason = "the mask does not leave out what lies behind the tokens of the buffer";
  } catch (const Error& error) {
    reason = error.message();
  }
  return false;
}

}  // namespace

std::set<NodeId> readers_of(const CacheUse& use) {
  std::set<NodeId> readers;
  for (const CacheView& view : use.views) {
    for (const Use& reader : view.readers) readers.insert(reader.node);
  }
  return readers;
}

bool sees_only_what_is_written(const Graph& graph, const CacheUse& use, CacheRefusal& refusal) {
  return std::ranges::all_of(readers_of(use), [&](NodeId reader) {
    refusal = {{}, reader, static_cast<int>(use.movers.size())};
    return is_hidden_behind(graph, graph.node(reader), use, refusal.reason);
  });
}

void cut_masks(Graph& graph, const std::map<NodeId, const CacheUse*>& readers) {
  for (const auto& [reader, use] : readers) {
    const ValueId mask = input_of(graph.node(reader), kMask);
    const Shape* shape = mask.valid() ? shape_of(graph, mask) : nullptr;
    if (shape == nullptr || shape->empty() || shape->back().is(1)) continue;
    if (shape->back().is_constant() && is_causal_over(graph, mask, shape->back().value(), *use)) {
      graph.set_input(reader, kMask, {});
      Node& attention = graph.node(reader);
      attention.attributes["is_causal"] = std::int64_t{1};
      attention.attributes["query_position"] = std::string("end");
      continue;
    }
    Builder b(graph, reader, graph.node(reader).origin);
    const Expr keys = b.extent_of(b.wrap(graph.node(reader).inputs[1]), 2);
    graph.set_input(reader, kMask, b.make("Slice", {mask, b.ints({0}), keys, b.ints({-1})}));
  }
}

}  // namespace weft
