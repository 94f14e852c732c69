// Random changes of a graph that keep what it computes: how another exporter, or the next version, may write it.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ops/builder.h"

namespace weft {

class Mutator {
 public:
  Mutator(Graph& graph, std::uint32_t seed) : graph_(graph), random_(seed) {}

  // Up to `count` changes at random places, then new names and another order of the nodes.
  void run(int count) {
    for (int tries = 0; made_.size() < static_cast<std::size_t>(count) && tries < 40 * count; ++tries) change_once();
    for (const ValueId id : graph_.values()) {
      const bool interface = graph_.value(id).kind == ValueKind::kInput;
      if (!interface) graph_.rename_value(id, "v" + std::to_string(pick(1u << 30)));
    }
    shuffle_nodes();
    infer_graph(graph_);
  }
  // Which they were, for messages.
  std::string made() const {
    std::string text;
    for (const std::string& change : made_) text += change + " ";
    return text;
  }

 private:
  struct Change {
    const char* name;
    bool (Mutator::*apply)(NodeId);
  };

  std::uint32_t pick(std::size_t n) { return static_cast<std::uint32_t>(random_() % n); }
  Builder before(NodeId id) { return Builder(graph_, id, graph_.node(id).origin); }
  const TensorType& type(ValueId id) const { return graph_.value(id).type; }
  bool is_float32(ValueId id) const { return id.valid() && type(id).dtype == DType::kF32; }
  std::int64_t rank(ValueId id) const {
    return type(id).shape ? static_cast<std::int64_t>(type(id).shape->size()) : -1;
  }
  // The number of a float constant of rank 0 (or one element that adds no axes).
  std::optional<double> number(ValueId id) const {
    const Value& value = graph_.value(id);
    if (value.kind != ValueKind::kConstant || value.tensor->size() != 1 || value.tensor->rank() > 0)
      return std::nullopt;
    return value.tensor->aligned().item();
  }
  // The node's only result becomes `to`.
  bool replace(NodeId id, Expr to) {
    graph_.replace_uses(graph_.node(id).outputs[0], to);
    graph_.erase_node(id);
    return true;
  }
  const Node* maker(ValueId id, std::string_view op) const {
    const Value& value = graph_.value(id);
    if (value.kind != ValueKind::kResult) return nullptr;
    const Node& node = graph_.node(value.producer);
    return node.op == op ? &node : nullptr;
  }

