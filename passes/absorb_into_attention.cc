// What surrounds a fused Attention and it can do itself: scales, repeated heads, splitting and merging heads.
#include <algorithm>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

constexpr std::size_t kQ = 0, kK = 1, kV = 2;

// The factor of x * factor with a scalar that adds no axes; 0 if there is none.
double scalar_factor(const Graph& graph, ValueId value, ValueId& x) {
  for (const std::string_view op : {"Mul", "Div"}) {
    const Node* node = producer(graph, value, op);
    if (node == nullptr) continue;
    for (std::size_t side = 0; side < (op == "Mul" ? 2u : 1u); ++side) {
      const auto number = known_number(graph, node->inputs[1 - side]);
      if (!number || *number == 0 || graph.value(node->inputs[side]).type != graph.value(value).type) continue;
      x = node->inputs[side];
      return op == "Mul" ? *number : 1 / *number;
    }
  }
  return 0;
}

// scale is given: Attention that the rules make always carries one.
bool absorb_scale(Graph& graph, NodeId id) {
  Node& node = graph.node(id);
  const auto scale = node.attributes.find("scale");
  if (scale == node.attributes.end()) return false;
  for (const std::size_t input : {kQ, kK}) {
    ValueId x;
    const double factor = scalar_factor(graph, node.inputs[input], x);
    if (factor == 0) continue;
    scale->second = std::get<double>(scale->second) * factor;
    node.origin.merge(graph.node(graph.value(node.inputs[input]).producer).origin);
    graph.set_input(id, input, x);
    return true;
  }
  return false;
}

// x of Reshape(Expand(Unsqueeze(x))), where every head comes g times over: [B, H, T, D] -> [B, H * g, T, D], or
// [B, T, H, D] -> [B, T, H * g, D].
ValueId unrepeated(const Graph& graph, ValueId value, std::size_t axis) {
  const Node* merge = producer(graph, value, "Reshape");
  if (merge == nullptr) return {};
  const Node* expand = producer(graph, merge->inputs[0], "Expand");
  if (expand == nullptr) expand = producer(graph, merge->inputs[0], "Tile");
  if (expand == nullptr) return {};
  const Value& split = graph.value(expand->inputs[0]);
  if (split.kind != ValueKind::kResult) return {};
  const Node& unsqueeze = graph.node(split.producer);
  if (unsqueeze.op != "Unsqueeze" && unsqueeze.op != "Reshape") return {};
  const ValueId x = unsqueeze.inputs[0];
  const Shape *from = shape_of(graph, x), *wide = shape_of(graph, merge->inputs[0]);
  const Shape *narrow = shape_of(graph, expand->inputs[0]), *to = shape_of(graph, value);
  if (from == nullptr || wide == nullptr || narrow == nullptr || to == nullptr || from->size() != 4 ||
      wide->size() != 5 || narrow->size() != 5 || to->size() != 4) {
    return {};
  }
  const auto place = static_cast<std::ptrdiff_t>(axis);
  Shape expected_narrow = *from, expected_wide = *from, expected = *from;
  expected_narrow.insert(expected_narrow.begin() + place + 1, Dim(1));
  expected_wide.insert(expected_wide.begin() + place + 1, (*wide)[axis + 1]);
  expected[axis] = expected[axis] * (*wide)[axis + 1];
  return *narrow == expected_narrow && *wide == expected_wide && *to == expected ? x : ValueId();
}

// The same of [B, H * g, T, D], repeated before or after heads and length changed places: [B, H, T, D].
ValueId unrepeated_heads(Graph& graph, NodeId before, ValueId value) {
  const ValueId x = unrepeated(graph, value, 1);
  if (x.valid()) return x;
  const Node* transpose = producer(graph, value, "Transpose");
  if (!is_permutation(transpose, {0, 2, 1, 3})) return {};
  const ValueId inner = unrepeated(graph, transpose->inputs[0], 2);
  if (!inner.valid()) return {};
  Builder b(graph, before, transpose->origin);
  return b.transpose(b.wrap(inner), {0, 2, 1, 3});
}

