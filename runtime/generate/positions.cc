#include "runtime/generate/positions.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "passes/label_run.h"
#include "passes/node_util.h"
#include "runtime/generate/model_folder.h"

namespace weft::runtime {
namespace {

bool is_positions(std::string_view name) {
  return name == "position_ids" || name == "decoder_position_ids" || name == "cache_position";
}

std::optional<std::int64_t> scalar(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kConstant || !value.tensor || !is_integer(value.type.dtype) || value.tensor->size() != 1)
    return std::nullopt;
  return value.tensor->aligned().to_ints().front();
}

// What is added to positions to become this value; nullopt when it is something else.
std::optional<std::int64_t> offset_from_positions(const Graph& graph, ValueId id) {
  constexpr std::array<std::string_view, 5> kSame = {"Cast", "Squeeze", "Unsqueeze", "Reshape", "Expand"};
  std::int64_t offset = 0;
  for (;;) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kInput) return is_positions(value.name) ? std::optional(offset) : std::nullopt;
    if (value.kind != ValueKind::kResult) return std::nullopt;
    const Node& node = graph.node(value.producer);
    if (std::ranges::find(kSame, node.op) != kSame.end()) {
      id = node.inputs[0];
    } else if (node.op == "Add") {
      const auto left = scalar(graph, node.inputs[0]), right = scalar(graph, node.inputs[1]);
      if (left.has_value() == right.has_value()) return std::nullopt;
      offset += left ? *left : *right;
      id = node.inputs[left ? 1 : 0];
    } else {
      return std::nullopt;
    }
  }
}

// Names of the extents of tokens past (none where nothing is past), of those of a run, and of both.
struct Lengths {
  std::set<std::string> past, added, all;
};

Lengths lengths_of(const Graph& graph) {
  Lengths lengths;
  const auto insert = [&](std::set<std::string>& names, ValueId id, std::size_t axis) {
    const Shape* shape = shape_of(graph, id);
    if (shape == nullptr || axis >= shape->size()) return;
    if (const auto name = (*shape)[axis].symbol_name()) names.insert(*name);
  };
  for (const State& state : graph.states()) {
    if (state.next != state.current) insert(lengths.past, state.current, 2);
  }
  const bool of_decoder = find_input(graph, "decoder_input_ids") != nullptr;
  for (const ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    if (is_past(value.name) && !is_cross(value.name)) insert(lengths.past, id, cache_axes(value).time);
    if (value.name == (of_decoder ? "decoder_input_ids" : "input_ids")) insert(lengths.added, id, 1);
    if (value.name == (of_decoder ? "decoder_attention_mask" : "attention_mask")) insert(lengths.all, id, 1);
  }
  return lengths;
}

struct Run {
  std::int64_t past, added;
  std::int64_t others;  // every extent that is none of these lengths
};

// The largest of these indices in such a run, whose mask masks nothing; nullopt when they follow from something else.
std::optional<std::int64_t> largest(const Graph& graph, ValueId indices, const Lengths& lengths, const Run& sizes) {
  LabelRun::Sizes given{{}, sizes.others, sizes.past};
  for (const std::string& name : lengths.all) given.symbols[name] = sizes.past + sizes.added;
  for (const std::string& name : lengths.past) given.symbols[name] = sizes.past;
  for (const std::string& name : lengths.added) given.symbols[name] = sizes.added;
  LabelRun run(graph, std::move(given), 0);
  try {
    const std::vector<std::int64_t> made = run.computed(indices).to_ints();
    const bool of_tokens = std::ranges::all_of(run.read(), [&](ValueId input) {
      const std::string& name = graph.value(input).name;
      return name == "attention_mask" || name == "decoder_attention_mask";
    });
    return of_tokens && !made.empty() ? std::optional(std::ranges::max(made)) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// What is added to the position of a run's last token to become the largest of these indices, which the graph makes of
// lengths or of a mask. Tried out: with few tokens, and with one more than the table has (buckets of distances, say,
// end before their table does).
std::optional<std::int64_t> offset_of_computed(const Graph& graph, ValueId indices, const Lengths& lengths,
                                               std::int64_t rows) {
  constexpr std::int64_t kMostRows = 1 << 20, kMostAtOnce = 1 << 12;
  const bool grows = !lengths.past.empty();
  if (is_constant(graph, indices) || rows > (grows ? kMostRows : kMostAtOnce)) return std::nullopt;
  const auto offset_at = [&](std::int64_t past, std::int64_t added, std::int64_t others) {
    const auto most = largest(graph, indices, lengths, {past, added, others});
    return most ? std::optional(*most - (past + added - 1)) : std::nullopt;
  };
  const auto offset = offset_at(0, 3, 1);
  if (!offset || *offset >= rows || offset_at(0, 9, 2) != offset) return std::nullopt;
  if (grows && (offset_at(4, 1, 3) != offset || offset_at(5, 2, 1) != offset)) return std::nullopt;
  const std::int64_t beyond = rows - *offset;
  return (grows ? offset_at(beyond, 1, 2) : offset_at(0, beyond + 1, 2)) == offset ? offset : std::nullopt;
}

}  // namespace

std::optional<std::int64_t> position_limit(const Graph& graph) {
  const Lengths lengths = lengths_of(graph);
  std::optional<std::int64_t> limit;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    for (const Lookup& lookup : lookups_of(node)) {
      const Shape* table = shape_of(graph, node.inputs[lookup.table]);
      if (!is_constant(graph, node.inputs[lookup.table]) || table->empty()) continue;
      const ValueId indices = node.inputs[lookup.indices];
      auto offset = offset_from_positions(graph, indices);
      if (!offset) offset = offset_of_computed(graph, indices, lengths, (*table)[0].value());
      if (!offset) continue;
      const std::int64_t rows = (*table)[0].value() - *offset;
      limit = limit ? std::min(*limit, rows) : rows;
    }
  }
  return limit;
}

}  // namespace weft::runtime
