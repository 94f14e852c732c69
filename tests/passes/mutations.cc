// Where and how often; operands, and what undoes itself on one edge.
#include "tests/passes/mutations.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace weft {

void Mutator::run(int count) {
  for (int tries = 0; made_.size() < static_cast<std::size_t>(count) && tries < 40 * count; ++tries) change_once();
  for (const ValueId id : graph_.values()) {
    const bool interface = graph_.value(id).kind == ValueKind::kInput;
    if (!interface) graph_.rename_value(id, "v" + std::to_string(pick(1u << 30)));
  }
  shuffle_nodes();
  infer_graph(graph_);
}

void Mutator::change_once() {
  static constexpr Change kChanges[] = {{"swap", &Mutator::swap_operands},
                                        {"regroup", &Mutator::regroup},
                                        {"reshape-twice", &Mutator::reshape_twice},
                                        {"identity", &Mutator::insert_identity},
                                        {"casts", &Mutator::insert_casts},
                                        {"transposes", &Mutator::insert_transposes},
                                        {"unsqueeze", &Mutator::insert_unsqueeze},
                                        {"times-one", &Mutator::times_one},
                                        {"square", &Mutator::spell_square},
                                        {"reciprocal", &Mutator::spell_quotient},
                                        {"slices", &Mutator::split_to_slices},
                                        {"negate", &Mutator::spell_difference},
                                        {"root", &Mutator::spell_root},
                                        {"turn-where", &Mutator::turn_where},
                                        {"compare", &Mutator::turn_comparison},
                                        {"two-transposes", &Mutator::transpose_twice},
                                        {"move-scale", &Mutator::move_scale},
                                        {"copy", &Mutator::copy_node},
                                        {"two-concats", &Mutator::concat_twice},
                                        {"expand", &Mutator::insert_expand},
                                        {"transpose-weight", &Mutator::transpose_weight},
                                        {"transposed-product", &Mutator::transpose_product},
                                        {"einsum", &Mutator::spell_einsum},
                                        {"flat-product", &Mutator::flatten_product},
                                        {"views", &Mutator::spell_view},
                                        {"mean", &Mutator::spell_mean},
                                        {"negative", &Mutator::spell_negative},
                                        {"sigmoid", &Mutator::spell_sigmoid},
                                        {"inverse-root", &Mutator::spell_inverse_root},
                                        {"split", &Mutator::slice_to_split}};
  const std::vector<NodeId> nodes = graph_.nodes();
  const Change& change = kChanges[pick(std::size(kChanges))];
  if ((this->*change.apply)(nodes[pick(nodes.size())])) made_.emplace_back(change.name);
}

bool Mutator::swap_operands(NodeId id) {
  const Node& node = graph_.node(id);
  if (!get_op(node.op).commutative || node.inputs.size() != 2) return false;
  const ValueId a = node.inputs[0], b = node.inputs[1];
  graph_.set_input(id, 0, b);
  graph_.set_input(id, 1, a);
  return true;
}

bool Mutator::regroup(NodeId id) {
  const Node node_inputs{graph_.node(id).op, graph_.node(id).inputs, {}, {}, {}, {}};
  if ((node_inputs.op != "Add" && node_inputs.op != "Mul") || !is_float32(graph_.node(id).outputs[0])) return false;
  const Node* inner = maker(node_inputs.inputs[0], node_inputs.op);
  if (inner == nullptr) return false;
  const ValueId a = inner->inputs[0], b = inner->inputs[1];
  Builder builder = before(id);
  const Expr right = builder.make(node_inputs.op, {b, node_inputs.inputs[1]});
  return replace(id, builder.make(node_inputs.op, {a, right.id()}));
}

bool Mutator::copy_node(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.outputs.size() != 1 || !node.subgraphs.empty()) return false;
  const std::vector<Use> uses = graph_.value(node.outputs[0]).uses;
  if (uses.size() < 2) return false;
  const Use use = uses[pick(uses.size())];
  Builder builder = before(id);
  const Expr copy = builder.make(node.op, std::vector<ValueId>(node.inputs), Attributes(node.attributes));
  graph_.set_input(use.node, use.input, copy);
  return true;
}

bool Mutator::insert_identity(NodeId id) {
  return on_edge(id, false, 0, [](Builder& b, Expr x) { return b.unary("Identity", x); });
}

bool Mutator::insert_casts(NodeId id) {
  return on_edge(id, true, 0, [](Builder& b, Expr x) { return b.cast(b.cast(x, DType::kF64), DType::kF32); });
}

bool Mutator::insert_transposes(NodeId id) {
  return on_edge(id, true, 2, [&](Builder& b, Expr x) {
    std::vector<std::int64_t> perm(static_cast<std::size_t>(b.rank(x))), inverse(perm.size());
    std::iota(perm.begin(), perm.end(), 0);
    std::shuffle(perm.begin(), perm.end(), random_);
    for (std::size_t i = 0; i < perm.size(); ++i)
      inverse[static_cast<std::size_t>(perm[i])] = static_cast<std::int64_t>(i);
    return b.transpose(b.transpose(x, perm), inverse);
  });
}

bool Mutator::insert_unsqueeze(NodeId id) {
  return on_edge(id, true, 1, [&](Builder& b, Expr x) {
    const auto axis = static_cast<std::int64_t>(pick(static_cast<std::size_t>(b.rank(x)) + 1));
    return b.squeeze(b.unsqueeze(x, {axis}), {axis});
  });
}

bool Mutator::times_one(NodeId id) {
  return on_edge(id, true, 0, [&](Builder&, Expr x) {
    const std::uint32_t kind = pick(3);
    return kind == 0 ? x * 1.0 : kind == 1 ? x / 1.0 : x - 0.0;
  });
}

bool Mutator::insert_expand(NodeId id) {
  const Node& node = graph_.node(id);
  if ((node.op != "Add" && node.op != "Mul") || !is_float32(node.outputs[0])) return false;
  const ValueId a = node.inputs[0], b = node.inputs[1];
  if (!type(a).shape || !type(b).shape || !(type(a).shape == type(node.outputs[0]).shape) ||
      type(a).shape == type(b).shape) {
    return false;
  }
  Builder builder = before(id);
  graph_.set_input(id, 1, builder.make("Expand", {b, builder.shape_of(builder.wrap(a)).id()}));
  return true;
}

void Mutator::shuffle_nodes() {
  const std::vector<NodeId> nodes = graph_.nodes();
  for (int i = 0; i < 20; ++i) {
    const NodeId id = nodes[pick(nodes.size())];
    // Up to just behind the last of what it reads.
    NodeId last;
    for (const ValueId input : graph_.node(id).inputs) {
      if (!input.valid() || graph_.value(input).kind != ValueKind::kResult) continue;
      const NodeId producer = graph_.value(input).producer;
      if (!last.valid() || graph_.precedes(last, producer)) last = producer;
    }
    const NodeId place = last.valid() ? graph_.next_node(last) : graph_.nodes().front();
    if (place.valid() && place != id) graph_.move_before(id, place);
  }
}

}  // namespace weft
