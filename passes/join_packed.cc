#include "passes/join_packed.h"

#include <algorithm>
#include <cstring>

#include "ops/builder.h"
#include "ops/cast.h"
#include "passes/node_util.h"

namespace weft {
namespace {

enum Input : std::size_t { kX, kWeight, kScales, kZeros, kGroups, kBias };              // of MatMulNBits
enum ToFloat : std::size_t { kA, kB, kAScale, kBScale, kAZero, kBZero, kToFloatBias };  // of MatMulIntegerToFloat
enum Conv : std::size_t { kImage, kKernel, kConvBias };                                 // of Conv

bool is_bits(const Graph& graph, const PackedProjection& part) { return graph.node(part.node).op == "MatMulNBits"; }
bool is_conv(const Graph& graph, const PackedProjection& part) { return graph.node(part.node).op == "Conv"; }

std::size_t bias_place(const Graph& graph, const PackedProjection& part) {
  if (is_conv(graph, part)) return kConvBias;
  return is_bits(graph, part) ? std::size_t{kBias} : std::size_t{kToFloatBias};
}

ValueId input_of(const Graph& graph, const PackedProjection& part, std::size_t index) {
  const std::vector<ValueId>& inputs = graph.node(part.node).inputs;
  return index < inputs.size() ? inputs[index] : ValueId();
}

ValueId bias_of(const Graph& graph, const PackedProjection& part) {
  return input_of(graph, part, bias_place(graph, part));
}

std::int64_t width_of(const Graph& graph, const PackedProjection& part) {
  if (is_bits(graph, part)) return attributes_of(graph.node(part.node)).integer("N");
  if (is_conv(graph, part)) return shape_of(graph, input_of(graph, part, kKernel))->front().value();
  return shape_of(graph, input_of(graph, part, kB))->back().value();
}

std::int64_t total_width(const Graph& graph, const std::vector<PackedProjection>& parts) {
  std::int64_t total = 0;
  for (const PackedProjection& part : parts) total += width_of(graph, part);
  return total;
}

// What belongs to the columns of the parts, column after column: [N, inner...].
Tensor join_columns(const Graph& graph, const std::vector<PackedProjection>& parts, std::size_t index,
                    const Extents& inner) {
  Extents extents = {total_width(graph, parts)};
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

// Bytes [K, N] of the parts, side by side.
Tensor join_rows(const Graph& graph, const std::vector<PackedProjection>& parts) {
  const Tensor& first = *graph.value(input_of(graph, parts[0], kB)).tensor;
  const std::int64_t columns = total_width(graph, parts);
  Tensor joined = Tensor::uninitialized(first.dtype(), {first.extent(0), columns});
  std::byte* to = joined.mutable_bytes().data();
  for (const PackedProjection& part : parts) {
    const std::byte* from = graph.value(input_of(graph, part, kB)).tensor->bytes().data();
    const std::int64_t width = width_of(graph, part);
    for (std::int64_t k = 0; k < first.extent(0); ++k) std::memcpy(to + k * columns, from + k * width, width);
    to += width;
  }
  return joined;
}

// A number for each column: of vectors, of numbers for all of a part's columns, or absent and then 0.
Tensor join_numbers(const Graph& graph, const std::vector<PackedProjection>& parts, std::size_t index, DType dtype) {
  std::vector<double> values;
  for (const PackedProjection& part : parts) {
    const ValueId id = input_of(graph, part, index);
    const auto width = static_cast<std::size_t>(width_of(graph, part));
    if (!id.valid()) {
      values.insert(values.end(), width, 0.0);
      continue;
    }
    const Tensor wide = cast(graph.value(id).tensor->aligned(), DType::kF64);
    const std::span<const double> own = wide.data<double>();
    for (std::size_t n = 0; n < width; ++n) values.push_back(own[own.size() == 1 ? 0 : n]);
  }
  return cast(Tensor::vector<double>(values), dtype);
}

// A constant of one number or a vector with one for each column, or absent where it may be.
bool is_row(const Graph& graph, const PackedProjection& part, std::size_t index, bool optional) {
  const ValueId id = input_of(graph, part, index);
  if (!id.valid()) return optional;
  if (!is_constant(graph, id)) return false;
  const Tensor& tensor = *graph.value(id).tensor;
  return tensor.rank() <= 1 && (tensor.size() == 1 || tensor.size() == width_of(graph, part));
}

bool reads_constants(const Graph& graph, const PackedProjection& part) {
  if (is_conv(graph, part)) {
    const ValueId kernel = input_of(graph, part, kKernel);
    if (!is_constant(graph, kernel) || graph.value(kernel).type.dtype != DType::kF32 || rank_of(graph, kernel) < 3)
      return false;
    if (attributes_of(graph.node(part.node)).integer("group") != 1) return false;
  } else if (is_bits(graph, part)) {
    for (std::size_t i = kWeight; i <= kBias; ++i) {
      const ValueId input = input_of(graph, part, i);
      if (input.valid() && (i == kGroups || !is_constant(graph, input))) return false;
    }
  } else {
    const ValueId weight = input_of(graph, part, kB);
    if (graph.node(part.node).inputs.size() > kToFloatBias + 1 || !is_constant(graph, weight) ||
        rank_of(graph, weight) != 2)
      return false;
    if (!is_row(graph, part, kBScale, false) || !is_row(graph, part, kBZero, true)) return false;
    if (graph.value(input_of(graph, part, kBScale)).type.dtype != DType::kF32) return false;
  }
  const ValueId bias = bias_of(graph, part);
  return !bias.valid() || (is_constant(graph, bias) && graph.value(bias).type.dtype == DType::kF32 &&
                           graph.value(bias).tensor->shape() == Extents{width_of(graph, part)});
}

}  // namespace

bool is_packed_product(std::string_view op) {
  return op == "MatMulNBits" || op == "MatMulIntegerToFloat" || op == "Conv";
}

std::optional<PackedProjection> read_packed_projection(const Graph& graph, NodeId id) {
  if (!id.valid() || !is_packed_product(graph.node(id).op)) return std::nullopt;
  const PackedProjection part{id, graph.node(id).inputs[kX]};
  return reads_constants(graph, part) ? std::optional(part) : std::nullopt;
}

bool may_join(const Graph& graph, const PackedProjection& a, const PackedProjection& b) {
  if (a.x != b.x || graph.node(a.node).op != graph.node(b.node).op) return false;
  const auto same_types = [&](std::initializer_list<std::size_t> inputs) {
    return std::all_of(inputs.begin(), inputs.end(), [&](std::size_t index) {
      const ValueId x = input_of(graph, a, index), y = input_of(graph, b, index);
      return x.valid() == y.valid() && (!x.valid() || graph.value(x).type.dtype == graph.value(y).type.dtype);
    });
  };
  if (is_conv(graph, a)) {
    const Attributes &one = graph.node(a.node).attributes, &other = graph.node(b.node).attributes;
    const bool same = std::equal(one.begin(), one.end(), other.begin(), other.end(), [](const auto& x, const auto& y) {
      return x.first == y.first && operator_equal(x.second, y.second);
    });
    const Shape &own = *shape_of(graph, input_of(graph, a, kKernel)),
                &its = *shape_of(graph, input_of(graph, b, kKernel));
    return same && std::equal(own.begin() + 1, own.end(), its.begin() + 1, its.end());
  }
  if (!is_bits(graph, a)) {
    const bool same_input = input_of(graph, a, kAScale) == input_of(graph, b, kAScale) &&
                            input_of(graph, a, kAZero) == input_of(graph, b, kAZero);
    // A missing zero point is 0.
    return same_input && same_types({kB}) &&
           shape_of(graph, input_of(graph, a, kB))->front() == shape_of(graph, input_of(graph, b, kB))->front();
  }
  const AttributeReader one = attributes_of(graph.node(a.node)), other = attributes_of(graph.node(b.node));
  for (const std::string_view name : {"K", "bits", "block_size"}) {
    if (one.integer(name) != other.integer(name)) return false;
  }
  return same_types({kScales, kZeros});
}

namespace {

// Inputs and attributes of the joined product.
struct Joined {
  std::vector<ValueId> inputs;
  Attributes attributes;
};

Joined join_bits(Graph& graph, Builder& b, const std::vector<PackedProjection>& parts, std::string_view name) {
  Joined joined{std::vector<ValueId>(kBias + 1), graph.node(parts[0].node).attributes};
  joined.attributes["N"] = total_width(graph, parts);
  const AttributeReader layout = attributes_of(graph.node(parts[0].node));
  const std::int64_t block = layout.integer("block_size"), blocks = (layout.integer("K") + block - 1) / block;
  const std::int64_t bytes = block * layout.integer("bits") / 8;
  const auto join = [&](std::size_t index, const Extents& inner, std::string_view what) {
    return b.constant(join_columns(graph, parts, index, inner), fmt::format("{}_{}", name, what)).id();
  };
  joined.inputs[kX] = parts[0].x;
  joined.inputs[kWeight] = join(kWeight, {blocks, bytes}, "weight");
  joined.inputs[kScales] = join(kScales, {blocks}, "scales");
  if (const ValueId zeros = input_of(graph, parts[0], kZeros); zeros.valid()) {
    const std::int64_t each = graph.value(zeros).tensor->size() / width_of(graph, parts[0]);
    joined.inputs[kZeros] = join(kZeros, {each}, "zero_points");
  }
  return joined;
}

Joined join_kernels(Graph& graph, Builder& b, const std::vector<PackedProjection>& parts, std::string_view name) {
  Joined joined{std::vector<ValueId>(kConvBias + 1), graph.node(parts[0].node).attributes};
  const Extents& shape = graph.value(input_of(graph, parts[0], kKernel)).tensor->shape();
  joined.inputs[kImage] = parts[0].x;
  joined.inputs[kKernel] = b.constant(join_columns(graph, parts, kKernel, Extents(shape.begin() + 1, shape.end())),
                                      fmt::format("{}_weight", name));
  return joined;
}

Joined join_integers(Graph& graph, Builder& b, const std::vector<PackedProjection>& parts, std::string_view name) {
  Joined joined{std::vector<ValueId>(kToFloatBias + 1), {}};
  for (const std::size_t shared : {kA, kAScale, kAZero}) joined.inputs[shared] = input_of(graph, parts[0], shared);
  const auto constant = [&](Tensor tensor, std::string_view what) {
    return b.constant(std::move(tensor), fmt::format("{}_{}", name, what)).id();
  };
  joined.inputs[kB] = constant(join_rows(graph, parts), "weight");
  joined.inputs[kBScale] = constant(join_numbers(graph, parts, kBScale, DType::kF32), "scales");
  const bool has_zeros = std::any_of(
      parts.begin(), parts.end(), [&](const PackedProjection& part) { return input_of(graph, part, kBZero).valid(); });
  const DType dtype = graph.value(input_of(graph, parts[0], kB)).type.dtype;
  if (has_zeros) joined.inputs[kBZero] = constant(join_numbers(graph, parts, kBZero, dtype), "zero_points");
  return joined;
}

}  // namespace

void join_packed(Graph& graph, const std::vector<PackedProjection>& parts, std::string_view name) {
  Origin origin;
  NodeId first = parts[0].node;
  std::vector<std::int64_t> widths;
  bool has_bias = false;
  for (const PackedProjection& part : parts) {
    origin.merge(graph.node(part.node).origin);
    if (graph.precedes(part.node, first)) first = part.node;
    widths.push_back(width_of(graph, part));
    has_bias = has_bias || bias_of(graph, part).valid();
  }
  Builder b(graph, first, std::move(origin));
  const bool conv = is_conv(graph, parts[0]);
  Joined joined = conv                       ? join_kernels(graph, b, parts, name)
                  : is_bits(graph, parts[0]) ? join_bits(graph, b, parts, name)
                                             : join_integers(graph, b, parts, name);
  if (has_bias) {
    joined.inputs.back() =
        b.constant(join_numbers(graph, parts, joined.inputs.size() - 1, DType::kF32), std::string(name) + "_bias");
  }
  const std::string op = graph.node(first).op;
  const Expr product = b.make(op, joined.inputs, std::move(joined.attributes), name);
  const std::vector<ValueId> split = {product.id(), b.ints(widths).id()};
  const std::vector<Expr> pieces = b.make_many("Split", split, parts.size(), {{"axis", std::int64_t{conv ? 1 : -1}}});
  for (std::size_t i = 0; i < parts.size(); ++i) {
    graph.replace_uses(graph.node(parts[i].node).outputs[0], pieces[i]);
    graph.erase_node(parts[i].node);
  }
}

}  // namespace weft
