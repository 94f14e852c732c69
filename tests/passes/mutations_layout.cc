// Other spellings of layouts and products.
#include <algorithm>
#include <numeric>
#include <vector>

#include "tests/passes/mutations.h"

namespace weft {

bool Mutator::reshape_twice(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Reshape") return false;
  const auto& target = graph_.value(node.inputs[1]).elements;
  const Value& shape = graph_.value(node.inputs[1]);
  if (shape.kind == ValueKind::kConstant) {
    for (const std::int64_t extent : shape.tensor->aligned().to_ints()) {
      if (extent == 0) return false;  // copied from the place it has
    }
  } else if (!target) {
    return false;
  }
  Builder builder = before(id);
  graph_.set_input(id, 0, builder.reshape(builder.wrap(node.inputs[0]), std::vector<std::int64_t>{-1}));
  return true;
}

bool Mutator::transpose_twice(NodeId id) {
  const Node& node = graph_.node(id);
  const auto perm = node.attributes.find("perm");
  if (node.op != "Transpose" || perm == node.attributes.end()) return false;
  const auto& whole = std::get<std::vector<std::int64_t>>(perm->second);
  std::vector<std::int64_t> first(whole.size()), second(whole.size());
  std::iota(first.begin(), first.end(), 0);
  std::shuffle(first.begin(), first.end(), random_);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    second[i] = std::find(first.begin(), first.end(), whole[i]) - first.begin();
  }
  Builder builder = before(id);
  return replace(id, builder.transpose(builder.transpose(builder.wrap(node.inputs[0]), first), second));
}

bool Mutator::split_to_slices(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Split") return false;
  const auto axis = std::get<std::int64_t>(node.attributes.contains("axis") ? node.attributes.find("axis")->second
                                                                            : Attribute(std::int64_t{0}));
  Builder builder = before(id);
  std::vector<std::pair<ValueId, Expr>> pieces;
  std::int64_t start = 0;
  for (const ValueId output : std::vector<ValueId>(node.outputs)) {
    if (!output.valid() || !type(output).shape) return false;
    const auto place = static_cast<std::size_t>(axis < 0 ? axis + rank(output) : axis);
    const Dim& extent = (*type(output).shape)[place];
    if (!extent.is_constant()) return false;
    pieces.emplace_back(output,
                        builder.slice(builder.wrap(graph_.node(id).inputs[0]), axis, start, start + extent.value()));
    start += extent.value();
  }
  for (const auto& [output, piece] : pieces) graph_.replace_uses(output, piece);
  graph_.erase_node(id);
  return true;
}

bool Mutator::concat_twice(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Concat" || node.inputs.size() < 3) return false;
  const std::vector<ValueId> inputs = node.inputs;
  const Attributes axis = node.attributes;
  Builder builder = before(id);
  std::vector<ValueId> outer = {builder.make("Concat", {inputs[0], inputs[1]}, axis).id()};
  outer.insert(outer.end(), inputs.begin() + 2, inputs.end());
  return replace(id, builder.make("Concat", outer, axis));
}

bool Mutator::transpose_weight(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "MatMul" || graph_.value(node.inputs[1]).kind != ValueKind::kConstant || rank(node.inputs[1]) != 2) {
    return false;
  }
  Builder builder = before(id);
  const Expr weight = builder.wrap(node.inputs[1]);
  const std::vector<std::int64_t> swap = {1, 0};
  graph_.set_input(id, 1, builder.transpose(builder.transpose(weight, swap), swap));
  return true;
}

bool Mutator::transpose_product(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "MatMul" || !is_float32(node.outputs[0])) return false;
  const std::int64_t axes = rank(node.inputs[0]);
  if (axes < 2 || axes != rank(node.inputs[1])) return false;
  Builder builder = before(id);
  const Expr a = builder.transpose(builder.wrap(node.inputs[0]), swapped(axes));
  const Expr b = builder.transpose(builder.wrap(graph_.node(id).inputs[1]), swapped(axes));
  return replace(id, builder.transpose(builder.matmul(b, a), swapped(axes)));
}

