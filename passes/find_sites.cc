#include "passes/find_sites.h"

#include <algorithm>
#include <deque>
#include <set>

#include "passes/node_util.h"

namespace weft {
namespace {

using Words = std::span<const std::string_view>;

constexpr int kMaxSteps = 96;

constexpr std::string_view kProducts[] = {"MatMul", "Einsum", "Gemm"};
constexpr std::string_view kProjections[] = {"Linear",
                                             "MatMul",
                                             "Gemm",
                                             "Einsum",
                                             "MatMulNBits",
                                             "MatMulInteger",
                                             "Conv",
                                             "QLinearMatMul",
                                             "FusedConv",
                                             "MatMulIntegerToFloat",
                                             "DynamicQuantizeMatMul"};
// Between the scores and the softmax, and between the weights and the product with v: whatever changes numbers one by
// one, masks, pads or rearranges, whether or not a rule can take it in.
constexpr std::string_view kAboveSoftmax[] = {
    "Add",     "Sub",       "Mul",    "Div",    "Neg",       "Abs",           "Pow",      "Sqrt",
    "Exp",     "Log",       "Relu",   "Tanh",   "Sigmoid",   "LeakyRelu",     "Softplus", "Gelu",
    "Swish",   "Erf",       "Where",  "Max",    "Min",       "Clip",          "Cast",     "Identity",
    "Reshape", "Transpose", "Concat", "Expand", "Squeeze",   "Unsqueeze",     "Pad",      "Tile",
    "Trilu",   "Slice",     "Split",  "Gather", "ScatterND", "GatherElements"};
constexpr std::string_view kBelowSoftmax[] = {"Where",    "Reshape",   "Cast",   "Mul",     "Div",       "Add",  "Sub",
                                              "IsNaN",    "Transpose", "Slice",  "Squeeze", "Unsqueeze", "Clip", "Relu",
                                              "Identity", "Dropout",   "Expand", "Concat",  "Pad"};
// Between a projection and the product of the scores (or weights): cut up, rearranged, rotated, normalised, repeated.
constexpr std::string_view kBelowProjection[] = {"Reshape",
                                                 "Transpose",
                                                 "Squeeze",
                                                 "Unsqueeze",
                                                 "Expand",
                                                 "Rotary",
                                                 "Split",
                                                 "Slice",
                                                 "Gather",
                                                 "Mul",
                                                 "Div",
                                                 "Add",
                                                 "Sub",
                                                 "Neg",
                                                 "Cast",
                                                 "Concat",
                                                 "Tile",
                                                 "Flatten",
                                                 "Identity",
                                                 "Pow",
                                                 "Sqrt",
                                                 "ReduceMean",
                                                 "Reciprocal",
                                                 "RMSNormalization",
                                                 "L2Normalization",
                                                 "LayerNormalization",
                                                 "CacheAppend",
                                                 "Where",
                                                 "LpNormalization",
                                                 "ReduceL2",
                                                 "ReduceSum",
                                                 "Max",
                                                 "Clip",
                                                 "Pad"};
// What leaves the input of a product the same tensor.
constexpr std::string_view kSameInput[] = {"Reshape", "Flatten",   "Identity",  "Cast",
                                           "Squeeze", "Unsqueeze", "Transpose", "DynamicQuantizeLinear"};

// Between halves or pairs that change places and where they are put together.
constexpr std::string_view kSamePart[] = {"Reshape", "Squeeze",   "Unsqueeze", "Identity",
                                          "Cast",    "Transpose", "Flatten"};

bool is_one_of(std::string_view op, Words words) { return std::find(words.begin(), words.end(), op) != words.end(); }

class SiteFinder {
 public:
  explicit SiteFinder(const Graph& graph) : graph_(graph) {
    for (const ValueId id : graph.inputs()) data_.insert(id);
    for (const State& state : graph.states()) data_.insert(state.current);
    for (const NodeId id : graph.nodes()) {
      const Node& node = graph.node(id);
      // How large something is depends on the inputs, but not on what is in them.
      if (node.op == "Shape" || node.op == "Size") continue;
      if (std::none_of(node.inputs.begin(), node.inputs.end(), [&](ValueId v) { return data_.contains(v); })) continue;
      for (const ValueId output : node.outputs) data_.insert(output);
    }
  }

