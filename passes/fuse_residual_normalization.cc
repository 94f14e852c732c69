// A norm together with the sum that it reads: of a branch and what skips it, or of embeddings. Others may read the sum
// too: it is the second result.
#include <algorithm>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

constexpr std::string_view kSkipRule = "fuse-skip-normalization";
constexpr std::string_view kEmbedRule = "fuse-embed-normalization";

// A norm over the last axis with parameters of the model's own.
struct Norm {
  NodeId id;
  bool is_rms = false;
  ValueId x, scale, bias;  // bias: invalid if there is none
  double epsilon = 0;
};

// nullopt with the reason in `refusal`, which stays empty if the node is no norm at all.
std::optional<Norm> read_norm(const Graph& graph, NodeId id, std::string& refusal) {
  const Node& node = graph.node(id);
  if (node.op != "LayerNormalization" && node.op != "RMSNormalization") return std::nullopt;
  const auto refuse = [&](std::string reason) {
    refusal = std::move(reason);
    return std::nullopt;
  };
  const Shape* shape = shape_of(graph, node.inputs[0]);
  const AttributeReader attributes = attributes_of(node);
  if (shape == nullptr || shape->empty() || graph.value(node.inputs[0]).type.dtype != DType::kF32)
    return refuse("what is normalised has no known rank, or is not f32");
  if (absolute_axis(graph, node.inputs[0], attributes.integer("axis")) + 1 != static_cast<std::int64_t>(shape->size()))
    return refuse("the norm is not over the last axis");
  if (node.outputs.size() > 1) return refuse("the norm gives its statistics");
  for (std::size_t i = 1; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) continue;
    const Shape* row = shape_of(graph, node.inputs[i]);
    const bool fits = row != nullptr && row->size() == 1 && (*row)[0] == shape->back() &&
                      graph.value(node.inputs[i]).type.dtype == DType::kF32;
    if (!fits || !is_constant(graph, node.inputs[i])) return refuse("a parameter is no constant vector of f32");
  }
  return Norm{id,
              node.op == "RMSNormalization",
              node.inputs[0],
              node.inputs[1],
              node.inputs.size() > 2 ? node.inputs[2] : ValueId(),
              attributes.number("epsilon")};
}

// Both results take the place of the norm's and the sum's.
void replace_both(Graph& graph, const Norm& norm, std::string_view op, std::vector<ValueId> inputs,
                  Attributes attributes, Origin origin, NodeId before, std::string_view rule) {
  const bool read = graph.use_count(norm.x) > 1;
  while (!inputs.empty() && !inputs.back().valid()) inputs.pop_back();
  attributes["epsilon"] = norm.epsilon;
  Builder b(graph, before, std::move(origin));
  const std::vector<Expr> results = b.make_many(op, inputs, read ? 2 : 1, std::move(attributes));
  replace_value(graph, graph.node(norm.id).outputs[0], results[0], rule);
  if (read) replace_value(graph, norm.x, results[1], rule);
}

// --- A branch and what skips it ---------------------------------------------------------------------------------

// A vector of f32 of the model's own that is added to every row; invalid if that input is none.
ValueId row_of(const Graph& graph, const Node& add, std::size_t side, const Dim& width) {
  const Shape* shape = shape_of(graph, add.inputs[side]);
  const bool row = shape != nullptr && shape->size() == 1 && (*shape)[0] == width &&
                   graph.value(add.inputs[side]).type.dtype == DType::kF32;
  return row && is_constant(graph, add.inputs[side]) ? add.inputs[side] : ValueId();
}

struct Sum {
  ValueId left, right, bias;
  Origin origin;
};

// left + right, of the type of the result both, or (left + right) + bias with the first sum read by nobody else.
std::optional<Sum> read_sum(const Graph& graph, const Node& add) {
  const ValueId total = add.outputs[0];
  const auto whole = [&](ValueId id) { return same_type(graph, id, total); };
  if (whole(add.inputs[0]) && whole(add.inputs[1])) return Sum{add.inputs[0], add.inputs[1], {}, add.origin};
  for (const std::size_t side : {0u, 1u}) {
    const ValueId bias = row_of(graph, add, side, shape_of(graph, total)->back()), other = add.inputs[1 - side];
    const Node* inner = producer(graph, other, "Add");
    if (!bias.valid() || inner == nullptr || graph.use_count(other) != 1 || graph.is_output(other)) continue;
    if (!whole(inner->inputs[0]) || !whole(inner->inputs[1])) continue;
    Sum sum{inner->inputs[0], inner->inputs[1], bias, inner->origin};
    sum.origin.merge(add.origin);
    return sum;
  }
  return std::nullopt;
}

bool fuse_skip(Graph& graph, const Norm& norm, RuleReport& report) {
  const Value& summed = graph.value(norm.x);
  if (summed.kind != ValueKind::kResult) return false;
  const NodeId maker = summed.producer;
  const Node& node = graph.node(maker);
  Sum sum;
  if (node.op == "Linear" && node.inputs.size() > 3 && node.inputs[3].valid()) {
    // The branch is the product: its residual is what skips it.
    std::vector<ValueId> inputs(node.inputs.begin(), node.inputs.begin() + 3);
    while (!inputs.back().valid()) inputs.pop_back();
    sum.right = node.inputs[3];
    Builder b(graph, maker, node.origin);
    const Attributes attributes = node.attributes;
    sum.left = b.make("Linear", std::span<const ValueId>(inputs), attributes);
  } else if (node.op == "Add") {
    const auto read = read_sum(graph, node);
    if (!read) {
      record_near_miss(report, graph, maker, 2, "what is added is broadcast");
      return false;
    }
    sum = *read;
  } else {
    record_near_miss(report, graph, maker, 1, fmt::format("{} is no sum", node.op));
    return false;
  }
  sum.origin.merge(graph.node(norm.id).origin);
  std::vector<ValueId> inputs = {sum.left, sum.right, norm.scale};
  if (!norm.is_rms) inputs.push_back(norm.bias);
  inputs.push_back(sum.bias);
  replace_both(graph, norm, norm.is_rms ? "SkipRMSNormalization" : "SkipLayerNormalization", std::move(inputs), {},
               std::move(sum.origin), maker, kSkipRule);
  return true;
}