bool Mutator::spell_einsum(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "MatMul" || !is_float32(node.outputs[0])) return false;
  const std::int64_t a = rank(node.inputs[0]), b = rank(node.inputs[1]);
  const std::string equation = a == 4 && b == 4   ? "bhij,bhjk->bhik"
                               : a == 3 && b == 3 ? "bij,bjk->bik"
                               : a == 3 && b == 2 ? "bij,jk->bik"
                                                  : "";
  if (equation.empty()) return false;
  const auto same_batch = [&](std::size_t axis) {
    return (*type(node.inputs[0]).shape)[axis] == (*type(node.inputs[1]).shape)[axis];
  };
  if ((b >= 3 && !same_batch(0)) || (b == 4 && !same_batch(1))) return false;
  Builder builder = before(id);
  return replace(id, builder.make("Einsum", {node.inputs[0], node.inputs[1]}, {{"equation", equation}}));
}

bool Mutator::flatten_product(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "MatMul" || rank(node.inputs[0]) != 3 || rank(node.inputs[1]) != 2) return false;
  const Shape shape = *type(node.inputs[0]).shape, weight = *type(node.inputs[1]).shape;
  if (!shape[2].is_constant() || !weight[1].is_constant()) return false;
  Builder builder = before(id);
  const Expr x = builder.wrap(graph_.node(id).inputs[0]), w = builder.wrap(graph_.node(id).inputs[1]);
  const ValueId target[] = {builder.slice(builder.shape_of(x), 0, 0, 2).id(), builder.ints({weight[1].value()}).id()};
  const Expr flat = builder.reshape(x, std::vector<std::int64_t>{-1, shape[2].value()});
  return replace(id, builder.reshape(builder.matmul(flat, w), builder.concat(target, 0)));
}

bool Mutator::spell_view(NodeId id) {
  const Node& node = graph_.node(id);
  if ((node.op != "Unsqueeze" && node.op != "Squeeze") || !type(node.inputs[0]).shape || !type(node.outputs[0]).shape) {
    return false;
  }
  std::vector<std::int64_t> target;
  for (const Dim& dim : *type(node.outputs[0]).shape) target.push_back(dim.is_constant() ? dim.value() : -1);
  if (std::count(target.begin(), target.end(), -1) > 1 || std::count(target.begin(), target.end(), 0) > 0) return false;
  Builder builder = before(id);
  return replace(id, builder.reshape(builder.wrap(node.inputs[0]), target));
}

bool Mutator::slice_to_split(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.op != "Slice" || node.inputs.size() != 4 || !is_float32(node.inputs[0]) || !type(node.inputs[0]).shape)
    return false;
  const auto one = [&](std::size_t input) -> std::optional<std::int64_t> {
    const Value& value = graph_.value(node.inputs[input]);
    if (value.kind != ValueKind::kConstant || value.tensor->size() != 1) return std::nullopt;
    return value.tensor->aligned().to_ints().front();
  };
  const auto start = one(1), end = one(2), axis = one(3);
  if (!start || !end || !axis) return false;
  const auto place = static_cast<std::size_t>(*axis < 0 ? *axis + rank(node.inputs[0]) : *axis);
  const Dim extent = (*type(node.inputs[0]).shape)[place];
  if (!extent.is_constant()) return false;
  const auto bounded = [&](std::int64_t x) {
    return std::clamp<std::int64_t>(x < 0 ? x + extent.value() : x, 0, extent.value());
  };
  const std::int64_t from = bounded(*start), to = bounded(*end);
  if (from >= to) return false;
  std::vector<std::int64_t> sizes;
  std::size_t index = 0;
  if (from > 0) {
    sizes.push_back(from);
    index = 1;
  }
  sizes.push_back(to - from);
  if (to < extent.value()) sizes.push_back(extent.value() - to);
  if (sizes.size() < 2) return false;
  const ValueId whole = node.inputs[0];
  Builder builder = before(id);
  const std::vector<ValueId> inputs = {whole, builder.ints(sizes).id()};
  return replace(id, builder.make_many("Split", inputs, sizes.size(), {{"axis", *axis}})[index]);
}

}  // namespace weft