  std::vector<FoundSite> run() {
    for (const NodeId id : graph_.nodes()) {
      const Node& node = graph_.node(id);
      if (node.op == "Attention") {
        sites_.push_back({SiteKind::kAttention, id, {}, {}});
        add_projections(id, node.inputs[0], node.inputs[1], node.inputs[2]);
      } else if (node.op == "Softmax") {
        add_softmax(id, node);
      } else if (node.op.ends_with("Normalization") && node.op != "BatchNormalization" &&
                 node.op != "LpNormalization") {
        sites_.push_back({SiteKind::kNorm, id, {}, {}});
      } else if (is_root_of_mean_square(node) || is_dividing_length(node)) {
        sites_.push_back({SiteKind::kNorm, id, {}, {}});
      } else if (node.op == "Rotary" || is_rotation(node)) {
        sites_.push_back({SiteKind::kRotary, id, {}, {}});
      }
    }
    return std::move(sites_);
  }

 private:
  bool is_data(ValueId id) const { return id.valid() && data_.contains(id); }

  // The nearest value above `from` (itself included) whose producer `wanted` takes, through these operators.
  template <class Wanted>
  NodeId above(ValueId from, Words through, Wanted wanted) const {
    std::deque<ValueId> pending = {from};
    std::set<NodeId> seen;
    for (int steps = 0; !pending.empty() && steps < kMaxSteps; ++steps) {
      const Value& value = graph_.value(pending.front());
      pending.pop_front();
      if (value.kind != ValueKind::kResult || !seen.insert(value.producer).second) continue;
      const Node& node = graph_.node(value.producer);
      if (wanted(node)) return value.producer;
      if (!is_one_of(node.op, through)) continue;
      for (const ValueId input : node.inputs) {
        if (is_data(input)) pending.push_back(input);
      }
    }
    return {};
  }

  // Not a product with a matrix of the model's own.
  bool makes_scores(const Node& node) const {
    if (!is_one_of(node.op, kProducts) || node.inputs.size() < 2) return false;
    return std::all_of(node.inputs.begin(), node.inputs.begin() + 2,
                       [&](ValueId id) { return is_data(id) || rank_of(graph_, id) > 2; });
  }

  // The product that weighs something with the softmax, and what it weighs.
  std::pair<NodeId, ValueId> weighed_by(ValueId weights) const {
    std::deque<ValueId> pending = {weights};
    std::set<ValueId> seen;
    for (int steps = 0; !pending.empty() && steps < kMaxSteps; ++steps) {
      const ValueId value = pending.front();
      pending.pop_front();
      if (!seen.insert(value).second) continue;
      for (const Use& use : graph_.value(value).uses) {
        const Node& node = graph_.node(use.node);
        if (is_one_of(node.op, kProducts) && node.inputs.size() >= 2 && use.input < 2) {
          const ValueId other = node.inputs[1 - use.input];
          if (is_data(other)) return {use.node, other};
        }
        if (is_one_of(node.op, kBelowSoftmax)) pending.push_back(node.outputs[0]);
      }
    }
    return {};
  }

  void add_softmax(NodeId id, const Node& softmax) {
    const NodeId scores = above(softmax.inputs[0], kAboveSoftmax, [&](const Node& node) { return makes_scores(node); });
    const auto [product, v] = weighed_by(softmax.outputs[0]);
    if (!scores.valid() || !product.valid()) {
      if (is_data(softmax.inputs[0])) sites_.push_back({SiteKind::kSoftmax, id, {}, {}});
      return;
    }
    sites_.push_back({SiteKind::kAttention, id, {}, {}});
    add_projections(id, graph_.node(scores).inputs[0], graph_.node(scores).inputs[1], v);
  }

