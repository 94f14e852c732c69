// Masks of Attention that say nothing but positions and padding become its attributes and key_padding: no
// tensor of queries by keys is made then. What a mask means is told by running it (mask_samples.h).
#include <cmath>
#include <map>
#include <tuple>

#include "passes/mask_classes.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

constexpr std::size_t kMask = 3, kKeyPadding = 4;
// Added to a score this leaves nothing of it.
constexpr double kAbsorbing = -1e30;

// A mask is a sum (a conjunction, of bool) of terms.
struct Term {
  ValueId value;
  ValueId source;
  bool source_is_exact = true;
  std::optional<MaskClass> meaning;  // nullopt: general
};

std::optional<MaskUse> use_of(const Graph& graph, const Node& attention) {
  const Shape *q = shape_of(graph, attention.inputs[0]), *k = shape_of(graph, attention.inputs[1]);
  if (q == nullptr || k == nullptr) return std::nullopt;
  const AttributeReader attributes = attributes_of(attention);
  const Dim heads = q->size() == 4 ? (*q)[1] : Dim(attributes.integer("q_num_heads"));
  const std::size_t q_length = q->size() == 4 ? 2 : 1, k_length = k->size() == 4 ? 2 : 1;
  return MaskUse{attention.inputs[kMask], (*q)[0], heads, (*q)[q_length], (*k)[k_length]};
}

// Attention broadcasts masks itself.
ValueId without_expand(const Graph& graph, const MaskUse& use) {
  const Node* expand = producer(graph, use.mask, "Expand");
  if (expand == nullptr) return use.mask;
  const Shape *from = shape_of(graph, expand->inputs[0]), *to = shape_of(graph, use.mask);
  const Shape scores = {use.batch, use.heads, use.queries, use.keys};
  const bool fits = from != nullptr && to != nullptr && broadcasts_to(*to, scores) && broadcasts_to(*from, scores);
  return fits ? expand->inputs[0] : use.mask;
}

class MaskReader {
 public:
  explicit MaskReader(const Graph& graph) : graph_(graph) {}

  std::vector<Term> read(MaskUse use, std::string& reason) {
    use.mask = without_expand(graph_, use);
    Term whole{use.mask, {}, true, std::nullopt};
    if (classify(use, whole, reason)) return {whole};
    std::vector<Term> terms;
    const std::string_view join = graph_.value(use.mask).type.dtype == DType::kBool ? "And" : "Add";
    const Node* sum = producer(graph_, use.mask, join);
    if (sum == nullptr) return {whole};
    for (const ValueId input : sum->inputs) {
      MaskUse part = use;
      part.mask = input;
      const std::vector<Term> inner = read(part, reason);
      terms.insert(terms.end(), inner.begin(), inner.end());
    }
    return terms;
  }

 private:
  // The same mask usually serves every layer.
  using Key = std::tuple<ValueId, std::string>;

  bool classify(const MaskUse& use, Term& term, std::string& reason) {
    const Key key = {use.mask, to_string(Shape{use.batch, use.heads, use.queries, use.keys})};
    const auto [entry, is_new] = known_.try_emplace(key);
    auto& [known, why] = entry->second;
    if (is_new) {
      known = {use.mask, {}, true, std::nullopt};
      sample(use, known, why);
      // Caches of layers may have lengths of their own names, which equal the one that the mask was made for.
      const Shape* mask = shape_of(graph_, use.mask);
      if (!known.meaning && mask != nullptr && !mask->empty() && !mask->back().is_constant() &&
          !(mask->back() == use.keys)) {
        MaskUse other = use;
        other.keys = mask->back();
        sample(other, known, why);
      }
    }
    term = known;
    if (!term.meaning) reason = why;
    return term.meaning.has_value();
  }

  void sample(const MaskUse& use, Term& term, std::string& why) const {
    const auto samples = sample_mask(graph_, use, why);
    if (!samples) return;
    term.source = samples->source;
    term.source_is_exact = samples->source_is_exact;
    term.meaning = classify_mask(*samples, why);
  }

  const Graph& graph_;
  std::map<Key, std::pair<Term, std::string>> known_;
};

// Which terms become attributes of one Attention, and what stays a mask.
struct Plan {
  std::optional<Term> position, padding;
  std::vector<ValueId> rest;
  double fill = -INFINITY;
  bool fill_per_condition = false;
};

