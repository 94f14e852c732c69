// Products of bytes that become floats, as dynamic quantization writes them, as one operator.
#include "passes/channels.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// A tensor of one element, whatever its rank (up to `most`).
bool is_single(const Graph& graph, ValueId id, std::int64_t most) {
  const Shape* shape = shape_of(graph, id);
  return shape != nullptr && static_cast<std::int64_t>(shape->size()) <= most &&
         std::all_of(shape->begin(), shape->end(), [](const Dim& dim) { return dim.is(1); });
}

// As a scalar or a vector.
Expr flattened(Builder& b, ValueId id) {
  const Expr value = b.wrap(id);
  return b.rank(id) <= 1 ? value : b.reshape(value, {-1});
}

// float(sums) * (a_scale * b_scale), in any order.
class IntegerToFloat {
 public:
  // With both scales wherever there are two.
  std::vector<Rule> rules() const {
    return {rule(either({wide_ * scales_, wide_ * one_ * other_})), rule(wide_ * one_)};
  }

 private:
  Rule rule(const Pattern& root) const {
    const IntegerToFloat self = *this;
    return {"fuse-integer-product", root, [self](Match& m) { return self.accept(m); },
            [self](Builder& b, const Match& m) { return self.build(b, m); }};
  }

  // Which of the factors belongs to A, which has one scale, and which to B; an absent one is 1.
  struct Scales {
    ValueId a, b;
  };

  std::optional<Scales> scales_of(const Match& m) const {
    const Graph& graph = m.graph();
    const ValueId one = m[one_], other = m.maybe(other_);
    const std::int64_t rank = m.rank(product_);
    const auto fits_a = [&](ValueId id) { return is_single(graph, id, rank); };
    const auto fits_b = [&](ValueId id) {
      const Shape* shape = shape_of(graph, id);
      if (fits_a(id)) return true;
      return shape != nullptr && !shape->empty() && static_cast<std::int64_t>(shape->size()) <= rank &&
             shape->back() == m.shape(product_).back() &&
             std::all_of(shape->begin(), shape->end() - 1, [](const Dim& dim) { return dim.is(1); });
    };
    if (!other.valid()) {
      if (fits_a(one) && !is_constant(graph, one)) return Scales{one, {}};
      return fits_b(one) ? std::optional(Scales{{}, one}) : std::nullopt;
    }
    // Weights are constants, what they multiply is not.
    const bool swaps = is_constant(graph, one) && !is_constant(graph, other);
    const Scales likely = swaps ? Scales{other, one} : Scales{one, other};
    for (const Scales& scales : {likely, Scales{likely.b, likely.a}}) {
      if (fits_a(scales.a) && fits_b(scales.b)) return scales;
    }
    return std::nullopt;
  }

  bool accept(Match& m) const {
    const Graph& graph = m.graph();
    if (m.rank(a_) < 2 || m.rank(b_) < 2) return m.refuse("the product is none of matrices");
    for (const Pattern& factor : {wide_, one_, other_}) {
      if (m.has(factor) && m.dtype(factor) != DType::kF32) return m.refuse("the sums do not become f32");
    }
    const std::vector<ValueId>& inputs = m.node(product_).inputs;
    if (inputs.size() > 2 && inputs[2].valid() && !is_single(graph, inputs[2], 1))
      return m.refuse("A has more zero points than one");
    if (inputs.size() > 3 && inputs[3].valid() && rank_of(graph, inputs[3]) > 1)
      return m.refuse("the zero points of B are no vector");
    return scales_of(m) || m.refuse("the scales are not one number for A and a row for B");
  }

  Expr build(Builder& b, const Match& m) const {
    const Scales scales = scales_of(m).value();
    std::vector<ValueId> zeros(m.node(product_).inputs.begin() + 2, m.node(product_).inputs.end());
    zeros.resize(2);
    const auto given = [&](ValueId id) { return id.valid() ? flattened(b, id) : b.scalar(DType::kF32, 1.0); };
    return b.make("MatMulIntegerToFloat", {m[a_], m[b_], given(scales.a), given(scales.b), zeros[0], zeros[1]});
  }

  Pattern a_ = any("A"), b_ = any("B"), one_ = any("scale"), other_ = any("other scale");
  Pattern product_ = open_op("MatMulInteger", {a_, b_}), wide_ = cast(product_);
  Pattern scales_ = (one_ * other_).shareable();
};

