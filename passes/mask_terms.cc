#include "passes/mask_terms.h"

#include <algorithm>
#include <cmath>

#include "passes/node_util.h"

namespace weft {
namespace {

constexpr double kUnbounded = INFINITY;

// Attention broadcasts masks itself.
ValueId without_expand(const Graph& graph, const MaskUse& use) {
  const Node* expand = producer(graph, use.mask, "Expand");
  if (expand == nullptr) return use.mask;
  const Shape *from = shape_of(graph, expand->inputs[0]), *to = shape_of(graph, use.mask);
  const Shape scores = {use.batch, use.heads, use.queries, use.keys};
  const bool fits = from != nullptr && to != nullptr && broadcasts_to(*to, scores) && broadcasts_to(*from, scores);
  return fits ? expand->inputs[0] : use.mask;
}

// Where that puts one number in place of a mask: which keys it excludes.
struct Filling {
  bool excludes;  // where the condition holds
  double fill;
  ValueId otherwise;
};

std::optional<Filling> filling_of(const Graph& graph, const Node& where) {
  const auto kept = known_number(graph, where.inputs[1]), dropped = known_number(graph, where.inputs[2]);
  if (dropped && *dropped <= kAbsorbing) return Filling{false, *dropped, where.inputs[1]};
  if (kept && *kept <= kAbsorbing) return Filling{true, *kept, where.inputs[2]};
  return std::nullopt;
}

double bound_of_constant(const Tensor& tensor) {
  if (!is_float(tensor.dtype())) return kUnbounded;
  double most = 0;
  const Tensor whole = tensor.aligned();
  visit_dtype(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (requires(T x) { static_cast<float>(x); }) {
      for (const T x : whole.data<T>()) most = std::max(most, std::abs(static_cast<double>(static_cast<float>(x))));
    }
  });
  return std::isnan(most) ? kUnbounded : most;
}

// A constant that adds nothing to any score, or excludes no key.
bool is_without_effect(const Graph& graph, const MaskUse& use) {
  const Value& mask = graph.value(use.mask);
  const Shape scores = {use.batch, use.heads, use.queries, use.keys};
  if (mask.kind != ValueKind::kConstant || !broadcasts_to(*mask.type.shape, scores)) return false;
  if (mask.type.dtype != DType::kBool) return bound_of_constant(*mask.tensor) == 0;
  return std::ranges::all_of(mask.tensor->data<bool>(), [&](bool value) { return value != use.excludes; });
}

// steps: how many values may still be looked at.
double bound_of(const Graph& graph, ValueId id, int& steps) {
  const Value& value = graph.value(id);
  if (value.kind == ValueKind::kConstant) return bound_of_constant(*value.tensor);
  if (value.kind != ValueKind::kResult || --steps < 0) return kUnbounded;
  const Node& node = graph.node(value.producer);
  const auto of = [&](std::size_t input) { return bound_of(graph, node.inputs[input], steps); };
  const auto is_one_of = [&](std::initializer_list<std::string_view> ops) {
    return std::find(ops.begin(), ops.end(), node.op) != ops.end();
  };
  if (is_one_of({"Sigmoid", "Tanh", "Softmax", "Cos", "Sin"})) return 1;
  if (is_one_of({"Gather", "GatherElements", "GatherND", "Slice", "Transpose", "Reshape", "Unsqueeze", "Squeeze",
                 "Expand", "Split", "Identity", "Neg", "Flatten", "Tile"})) {
    return of(0);
  }
  if (is_one_of({"Concat", "Min", "Max"})) {
    double most = 0;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) most = std::max(most, of(i));
    return most;
  }
  if (node.op == "Where") return std::max(of(1), of(2));
  if (is_one_of({"Add", "Sub"})) return of(0) + of(1);
  if (node.op == "Mul") return of(0) * of(1);
  return kUnbounded;
}

}  // namespace

double bound_of(const Graph& graph, ValueId value) {
  int steps = 100;
  const double bound = bound_of(graph, value, steps);
  return std::isnan(bound) ? kUnbounded : bound;
}

std::vector<MaskTerm> MaskReader::read(MaskUse use, std::string& reason) {
  use.mask = without_expand(graph_, use);
  MaskTerm whole{use.mask, {}, true, false, std::nullopt};
  if (classify(use, whole, reason)) return {whole};
  const bool is_bool = graph_.value(use.mask).type.dtype == DType::kBool;
  if (const Node* where = producer(graph_, use.mask, "Where"); where != nullptr && !is_bool) {
    const std::vector<MaskTerm> terms = read_where(use, *where, reason);
    if (!terms.empty()) return terms;
  }
  const Node* sum = use.excludes ? nullptr : producer(graph_, use.mask, is_bool ? "And" : "Add");
  if (sum == nullptr) return {whole};
  std::vector<MaskTerm> terms;
  for (const ValueId input : sum->inputs) {
    MaskUse part = use;
    part.mask = input;
    const std::vector<MaskTerm> inner = read(part, reason);
    terms.insert(terms.end(), inner.begin(), inner.end());
  }
  return terms;
}

// Where(kept, terms, low) is low instead of the terms: adding low to them is the same, where they are small beside it.
std::vector<MaskTerm> MaskReader::read_where(const MaskUse& use, const Node& where, std::string& reason) {
  const auto filling = filling_of(graph_, where);
  if (!filling) return {};
  MaskUse condition = use;
  condition.mask = where.inputs[0];
  condition.excludes = filling->excludes;
  MaskTerm excluded{condition.mask, {}, true, true, std::nullopt};
  std::string why;
  if (!classify(condition, excluded, why)) return {};
  // What the condition of a Where means is added by it.
  if (excluded.meaning->fill != 0) excluded.meaning->fill = filling->fill;
  MaskUse rest = use;
  rest.mask = filling->otherwise;
  std::vector<MaskTerm> terms = read(rest, reason);
  for (const MaskTerm& term : terms) {
    const bool small = term.meaning || std::isinf(filling->fill) || bound_of(graph_, term.value) < -kAbsorbing / 1e10;
    if (!small) return {};
  }
  terms.insert(terms.begin(), excluded);
  return terms;
}

bool MaskReader::classify(const MaskUse& use, MaskTerm& term, std::string& reason) {
  const Key key = {use.mask, use.excludes, to_string(Shape{use.batch, use.heads, use.queries, use.keys})};
  const auto [entry, is_new] = known_.try_emplace(key);
  auto& [known, why] = entry->second;
  if (is_new) {
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
  term.source = known.source;
  term.source_is_exact = known.source_is_exact;
  term.meaning = known.meaning;
  if (!term.meaning) reason = why;
  return term.meaning.has_value();
}

void MaskReader::sample(const MaskUse& use, MaskTerm& term, std::string& why) const {
  if (is_without_effect(graph_, use)) {
    term.meaning = MaskClass{};
    return;
  }
  const auto samples = sample_mask(graph_, use, why);
  if (!samples) return;
  term.source = samples->source;
  term.source_is_exact = samples->source_is_exact;
  term.meaning = classify_mask(*samples, why);
}

}  // namespace weft
