// Products with constant matrices, their bias, their activation and what is added to them as one Linear.
#include "passes/channels.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

Rule linear() {
  const Pattern x = any("x"), weight = constant("weight");
  return {"fuse-linear", matmul(x, weight),
          [=](Match& m) {
            if (m.rank(weight) != 2) return m.refuse("the weight is no matrix");
            return m.rank(x) >= 1 || m.refuse("the rank of the input is not known");
          },
          [=](Builder& b, const Match& m) { return b.make("Linear", {m[x], m[weight]}); }};
}

Rule linear_bias() {
  const Pattern x = any("x"), weight = any("weight"), bias = constant("bias");
  const Pattern product = op("Linear", {x, weight}).with("activation", std::string("none"));
  return {"fuse-linear-bias", product + bias,
          [=](Match& m) {
            const Shape* shape = shape_of(m.graph(), m[bias]);
            if (shape == nullptr || shape->size() != 1 || !((*shape)[0] == m.shape(weight)[1])) {
              return m.refuse("the bias is no vector over the output features");
            }
            return true;
          },
          [=](Builder& b, const Match& m) { return b.make("Linear", {m[x], m[weight], m[bias]}); }};
}

bool has_no_residual(const Graph&, const Node& linear) { return linear.inputs.size() < 4 || !linear.inputs[3].valid(); }

// A number for each output feature, or one for all, multiplies weight and bias.
Rule linear_scale() {
  const Pattern x = any("x"), weight = constant("weight"), scale = constant("scale");
  const Pattern product = open_op("Linear", {x, weight})
                              .with("activation", std::string("none"))
                              .when(has_no_residual, "the Linear adds a residual already");
  const auto factors_of = [=](const Match& m) {
    const std::int64_t rank = m.rank(product);
    return per_channel(m.graph(), m[scale], rank, rank - 1, m.shape(weight)[1].value());
  };
  const auto bias_of = [=](const Match& m) {
    const Node& linear = m.node(product);
    return linear.inputs.size() > 2 ? linear.inputs[2] : ValueId{};
  };
  return {"fuse-linear-scale", product * scale,
          [=](Match& m) {
            if (m.rank(product) < 1) return m.refuse("the rank of the product is not known");
            const auto factors = m.shape(weight)[1].is(0) ? std::nullopt : factors_of(m);
            if (!factors) return m.refuse("there is not one number for each output feature");
            const ValueId bias = bias_of(m);
            if (bias.valid() && !is_constant(m.graph(), bias)) return m.refuse("the bias is no constant");
            return can_scale(m, weight, 1, *factors);
          },
          [=](Builder& b, const Match& m) {
            const std::vector<double> factors = factors_of(m).value();
            const ValueId bias = bias_of(m);
            std::vector<ValueId> inputs = {m[x],
                                           b.constant(scale_along(*m.graph().value(m[weight]).tensor, 1, factors))};
            if (bias.valid()) inputs.push_back(b.constant(scale_along(*m.graph().value(bias).tensor, 0, factors)));
            return b.make("Linear", inputs);
          }};
}

Rule linear_activation(std::string_view name, const std::function<Pattern(const Pattern&)>& activation) {
  const Pattern product = open_op("Linear", {any("x"), any("weight")})
                              .with("activation", std::string("none"))
                              .when(has_no_residual, "the Linear adds a residual already");
  return {"fuse-linear-" + std::string(name),
          activation(product),
          {},
          [=, activation_name = std::string(name)](Builder& b, const Match& m) {
            const Graph& g = b.graph();
            const std::vector<ValueId> inputs = g.node(g.value(m[product]).producer).inputs;
            return b.make("Linear", inputs, {{"activation", activation_name}});
          }};
}

// The sum of a Linear and a tensor of its shape: the branch that skips a block, added while the product is at hand.
Rule linear_residual() {
  const Pattern residual = any("residual");
  const Pattern product =
      open_op("Linear", {any("x"), any("weight")}).when(has_no_residual, "the Linear adds a residual already");
  return {"fuse-linear-residual", product + residual,
          [=](Match& m) {
            if (m[residual] == m[product]) return m.refuse("the Linear is added to itself");
            return same_type(m.graph(), m[product], m[residual]) ||
                   m.refuse("what is added may have another shape than the Linear");
          },
          [=](Builder& b, const Match& m) {
            const Graph& g = b.graph();
            const Node& linear = g.node(g.value(m[product]).producer);
            std::vector<ValueId> inputs = linear.inputs;
            const Attributes attributes = linear.attributes;
            inputs.resize(3);
            inputs.push_back(m[residual]);
            return b.make("Linear", inputs, attributes);
          }};
}

// The same of packed weights.
Rule packed_bias() {
  const Pattern bias = constant("bias");
  const Pattern product = open_op("MatMulNBits", {any("x"), constant("weight"), constant("scales")})
                              .when([](const Graph&, const Node& node) { return node.inputs.size() < 6; },
                                    "the product has a bias already");
  return {"fuse-packed-bias", product + bias,
          [=](Match& m) {
            const std::int64_t columns = attributes_of(m.node(product)).integer("N");
            return (m.rank(bias) == 1 && m.shape(bias)[0].is(columns) && m.dtype(bias) == DType::kF32 &&
                    m.rank(product) >= 1) ||
                   m.refuse("the bias is no vector over the output features");
          },
          [=](Builder& b, const Match& m) {
            std::vector<ValueId> inputs = m.node(product).inputs;
            const Attributes attributes = m.node(product).attributes;
            inputs.resize(5);
            inputs.push_back(m[bias]);
            return b.make("MatMulNBits", inputs, attributes);
          }};
}

}  // namespace

int fuse_linear(Graph& graph, PassContext& context) {
  const std::vector<Rule> rules = {
      linear(),
      linear_bias(),
      packed_bias(),
      linear_scale(),
      linear_bias(),
      linear_activation("relu", [](const Pattern& x) { return op("Relu", {x}); }),
      linear_activation("gelu",
                        [](const Pattern& x) { return op("Gelu", {x}).with("approximate", std::string("none")); }),
      linear_activation("gelu_tanh",
                        [](const Pattern& x) { return op("Gelu", {x}).with("approximate", std::string("tanh")); }),
      linear_activation("silu", [](const Pattern& x) { return op("Swish", {x}).with("alpha", 1.0); }),
      linear_activation("tanh", [](const Pattern& x) { return tanh(x); }),
      linear_activation("sigmoid", [](const Pattern& x) { return sigmoid(x); }),
      linear_residual(),
  };
  return run_rules(graph, rules, context);
}

}  // namespace weft