// Query head h reads key head h / g, which is how repetition lays them out.
bool absorb_repeated_heads(Graph& graph, NodeId id, RuleReport& report) {
  const ValueId k = unrepeated_heads(graph, id, graph.node(id).inputs[kK]);
  const ValueId v = unrepeated_heads(graph, id, graph.node(id).inputs[kV]);
  if (!k.valid() && !v.valid()) return false;
  if (!k.valid() || !v.valid() || !((*shape_of(graph, k))[1] == (*shape_of(graph, v))[1])) {
    record_near_miss(report, graph, id, 2, "only one of k and v repeats its heads");
    return false;
  }
  graph.set_input(id, kK, k);
  graph.set_input(id, kV, v);
  return true;
}

// Axes of extent 1 in front of a mask.
bool adds_leading_axes(const Graph& graph, const Node& unsqueeze) {
  auto axes = known_integers(graph, unsqueeze.inputs[1]);
  if (!axes) return false;
  std::sort(axes->begin(), axes->end());
  for (std::size_t i = 0; i < axes->size(); ++i) {
    if ((*axes)[i] != static_cast<std::int64_t>(i)) return false;
  }
  return true;
}

// Does Expand only repeat a mask over batch rows, heads, queries and keys of the scores [B, H, S, T]?
bool spreads_over_scores(const Graph& graph, const Node& attention, const Node& expand) {
  const Shape *from = shape_of(graph, expand.inputs[0]), *to = shape_of(graph, expand.outputs[0]);
  const Shape *q = shape_of(graph, attention.inputs[kQ]), *k = shape_of(graph, attention.inputs[kK]);
  if (from == nullptr || to == nullptr || q == nullptr || k == nullptr || from->size() > to->size() || to->size() > 4) {
    return false;
  }
  const std::size_t skipped = to->size() - from->size();
  for (std::size_t i = 0; i < to->size(); ++i) {
    const Dim& extent = (*to)[i];
    if (extent.is(1) || (i >= skipped && (*from)[i - skipped] == extent)) continue;
    const std::size_t axis = 4 - to->size() + i;
    const bool fits = (axis == 0 && extent == (*q)[0]) || (axis == 1 && q->size() == 4 && extent == (*q)[1]) ||
                      (axis == 2 && extent == (*q)[q->size() - 2]) || (axis == 3 && extent == (*k)[k->size() - 2]);
    if (!fits) return false;
  }
  return true;
}

// A mask that was given the shape of the scores beforehand: adding it does the same.
bool absorb_mask_spread(Graph& graph, NodeId id) {
  constexpr std::size_t kMask = 3;
  const Node& node = graph.node(id);
  if (node.inputs.size() <= kMask || !node.inputs[kMask].valid()) return false;
  const Node* expand = producer(graph, node.inputs[kMask], "Expand");
  const Node* unsqueeze = producer(graph, node.inputs[kMask], "Unsqueeze");
  const bool spread = (expand != nullptr && spreads_over_scores(graph, node, *expand)) ||
                      (unsqueeze != nullptr && adds_leading_axes(graph, *unsqueeze));
  if (!spread) return false;
  const Node& maker = expand != nullptr ? *expand : *unsqueeze;
  const ValueId mask = maker.inputs[0];
  graph.node(id).origin.merge(maker.origin);
  graph.set_input(id, kMask, mask);
  return true;
}

// X [B, L, H, D] of Transpose(X, {0, 2, 1, 3}), H and D known; invalid of anything else.
ValueId heads_behind(const Graph& graph, ValueId value) {
  const Node* transpose = producer(graph, value, "Transpose");
  if (!is_permutation(transpose, {0, 2, 1, 3})) return {};
  const Shape* shape = shape_of(graph, transpose->inputs[0]);
  const bool known = shape != nullptr && shape->size() == 4 && (*shape)[2].is_constant() && (*shape)[3].is_constant();
  if (!known) return {};
  // A width that these heads do not divide is for the Reshape itself to refuse.
  const Node* reshape = producer(graph, transpose->inputs[0], "Reshape");
  const Shape* from = reshape != nullptr ? shape_of(graph, reshape->inputs[0]) : nullptr;
  const bool splits =
      from == nullptr || from->size() != 3 || !from->back().is_constant() || from->back() == (*shape)[2] * (*shape)[3];
  return splits ? transpose->inputs[0] : ValueId();
}

