#include "passes/mask_cone.h"

#include <algorithm>

#include "passes/node_util.h"

namespace weft {
namespace {

constexpr std::size_t kMaxNodes = 400;
constexpr std::int64_t kMostThreshold = 1 << 30;  // larger ones mean "to the end"

}  // namespace

bool is_threshold_reader(std::string_view op) {
  static constexpr std::string_view kOps[] = {"Add",         "Sub",   "Greater", "Less", "GreaterOrEqual",
                                              "LessOrEqual", "Trilu", "Div",     "Mod"};
  return std::find(std::begin(kOps), std::end(kOps), op) != std::end(kOps);
}

std::optional<std::int64_t> threshold_of(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  if (value.kind != ValueKind::kConstant || !is_integer(value.type.dtype) || value.tensor->size() != 1) return {};
  const std::int64_t given = value.tensor->aligned().to_ints().front();
  const std::int64_t number = given < -kMostThreshold ? 0 : std::abs(given);
  if (number < kLeastThreshold || number > kMostThreshold) return {};
  const bool compared = std::any_of(value.uses.begin(), value.uses.end(),
                                    [&](const Use& use) { return is_threshold_reader(graph.node(use.node).op); });
  return compared ? std::optional(number) : std::nullopt;
}

bool appears_in(const MaskUse& use, const std::string& symbol) {
  for (const Dim& dim : {use.batch, use.heads, use.queries, use.keys}) {
    const auto names = dim.symbols();
    if (std::find(names.begin(), names.end(), symbol) != names.end()) return true;
  }
  return false;
}

namespace {

class ConeBuilder {
 public:
  ConeBuilder(const Graph& graph, const MaskUse& use)
      : graph_(graph), use_(use), sizes_vary_(!use.queries.is_constant() || !use.keys.is_constant()) {}

  std::optional<Cone> build(std::string& reason) {
    std::vector<ValueId> pending = {use_.mask};
    std::set<ValueId> seen;
    std::set<NodeId> nodes;
    while (!pending.empty()) {
      const ValueId id = pending.back();
      pending.pop_back();
      if (!id.valid() || !seen.insert(id).second) continue;
      const Value& value = graph_.value(id);
      cone_.is_rounded |= value.type.dtype == DType::kF16 || value.type.dtype == DType::kBF16;
      if (value.kind == ValueKind::kConstant) {
        if (sizes_vary_ && !take_constant(id, reason)) return std::nullopt;
        continue;
      }
      if (value.elements && value.type.shape && is_static(*value.type.shape)) {
        cone_.sizes.insert(id);
        continue;
      }
      if (value.kind == ValueKind::kInput) {
        if (!take_source(id, reason)) return std::nullopt;
        continue;
      }
      const Node& node = graph_.node(value.producer);
      if (!can_run(node, reason)) return std::nullopt;
      if (!nodes.insert(value.producer).second) continue;
      if (nodes.size() > kMaxNodes) {
        reason = "it comes out of too many operators";
        return std::nullopt;
      }
      pending.insert(pending.end(), node.inputs.begin(), node.inputs.end());
    }
    cone_.nodes.assign(nodes.begin(), nodes.end());
    std::sort(cone_.nodes.begin(), cone_.nodes.end(), [&](NodeId a, NodeId b) { return graph_.precedes(a, b); });
    std::sort(cone_.thresholds.begin(), cone_.thresholds.end());
    cone_.thresholds.erase(std::unique(cone_.thresholds.begin(), cone_.thresholds.end()), cone_.thresholds.end());
    return std::move(cone_);
  }

 private:
  bool can_run(const Node& node, std::string& reason) const {
    static constexpr std::string_view kHeavy[] = {"MatMul", "Linear", "Conv", "Softmax", "Attention",
                                                  "Gemm",   "Loop",   "If",   "Scan"};
    const bool heavy = std::find(std::begin(kHeavy), std::end(kHeavy), node.op) != std::end(kHeavy);
    if (!heavy && get_op(node.op).deterministic && node.subgraphs.empty()) return true;
    reason = fmt::format("it depends on {} ({})", report_name(node), node.op);
    return false;
  }

  // Samples show what small constants do. Of large ones a band is known everywhere from where it changes.
  bool take_constant(ValueId id, std::string& reason) {
    if (const auto threshold = threshold_of(graph_, id)) cone_.thresholds.push_back(*threshold);
    const Tensor& tensor = *graph_.value(id).tensor;
    if (is_object(tensor.dtype()) || is_covered_by_samples(tensor, use_.heads)) return true;
    const auto table = read_band_table(tensor);
    if (!table) {
      reason = fmt::format("it is read from the constant {}, which is no band of positions",
                           to_string(graph_.value(id).type));
      return false;
    }
    for (const std::int64_t change : table->changes) {
      if (std::abs(change) >= kLeastThreshold) cone_.thresholds.push_back(std::abs(change));
    }
    cone_.tables.emplace(id, *table);
    return true;
  }

  // Rows are those of the batch, columns the keys, or sizes by names of their own.
  bool take_source(ValueId id, std::string& reason) {
    const Value& value = graph_.value(id);
    const Shape* shape = shape_of(graph_, id);
    const bool is_state = std::find(graph_.inputs().begin(), graph_.inputs().end(), id) == graph_.inputs().end();
    const auto fits = [&](const Dim& dim, const Dim& wanted) {
      return dim == wanted || (dim.symbol_name() && !appears_in(use_, *dim.symbol_name()));
    };
    const bool rows = !is_state && !cone_.source.valid() && shape != nullptr && shape->size() == 2 &&
                      fits((*shape)[0], use_.batch) && fits((*shape)[1], use_.keys);
    if (!rows) {
      reason = fmt::format("it depends on the input \"{}\" of {}", value.name, to_string(value.type));
      return false;
    }
    cone_.source = id;
    return true;
  }

  const Graph& graph_;
  const MaskUse& use_;
  bool sizes_vary_;
  Cone cone_;
};

}  // namespace

std::optional<Cone> find_cone(const Graph& graph, const MaskUse& use, std::string& reason) {
  return ConeBuilder(graph, use).build(reason);
}

}  // namespace weft