// --- Embeddings -------------------------------------------------------------------------------------------------

struct Embeddings {
  std::vector<ValueId> tables_and_indices;
  std::vector<double> factors;
  Origin origin;
};

// Collects the terms of a sum; false with a near miss where one of them is no rows of a table, or read elsewhere.
class Terms {
 public:
  Terms(const Graph& graph, RuleReport& report) : graph_(graph), report_(report) {}

  bool collect(ValueId id, double factor, bool is_root) {
    const Value& value = graph_.value(id);
    if (value.kind != ValueKind::kResult) return false;
    const Node& node = graph_.node(value.producer);
    if (node.op != "Add" && node.op != "Mul" && node.op != "Gather")
      return miss(value.producer, node.op + " is no row of a table");
    if (!is_root && (graph_.use_count(id) != 1 || graph_.is_output(id)))
      return miss(value.producer, "a term of the sum is read elsewhere");
    if (depth_ == kMostNodes) return miss(value.producer, "the sum has too many terms");
    found.origin.merge(node.origin);
    ++depth_;
    if (node.op == "Gather") return look_up(value.producer, factor);
    if (node.op == "Add") return collect(node.inputs[0], factor, false) && collect(node.inputs[1], factor, false);
    for (const std::size_t side : {0u, 1u}) {
      const auto number = known_number(graph_, node.inputs[side]);
      if (number && rank_of(graph_, node.inputs[side]) <= rank_of(graph_, node.inputs[1 - side]))
        return collect(node.inputs[1 - side], factor * *number, false);
    }
    return miss(value.producer, "a term is multiplied by no constant number");
  }

  Embeddings found;

 private:
  static constexpr int kMostNodes = 32;

  bool look_up(NodeId id, double factor) {
    const Node& gather = graph_.node(id);
    const Value& table = graph_.value(gather.inputs[0]);
    const bool rows = table.kind == ValueKind::kConstant && table.type.dtype == DType::kF32 &&
                      table.type.shape->size() == 2 && attributes_of(gather).integer("axis") == 0;
    if (!rows) return miss(id, "the table is no constant matrix of f32");
    if (shape_of(graph_, gather.inputs[1]) == nullptr) return miss(id, "the rank of the indices is not known");
    found.tables_and_indices.insert(found.tables_and_indices.end(), {gather.inputs[0], gather.inputs[1]});
    found.factors.push_back(factor);
    return true;
  }

  bool miss(NodeId id, std::string reason) {
    const bool began = graph_.node(id).op == "Gather" || !found.factors.empty();
    if (began) record_near_miss(report_, graph_, id, depth_ + 1, std::move(reason));
    return false;
  }

  const Graph& graph_;
  RuleReport& report_;
  int depth_ = 0;
};

bool fuse_embeddings(Graph& graph, const Norm& norm, RuleReport& report) {
  Terms terms(graph, report);
  if (!terms.collect(norm.x, 1, true)) return false;
  Embeddings& found = terms.found;
  const Dim width = shape_of(graph, norm.x)->back();
  if (!width.is_constant()) return false;
  const NodeId maker = graph.value(norm.x).producer;
  found.origin.merge(graph.node(norm.id).origin);
  std::vector<ValueId> inputs = {norm.scale};
  if (!norm.is_rms) {
    Builder b(graph, maker, found.origin);
    inputs.push_back(norm.bias.valid() ? norm.bias : b.constant(Tensor::full(DType::kF32, {width.value()}, 0)).id());
  }
  inputs.insert(inputs.end(), found.tables_and_indices.begin(), found.tables_and_indices.end());
  Attributes attributes;
  if (std::any_of(found.factors.begin(), found.factors.end(), [](double factor) { return factor != 1; }))
    attributes["factors"] = found.factors;
  replace_both(graph, norm, norm.is_rms ? "EmbedRMSNormalization" : "EmbedLayerNormalization", std::move(inputs),
               std::move(attributes), std::move(found.origin), maker, kEmbedRule);
  return true;
}

}  // namespace

int fuse_residual_normalization(Graph& graph, PassContext& context) {
  RuleReport& skips = context.report_of(kSkipRule);
  RuleReport& embeds = context.report_of(kEmbedRule);
  int fused = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id)) continue;
    std::string refusal;
    const auto norm = read_norm(graph, id, refusal);
    if (!norm) {
      if (!refusal.empty()) record_near_miss(skips, graph, id, 1, std::move(refusal));
      continue;
    }
    const bool embeds_rows = fuse_embeddings(graph, *norm, embeds);
    if (!embeds_rows && !fuse_skip(graph, *norm, skips)) continue;
    ++(embeds_rows ? embeds : skips).applied;
    ++fused;
    context.rewritten(graph, embeds_rows ? kEmbedRule : kSkipRule);
  }
  erase_dead(graph);
  return fused;
}

}  // namespace weft