  // A root (or a power of a half) of the mean of squares of data.
  bool is_root_of_mean_square(const Node& node) const {
    const bool root = node.op == "Sqrt" || (node.op == "Pow" && [&] {
                        const auto power = known_number(graph_, node.inputs[1]);
                        return power && (*power == 0.5 || *power == -0.5);
                      }());
    if (!root || !is_data(node.inputs[0])) return false;
    static constexpr std::string_view kThrough[] = {"Add",      "Cast",   "Max",       "Clip",
                                                    "Identity", "Expand", "Unsqueeze", "Reshape"};
    const NodeId mean = above(node.inputs[0], kThrough, [&](const Node& n) { return is_mean_square(n); });
    return mean.valid();
  }

  // A length of data by which they are divided.
  bool is_dividing_length(const Node& node) const {
    if (node.op != "ReduceL2" || !is_data(node.inputs[0])) return false;
    static constexpr std::string_view kThrough[] = {"Max", "Clip", "Expand", "Mul", "Add", "Unsqueeze", "Reshape"};
    std::deque<ValueId> pending = {node.outputs[0]};
    for (int steps = 0; !pending.empty() && steps < kMaxSteps; ++steps) {
      const ValueId value = pending.front();
      pending.pop_front();
      for (const Use& use : graph_.value(value).uses) {
        const Node& reader = graph_.node(use.node);
        if (reader.op == "Div" && use.input == 1 && reader.inputs[0] == node.inputs[0]) return true;
        if (is_one_of(reader.op, kThrough)) pending.push_back(reader.outputs[0]);
      }
    }
    return false;
  }

  bool is_square(ValueId id) const {
    const Node* product = producer(graph_, id, "Mul");
    if (product != nullptr && product->inputs[0] == product->inputs[1]) return true;
    const Node* power = producer(graph_, id, "Pow");
    return power != nullptr && known_number(graph_, power->inputs[1]) == 2.0;
  }

  // A mean, or a sum over a number, of squares.
  bool is_mean_square(const Node& node) const {
    if (node.op == "ReduceMean") return is_square(node.inputs[0]);
    if (node.op != "Div" && node.op != "Mul") return false;
    for (std::size_t side = 0; side < (node.op == "Mul" ? 2u : 1u); ++side) {
      if (is_data(node.inputs[1 - side])) continue;
      if (producer(graph_, node.inputs[side], "ReduceSumSquare") != nullptr) return true;
      const Node* sum = producer(graph_, node.inputs[side], "ReduceSum");
      if (sum != nullptr && is_square(sum->inputs[0])) return true;
    }
    return false;
  }

  // --- Rotary embedding ----------------------------------------------------------------------------------------

  // What a value is a part of: a piece of Split, Slice or Gather, under other views.
  ValueId whole_of(ValueId part) const {
    for (int step = 0; step < kMaxSteps && is_data(part) && graph_.value(part).kind == ValueKind::kResult; ++step) {
      const Node& node = graph_.node(graph_.value(part).producer);
      if (node.op == "Split" || node.op == "Slice" || node.op == "Gather") return node.inputs[0];
      if (!is_one_of(node.op, kSamePart)) break;
      part = node.inputs[0];
    }
    return {};
  }

  // The first node below `value` that is `op`, through other views.
  NodeId below(ValueId value, std::string_view op) const {
    std::deque<ValueId> pending = {value};
    for (int steps = 0; !pending.empty() && steps < kMaxSteps; ++steps) {
      const ValueId current = pending.front();
      pending.pop_front();
      for (const Use& use : graph_.value(current).uses) {
        const Node& node = graph_.node(use.node);
        if (node.op == op) return use.node;
        if (is_one_of(node.op, kSamePart)) pending.push_back(node.outputs[0]);
      }
    }
    return {};
  }

  // What a is a part of in a product a * table; none for other values.
  ValueId whole_of_factor(ValueId product) const {
    const Node* mul = producer(graph_, product, "Mul");
    if (mul == nullptr) return {};
    const ValueId whole = whole_of(mul->inputs[0]);
    return whole.valid() ? whole : whole_of(mul->inputs[1]);
  }

