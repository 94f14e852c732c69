// One spelling per idea: operators that do nothing go, chains become one operator, synonyms one word.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// Of the Transpose that gives a value of so many axes.
std::vector<std::int64_t> permutation(const Graph& graph, ValueId transposed, std::int64_t rank) {
  if (const auto* given = permutation_of(graph.node(graph.value(transposed).producer))) return *given;
  std::vector<std::int64_t> reversed(static_cast<std::size_t>(rank));
  std::iota(reversed.rbegin(), reversed.rend(), 0);
  return reversed;
}

// Leading axes that are merged, stay in front of a Transpose and part again: the same Transpose of all axes.
Rule transposed_under_merged_axes() {
  const Pattern x = any("x");
  const Pattern merged = open_op("Reshape", {x}).shareable();
  const Pattern transposed = op("Transpose", {merged}).shareable();
  const Pattern parted = open_op("Reshape", {transposed});
  const auto permuted = [=](const Graph& graph, const Match& m) {
    const auto lead = static_cast<std::int64_t>(m.shape(x).size() - m.shape(merged).size());
    std::vector<std::int64_t> result(static_cast<std::size_t>(lead));
    std::iota(result.begin(), result.end(), 0);
    for (const std::int64_t axis : permutation(graph, m[transposed], m.rank(merged))) result.push_back(lead + axis);
    return result;
  };
  return {"transpose-under-merged-axes", parted,
          [=](Match& m) {
            if (m.rank(x) < 3 || m.rank(merged) < 2 || m.rank(merged) >= m.rank(x) || m.rank(parted) != m.rank(x)) {
              return m.refuse("no leading axes are merged and part again");
            }
            const Shape &from = m.shape(x), &between = m.shape(merged), &to = m.shape(parted);
            const std::size_t lead = from.size() - between.size() + 1;  // axes merged into one
            Dim all = from[0];
            for (std::size_t i = 1; i < lead; ++i) all = all * from[i];
            const auto axes = permuted(m.graph(), m);
            bool fits = between[0] == all && axes[lead - 1] == static_cast<std::int64_t>(lead - 1);
            for (std::size_t i = 1; i < between.size(); ++i) fits = fits && between[i] == from[lead - 1 + i];
            for (std::size_t i = 0; i < to.size(); ++i) fits = fits && to[i] == from[static_cast<std::size_t>(axes[i])];
            return fits ||
                   m.refuse(fmt::format("{} by way of {} is {}", to_string(from), to_string(between), to_string(to)));
          },
          [=](Builder& b, const Match& m) { return b.transpose(b.wrap(m[x]), permuted(b.graph(), m)); }};
}

// Transpose of Transpose, Reshape of Reshape.
std::vector<Rule> chain_rules() {
  std::vector<Rule> rules = {transposed_under_merged_axes()};
  {
    const Pattern x = any("x");
    const Pattern inner = op("Transpose", {x}).shareable();
    const Pattern outer = op("Transpose", {inner});
    rules.push_back({"merge-transposes", outer,
                     [=](Match& m) { return m.rank(x) >= 0 || m.refuse("the rank is not known"); },
                     [=](Builder& b, const Match& m) {
                       const auto perm = [&](const Pattern& p) { return permutation(b.graph(), m[p], b.rank(m[x])); };
                       const auto first = perm(inner), second = perm(outer);
                       std::vector<std::int64_t> merged;
                       for (const std::int64_t axis : second) merged.push_back(first[static_cast<std::size_t>(axis)]);
                       return b.transpose(b.wrap(m[x]), std::move(merged));
                     }});
  }
  {
    const Pattern x = any("x");
    const Pattern shape = any("shape");
    const Pattern inner = either({open_op("Reshape", {x}).shareable(), open_op("Unsqueeze", {x}).shareable(),
                                  open_op("Squeeze", {x}).shareable(), open_op("Flatten", {x}).shareable()});
    const Pattern outer = op("Reshape", {inner, shape});
    rules.push_back({"merge-reshapes", outer,
                     [=](Match& m) {
                       // 0 copies from the inner shape: it says the same of x where that extent is the same.
                       const auto& elements = m.graph().value(m[shape]).elements;
                       if (!elements) return m.refuse("the shape is not known");
                       const bool copies = attributes_of(m.node(outer)).integer("allowzero") == 0;
                       const Shape *from = shape_of(m.graph(), m[x]), *between = shape_of(m.graph(), m[inner]);
                       for (std::size_t i = 0; i < elements->size(); ++i) {
                         const bool same = copies && from != nullptr && between != nullptr && i < from->size() &&
                                           i < between->size() && (*from)[i] == (*between)[i];
                         if ((*elements)[i].is(0) && !same) return m.refuse("the shape copies an extent");
                       }
                       return true;
                     },
                     [=](Builder& b, const Match& m) { return b.reshape(b.wrap(m[x]), b.wrap(m[shape])); }});
  }
  return rules;
}