  void change_once() {
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

  // --- Operands -----------------------------------------------------------------------------------------

  bool swap_operands(NodeId id) {
    const Node& node = graph_.node(id);
    if (!get_op(node.op).commutative || node.inputs.size() != 2) return false;
    const ValueId a = node.inputs[0], b = node.inputs[1];
    graph_.set_input(id, 0, b);
    graph_.set_input(id, 1, a);
    return true;
  }

  // (a + b) + c as a + (b + c).
  bool regroup(NodeId id) {
    const Node node_inputs{graph_.node(id).op, graph_.node(id).inputs, {}, {}, {}, {}};
    if ((node_inputs.op != "Add" && node_inputs.op != "Mul") || !is_float32(graph_.node(id).outputs[0])) return false;
    const Node* inner = maker(node_inputs.inputs[0], node_inputs.op);
    if (inner == nullptr) return false;
    const ValueId a = inner->inputs[0], b = inner->inputs[1];
    Builder builder = before(id);
    const Expr right = builder.make(node_inputs.op, {b, node_inputs.inputs[1]});
    return replace(id, builder.make(node_inputs.op, {a, right.id()}));
  }

  bool copy_node(NodeId id) {
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

  // --- Something that undoes itself, on one edge ------------------------------------------------------------

  template <class Wrap>
  bool on_edge(NodeId id, bool floats_only, std::int64_t least_rank, Wrap&& wrap) {
    const Node& node = graph_.node(id);
    if (node.inputs.empty()) return false;
    const std::size_t index = pick(node.inputs.size());
    const ValueId input = node.inputs[index];
    if (!input.valid() || is_object(type(input).dtype) || (floats_only && !is_float32(input)) ||
        rank(input) < least_rank) {
      return false;
    }
    Builder builder = before(id);
    graph_.set_input(id, index, wrap(builder, builder.wrap(input)));
    return true;
  }

  bool insert_identity(NodeId id) {
    return on_edge(id, false, 0, [](Builder& b, Expr x) { return b.unary("Identity", x); });
  }
  bool insert_casts(NodeId id) {
    return on_edge(id, true, 0, [](Builder& b, Expr x) { return b.cast(b.cast(x, DType::kF64), DType::kF32); });
  }
  bool insert_transposes(NodeId id) {
    return on_edge(id, true, 2, [&](Builder& b, Expr x) {
      std::vector<std::int64_t> perm(static_cast<std::size_t>(b.rank(x))), inverse(perm.size());
      std::iota(perm.begin(), perm.end(), 0);
      std::shuffle(perm.begin(), perm.end(), random_);
      for (std::size_t i = 0; i < perm.size(); ++i)
        inverse[static_cast<std::size_t>(perm[i])] = static_cast<std::int64_t>(i);
      return b.transpose(b.transpose(x, perm), inverse);
    });
  }
  bool insert_unsqueeze(NodeId id) {
    return on_edge(id, true, 1, [&](Builder& b, Expr x) {
      const auto axis = static_cast<std::int64_t>(pick(static_cast<std::size_t>(b.rank(x)) + 1));
      return b.squeeze(b.unsqueeze(x, {axis}), {axis});
    });
  }
  bool times_one(NodeId id) {
    return on_edge(id, true, 0, [&](Builder&, Expr x) {
      const std::uint32_t kind = pick(3);
      return kind == 0 ? x * 1.0 : kind == 1 ? x / 1.0 : x - 0.0;
    });
  }
  // A broadcast that the operator would do itself.
  bool insert_expand(NodeId id) {
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

  // --- Other spellings --------------------------------------------------------------------------------------

  bool spell_square(NodeId id) {
    const Node& node = graph_.node(id);
    Builder builder = before(id);
    if (node.op == "Mul" && node.inputs[0] == node.inputs[1] && is_float32(node.inputs[0])) {
      const Expr x = builder.wrap(node.inputs[0]);
      return replace(id, builder.make("Pow", {x.id(), builder.scalar_like(x, 2).id()}));
    }
    if (node.op != "Pow" || !is_float32(node.inputs[0]) || number(node.inputs[1]) != 2.0) return false;
    const Expr x = builder.wrap(node.inputs[0]);
    return replace(id, x * x);
  }

  bool spell_root(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "Sqrt" || !is_float32(node.inputs[0])) return false;
    Builder builder = before(id);
    const Expr x = builder.wrap(node.inputs[0]);
    return replace(id, builder.make("Pow", {x.id(), builder.scalar_like(x, 0.5).id()}));
  }

  // a / b as a * (1 / b), a * c as a / (1 / c).
  bool spell_quotient(NodeId id) {
    const Node& node = graph_.node(id);
    if ((node.op != "Div" && node.op != "Mul") || !is_float32(node.outputs[0])) return false;
    Builder builder = before(id);
    const Expr a = builder.wrap(node.inputs[0]), b = builder.wrap(node.inputs[1]);
    const auto known = number(b);
    if (known && *known != 0 && std::isfinite(1 / *known)) {
      return replace(id, node.op == "Div" ? a * (1 / *known) : a / (1 / *known));
    }
    if (node.op == "Mul") return false;
    return replace(id, pick(2) == 0 ? a * builder.unary("Reciprocal", b) : a * (1.0 / b));
  }

  bool spell_difference(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "Sub" || !is_float32(node.outputs[0])) return false;
    Builder builder = before(id);
    return replace(id, builder.wrap(node.inputs[0]) + -builder.wrap(node.inputs[1]));
  }

  bool turn_where(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "Where") return false;
    const std::vector<ValueId> inputs = node.inputs;
    Builder builder = before(id);
    const Expr turned = builder.unary("Not", builder.wrap(inputs[0]));
    return replace(id, builder.where(turned, builder.wrap(inputs[2]), builder.wrap(inputs[1])));
  }

  bool turn_comparison(NodeId id) {
    static constexpr std::pair<std::string_view, std::string_view> kTurned[] = {
        {"Greater", "Less"}, {"Less", "Greater"}, {"GreaterOrEqual", "LessOrEqual"}, {"LessOrEqual", "GreaterOrEqual"}};
    const Node& node = graph_.node(id);
    for (const auto& [op, turned] : kTurned) {
      if (node.op != op) continue;
      Builder builder = before(id);
      return replace(id, builder.make(turned, {node.inputs[1], node.inputs[0]}));
    }
    return false;
  }

  // --- Layout -----------------------------------------------------------------------------------------------

