// Finding the rewrite that changes what a graph computes.
#include "passes/bisect.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graph/text.h"
#include "ops/builder.h"
#include "passes/promote.h"

namespace weft {
namespace {

// Two layers of x + gelu(x), and a Softmax.
constexpr std::string_view kGraph = R"(graph "main"(%x: f32[B, 4]) -> ("y" = %y) {
  const %two: f32[] = [2.0]
  const %half: f32[] = [0.5]
  %a: f32[B, 4] = Mul(%x, %two)
  %b: f32[B, 4] = Tanh(%a)
  %c: f32[B, 4] = Add(%x, %b)
  %d: f32[B, 4] = Mul(%c, %half)
  %e: f32[B, 4] = Erf(%d)
  %f: f32[B, 4] = Add(%c, %e)
  %y: f32[B, 4] = Softmax(%f) {axis = -1}
}
)";

Graph parsed() {
  Graph graph = parse_graph(kGraph);
  infer_graph(graph);
  return graph;
}

std::vector<Tensor> inputs() {
  return {Tensor::of<float>({2, 4}, std::vector<float>{1, -2, 0.5, 3, 0.1f, 0.2f, -1, 2})};
}

// Takes the error function for a hyperbolic tangent.
int mistake_erf(Graph& graph) {
  int changed = 0;
  for (const NodeId id : graph.nodes()) {
    if (graph.node(id).op != "Erf") continue;
    Builder b(graph, id);
    const ValueId old = graph.node(id).outputs[0];
    const Expr made = b.tanh(b.wrap(graph.node(id).inputs[0]));
    const std::string name = graph.value(old).name;
    graph.replace_uses(old, made);
    graph.erase_node(id);
    graph.rename_value(made, name);
    ++changed;
  }
  return changed;
}

PassOptions with_mistake() {
  PassOptions options{.passes = {"fold-constants", "canonicalize", "mistake", "dead-code"}};
  options.own_passes["mistake"] = mistake_erf;
  return options;
}

TEST(Bisect, FindsTheRewriteAndTheSmallestGraph) {
  const std::optional<WrongRewrite> wrong = find_wrong_rewrite(parsed(), inputs(), with_mistake(), 1e-6);
  ASSERT_TRUE(wrong);
  EXPECT_EQ(wrong->pass, "mistake");
  EXPECT_EQ(wrong->rule, "mistake");
  EXPECT_EQ(wrong->number, wrong->rewrites);
  ASSERT_EQ(wrong->smallest.graph.node_count(), 1u);
  EXPECT_EQ(wrong->smallest.graph.node(wrong->smallest.graph.nodes()[0]).op, "Erf");
  ASSERT_EQ(wrong->smallest.inputs.size(), 1u);
  EXPECT_EQ(wrong->smallest.inputs[0].shape(), (Extents{2, 4}));
  // It shows the mistake on its own.
  EXPECT_TRUE(find_wrong_rewrite(wrong->smallest.graph, wrong->smallest.inputs, with_mistake(), 1e-6));
}

TEST(Bisect, IsSilentAboutRightRewrites) {
  EXPECT_FALSE(find_wrong_rewrite(parsed(), inputs(), {.passes = default_passes()}, 1e-6));
  // The mistake is smaller than what is allowed.
  EXPECT_FALSE(find_wrong_rewrite(parsed(), inputs(), with_mistake(), 0.5));
}

TEST(Bisect, SeesEveryRewrite) {
  Graph graph = parsed();
  std::vector<std::string> seen;
  PassOptions options = with_mistake();
  options.after_rewrite = [&](const Graph& whole, std::string_view pass, std::string_view rule) {
    verify(whole);
    seen.push_back(std::string(pass) + "/" + std::string(rule));
  };
  optimize(graph, options);
  EXPECT_EQ(std::count(seen.begin(), seen.end(), "mistake/mistake"), 1);
}

TEST(Promote, ComputesInDoublePrecision) {
  // 1 + 1e-10 is 1 in single precision.
  Graph graph = parse_graph(R"(graph "main"(%x: f32[1]) -> ("y" = %y) {
  const %tiny: f32[] = [1e-10]
  const %one: f32[] = [1.0]
  %a: f32[1] = Add(%x, %tiny)
  %half: f16[1] = Cast(%a) {to = type f16}
  %back: f32[1] = Cast(%half) {to = type f32}
  %y: f32[1] = Sub(%back, %one)
}
)");
  const std::vector<Tensor> given = {Tensor::of<double>({1}, std::vector<double>{1.0})};
  const std::vector<Tensor> outputs = evaluate_graph(in_double_precision(graph), given);
  ASSERT_EQ(outputs[0].dtype(), DType::kF64);
  EXPECT_NEAR(outputs[0].data<double>()[0], 1e-10, 1e-13);
}

TEST(Difference, SeesWhatDiffers) {
  const auto vector = [](std::vector<float> values) { return Tensor::vector<float>(values); };
  EXPECT_FALSE(difference_of(vector({1, NAN}), vector({1, NAN})).exceeds(0));
  EXPECT_TRUE(difference_of(vector({1, 2}), vector({1, NAN})).exceeds(1e9));
  EXPECT_TRUE(difference_of(vector({1, 2}), vector({1, 2, 3})).exceeds(1e9));
  const Difference apart = difference_of(vector({1, 2.5}), vector({1, 2}));
  EXPECT_EQ(apart.element, 1);
  EXPECT_DOUBLE_EQ(apart.largest, 0.5);
  EXPECT_TRUE(apart.exceeds(0.2));
  EXPECT_FALSE(apart.exceeds(0.3));
}

}  // namespace
}  // namespace weft