  // One part negated and put together with another part of the same, times sines, added to something; or the
  // difference of two parts of the same, each times a table, put together with their sum.
  bool is_rotation(const Node& node) const {
    if (node.op == "Neg") {
      const ValueId whole = whole_of(node.inputs[0]);
      const NodeId joined = whole.valid() ? below(node.outputs[0], "Concat") : NodeId();
      if (!joined.valid()) return false;
      const Node& concat = graph_.node(joined);
      const bool same = std::any_of(concat.inputs.begin(), concat.inputs.end(),
                                    [&](ValueId input) { return whole_of(input) == whole; });
      const NodeId product = same ? below(concat.outputs[0], "Mul") : NodeId();
      return product.valid() && below(graph_.node(product).outputs[0], "Add").valid();
    }
    if (node.op != "Sub") return false;
    const ValueId whole = whole_of_factor(node.inputs[0]);
    if (!whole.valid() || whole_of_factor(node.inputs[1]) != whole) return false;
    const NodeId joined = below(node.outputs[0], "Concat");
    return joined.valid() && std::any_of(graph_.node(joined).inputs.begin(), graph_.node(joined).inputs.end(),
                                         [&](ValueId input) { return is_sum_of_parts(input, whole); });
  }

  bool is_sum_of_parts(ValueId value, ValueId whole) const {
    const NodeId sum = above(value, kSamePart, [](const Node& node) { return node.op == "Add"; });
    return sum.valid() && std::all_of(graph_.node(sum).inputs.begin(), graph_.node(sum).inputs.end(),
                                      [&](ValueId term) { return whole_of_factor(term) == whole; });
  }

  // --- Projections ---------------------------------------------------------------------------------------------

  bool is_projection(const Node& node) const {
    if (!is_projection_operator(node.op) || node.inputs.size() < 2) return false;
    const Value& weight = graph_.value(node.inputs[1]);
    if (is_data(node.inputs[1])) return node.op == "Einsum" && !is_data(node.inputs[0]);
    if (!is_data(node.inputs[0])) return false;
    if (node.op != "Conv" && node.op != "FusedConv") return true;
    // A convolution whose kernel is one point wide is a product.
    return weight.type.shape && weight.type.shape->size() > 2 &&
           std::all_of(weight.type.shape->begin() + 2, weight.type.shape->end(),
                       [](const Dim& extent) { return extent.is(1); });
  }

  // What a projection reads, by whichever name.
  ValueId source_of(NodeId projection) const {
    const Node& node = graph_.node(projection);
    ValueId value = is_data(node.inputs[0]) ? node.inputs[0] : node.inputs[1];
    for (int step = 0; step < kMaxSteps; ++step) {
      const Value& current = graph_.value(value);
      if (current.kind != ValueKind::kResult) return value;
      const Node& maker = graph_.node(current.producer);
      if (!is_one_of(maker.op, kSameInput)) return value;
      value = maker.inputs[0];
    }
    return value;
  }

  void add_projections(NodeId core, ValueId q, ValueId k, ValueId v) {
    std::vector<NodeId> parts;
    std::vector<ValueId> sources;
    for (const ValueId operand : {q, k, v}) {
      const NodeId part = above(operand, kBelowProjection, [&](const Node& node) { return is_projection(node); });
      parts.push_back(part);
      sources.push_back(part.valid() ? source_of(part) : ValueId());
    }
    if (!parts[1].valid() || !parts[2].valid() || sources[1] != sources[2]) return;
    if (!parts[0].valid() || sources[0] != sources[1]) parts.erase(parts.begin());
    std::vector<NodeId> distinct;
    for (const NodeId part : parts) {
      if (std::find(distinct.begin(), distinct.end(), part) == distinct.end()) distinct.push_back(part);
    }
    sites_.push_back({SiteKind::kProjections, distinct.front(), distinct, core});
  }

  const Graph& graph_;
  std::set<ValueId> data_;  // what depends on the inputs of a run
  std::vector<FoundSite> sites_;
};

}  // namespace

std::vector<FoundSite> find_sites(const Graph& graph) { return SiteFinder(graph).run(); }

Words below_projection() { return kBelowProjection; }

bool is_projection_operator(std::string_view op) { return is_one_of(op, kProjections); }

}  // namespace weft
