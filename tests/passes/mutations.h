// Random changes of a graph that keep what it computes: how another exporter, or the next version, may write it.
#pragma once

#include <cstdint>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/builder.h"

namespace weft {

class Mutator {
 public:
  Mutator(Graph& graph, std::uint32_t seed) : graph_(graph), random_(seed) {}

  // Up to `count` changes at random places, then new names and another order of the nodes.
  void run(int count);
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

  void change_once();
  // Another order in which every node comes after what it reads.
  void shuffle_nodes();

  // --- Operands
  bool swap_operands(NodeId id);
  // (a + b) + c as a + (b + c).
  bool regroup(NodeId id);
  bool copy_node(NodeId id);

  // --- Something that undoes itself, on one edge
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
  bool insert_identity(NodeId id);
  bool insert_casts(NodeId id);
  bool insert_transposes(NodeId id);
  bool insert_unsqueeze(NodeId id);
  bool times_one(NodeId id);
  // A broadcast that the operator would do itself.
  bool insert_expand(NodeId id);

  // --- Other spellings of arithmetic
  bool spell_square(NodeId id);
  bool spell_root(NodeId id);
  // a / b as a * (1 / b), a * c as a / (1 / c).
  bool spell_quotient(NodeId id);
  bool spell_difference(NodeId id);
  // (a b) s as (a s) b or a (b s).
  bool move_scale(NodeId id);
  bool turn_where(NodeId id);
  bool turn_comparison(NodeId id);
  bool spell_mean(NodeId id);
  bool spell_negative(NodeId id);
  bool spell_sigmoid(NodeId id);
  bool spell_inverse_root(NodeId id);

  // --- Other spellings of layouts and products
  bool reshape_twice(NodeId id);
  bool transpose_twice(NodeId id);
  bool split_to_slices(NodeId id);
  bool concat_twice(NodeId id);
  bool transpose_weight(NodeId id);
  static std::vector<std::int64_t> swapped(std::int64_t rank) {
    std::vector<std::int64_t> perm(static_cast<std::size_t>(rank));
    std::iota(perm.begin(), perm.end(), 0);
    std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
    return perm;
  }
  // a b as (b^T a^T)^T.
  bool transpose_product(NodeId id);
  bool spell_einsum(NodeId id);
  // x [B, S, K] W as [B * S, K] W.
  bool flatten_product(NodeId id);
  bool spell_view(NodeId id);
  // One Slice as the second of three pieces of a Split.
  bool slice_to_split(NodeId id);

  Graph& graph_;
  std::mt19937 random_;
  std::vector<std::string> made_;
};

}  // namespace weft
