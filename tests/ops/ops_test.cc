#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "ops/builder.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "tests/ops/one_operator.h"

namespace weft {
namespace {

std::vector<float> floats(const Tensor& tensor) { return {tensor.data<float>().begin(), tensor.data<float>().end()}; }
std::vector<std::int64_t> ints(const Tensor& tensor) { return tensor.to_ints(); }

TEST(OpTable, EveryOperatorHasExactlyOneMeaning) {
  for (const OpDef* def : all_ops()) {
    EXPECT_NE(def->infer, nullptr) << def->name;
    EXPECT_NE(def->reference == nullptr, def->decompose == nullptr) << def->name;
    EXPECT_EQ(find_op(def->name), def);
  }
  EXPECT_THROW(get_op("NoSuchOperator"), Error);
}

TEST(TopK, FewOfManyAreThoseOfASortByValueThenPosition) {
  constexpr std::int64_t kRows = 3, kCount = 211;
  std::mt19937 random(5);
  Tensor x = Tensor::uninitialized(DType::kF32, {kRows, kCount});
  for (float& value : x.mutable_data<float>()) value = static_cast<float>(random() % 40) - 20.0f;  // many are equal
  const auto values = x.mutable_data<float>();
  values[3] = values[100] = INFINITY;
  values[kCount + 7] = -0.0f;
  values[2 * kCount - 1] = -INFINITY;
  for (const std::int64_t largest : {0, 1}) {
    for (const std::int64_t k : {0, 1, 7, 26, 27, 211}) {  // 26: a part is sorted, 27: all
      SCOPED_TRACE(fmt::format("largest {} k {}", largest, k));
      const auto result = run("TopK", {x, Tensor::of<std::int64_t>({1}, {k})}, {{"largest", largest}}, 2);
      ASSERT_EQ(result[1].shape(), (Extents{kRows, k}));
      for (std::int64_t row = 0; row < kRows; ++row) {
        std::vector<std::int64_t> order(kCount);
        std::iota(order.begin(), order.end(), 0);
        const auto at = [&](std::int64_t i) { return values[static_cast<std::size_t>(row * kCount + i)]; };
        std::stable_sort(order.begin(), order.end(),
                         [&](std::int64_t a, std::int64_t b) { return largest != 0 ? at(a) > at(b) : at(a) < at(b); });
        for (std::int64_t n = 0; n < k; ++n) {
          const auto target = static_cast<std::size_t>(row * k + n);
          const std::int64_t expected = order[static_cast<std::size_t>(n)];
          EXPECT_EQ(result[1].data<std::int64_t>()[target], expected);
          EXPECT_EQ(result[0].data<float>()[target], at(expected));
        }
      }
    }
  }
}

TEST(TopK, RowsWithNanGiveThePrefixOfTheirWholeSort) {
  Tensor x = Tensor::uninitialized(DType::kF32, {50});
  for (std::size_t i = 0; i < 50; ++i) x.mutable_data<float>()[i] = i % 7 == 0 ? NAN : static_cast<float>(i * 37 % 50);
  const std::vector<std::int64_t> all = ints(run("TopK", {x, Tensor::of<std::int64_t>({1}, {50})}, {}, 2)[1]);
  for (const std::int64_t k : {1, 5, 20}) {
    const std::vector<std::int64_t> some = ints(run("TopK", {x, Tensor::of<std::int64_t>({1}, {k})}, {}, 2)[1]);
    EXPECT_EQ(some, std::vector<std::int64_t>(all.begin(), all.begin() + k));
  }
}

TEST(Binary, BroadcastsAndHandlesEmptyTensors) {
  const Tensor a = Tensor::of<float>({2, 1}, {1, 2});
  const Tensor b = Tensor::of<float>({3}, {10, 20, 30});
  EXPECT_EQ(floats(run("Add", {a, b})[0]), (std::vector<float>{11, 21, 31, 12, 22, 32}));
  EXPECT_EQ(run("Mul", {Tensor::zeros(DType::kF32, {0, 3}), b})[0].shape(), (Extents{0, 3}));
  EXPECT_THROW(run("Add", {Tensor::zeros(DType::kF32, {2}), b}), Error);
}

TEST(Binary, IntegersNeverTrap) {
  const auto low = std::numeric_limits<std::int64_t>::min();
  const Tensor a = Tensor::of<std::int64_t>({3}, {7, low, -7});
  const Tensor b = Tensor::of<std::int64_t>({3}, {0, -1, 2});
  EXPECT_EQ(ints(run("Div", {a, b})[0]), (std::vector<std::int64_t>{0, low, -3}));
  EXPECT_EQ(ints(run("Mod", {a, b})[0]), (std::vector<std::int64_t>{0, 0, 1}));
}

TEST(Binary, MaximumKeepsNan) {
  const Tensor a = Tensor::of<float>({2}, {NAN, 1});
  const Tensor b = Tensor::of<float>({2}, {1, NAN});
  for (const float x : floats(run("Max", {a, b})[0])) EXPECT_TRUE(std::isnan(x));
}

TEST(Cast, SaturatesWrapsAndReadsText) {
  const Tensor x = Tensor::of<float>({4}, {1e20f, -1.7f, NAN, 300});
  EXPECT_EQ(ints(cast(x, DType::kI32)), (std::vector<std::int64_t>{2147483647, -1, 0, 300}));
  EXPECT_EQ(ints(cast(Tensor::of<std::int64_t>({1}, {300}), DType::kU8)), (std::vector<std::int64_t>{44}));
  EXPECT_EQ(floats(cast(Tensor::of<std::string>({1}, {"1.5"}), DType::kF32)), (std::vector<float>{1.5}));
  EXPECT_THROW(cast(Tensor::of<std::string>({1}, {"x"}), DType::kF32), Error);
}

TEST(Softmax, RowsOfMinusInfinityAreNan) {
  const Tensor y = run("Softmax", {Tensor::of<float>({2, 2}, {-INFINITY, -INFINITY, 0, 0})})[0];
  EXPECT_TRUE(std::isnan(floats(y)[0]));
  EXPECT_EQ(floats(y)[2], 0.5f);
}

TEST(Reduce, EmptyAxesAndEmptyTensors) {
  const Tensor x = Tensor::of<float>({2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(run("ReduceSum", {x}, {{"keepdims", std::int64_t{0}}})[0].item(), 10);
  EXPECT_EQ(floats(run("ReduceSum", {x}, {{"noop_with_empty_axes", std::int64_t{1}}})[0]), floats(x));
  const Tensor none = Tensor::zeros(DType::kF32, {2, 0});
  const Tensor axes = Tensor::of<std::int64_t>({1}, {1});
  EXPECT_EQ(floats(run("ReduceSum", {none, axes})[0]), (std::vector<float>{0, 0}));
  EXPECT_TRUE(std::isinf(floats(run("ReduceMax", {none, axes})[0])[0]));
}

TEST(Slice, ClampsAndWalksBackwards) {
  const Tensor x = Tensor::of<std::int64_t>({5}, {0, 1, 2, 3, 4});
  const auto slice = [&](std::int64_t start, std::int64_t end, std::int64_t step) {
    const auto one = [](std::int64_t v) { return Tensor::of<std::int64_t>({1}, {v}); };
    return ints(run("Slice", {x, one(start), one(end), one(0), one(step)})[0]);
  };
  EXPECT_EQ(slice(1, INT64_MAX, 2), (std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(slice(-1, INT64_MIN, -2), (std::vector<std::int64_t>{4, 2, 0}));
  EXPECT_EQ(slice(3, 1, 1), (std::vector<std::int64_t>{}));
  EXPECT_EQ(slice(-100, 2, 1), (std::vector<std::int64_t>{0, 1}));
}

TEST(Reshape, CopiesInfersAndRefuses) {
  const Tensor x = Tensor::zeros(DType::kF32, {2, 3, 4});
  const auto reshape = [&](std::initializer_list<std::int64_t> shape) {
    return run("Reshape", {x, Tensor::of<std::int64_t>({static_cast<std::int64_t>(shape.size())}, shape)})[0].shape();
  };
  EXPECT_EQ(reshape({0, -1}), (Extents{2, 12}));
  EXPECT_THROW(reshape({5, -1}), Error);
  EXPECT_THROW(reshape({-1, -1}), Error);
  EXPECT_THROW(reshape({0, 0, 0, 0}), Error);
}

TEST(Gather, RefusesIndicesOutOfRange) {
  const Tensor x = Tensor::of<float>({3}, {1, 2, 3});
  EXPECT_EQ(floats(run("Gather", {x, Tensor::of<std::int64_t>({2}, {-1, 0})})[0]), (std::vector<float>{3, 1}));
  EXPECT_THROW(run("Gather", {x, Tensor::of<std::int64_t>({1}, {3})}), Error);
}

TEST(Attention, GroupedHeadsReadTheirKeys) {
  // One query head per value of v: the output of head h is v of key head h / 2.
  const Tensor q = Tensor::zeros(DType::kF32, {1, 4, 1, 2});
  const Tensor k = Tensor::zeros(DType::kF32, {1, 2, 3, 2});
  Tensor v = Tensor::zeros(DType::kF32, {1, 2, 3, 2});
  for (std::size_t i = 6; i < 12; ++i) v.mutable_data<float>()[i] = 1;
  EXPECT_EQ(floats(run("Attention", {q, k, v})[0]), (std::vector<float>{0, 0, 0, 0, 1, 1, 1, 1}));
}

TEST(Attention, MaskedRowsAreNanOrZero) {
  const Tensor x = Tensor::full(DType::kF32, {1, 1, 2, 2}, 1.0);
  const Tensor mask = Tensor::of<bool>({2, 2}, {true, false, false, false});
  const Tensor nan = run("Attention", {x, x, x, mask})[0];
  EXPECT_EQ(floats(nan)[0], 1.0f);
  EXPECT_TRUE(std::isnan(floats(nan)[2]));
  const Tensor zero = run("Attention", {x, x, x, mask}, {{"zero_masked_rows", std::int64_t{1}}})[0];
  EXPECT_EQ(floats(zero)[2], 0.0f);
}

TEST(Attention, CausalExcludesLaterKeys) {
  Tensor v = Tensor::of<float>({1, 1, 3, 1}, {1, 3, 8});
  const Tensor x = Tensor::zeros(DType::kF32, {1, 1, 3, 1});
  EXPECT_EQ(floats(run("Attention", {x, x, v}, {{"is_causal", std::int64_t{1}}})[0]), (std::vector<float>{1, 2, 4}));
}

// One query and key of size 1, scores all 0: the output is the mean of the v that may be attended.
Tensor attend(std::int64_t queries, std::vector<float> v, const Attributes& attributes, std::vector<Tensor> more = {}) {
  const auto keys = static_cast<std::int64_t>(v.size());
  std::vector<Tensor> inputs = {Tensor::zeros(DType::kF32, {1, 1, queries, 1}),
                                Tensor::zeros(DType::kF32, {1, 1, keys, 1}), Tensor::of<float>({1, 1, keys, 1}, v)};
  inputs.insert(inputs.end(), more.begin(), more.end());
  return run("Attention", inputs, attributes)[0];
}

TEST(Attention, QueriesAtTheEndOfTheKeys) {
  const Attributes end = {{"is_causal", std::int64_t{1}}, {"query_position", std::string("end")}};
  EXPECT_EQ(floats(attend(2, {1, 3, 8}, end)), (std::vector<float>{2, 4}));
  EXPECT_EQ(floats(attend(1, {1, 3, 8}, end)), (std::vector<float>{4}));
  EXPECT_THROW(attend(1, {1}, {{"is_causal", std::int64_t{1}}, {"query_position", std::string("middle")}}), Error);
}

TEST(Attention, Windows) {
  EXPECT_EQ(floats(attend(3, {1, 3, 8}, {{"left_window_size", std::int64_t{1}}, {"is_causal", std::int64_t{1}}})),
            (std::vector<float>{1, 2, 5.5}));
  EXPECT_EQ(
      floats(attend(3, {1, 3, 8}, {{"right_window_size", std::int64_t{1}}, {"left_window_size", std::int64_t{0}}})),
      (std::vector<float>{2, 5.5, 8}));
  EXPECT_EQ(
      floats(attend(2, {1, 3, 8, 4}, {{"left_window_size", std::int64_t{0}}, {"query_position", std::string("end")}})),
      (std::vector<float>{6, 4}));
  EXPECT_THROW(attend(1, {1}, {{"left_window_size", std::int64_t{-2}}}), Error);
}

TEST(Attention, Chunks) {
  EXPECT_EQ(floats(attend(5, {1, 3, 8, 4, 7}, {{"chunk_size", std::int64_t{2}}})), (std::vector<float>{2, 2, 6, 6, 7}));
  EXPECT_EQ(
      floats(attend(
          2, {1, 3, 8, 4, 7},
          {{"chunk_size", std::int64_t{2}}, {"is_causal", std::int64_t{1}}, {"query_position", std::string("end")}})),
      (std::vector<float>{6, 7}));
}

TEST(Attention, KeyPaddingAndFills) {
  const Tensor padding = Tensor::of<std::int64_t>({1, 3}, {0, 1, 1});
  const auto with = [&](const Tensor& kept, Attributes attributes) {
    Graph graph;
    std::vector<ValueId> ids;
    std::vector<Tensor> inputs = {Tensor::zeros(DType::kF32, {1, 1, 3, 1}), Tensor::zeros(DType::kF32, {1, 1, 3, 1}),
                                  Tensor::of<float>({1, 1, 3, 1}, {1, 3, 8}), kept};
    for (const Tensor& input : inputs) {
      ids.push_back(graph.add_input(graph.unique_name("x"), {input.dtype(), to_shape(input.shape())}));
    }
    Builder b(graph);
    graph.add_output("y", b.make("Attention", {ids[0], ids[1], ids[2], ValueId(), ids[3]}, std::move(attributes)));
    return floats(evaluate_graph(graph, inputs)[0]);
  };
  EXPECT_EQ(with(padding, {}), (std::vector<float>{5.5, 5.5, 5.5}));
  // Query 0 has no key: the lowest number keeps the mean over all keys, or over those it reached once.
  const double lowest = std::numeric_limits<float>::lowest();
  Attributes causal = {{"is_causal", std::int64_t{1}}, {"masked_fill", lowest}};
  EXPECT_EQ(with(padding, causal), (std::vector<float>{4, 3, 5.5}));
  const Tensor last = Tensor::of<bool>({1, 3}, {false, true, false});
  causal["fill_per_condition"] = std::int64_t{1};
  EXPECT_EQ(with(last, causal), (std::vector<float>{2, 3, 3}));
  EXPECT_TRUE(std::isnan(with(padding, {{"is_causal", std::int64_t{1}}})[0]));
  EXPECT_THROW(with(Tensor::of<bool>({3}, {true, true, true}), {}), Error);
}

TEST(Attention, SlopesAndSinks) {
  Graph graph;
  const Tensor x = Tensor::zeros(DType::kF32, {1, 2, 2, 1});
  const Tensor v = Tensor::of<float>({1, 2, 2, 1}, {0, 1, 0, 1});
  const ValueId q = graph.add_input("q", {DType::kF32, to_shape(x.shape())}),
                k = graph.add_input("k", {DType::kF32, to_shape(x.shape())});
  Builder b(graph);
  const Expr vs = b.constant(v);
  const Expr slopes = b.constant(Tensor::of<float>({2}, {0.0f, std::log(3.0f)}));
  const Expr sinks = b.constant(Tensor::of<float>({2}, {0.0f, std::log(2.0f)}));
  graph.add_output("alibi", b.make("Attention", {q, k, vs.id(), ValueId(), ValueId(), slopes.id()}));
  graph.add_output("sinks", b.make("Attention", {q, k, vs.id(), ValueId(), ValueId(), ValueId(), sinks.id()}));
  const std::vector<Tensor> y = evaluate_graph(graph, std::vector<Tensor>{x, x});
  // Head 1, one position more counts three times: 3 / (1 + 3) for both queries.
  EXPECT_THAT(floats(y[0]), ::testing::Pointwise(::testing::FloatNear(1e-6f), {0.5f, 0.5f, 0.75f, 0.75f}));
  EXPECT_THAT(floats(y[1]), ::testing::Pointwise(::testing::FloatNear(1e-6f), {1 / 3.0f, 1 / 3.0f, 0.25f, 0.25f}));
}

TEST(Loop, CarriesAndStacks) {
  Graph graph;
  const ValueId limit = graph.add_input("n", {DType::kI64, Shape{}});
  const ValueId start = graph.add_input("x", {DType::kI64, Shape{}});
  auto body = std::make_unique<Graph>("body");
  const ValueId i = body->add_input("i", {DType::kI64, Shape{}});
  const ValueId go = body->add_input("go", {DType::kBool, Shape{}});
  const ValueId x = body->add_input("x", {DType::kI64, Shape{}});
  Builder inner(*body);
  const Expr next = inner.wrap(x) + inner.wrap(i);
  body->add_output("go", go);
  body->add_output("x", next);
  body->add_output("scan", next);
  Builder outer(graph);
  std::vector<Subgraph> subgraphs;
  subgraphs.push_back({"body", std::move(body)});
  const ValueId inputs[] = {limit, ValueId(), start};
  const auto results = outer.make_many("Loop", inputs, 2, {{"num_carried", std::int64_t{1}}}, std::move(subgraphs));
  graph.add_output("x", results[0]);
  graph.add_output("all", results[1]);
  const auto out =
      evaluate_graph(graph, std::vector{Tensor::scalar<std::int64_t>(4), Tensor::scalar<std::int64_t>(10)});
  EXPECT_EQ(out[0].item(), 16);
  EXPECT_EQ(ints(out[1]), (std::vector<std::int64_t>{10, 11, 13, 16}));
  const auto none =
      evaluate_graph(graph, std::vector{Tensor::scalar<std::int64_t>(0), Tensor::scalar<std::int64_t>(10)});
  EXPECT_EQ(none[1].shape(), (Extents{0}));
}

// The idioms that exports build shapes with vanish in inference.
TEST(Inference, FollowsShapesThroughIntegerArithmetic) {
  Graph graph;
  const Dim B = Dim::symbol("B"), S = Dim::symbol("S");
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, S, Dim(32)}});
  Builder b(graph);
  const Expr shape = b.shape_of(b.wrap(x));
  const ValueId target[] = {b.extent_of(b.wrap(x), 0).id(), b.extent_of(b.wrap(x), 1).id(), b.ints({4, 8}).id()};
  const Expr split = b.reshape(b.wrap(x), b.concat(target, 0));
  EXPECT_EQ(b.shape(split), (Shape{B, S, Dim(4), Dim(8)}));
  EXPECT_EQ(b.shape(b.reshape(split, std::vector<std::int64_t>{0, -1, 32})), (Shape{B, S, Dim(32)}));
  // Expand of the spelling with -1: Where(Equal(shape, -1), 1, shape).
  const Expr ones = b.make("ConstantOfShape", {b.ints({3}).id()}, {{"value", Tensor::of<std::int64_t>({1}, {1})}});
  const Expr negative = ones * b.constant(Tensor::scalar<std::int64_t>(-1));
  const Expr chosen = b.where(b.make("Equal", {shape.id(), negative.id()}), ones, shape);
  EXPECT_EQ(
      b.shape(b.make("Expand", {b.unsqueeze(b.constant(Tensor::zeros(DType::kF32, {1, 32})), {0}).id(), chosen.id()})),
      (Shape{B, S, Dim(32)}));
  const Expr range =
      b.make("Range", {b.constant(Tensor::scalar<std::int64_t>(0)).id(), b.squeeze(b.extent_of(b.wrap(x), 1), {0}).id(),
                       b.constant(Tensor::scalar<std::int64_t>(1)).id()});
  EXPECT_EQ(b.shape(range), (Shape{S}));
}

// What ONNX's node tests leave out: pieces that do not divide, an axis of length 0, bad positions.
TEST(Sequence, SplitsInsertsAndJoins) {
  const Tensor x = Tensor::of<float>({5, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  const Tensor pieces = run("SplitToSequence", {x, Tensor::scalar<std::int64_t>(2)})[0];
  ASSERT_EQ(pieces.size(), 3);
  EXPECT_EQ(pieces.data<Tensor>()[2].shape(), (Extents{1, 2}));
  EXPECT_EQ(run("SplitToSequence", {Tensor::zeros(DType::kF32, {0, 2}), Tensor::scalar<std::int64_t>(2)})[0].size(), 0);
  EXPECT_THROW(run("SplitToSequence", {x, Tensor::of<std::int64_t>({2}, {2, 2})}), Error);
}

TEST(Quantize, RoundsToEvenAndSaturates) {
  const Tensor x = Tensor::of<float>({5}, {0.5f, 1.5f, -300, 300, NAN});
  const Tensor y = run("QuantizeLinear", {x, Tensor::scalar<float>(1), Tensor::scalar<std::int8_t>(0)})[0];
  EXPECT_EQ(ints(y), (std::vector<std::int64_t>{0, 2, -128, 127, 0}));
  EXPECT_THROW(run("QuantizeLinear", {x, Tensor::of<float>({2}, {1, 2})}, {{"axis", std::int64_t{0}}}), Error);
  const Tensor blocks = Tensor::of<float>({2, 1}, {1, 2});
  const Tensor z = run("DequantizeLinear", {Tensor::of<std::int8_t>({2, 2}, {1, 2, 3, 4}), blocks},
                       {{"axis", std::int64_t{1}}, {"block_size", std::int64_t{2}}})[0];
  EXPECT_EQ(floats(z), (std::vector<float>{1, 2, 6, 8}));
}

TEST(MatMulInteger, IsExactWhereFloatsAreNot) {
  const Tensor a = Tensor::full(DType::kU8, {1, 70000}, 255), b = Tensor::full(DType::kU8, {70000, 1}, 255);
  EXPECT_EQ(ints(run("MatMulInteger", {a, b})[0]),
            (std::vector<std::int64_t>{static_cast<std::int32_t>(70000u * 255 * 255)}));
}

TEST(Dft, InvertsItselfForAnyLength) {
  for (const std::int64_t length : {1, 2, 7, 12, 30}) {
    Tensor x = Tensor::zeros(DType::kF32, {1, length, 2});
    for (std::int64_t i = 0; i < 2 * length; ++i) {
      x.mutable_data<float>()[static_cast<std::size_t>(i)] = static_cast<float>(i * i % 11);
    }
    const Tensor there = run("DFT", {x})[0];
    const Tensor back = run("DFT", {there}, {{"inverse", std::int64_t{1}}})[0];
    for (std::size_t i = 0; i < x.data<float>().size(); ++i) {
      EXPECT_NEAR(back.data<float>()[i], x.data<float>()[i], 1e-5) << length;
    }
  }
}

TEST(Resize, KeepsWhatItIsAskedToKeep) {
  const Tensor x = Tensor::of<float>({1, 1, 2, 2}, {1, 2, 3, 4});
  const Tensor sizes = Tensor::of<std::int64_t>({4}, {1, 1, 4, 4});
  Graph graph;
  Builder b(graph);
  const ValueId in = graph.add_input("x", {DType::kF32, to_shape(x.shape())});
  const Expr y =
      b.make("Resize", {in, ValueId(), ValueId(), b.ints(sizes.to_ints()).id()}, {{"mode", std::string("linear")}});
  graph.add_output("y", y);
  EXPECT_EQ(evaluate(b.shape(y), {}), (Extents{1, 1, 4, 4}));
  const Tensor out = evaluate_graph(graph, std::vector{x})[0];
  EXPECT_EQ(out.data<float>()[0], 1.0f);
  EXPECT_FLOAT_EQ(out.data<float>()[5], 1.75f);
  EXPECT_EQ(out.data<float>()[15], 4.0f);
}

// For random shapes: what inference says symbolically is what the kernel gives.
TEST(Inference, AgreesWithKernelsOnRandomShapes) {
  std::mt19937 random(3);
  for (int round = 0; round < 60; ++round) {
    const std::int64_t batch = random() % 3, length = random() % 5 + 1;
    Graph graph;
    const ValueId x = graph.add_input("x", {DType::kF32, Shape{Dim::symbol("B"), Dim::symbol("S"), Dim(6)}});
    Builder b(graph);
    const Expr value = b.wrap(x);
    std::vector<Expr> made = {
        b.transpose(value, {1, 0, 2}),
        b.slice(value, 1, 0, 3),
        b.slice(value, 1, -2, INT64_MAX),
        b.make("Slice", {x, (b.extent_of(value, 1) * -1.0).id(), b.ints({INT64_MAX}).id(), b.ints({1}).id()}),
        b.mean(value, {1}, false),
        b.unsqueeze(value, {0, -1}),
        b.reshape(value, std::vector<std::int64_t>{-1, 3}),
        b.make("Flatten", {x}, {{"axis", std::int64_t{2}}}),
        b.make("Pad", {x, b.ints({0, 1, 0, 0, 2, 0}).id()}),
        b.make("Tile", {x, b.ints({2, 1, 3}).id()}),
        b.make("ArgMax", {x}, {{"axis", std::int64_t{-1}}})};
    for (std::size_t i = 0; i < made.size(); ++i) graph.add_output(fmt::format("o{}", i), made[i]);
    const auto results = evaluate_graph(graph, std::vector{Tensor::zeros(DType::kF32, {batch, length, 6})});
    const Bindings bindings = {{"B", batch}, {"S", length}};
    for (std::size_t i = 0; i < made.size(); ++i) {
      EXPECT_EQ(evaluate(b.shape(made[i]), bindings), results[i].shape()) << i;
    }
  }
}

}  // namespace
}  // namespace weft
