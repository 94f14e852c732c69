#include "passes/join_packed.h"

#include <algorithm>
#include <cstring>

#include "ops/builder.h"
#include "passes/node_util.h"

namespace weft {
namespace {

enum Input : std::size_t { kX, kWeight, kScales, kZeros, kGroups, kBias, kCount };

ValueId input_of(const Graph& graph, const PackedProjection& part, std::size_t index) {
  const std::vector<ValueId>& inputs = graph.node(part.node).inputs;
  return index < inputs.size() ? inputs[index] : ValueId();
}

std::int64_t width_of(const Graph& graph, const PackedProjection& part) {
  return attributes_of(graph.node(part.node)).integer("N");
}

// What belongs to the columns of the parts, column after column: [N, inner...].
Tensor join_columns(const Graph& graph, const std::vector<PackedProjection>& parts, std::size_t index,
                    const Extents& inner) {
  std::int64_t columns = 0;
  for (const PackedProjection& part : parts) columns += width_of(graph, part);
  Extents extents = {columns};
  extents.insert(extents.end(), inner.begin(), inner.end());
  Tensor joined = Tensor::uninitialized(graph.value(input_of(graph, parts[0], index)).type.dtype, std::move(extents));
  std::byte* to = joined.mutable_bytes().data();
  for (const PackedProjection& part : parts) {
    const Tensor own = graph.value(input_of(graph, part, index)).tensor->aligned();
    std::memcpy(to, own.bytes().data(), own.byte_size());
    to += own.byte_size();
  }
  return joined;
}

Tensor join_biases(const Graph& graph, const std::vector<PackedProjection>& parts) {
  std::vector<float> values;
  for (const PackedProjection& part : parts) {
    const ValueId bias = input_of(graph, part, kBias);
    if (!bias.valid()) {
      values.insert(values.end(), static_cast<std::size_t>(width_of(graph, part)), 0.0f);
      continue;
    }
    const Tensor own = graph.value(bias).tensor->aligned();
    values.insert(values.end(), own.data<float>().begin(), own.data<float>().end());
  }
  return Tensor::vector<float>(values);
}

}  // namespace

std::optional<PackedProjection> read_packed_projection(const Graph& graph, NodeId id) {
  if (!id.valid() || graph.node(id).op != "MatMulNBits") return std::nullopt;
  const PackedProjection part{id, graph.node(id).inputs[kX]};
  for (std::size_t i = kWeight; i < kCount; ++i) {
    const ValueId input = input_of(graph, part, i);
    if (input.valid() && (i == kGroups || !is_constant(graph, input))) return std::nullopt;
  }
  const ValueId bias = input_of(graph, part, kBias);
  if (bias.valid() &&
      (graph.value(bias).type.dtype != DType::kF32 || graph.value(bias).tensor->size() != width_of(graph, part))) {
    return std::nullopt;
  }
  return part;
}

bool may_join(const Graph& graph, const PackedProjection& a, const PackedProjection& b) {
  const AttributeReader one = attributes_of(graph.node(a.node)), other = attributes_of(graph.node(b.node));
  for (const std::string_view name : {"K", "bits", "block_size"}) {
    if (one.integer(name) != other.integer(name)) return false;
  }
  for (const std::size_t index : {kScales, kZeros}) {
    const ValueId x = input_of(graph, a, index), y = input_of(graph, b, index);
    if (x.valid() != y.valid() || (x.valid() && graph.value(x).type.dtype != graph.value(y).type.dtype)) return false;
  }
  return a.x == b.x;
}

void join_packed(Graph& graph, const std::vector<PackedProjection>& parts, std::string_view name) {
  Origin origin;
  NodeId first = parts[0].node;
  std::vector<std::int64_t> widths;
  std::int64_t total = 0;
  bool has_bias = false;
  for (const PackedProjection& part : parts) {
    origin.merge(graph.node(part.node).origin);
    if (graph.precedes(part.node, first)) first = part.node;
    widths.push_back(width_of(graph, part));
    total += widths.back();
    has_bias = has_bias || input_of(graph, part, kBias).valid();
  }
  Attributes attributes = graph.node(first).attributes;
  attributes["N"] = total;
  Builder b(graph, first, std::move(origin));
  std::vector<ValueId> inputs(kCount);
  inputs[kX] = parts[0].x;
  const AttributeReader layout = attributes_of(graph.node(first));
  const std::int64_t block = layout.integer("block_size"), blocks = (layout.integer("K") + block - 1) / block;
  const auto join = [&](std::size_t index, const Extents& inner, std::string_view what) {
    return b.constant(join_columns(graph, parts, index, inner), fmt::format("{}_{}", name, what)).id();
  };
  inputs[kWeight] = join(kWeight, {blocks, block * layout.integer("bits") / 8}, "weight");
  inputs[kScales] = join(kScales, {blocks}, "scales");
  if (const ValueId zeros = input_of(graph, parts[0], kZeros); zeros.valid()) {
    const std::int64_t each = graph.value(zeros).tensor->size() / width_of(graph, parts[0]);
    inputs[kZeros] = join(kZeros, {each}, "zero_points");
  }
  if (has_bias) inputs[kBias] = b.constant(join_biases(graph, parts), std::string(name) + "_bias");
  const Expr joined = b.make("MatMulNBits", inputs, std::move(attributes), name);
  const std::vector<ValueId> split = {joined.id(), b.ints(widths).id()};
  const std::vector<Expr> pieces = b.make_many("Split", split, parts.size(), {{"axis", std::int64_t{-1}}});
  for (std::size_t i = 0; i < parts.size(); ++i) {
    graph.replace_uses(graph.node(parts[i].node).outputs[0], pieces[i]);
    graph.erase_node(parts[i].node);
  }
}

}  // namespace weft