// A product with constant weights and a bias, all that a Linear is.
bool is_plain_gemm(const Graph& graph, const Node& node) {
  const AttributeReader attributes(get_op("Gemm"), node.attributes);
  if (attributes.number("alpha") != 1.0 || attributes.number("beta") != 1.0) return false;
  if (!is_constant(graph, node.inputs[1])) return false;
  if (node.inputs.size() < 3 || !node.inputs[2].valid()) return true;
  const Shape* weight = shape_of(graph, node.inputs[1]);
  const Shape* bias = shape_of(graph, node.inputs[2]);
  return is_constant(graph, node.inputs[2]) && weight != nullptr && bias != nullptr && bias->size() == 1 &&
         (*bias)[0] == (*weight)[attributes.integer("transB") != 0 ? 0 : 1];
}

// The steps of a Gemm of halves are taken in f32 and rounded once, at the end.
void widen_gemm(Graph& graph, NodeId id) {
  const ValueId result = graph.node(id).outputs[0];
  std::vector<ValueId> inputs = graph.node(id).inputs;
  Builder b(graph, id, graph.node(id).origin);
  for (ValueId& input : inputs) {
    if (input.valid()) input = b.cast(b.wrap(input), DType::kF32);
  }
  const Expr wide = b.make("Gemm", inputs, graph.node(id).attributes);
  graph.replace_uses(result, b.cast(wide, graph.value(result).type.dtype));
  graph.erase_node(id);
  expand_node(graph, graph.value(wide).producer);
}

// Gemm is a product and a sum like any other.
int expand_gemm(Graph& graph, PassContext& context) {
  int expanded = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.op != "Gemm") continue;
    const DType dtype = graph.value(node.outputs[0]).type.dtype;
    if ((dtype == DType::kF16 || dtype == DType::kBF16) && !is_plain_gemm(graph, node)) {
      widen_gemm(graph, id);
    } else if (!expand_node(graph, id)) {
      continue;
    }
    context.rewritten(graph, "expand-gemm");
    ++expanded;
  }
  return expanded;
}

// The extent behind -1 is what the others leave of all elements, so that nothing is forgotten by writing -1.
bool is_quotient(const Shape& from, const Shape& to, const std::vector<std::int64_t>& target) {
  Dim others = 1;
  std::size_t place = 0;
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (target[i] == -1)
      place = i;
    else
      others = others * to[i];
  }
  if (others.is(0)) return false;
  const auto quotient = Dim::exact_div(element_count(from), others);
  return quotient && *quotient == to[place];
}

// Reshape targets that inference knows are written out, with at most one symbolic extent as -1: the shape
// arithmetic behind them dies.
int write_out_shapes(Graph& graph, PassContext& context) {
  int written = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    if (node.op != "Reshape" || is_constant(graph, node.inputs[1])) continue;
    const Shape* from = shape_of(graph, node.inputs[0]);
    const Shape* to = shape_of(graph, node.outputs[0]);
    if (from == nullptr || to == nullptr) continue;
    std::vector<std::int64_t> target;
    int inferred = 0;
    bool zero = false;
    for (std::size_t i = 0; i < to->size(); ++i) {
      const Dim& dim = (*to)[i];
      if (dim.is_constant()) {
        target.push_back(dim.value());
        zero = zero || dim.is(0);
      } else if (i < from->size() && (*from)[i] == dim) {
        target.push_back(0);  // copied
      } else {
        target.push_back(-1);
        ++inferred;
      }
    }
    if (inferred > 1 || zero || (inferred == 1 && !is_quotient(*from, *to, target))) continue;
    // -1 beside extents that may be 0 would be undefined for empty tensors: those are copied at most.
    const bool copies = std::find(target.begin(), target.end(), 0) != target.end();
    if (inferred == 1 && copies) {
      // known * x = total has one solution only if the copied extents are not 0.
      bool positive = true;
      for (std::size_t i = 0; i < to->size(); ++i) {
        if (target[i] == 0 && !(*to)[i].always_positive()) positive = false;
      }
      if (!positive) continue;
    }
    // No extent is the number 0, so that 0 may mean a copy.
    graph.node(id).attributes.erase("allowzero");
    const ValueId shape = graph.add_constant(Tensor::vector<std::int64_t>(target), "shape");
    graph.set_input(id, 1, shape);
    context.rewritten(graph, "write-out-shapes");
    ++written;
  }
  return written;
}

}  // namespace

int canonicalize(Graph& graph, PassContext& context) {
  int total = 0;
  static constexpr int kMaxRounds = 10;
  for (int round = 0; round < kMaxRounds; ++round) {
    int changed = expand_gemm(graph, context);
    changed += drop_no_ops(graph, context);
    changed += write_out_shapes(graph, context);
    changed += root_shapes(graph, context);
    changed += canonicalize_reductions(graph, context);
    changed += canonicalize_spelling(graph, context);
    changed += canonicalize_products(graph, context);
    changed += canonicalize_weights(graph, context);
    changed += run_rules(graph, chain_rules(), context);
    erase_dead(graph);
    total += changed;
    if (changed == 0) break;
  }
  return total;
}

}  // namespace weft
