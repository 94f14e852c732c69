// Masks of Attention that say nothing but positions and padding become its attributes and key_padding: no
// tensor of queries by keys is made then. What a mask means is told by running it (mask_samples.h).
#include <algorithm>
#include <cmath>

#include "passes/mask_terms.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

constexpr std::size_t kMask = 3, kKeyPadding = 4, kAlibiSlopes = 5, kSinks = 6;

std::optional<MaskUse> use_of(const Graph& graph, const Node& attention) {
  const Shape *q = shape_of(graph, attention.inputs[0]), *k = shape_of(graph, attention.inputs[1]);
  if (q == nullptr || k == nullptr) return std::nullopt;
  const AttributeReader attributes = attributes_of(attention);
  const Dim heads = q->size() == 4 ? (*q)[1] : Dim(attributes.integer("q_num_heads"));
  const std::size_t q_length = q->size() == 4 ? 2 : 1, k_length = k->size() == 4 ? 2 : 1;
  return MaskUse{attention.inputs[kMask], (*q)[0], heads, (*q)[q_length], (*k)[k_length]};
}

bool has_input(const Node& node, std::size_t i) { return i < node.inputs.size() && node.inputs[i].valid(); }

// Which terms become attributes of one Attention, and what stays a mask.
struct Plan {
  std::optional<MaskTerm> position, padding, slopes;
  std::vector<MaskTerm> rest;
  double fill = -INFINITY;
  bool fill_per_condition = false;

  bool takes_any() const { return position || padding || slopes; }
};

// Slopes are known up to a number per row, which softmax does not see, but sinks do.
bool may_take_slopes(const Graph& graph, const Node& attention) {
  return !has_input(attention, kSinks) && !has_input(attention, kAlibiSlopes) &&
         graph.value(attention.inputs[0]).type.dtype == DType::kF32;
}

// What is left is as small as can be whatever the order of a sum: positions with padding before positions before
// padding. Nothing moves past what a Where puts in place of the others.
void order_terms(std::vector<MaskTerm>& terms) {
  if (std::any_of(terms.begin(), terms.end(), [](const MaskTerm& term) { return term.overrides; })) return;
  const auto rank = [](const MaskTerm& term) {
    if (!term.meaning) return 3;
    const bool pads = term.meaning->padding != PaddingTest::kNone;
    return term.meaning->by_position() ? (pads ? 0 : 1) : (pads ? 2 : 3);
  };
  std::stable_sort(terms.begin(), terms.end(), [&](const MaskTerm& a, const MaskTerm& b) { return rank(a) < rank(b); });
}

Plan plan_of(const Graph& graph, const Node& attention, const std::vector<MaskTerm>& terms) {
  Plan plan;
  bool was_override = false;
  for (const MaskTerm& term : terms) {
    const auto& meaning = term.meaning;
    if (meaning && !meaning->slopes.empty()) {
      if (plan.slopes || !may_take_slopes(graph, attention))
        plan.rest.push_back(term);
      else
        plan.slopes = term;
      continue;
    }
    if (meaning && meaning->fill == 0) continue;  // excludes nothing
    const bool pads = meaning && meaning->padding != PaddingTest::kNone;
    const bool places = meaning && meaning->by_position();
    const bool taken = (pads && plan.padding) || (places && plan.position);
    const bool first = !plan.padding && !plan.position;
    if ((!pads && !places) || taken || (!first && (meaning->fill != plan.fill || (pads && places)))) {
      plan.rest.push_back(term);
      continue;
    }
    plan.fill = meaning->fill;
    plan.fill_per_condition = first ? pads && places && meaning->fill_per_condition : !was_override;
    was_override = term.overrides;
    if (pads) plan.padding = term;
    if (places) plan.position = term;
  }
  return plan;
}

// A condition that no attribute takes has no value of its own to add.
bool can_rewrite(const Plan& plan) {
  return std::none_of(plan.rest.begin(), plan.rest.end(), [](const MaskTerm& term) { return term.overrides; });
}

// The columns of the source that count: T of them.
Expr source_of(Builder& b, const MaskTerm& term, const std::vector<ValueId>& attention) {
  const Expr source = b.wrap(term.source);
  if (term.source_is_exact) return source;
  const Expr keys = b.wrap(attention[1]);
  const Expr end = b.extent_of(keys, b.rank(keys) == 4 ? 2 : 1);
  return b.make("Slice", {source.id(), b.ints({0}).id(), end.id(), b.ints({1}).id()});
}