Rule integer_product_bias(std::string_view op, std::size_t place) {
  const Pattern bias = constant("bias");
  const Pattern product = open_op(op, {any("A"), any("B")})
                              .when([=](const Graph&, const Node& node) { return node.inputs.size() <= place; },
                                    "the product has a bias already");
  return {"fuse-integer-product-bias", product + bias,
          [=](Match& m) {
            const std::int64_t rank = m.rank(product);
            const Dim* columns = rank < 2 ? nullptr : &m.shape(product).back();
            if (columns == nullptr || !columns->is_constant())
              return m.refuse("how many columns there are is not known");
            const bool row = m.dtype(bias) == DType::kF32 &&
                             per_channel(m.graph(), m[bias], rank, rank - 1, columns->value()).has_value();
            return row || m.refuse("the bias is no row");
          },
          [=](Builder& b, const Match& m) {
            const std::int64_t rank = m.rank(product);
            const auto values = per_channel(m.graph(), m[bias], rank, rank - 1, m.shape(product).back().value());
            std::vector<ValueId> inputs = m.node(product).inputs;
            inputs.resize(place);
            inputs.push_back(b.constant(Tensor::vector<float>(std::vector<float>(values->begin(), values->end()))));
            return b.make(op, inputs);
          }};
}

// The product is taken with all axes, and flattened then: the Reshape meets the one that undoes it.
Rule product_before_flattening() {
  const Pattern x = any("x"), weight = constant("weight"), flat = reshape(x).shareable();
  const Pattern product = open_op("DynamicQuantizeMatMul", {flat, weight});
  return {"quantized-product-before-flattening", product,
          [=](Match& m) {
            if (m.rank(flat) != 2 || m.rank(x) < 3) return m.refuse("the rows are not flattened");
            if (m.rank(weight) != 2 || m.shape(weight)[1].is(0)) return m.refuse("the weight is no matrix");
            const Dim& size = m.shape(flat)[1];
            return (size.is_constant() && !size.is(0) && m.shape(x).back() == size) ||
                   m.refuse("the columns are mixed");
          },
          [=](Builder& b, const Match& m) {
            std::vector<ValueId> inputs = m.node(product).inputs;
            inputs[0] = m[x];
            const Expr y = b.make("DynamicQuantizeMatMul", inputs);
            return b.reshape(y, std::vector<std::int64_t>{-1, b.dim(y, -1).value()});
          }};
}

// A product that alone reads what was quantized over its range quantizes it itself.
bool absorb_quantization(Graph& graph, NodeId id) {
  const std::vector<ValueId> inputs = graph.node(id).inputs;
  if (inputs.size() < 5 || !inputs[4].valid()) return false;
  const Value& bytes = graph.value(inputs[0]);
  if (bytes.kind != ValueKind::kResult) return false;
  const NodeId maker = bytes.producer;
  const Node& quantize = graph.node(maker);
  const std::vector<ValueId> made = quantize.outputs;
  if (quantize.op != "DynamicQuantizeLinear" || made.size() != 3) return false;
  if (made != std::vector<ValueId>{inputs[0], inputs[2], inputs[4]}) return false;
  const bool alone = std::all_of(made.begin(), made.end(),
                                 [&](ValueId v) { return graph.value(v).uses.size() == 1 && !graph.is_output(v); });
  if (!alone || rank_of(graph, quantize.inputs[0]) < 2) return false;
  Origin origin = quantize.origin;
  origin.merge(graph.node(id).origin);
  Builder b(graph, id, std::move(origin));
  std::vector<ValueId> given = {quantize.inputs[0], inputs[1], inputs[3]};
  given.insert(given.end(), inputs.begin() + 5, inputs.end());
  const ValueId y = b.make("DynamicQuantizeMatMul", given);
  replace_value(graph, graph.node(id).outputs[0], y, "fuse-dynamic-quantization");
  return true;
}

int absorb_quantizations(Graph& graph, PassContext& context) {
  RuleReport& report = context.report_of("fuse-dynamic-quantization");
  int fused = 0;
  for (const NodeId id : graph.nodes()) {
    if (!graph.contains(id) || graph.node(id).op != "MatMulIntegerToFloat" || !absorb_quantization(graph, id)) continue;
    ++fused;
    context.rewritten(graph, "fuse-dynamic-quantization");
  }
  report.applied += fused;
  return fused;
}

}  // namespace

int fuse_quantized(Graph& graph, PassContext& context) {
  int fused = run_rules(graph, IntegerToFloat().rules(), context);
  fused += run_rules(graph, {integer_product_bias("MatMulIntegerToFloat", 6)}, context);
  fused += absorb_quantizations(graph, context);
  return fused +
         run_rules(graph, {integer_product_bias("DynamicQuantizeMatMul", 4), product_before_flattening()}, context);
}

}  // namespace weft
