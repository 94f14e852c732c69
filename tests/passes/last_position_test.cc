#include <gtest/gtest.h>

#include "ops/builder.h"
#include "passes/pipeline.h"
#include "tests/tensors.h"

namespace weft {
namespace {

const Dim B = Dim::symbol("B"), S = Dim::symbol("S");

// The end of a decoder: projection with residual, feed-forward with residual, norm, head. `mixed` mixes positions.
struct Model {
  Graph graph;
  ValueId feed_forward;

  Model() {
    const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, S, Dim(4)}});
    const ValueId mixed = graph.add_input("mixed", {DType::kF32, Shape{B, S, Dim(6)}});
    Builder b(graph);
    const auto weight = [&](Extents shape) { return b.constant(random_floats(std::move(shape), 7)).id(); };
    const Expr h = b.make("Linear", {mixed, weight({6, 4}), weight({4}), x});
    const Expr n = b.make("RMSNormalization", {h, weight({4})}, {{"axis", std::int64_t{-1}}});
    const Expr gate = b.make("Linear", {n, weight({4, 8})}, {{"activation", std::string("silu")}});
    const Expr wide = gate * b.make("MatMul", {n, weight({4, 8})});
    feed_forward = wide;
    const ValueId sum[] = {h, b.make("Linear", {wide, weight({8, 4})}) * 0.5, weight({4})};
    const std::vector<Expr> skip = b.make_many("SkipRMSNormalization", sum, 2);
    const Expr out = skip[0] + skip[1];
    const Expr last = b.make("LayerNormalization", {out, weight({4}), weight({4})}, {{"axis", std::int64_t{2}}});
    graph.add_output("logits", b.make("Linear", {last, weight({4, 9})}));
    graph.add_output("mixed_too", b.make("Softmax", {mixed}, {{"axis", std::int64_t{1}}}));
  }

  std::vector<Tensor> run(std::int64_t batch, std::int64_t length) const {
    return evaluate_graph(graph,
                          std::vector{random_floats({batch, length, 4}, 1), random_floats({batch, length, 6}, 2)});
  }
};

Tensor last_of(const Tensor& x) {
  const std::int64_t batch = x.extent(0), length = x.extent(1), width = x.extent(2);
  Tensor result = Tensor::uninitialized(DType::kF32, {batch, 1, width});
  for (std::int64_t b = 0; b < batch; ++b) {
    const auto row = x.data<float>().subspan(static_cast<std::size_t>((b * length + length - 1) * width),
                                             static_cast<std::size_t>(width));
    std::copy(row.begin(), row.end(), result.mutable_data<float>().begin() + b * width);
  }
  return result;
}

int count(const Graph& graph, std::string_view op) {
  int found = 0;
  for (const NodeId id : graph.nodes()) found += graph.node(id).op == op;
  return found;
}

TEST(LastPosition, IsAllThatLongRunsCompute) {
  const Model whole;
  Model model;
  EXPECT_EQ(keep_last_position(model.graph, {"logits", "absent"}), 1);
  EXPECT_GT(count(model.graph, "Slice"), 0);
  EXPECT_EQ(count(model.graph, "Linear"), count(whole.graph, "Linear"));
  for (const std::int64_t batch : {0, 1, 3}) {
    for (const std::int64_t length : {0, 1, 7, 32, 33, 70}) {
      SCOPED_TRACE(fmt::format("{} x {}", batch, length));
      const std::vector<Tensor> expected = whole.run(batch, length), actual = model.run(batch, length);
      EXPECT_TRUE(actual[0].identical(length > kAllPositions ? last_of(expected[0]) : expected[0]));
      EXPECT_TRUE(actual[1].identical(expected[1]));
    }
  }
}

// Projections that were joined are cut as well: the Split behind them keeps each position by itself.
TEST(LastPosition, ReachesThroughSplits) {
  PassOptions options;
  options.passes = {"fuse-linear", "fuse-gate-up"};
  Model whole, model;
  for (Model* each : {&whole, &model}) optimize(each->graph, options);
  ASSERT_EQ(count(model.graph, "Split"), 1);
  EXPECT_EQ(keep_last_position(model.graph, {"logits"}), 1);
  for (const std::int64_t length : {0, 1, 33}) {
    const std::vector<Tensor> expected = whole.run(2, length), actual = model.run(2, length);
    EXPECT_TRUE(actual[0].identical(length > kAllPositions ? last_of(expected[0]) : expected[0]));
  }
  // Nothing that carries all positions is left but what comes in.
  for (const NodeId id : model.graph.nodes()) {
    if (model.graph.node(id).op != "Split") continue;
    EXPECT_FALSE(model.graph.value(model.graph.node(id).outputs[0]).type.shape->at(1) == S);
  }
}

// What the middle makes is read elsewhere: only what comes behind it is cut.
TEST(LastPosition, StopsAtWhatOthersRead) {
  Model whole, model;
  for (Model* each : {&whole, &model}) each->graph.add_output("inside", each->feed_forward);
  EXPECT_EQ(keep_last_position(model.graph, {"logits"}), 1);
  EXPECT_EQ(count(model.graph, "Linear"), count(whole.graph, "Linear"));
  const std::vector<Tensor> expected = whole.run(2, 40), actual = model.run(2, 40);
  EXPECT_TRUE(actual[0].identical(last_of(expected[0])));
  EXPECT_TRUE(actual[2].identical(expected[2]));
}

// All positions say by what they are quantized, whichever is multiplied.
TEST(LastPosition, OfQuantizedProducts) {
  Graph whole;
  const ValueId x = whole.add_input("x", {DType::kF32, Shape{B, S, Dim(4)}});
  Builder b(whole);
  const auto product = [&](Expr input, std::int64_t columns) {
    const Expr weight = b.constant(random_bytes(DType::kI8, {4, columns}, 3)),
               scale = b.constant(Tensor::scalar(0.01f));
    const Expr none, bias = b.constant(random_floats({columns}, 5));
    return b.make("DynamicQuantizeMatMul", {input.id(), weight.id(), scale.id(), none.id(), bias.id()});
  };
  const Expr h = b.unary("Relu", product(b.wrap(x), 4));
  whole.add_output("logits", product(h, 9) * 0.5);
  Graph graph = whole.clone();
  EXPECT_EQ(keep_last_position(graph, {"logits"}), 1);
  EXPECT_EQ(count(graph, "MatMulIntegerToFloat"), 1);
  EXPECT_EQ(count(graph, "DynamicQuantizeMatMul"), 1);
  for (const std::int64_t length : {0, 1, 32, 33}) {
    const std::vector<Tensor> given = {random_floats({2, length, 4}, 1)};
    const Tensor expected = evaluate_graph(whole, given)[0], actual = evaluate_graph(graph, given)[0];
    EXPECT_TRUE(actual.identical(length > kAllPositions ? last_of(expected) : expected));
  }
}

TEST(LastPosition, LeavesWhatMixesPositionsAndOneStep) {
  Model model;
  EXPECT_EQ(keep_last_position(model.graph, {"mixed_too"}), 0);
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, Dim(1), Dim(4)}});
  Builder b(graph);
  graph.add_output("logits", b.make("Relu", {x}));
  EXPECT_EQ(keep_last_position(graph, {"logits"}), 0);
}

}  // namespace
}  // namespace weft