ValueId padding_of(Builder& b, const MaskTerm& term, const std::vector<ValueId>& attention) {
  const Expr source = source_of(b, term, attention);
  const auto number = [&](double value) { return b.scalar_like(source, value).id(); };
  switch (term.meaning->padding) {
    case PaddingTest::kOne: return b.make("Equal", {source.id(), number(1)});
    case PaddingTest::kZero:
      return b.dtype(source) == DType::kBool ? b.unary("Not", source) : b.make("Equal", {source.id(), number(0)});
    case PaddingTest::kPositive: return b.make("Greater", {source.id(), number(0)});
    default: return is_float(b.dtype(source)) ? b.cast(source, DType::kBool).id() : source.id();
  }
}

ValueId rest_of(Builder& b, const std::vector<MaskTerm>& rest) {
  if (rest.empty()) return {};
  Expr mask = b.wrap(rest.front().value);
  for (std::size_t i = 1; i < rest.size(); ++i) {
    mask = b.make(b.dtype(mask) == DType::kBool ? "And" : "Add", {mask.id(), rest[i].value});
  }
  return mask;
}

// Every query has a key to attend whatever the sizes: nothing tells one absorbing fill from another.
bool no_row_is_empty(const Graph& graph, const Plan& plan, const MaskUse& use) {
  const bool excludes_more = std::any_of(plan.rest.begin(), plan.rest.end(), [&](const MaskTerm& term) {
    return !(bound_of(graph, term.value) < -kAbsorbing / 1e10);
  });
  return !plan.padding && !excludes_more && (use.keys - use.queries).never_negative();
}

void rewrite(Graph& graph, NodeId id, const Plan& plan, const MaskUse& use) {
  Node& node = graph.node(id);
  Builder b(graph, id, node.origin);
  Attributes attributes = node.attributes;
  if (plan.position) {
    const MaskClass& meaning = *plan.position->meaning;
    if (meaning.is_causal) attributes["is_causal"] = std::int64_t{1};
    if (meaning.left_window >= 0) attributes["left_window_size"] = meaning.left_window;
    if (meaning.right_window >= 0) attributes["right_window_size"] = meaning.right_window;
    if (meaning.chunk > 0) attributes["chunk_size"] = meaning.chunk;
    if (meaning.queries_at_end) attributes["query_position"] = std::string("end");
  }
  const bool any_fill = plan.fill <= kAbsorbing && no_row_is_empty(graph, plan, use);
  if (!std::isinf(plan.fill) && !any_fill) attributes["masked_fill"] = plan.fill;
  if (plan.fill_per_condition && plan.padding && plan.position) attributes["fill_per_condition"] = std::int64_t{1};
  std::vector<ValueId> inputs = node.inputs;
  inputs.resize(std::max<std::size_t>(inputs.size(), plan.slopes ? kAlibiSlopes + 1 : kKeyPadding + 1));
  inputs[kMask] = rest_of(b, plan.rest);
  if (plan.padding) inputs[kKeyPadding] = padding_of(b, *plan.padding, inputs);
  if (plan.slopes) {
    const std::vector<double>& slopes = plan.slopes->meaning->slopes;
    inputs[kAlibiSlopes] = b.constant(Tensor::vector<float>(std::vector<float>(slopes.begin(), slopes.end())));
  }
  const ValueId before = graph.node(id).outputs[0];
  const Expr after = b.make("Attention", inputs, std::move(attributes));
  replace_value(graph, before, after, "absorb-mask");
}

bool has_positions(const Node& node) {
  const AttributeReader a = attributes_of(node);
  return a.integer("is_causal") != 0 || a.integer("left_window_size") >= 0 || a.integer("right_window_size") >= 0 ||
         a.integer("chunk_size") != 0 || has_input(node, kKeyPadding);
}

}  // namespace

int absorb_masks(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of("absorb-mask");
  MaskReader reader(graph);
  int absorbed = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id)) continue;
    const Node& node = graph.node(id);
    if (node.op != "Attention" || !has_input(node, kMask) || has_positions(node)) continue;
    const std::optional<MaskUse> use = use_of(graph, node);
    if (!use) continue;
    std::string reason;
    std::vector<MaskTerm> terms = reader.read(*use, reason);
    order_terms(terms);
    const Plan plan = plan_of(graph, node, terms);
    if (!plan.rest.empty()) record_near_miss(report, graph, id, 2, reason);
    const bool shorter = plan.rest.size() == 1 && plan.rest.front().value != node.inputs[kMask];
    if (!can_rewrite(plan) || (!plan.takes_any() && plan.rest.size() == terms.size() && !shorter)) continue;
    rewrite(graph, id, plan, *use);
    ++absorbed;
    context.rewritten(graph, "absorb-mask");
  }
  erase_dead(graph);
  report.applied += absorbed;
  return absorbed;
}

}  // namespace weft