// X as [B, L, H * D]: what it was split from, or a view.
Expr unsplit(Builder& b, ValueId x) {
  const Shape& split = b.shape(b.wrap(x));
  const Node* reshape = producer(b.graph(), x, "Reshape");
  const Shape* from = reshape != nullptr ? shape_of(b.graph(), reshape->inputs[0]) : nullptr;
  const Dim width = split[2] * split[3];
  if (from != nullptr && *from == Shape{split[0], split[1], width}) return b.wrap(reshape->inputs[0]);
  return b.reshape(b.wrap(x), std::vector<std::int64_t>{0, 0, width.value()});
}

std::int64_t heads_of(const Graph& graph, ValueId value) {
  const Shape* shape = shape_of(graph, value);
  return shape != nullptr && shape->size() == 4 && (*shape)[1].is_constant() ? (*shape)[1].value() : 0;
}

// k and v may come as they are projected.
bool absorb_key_split(Graph& graph, NodeId id) {
  bool changed = false;
  for (const std::size_t input : {kK, kV}) {
    const ValueId value = graph.node(id).inputs[input], x = heads_behind(graph, value);
    if (!x.valid()) continue;
    const Origin& transpose = graph.node(graph.value(value).producer).origin;
    graph.node(id).attributes["kv_num_heads"] = heads_of(graph, value);
    graph.node(id).origin.merge(transpose);
    Builder b(graph, id, transpose);
    graph.set_input(id, input, unsplit(b, x));
    changed = true;
  }
  return changed;
}

// q as it is projected and the output as the next projection wants it go together: the output has q's form.
Rule query_split_and_output_merge() {
  const Pattern q = any("q");
  const Pattern core = open_op("Attention", {q, any("k"), any("v")});
  const Pattern merged = op("Reshape", {transpose(core, {0, 2, 1, 3}), any("shape")});
  return {"absorb-query-split-and-output-merge", merged,
          [=](Match& m) {
            if (!heads_behind(m.graph(), m[q]).valid()) return m.refuse("q is not split into heads by a Transpose");
            const Shape* split = shape_of(m.graph(), m[core]);
            const Shape* out = shape_of(m.graph(), m[merged]);
            if (split == nullptr || out == nullptr || split->size() != 4 || out->size() != 3 ||
                !((*out)[0] == (*split)[0]) || !((*out)[1] == (*split)[2]) ||
                !((*out)[2] == (*split)[1] * (*split)[3])) {
              return m.refuse("the output is not merged as [B, S, H * D]");
            }
            return true;
          },
          [=](Builder& b, const Match& m) {
            const Graph& g = b.graph();
            const Node& node = g.node(g.value(m[core]).producer);
            Attributes attributes = node.attributes;
            attributes["q_num_heads"] = heads_of(g, m[q]);
            std::vector<ValueId> inputs = node.inputs;
            inputs[kQ] = unsplit(b, heads_behind(g, m[q]));
            return b.make("Attention", inputs, std::move(attributes));
          }};
}

}  // namespace

int absorb_into_attention(Graph& graph, PassContext& context) {
  int total = 0;
  const auto absorb = [&](std::string_view name, const std::function<bool(NodeId, RuleReport&)>& rewrite) {
    RuleReport& report = context.report_of(name);
    for (const NodeId id : graph.nodes()) {
      while (graph.contains(id) && graph.node(id).op == "Attention" && rewrite(id, report)) {
        infer_node(graph, id);
        context.rewritten(graph, name);
        ++report.applied;
        ++total;
      }
    }
    erase_dead(graph);
  };
  absorb("absorb-attention-scale", [&](NodeId id, RuleReport&) { return absorb_scale(graph, id); });
  absorb("absorb-mask-spread", [&](NodeId id, RuleReport&) { return absorb_mask_spread(graph, id); });
  absorb("absorb-repeated-heads",
         [&](NodeId id, RuleReport& report) { return absorb_repeated_heads(graph, id, report); });
  total += run_rules(graph, {query_split_and_output_merge()}, context);
  absorb("absorb-key-split", [&](NodeId id, RuleReport&) { return absorb_key_split(graph, id); });
  return total;
}

}  // namespace weft