  bool reshape_twice(NodeId id) {
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

  bool transpose_twice(NodeId id) {
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

  bool split_to_slices(NodeId id) {
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

  bool concat_twice(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "Concat" || node.inputs.size() < 3) return false;
    const std::vector<ValueId> inputs = node.inputs;
    const Attributes axis = node.attributes;
    Builder builder = before(id);
    std::vector<ValueId> outer = {builder.make("Concat", {inputs[0], inputs[1]}, axis).id()};
    outer.insert(outer.end(), inputs.begin() + 2, inputs.end());
    return replace(id, builder.make("Concat", outer, axis));
  }

  bool transpose_weight(NodeId id) {
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

  // (a b) s as (a s) b or a (b s).
  bool move_scale(NodeId id) {
    const Node& node = graph_.node(id);
    if ((node.op != "Mul" && node.op != "Div") || !is_float32(node.outputs[0])) return false;
    const auto scale = number(node.inputs[1]);
    const Node* product = maker(node.inputs[0], "MatMul");
    if (!scale || *scale == 0 || product == nullptr || graph_.value(node.inputs[0]).uses.size() > 1) return false;
    const double factor = node.op == "Mul" ? *scale : 1 / *scale;
    const ValueId left = product->inputs[0], right = product->inputs[1];
    Builder builder = before(id);
    const Expr a = builder.wrap(left), b = builder.wrap(right);
    return replace(id, pick(2) == 0 ? builder.matmul(a * factor, b) : builder.matmul(a, b * factor));
  }

  static std::vector<std::int64_t> swapped(std::int64_t rank) {
    std::vector<std::int64_t> perm(static_cast<std::size_t>(rank));
    std::iota(perm.begin(), perm.end(), 0);
    std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
    return perm;
  }

  // a b as (b^T a^T)^T.
  bool transpose_product(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "MatMul" || !is_float32(node.outputs[0])) return false;
    const std::int64_t axes = rank(node.inputs[0]);
    if (axes < 2 || axes != rank(node.inputs[1])) return false;
    Builder builder = before(id);
    const Expr a = builder.transpose(builder.wrap(node.inputs[0]), swapped(axes));
    const Expr b = builder.transpose(builder.wrap(graph_.node(id).inputs[1]), swapped(axes));
    return replace(id, builder.transpose(builder.matmul(b, a), swapped(axes)));
  }

  bool spell_einsum(NodeId id) {
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

  // x [B, S, K] W as [B * S, K] W.
  bool flatten_product(NodeId id) {
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

  bool spell_view(NodeId id) {
    const Node& node = graph_.node(id);
    if ((node.op != "Unsqueeze" && node.op != "Squeeze") || !type(node.inputs[0]).shape ||
        !type(node.outputs[0]).shape) {
      return false;
    }
    std::vector<std::int64_t> target;
    for (const Dim& dim : *type(node.outputs[0]).shape) target.push_back(dim.is_constant() ? dim.value() : -1);
    if (std::count(target.begin(), target.end(), -1) > 1 || std::count(target.begin(), target.end(), 0) > 0)
      return false;
    Builder builder = before(id);
    return replace(id, builder.reshape(builder.wrap(node.inputs[0]), target));
  }

  bool spell_mean(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "ReduceMean" || node.inputs.size() < 2 || !is_float32(node.inputs[0]) || rank(node.inputs[0]) < 1)
      return false;
    const Value& axes = graph_.value(node.inputs[1]);
    if (axes.kind != ValueKind::kConstant || axes.tensor->size() != 1) return false;
    const std::int64_t axis = axes.tensor->aligned().to_ints().front();
    const auto place = static_cast<std::size_t>(axis < 0 ? axis + rank(node.inputs[0]) : axis);
    const Dim extent = (*type(node.inputs[0]).shape)[place];
    if (!extent.is_constant() || extent.is(0)) return false;
    Builder builder = before(id);
    const std::vector<ValueId> inputs = node.inputs;
    const Expr sum = builder.make("ReduceSum", inputs, Attributes(node.attributes));
    const auto n = static_cast<double>(extent.value());
    return replace(id, pick(2) == 0 ? sum / n : sum * (1 / n));
  }

  bool spell_negative(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "Neg" || !is_float32(node.inputs[0])) return false;
    Builder builder = before(id);
    return replace(id, builder.wrap(node.inputs[0]) * -1.0);
  }

  bool spell_sigmoid(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "Sigmoid" || !is_float32(node.inputs[0])) return false;
    Builder builder = before(id);
    return replace(id, 1.0 / (builder.exp(-builder.wrap(node.inputs[0])) + 1.0));
  }

  bool spell_inverse_root(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op != "Div" || maker(node.inputs[1], "Sqrt") == nullptr || !is_float32(node.inputs[1])) return false;
    Builder builder = before(id);
    const Expr inside = builder.wrap(maker(node.inputs[1], "Sqrt")->inputs[0]);
    const Expr power = builder.make("Pow", {inside.id(), builder.scalar_like(inside, -0.5).id()});
    return replace(id, builder.wrap(graph_.node(id).inputs[0]) * power);
  }

  // One Slice as the second of three pieces of a Split.
  bool slice_to_split(NodeId id) {
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

  // Another order in which every node comes after what it reads.
  void shuffle_nodes() {
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

  Graph& graph_;
  std::mt19937 random_;
  std::vector<std::string> made_;
};

}  // namespace weft