Plan plan_of(const std::vector<Term>& terms) {
  Plan plan;
  for (const Term& term : terms) {
    if (term.meaning && term.meaning->fill == 0) continue;  // excludes nothing
    const bool pads = term.meaning && term.meaning->padding != PaddingTest::kNone;
    const bool places = term.meaning && term.meaning->by_position();
    const bool taken = (pads && plan.padding) || (places && plan.position);
    const bool first = !plan.padding && !plan.position;
    if ((!pads && !places) || taken || (!first && (term.meaning->fill != plan.fill || (pads && places)))) {
      plan.rest.push_back(term.value);
      continue;
    }
    plan.fill = term.meaning->fill;
    plan.fill_per_condition = first ? pads && places && term.meaning->fill_per_condition : true;
    if (pads) plan.padding = term;
    if (places) plan.position = term;
  }
  return plan;
}

// The columns of the source that count: T of them.
Expr source_of(Builder& b, const Term& term, const std::vector<ValueId>& attention) {
  const Expr source = b.wrap(term.source);
  if (term.source_is_exact) return source;
  const Expr keys = b.wrap(attention[1]);
  const Expr end = b.extent_of(keys, b.rank(keys) == 4 ? 2 : 1);
  return b.make("Slice", {source.id(), b.ints({0}).id(), end.id(), b.ints({1}).id()});
}

ValueId padding_of(Builder& b, const Term& term, const std::vector<ValueId>& attention) {
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

ValueId rest_of(Builder& b, const std::vector<ValueId>& rest) {
  if (rest.empty()) return {};
  Expr mask = b.wrap(rest.front());
  for (std::size_t i = 1; i < rest.size(); ++i) {
    mask = b.make(b.dtype(mask) == DType::kBool ? "And" : "Add", {mask.id(), rest[i]});
  }
  return mask;
}

// Every query has a key to attend whatever the sizes: nothing tells one absorbing fill from another.
bool no_row_is_empty(const Plan& plan, const MaskUse& use) {
  return !plan.padding && plan.rest.empty() && (use.keys - use.queries).never_negative();
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
  const bool any_fill = plan.fill <= kAbsorbing && no_row_is_empty(plan, use);
  if (!std::isinf(plan.fill) && !any_fill) attributes["masked_fill"] = plan.fill;
  if (plan.fill_per_condition && plan.padding && plan.position) attributes["fill_per_condition"] = std::int64_t{1};
  std::vector<ValueId> inputs = node.inputs;
  inputs.resize(std::max<std::size_t>(inputs.size(), kKeyPadding + 1));
  inputs[kMask] = rest_of(b, plan.rest);
  if (plan.padding) inputs[kKeyPadding] = padding_of(b, *plan.padding, inputs);
  const ValueId before = graph.node(id).outputs[0];
  const Expr after = b.make("Attention", inputs, std::move(attributes));
  replace_value(graph, before, after, "absorb-mask");
}

bool has_positions(const Node& node) {
  const AttributeReader a = attributes_of(node);
  return a.integer("is_causal") != 0 || a.integer("left_window_size") >= 0 || a.integer("right_window_size") >= 0 ||
         a.integer("chunk_size") != 0 || (node.inputs.size() > kKeyPadding && node.inputs[kKeyPadding].valid());
}

}  // namespace

int absorb_masks(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of("absorb-mask");
  MaskReader reader(graph);
  int absorbed = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id)) continue;
    const Node& node = graph.node(id);
    if (node.op != "Attention" || node.inputs.size() <= kMask || !node.inputs[kMask].valid() || has_positions(node)) {
      continue;
    }
    const std::optional<MaskUse> use = use_of(graph, node);
    if (!use) continue;
    std::string reason;
    const std::vector<Term> terms = reader.read(*use, reason);
    const Plan plan = plan_of(terms);
    if (!plan.rest.empty()) record_near_miss(report, graph, id, 2, reason);
    const bool shorter = plan.rest.size() == 1 && plan.rest.front() != node.inputs[kMask];
    if (!plan.position && !plan.padding && plan.rest.size() == terms.size() && !shorter) continue;
    rewrite(graph, id, plan, *use);
    ++absorbed;
    context.rewritten(graph, "absorb-mask");
  }
  erase_dead(graph);
  report.applied += absorbed;
  return absorbed;
}

}  // namespace weft
