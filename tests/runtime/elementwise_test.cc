// Elementwise operators, Softmax, and what lowering makes, against their definitions.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "ops/cast.h"
#include "runtime/kernels/simd.h"
#include "tests/runtime/one_node.h"

namespace weft::runtime {
namespace {

// Errors are relative to the value, or to `least` where that is larger.
void expect_near(const Tensor& actual, const Tensor& expected, double relative, double least) {
  ASSERT_EQ(actual.shape(), expected.shape());
  for (std::size_t i = 0; i < actual.data<float>().size(); ++i) {
    const double x = actual.data<float>()[i], y = expected.data<float>()[i];
    if (std::isnan(y) || std::isinf(y)) {
      EXPECT_TRUE(std::isnan(y) ? std::isnan(x) : x == y) << i << ": " << x << ", not " << y;
    } else {
      EXPECT_LE(std::abs(x - y), relative * std::max(std::abs(y), least)) << i << ": " << x << ", not " << y;
    }
  }
}

void expect_same_as_reference(const Graph& graph, const Tensor& a, const Tensor& b, double relative,
                              double least = 1e-3) {
  CompileOptions plain;
  plain.passes = {};
  Session session(Model::compile(graph.clone(), plain), std::make_shared<ThreadPool>(2));
  std::map<std::string, Tensor, std::less<>> inputs = {{"a", a}};
  std::vector<Tensor> given = {a};
  if (graph.inputs().size() > 1) {
    inputs["b"] = b;
    given.push_back(b);
  }
  const std::vector<Tensor> expected = evaluate_graph(graph, given);
  const std::vector<Tensor> actual = session.run(inputs);
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(graph.outputs()[i].name);
    expect_near(actual[i], expected[i], relative, least);
  }
}

TEST(Elementwise, BroadcastsAsNumPyDoes) {
  const std::pair<Extents, Extents> shapes[] = {{{}, {}},
                                                {{5}, {5}},
                                                {{5}, {}},
                                                {{}, {3, 4}},
                                                {{2, 3, 17}, {17}},
                                                {{2, 3, 17}, {3, 1}},
                                                {{2, 1, 4, 1}, {3, 1, 5}},
                                                {{7, 1}, {1, 9}},
                                                {{4, 5, 1, 6}, {4, 5, 3, 6}},
                                                {{0, 3}, {3}},
                                                {{300, 200}, {300, 1}},
                                                {{1, 2, 1, 2, 1, 2, 1, 3}, {2, 2, 2, 2, 2, 2, 2, 1}}};
  for (const auto& [left, right] : shapes) {
    SCOPED_TRACE(to_string(left) + " with " + to_string(right));
    Graph graph;
    const ValueId a = graph.add_input("a", {DType::kF32, to_shape(left)});
    const ValueId b = graph.add_input("b", {DType::kF32, to_shape(right)});
    Builder builder(graph);
    for (const char* op : {"Add", "Sub", "Mul", "Div"}) graph.add_output(op, builder.make(op, {a, b}));
    expect_same_as_reference(graph, random_floats(left, 1), random_floats(right, 2), 0);
  }
}

TEST(Elementwise, FunctionsOverTheirRange) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> values = {0.0f,   -0.0f, 1e-30f, -1e-30f, 88.7f, 88.8f,     -87.0f,     -104.0f, 1e30f,
                               -1e30f, 0.5f,  -0.5f,  2.5f,    -2.5f, kInfinity, -kInfinity, NAN};
  for (float x = -12.0f; x < 12.0f; x += 0.0137f) values.push_back(x);
  Graph graph;
  const auto count = static_cast<std::int64_t>(values.size());
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{count})});
  Builder builder(graph);
  for (const char* op :
       {"Abs", "Neg", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Exp", "Log", "Erf", "Softsign"}) {
    graph.add_output(op, builder.make(op, {a}));
  }
  expect_same_as_reference(graph, Tensor::vector<float>(values), {}, 5e-7);
}

// To a rounding error of what they add up.
TEST(Elementwise, FunctionsThatAddUp) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> values = {0.0f,     -0.0f, 1e-30f,    -1e-30f,    1e30f, -1e30f,
                               40000.0f, -1e9f, kInfinity, -kInfinity, NAN};
  for (float x = -100.0f; x < 100.0f; x += 0.0513f) values.push_back(x);
  Graph graph;
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{static_cast<std::int64_t>(values.size())})});
  Builder b(graph);
  for (const char* op :
       {"Sin", "Cos", "Softplus", "Mish", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Selu", "ThresholdedRelu"}) {
    graph.add_output(op, b.make(op, {a}));
  }
  graph.add_output("celu", b.make("Celu", {a}, {{"alpha", 0.7}}));
  graph.add_output("elu", b.make("Elu", {a}, {{"alpha", 1.7}}));
  graph.add_output("hard_sigmoid", b.make("HardSigmoid", {a}, {{"alpha", 0.3}, {"beta", 0.4}}));
  graph.add_output("leaky", b.make("LeakyRelu", {a}, {{"alpha", 0.2}}));
  expect_same_as_reference(graph, Tensor::vector<float>(values), {}, 1e-6, 0.25);
}

TEST(Elementwise, ClipTakesBoundsAsTheyCome) {
  const Tensor x = Tensor::of<float>({5}, {-3.0f, NAN, 0.25f, 2.0f, 7.0f});
  const Given low = {Tensor::scalar(-1.0f)}, high = {Tensor::scalar(1.5f), true}, none = {Tensor()};
  check("Clip", {{x}, low, high}, 1, {});
  check("Clip", {{x}, none, high}, 1, {});
  check("Clip", {{x}, low}, 1, {});
  check("Clip", {{x}, {Tensor::scalar(3.0f)}, high}, 1, {});  // crossed
}

Tensor small(DType dtype, const Extents& shape, std::uint32_t seed) {
  Tensor numbers = random_floats(shape, seed, 3.0f);
  if (dtype != DType::kF32) return cast(numbers, dtype);
  if (numbers.size() > 2) numbers.mutable_data<float>()[2] = NAN;
  return numbers;
}

const std::pair<Extents, Extents> kBroadcasts[] = {{{}, {}},
                                                   {{70}, {}},
                                                   {{}, {70}},
                                                   {{2, 3, 17}, {17}},
                                                   {{2, 3, 17}, {3, 1}},
                                                   {{7, 1}, {1, 9}},
                                                   {{0, 3}, {3}},
                                                   {{300, 200}, {300, 1}},
                                                   {{8}, {8, 1}}};

TEST(Elementwise, PairsOfEveryType) {
  for (const auto& [left, right] : kBroadcasts) {
    for (const DType dtype : {DType::kF32, DType::kI32, DType::kI64}) {
      SCOPED_TRACE(fmt::format("{} with {} {}", to_string(left), to_string(right), to_string(dtype)));
      for (const char* op :
           {"Add", "Sub", "Mul", "Max", "Min", "Sum", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}) {
        check(op, {{small(dtype, left, 1)}, {small(dtype, right, 2)}}, 1, {}, 0);
      }
    }
    check("PRelu", {{small(DType::kF32, left, 1)}, {small(DType::kF32, right, 2)}}, 1, {}, 0);
    for (const char* op : {"And", "Or", "Xor", "Equal"})
      check(op, {{small(DType::kBool, left, 1)}, {small(DType::kBool, right, 2)}}, 1, {});
  }
  const Tensor most = Tensor::vector<std::int64_t>(Ints{INT64_MAX, INT64_MIN, -1});
  for (const char* op : {"Add", "Sub", "Mul"}) check(op, {{most}, {most}}, 1, {});
}

TEST(Elementwise, WhereOfEveryWidth) {
  for (const auto& [left, right] : kBroadcasts) {
    for (const DType dtype : {DType::kU8, DType::kF16, DType::kF32, DType::kI64}) {
      const Tensor a = random_bytes(dtype, left, 1), b = random_bytes(dtype, right, 2);
      check("Where", {{small(DType::kBool, left, 3)}, {a}, {b}}, 1, {});
      check("Where", {{small(DType::kBool, right, 3)}, {a}, {a}}, 1, {});
      check("Where", {{Tensor::scalar(true)}, {a}, {b}}, 1, {});
      check("Where", {{Tensor::scalar(false)}, {a}, {b}}, 1, {});
    }
  }
}

TEST(Elementwise, CastsSaturateAndWrap) {
  const Tensor edges = Tensor::vector<float>(std::vector<float>{
      NAN, 1e30f, -1e30f, 2147483520.0f, 2147483648.0f, -2147483648.0f, 9.2233715e18f, 9.223372e18f, -9.223372e18f,
      1.9f, -1.9f, -0.0f, 1e-30f, std::numeric_limits<float>::infinity(), 16777217.0f});
  for (const DType to : {DType::kBool, DType::kI32, DType::kI64}) check("Cast", {{edges}}, 1, {{"to", to}});
  for (const DType from : {DType::kU8, DType::kBool, DType::kI32, DType::kI64}) {
    const Tensor x = from == DType::kBool ? small(from, {100}, 1) : random_bytes(from, {100}, 1);
    for (const DType to : {DType::kBool, DType::kF32, DType::kI32, DType::kI64}) {
      if (from != to) check("Cast", {{x}}, 1, {{"to", to}}, 0);
    }
  }
  check("Not", {{small(DType::kBool, {100}, 1)}}, 1, {});
  check("IsNaN", {{small(DType::kF32, {100}, 1)}}, 1, {});
}

TEST(Elementwise, ActivationsOverTheirRange) {
  std::vector<float> values = {0.0f, -0.0f, 1e-20f, -1e-20f, 100.0f, -100.0f, 1e9f, 1e30f, NAN};
  for (float x = -30.0f; x < 30.0f; x += 0.0171f) values.push_back(x);
  Graph graph;
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{static_cast<std::int64_t>(values.size())})});
  Builder b(graph);
  graph.add_output("tanh", b.make("Tanh", {a}));
  graph.add_output("sigmoid", b.make("Sigmoid", {a}));
  graph.add_output("silu", b.make("Swish", {a}, {{"alpha", 1.0}}));
  graph.add_output("quick", b.make("Swish", {a}, {{"alpha", 1.702}}));
  graph.add_output("gelu", b.make("Gelu", {a}));
  graph.add_output("gelu_tanh", b.make("Gelu", {a}, {{"approximate", std::string("tanh")}}));
  expect_same_as_reference(graph, Tensor::vector<float>(values), {}, 2e-6, 1);
}

TEST(Softmax, RowsOfEveryKind) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const std::int64_t width : {1, 2, 15, 16, 33, 500}) {
    Tensor x = random_floats({9, width}, 3);
    const auto row = [&](std::size_t r) { return x.mutable_data<float>().subspan(r * width, width); };
    for (float& value : row(1)) value *= 80;
    for (float& value : row(2)) value = -kInfinity;
    row(3)[0] = -kInfinity;
    row(4)[width / 2] = NAN;
    row(5)[width - 1] = kInfinity;
    for (float& value : row(6)) value = 1e30f;
    for (float& value : row(7)) value = -3e38f;
    Graph graph;
    const ValueId a = graph.add_input("a", {DType::kF32, to_shape(x.shape())});
    Builder builder(graph);
    graph.add_output("y", builder.softmax(builder.wrap(a), -1));
    SCOPED_TRACE(width);
    expect_same_as_reference(graph, x, {}, 2e-6);
  }
}

TEST(Softmax, WhatIsMaskedWeighsNothing) {
  Graph graph;
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{1, 4})});
  Builder builder(graph);
  graph.add_output("y", builder.softmax(builder.wrap(a), -1));
  Session session(Model::compile(std::move(graph)));
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> scores = {0.0f, -kInfinity, -3.4e38f, -200.0f};
  const Tensor x = Tensor::vector<float>(scores).reshaped({1, 4});
  const Tensor y = session.run({{"a", x}})[0];
  EXPECT_EQ(std::vector<float>(y.data<float>().begin(), y.data<float>().end()), (std::vector<float>{1, 0, 0, 0}));
}

TEST(Lowering, SplitsOfALinearAreWrittenInPlace) {
  for (const std::int64_t rows : {0, 1, 5, 40}) {
    Graph graph;
    const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{2, rows, 20})});
    Builder builder(graph);
    const Expr weight = builder.constant(random_floats({20, 111}, 1)), bias = builder.constant(random_floats({111}, 2));
    const std::vector<ValueId> split = {builder.make("Linear", {a, weight, bias}).id(), builder.ints({60, 1, 50}).id()};
    const std::vector<Expr> parts = builder.make_many("Split", split, 3, {{"axis", std::int64_t{-1}}});
    for (std::size_t i = 0; i < 3; ++i) graph.add_output(fmt::format("part{}", i), parts[i]);
    CompileOptions plain;
    plain.passes = {};
    const auto model = Model::compile(graph.clone(), plain);
    ASSERT_EQ(model->graph().node_count(), 1u);
    EXPECT_EQ(model->graph().node(model->graph().nodes()[0]).op, "LinearSplit");
    expect_same_as_reference(graph, random_floats({2, rows, 20}, 3), {}, 1e-4, 1e-2);
  }
}

TEST(Lowering, ProductsOfBytesTakeInSplitsAndActivations) {
  Graph graph;
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{2, 5, 20})});
  Builder builder(graph);
  const auto product = [&](std::uint32_t seed) {
    const Expr weight = builder.constant(random_bytes(DType::kI8, {20, 48}, seed));
    const ValueId inputs[] = {a, weight, builder.constant(random_floats({48}, seed + 1))};
    return builder.make("DynamicQuantizeMatMul", inputs);
  };
  const std::vector<ValueId> split = {product(1).id(), builder.ints({8, 30, 10}).id()};
  const std::vector<Expr> parts = builder.make_many("Split", split, 3, {{"axis", std::int64_t{-1}}});
  graph.add_output("silu", builder.make("Swish", {parts[0]}, {{"alpha", 1.0}}));
  graph.add_output("none", parts[1]);
  graph.add_output("tanh", builder.tanh(parts[2]));
  graph.add_output("gelu", builder.make("Gelu", {product(3)}));
  CompileOptions plain;
  plain.passes = {};
  EXPECT_EQ(Model::compile(graph.clone(), plain)->graph().node_count(), 2u);
  expect_same_as_reference(graph, random_floats({2, 5, 20}, 5), {}, 1e-4, 1e-2);
}

TEST(Lowering, NormsBetweenTransposesAreTakenWhereTheAxisIs) {
  for (const bool back : {true, false}) {
    Graph graph;
    const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{2, 6, 5, 3})});
    Builder builder(graph);
    const Expr scale = builder.constant(random_floats({6}, 1)), bias = builder.constant(random_floats({6}, 2));
    const Expr last = builder.transpose(builder.wrap(a), {0, 2, 3, 1});
    const Expr norm = builder.make("LayerNormalization", {last.id(), scale.id(), bias.id()});
    const std::vector<std::int64_t> perm =
        back ? std::vector<std::int64_t>{0, 3, 1, 2} : std::vector<std::int64_t>{0, 3, 2, 1};
    graph.add_output("y", builder.transpose(norm, perm));
    CompileOptions plain;
    plain.passes = {};
    EXPECT_EQ(Model::compile(graph.clone(), plain)->graph().node_count(), back ? 1u : 3u);
    expect_same_as_reference(graph, random_floats({2, 6, 5, 3}, 3), {}, 1e-4, 1e-2);
  }
}

TEST(Lowering, ActivationsOfPartsAreAppliedInPlace) {
  Graph graph;
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{2, 5, 20})});
  Builder builder(graph);
  const Expr weight = builder.constant(random_floats({20, 48}, 1)), bias = builder.constant(random_floats({48}, 2));
  const std::vector<ValueId> split = {builder.make("Linear", {a, weight, bias}).id(),
                                      builder.ints({8, 8, 8, 8, 8, 8}).id()};
  const std::vector<Expr> parts = builder.make_many("Split", split, 6, {{"axis", std::int64_t{-1}}});
  graph.add_output("silu", builder.make("Swish", {parts[0]}, {{"alpha", 1.0}}));
  graph.add_output("gelu", builder.make("Gelu", {parts[1]}));
  graph.add_output("gelu_tanh", builder.make("Gelu", {parts[2]}, {{"approximate", std::string("tanh")}}));
  graph.add_output("none", parts[3]);
  // Neither an activation that Linear lacks nor one of a part that is read twice is taken in.
  graph.add_output("quick", builder.make("Swish", {parts[4]}, {{"alpha", 1.702}}));
  graph.add_output("twice", builder.unary("Relu", parts[5]) + parts[5]);
  CompileOptions plain;
  plain.passes = {};
  const auto model = Model::compile(graph.clone(), plain);
  EXPECT_EQ(model->graph().node_count(), 4u);  // LinearSplit, Swish, Relu, Add
  expect_same_as_reference(graph, random_floats({2, 5, 20}, 3), {}, 1e-4);
}

TEST(Lowering, AProductThatOthersReadStays) {
  Graph graph;
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{3, 4})});
  Builder builder(graph);
  const Expr product = builder.make("Linear", {a, builder.constant(random_floats({4, 6}, 1)).id()});
  const std::vector<ValueId> split = {product.id(), builder.ints({2, 4}).id()};
  const std::vector<Expr> parts = builder.make_many("Split", split, 2, {{"axis", std::int64_t{-1}}});
  graph.add_output("product", product);
  graph.add_output("first", parts[0]);
  graph.add_output("second", parts[1]);
  expect_same_as_reference(graph, random_floats({3, 4}, 3), {}, 1e-5);
}

// Every 5003rd of all floats, against double precision: distance in units of the last place, and where the result is
// small beside x, relative to x. Tails that are a difference of nearly equal numbers have only the latter.
TEST(Activations, AreAsExactAsFloatsAllow) {
  struct Case {
    simd::Activation activation;
    double ulps, relative;
    double (*function)(double);
  };
  static constexpr double kRoot = 1.5957691216057308;  // 2 sqrt(2 / pi)
  const Case cases[] = {
      {simd::Activation::kGelu, 0, 2.2e-7, [](double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; }},
      {simd::Activation::kGeluTanh, 0, 1.6e-7,
       [](double x) { return x / (1 + std::exp(-kRoot * (x + 0.044715 * x * x * x))); }},
      {simd::Activation::kSilu, 3, 1.6e-7, [](double x) { return x / (1 + std::exp(-x)); }},
      {simd::Activation::kSigmoid, 3, 1e-7, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {simd::Activation::kTanh, 6, 2e-7, [](double x) { return std::tanh(x); }},
  };
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 5003) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (std::abs(value) < 80) x.push_back(value);
  }
  for (const float value : {NAN, INFINITY, 1000.0f, -1000.0f}) x.push_back(value);
  std::vector<float> y(x.size());
  for (const Case& c : cases) {
    SCOPED_TRACE(static_cast<int>(c.activation));
    simd::activate(c.activation, 1.0f, x.data(), y.data(), x.size());
    double ulps = 0, relative = 0;
    for (std::size_t i = 0; i + 4 < x.size(); ++i) {
      const double exact = c.function(x[i]), difference = std::abs(y[i] - exact);
      const auto rounded = std::abs(static_cast<float>(exact));
      relative = std::max(relative, difference / std::max(1.0, std::abs(static_cast<double>(x[i]))));
      if (rounded > 1e-37f) ulps = std::max(ulps, difference / (std::nextafter(rounded, INFINITY) - rounded));
    }
    EXPECT_LE(relative, c.relative);
    EXPECT_LE(ulps, c.ulps > 0 ? c.ulps : INFINITY);
    const float* last = y.data() + y.size() - 4;
    EXPECT_TRUE(std::isnan(last[0]));
    const bool bounded = c.activation == simd::Activation::kSigmoid || c.activation == simd::Activation::kTanh;
    EXPECT_EQ(last[1], bounded ? 1.0f : INFINITY);
    EXPECT_EQ(last[2], bounded ? 1.0f : 1000.0f);
    EXPECT_NEAR(last[3], c.activation == simd::Activation::kTanh ? -1.0f : 0.0f, 1e-30f);
  }
}

// A large value of which only the shape is wanted takes no part in the arena.
TEST(Plan, ValuesThatNobodyComputesTakeNoMemory) {
  Graph graph;
  const ValueId a = graph.add_input("a", {DType::kF32, to_shape(Extents{2, 3})});
  Builder builder(graph);
  const Expr wide = builder.make("Expand", {a, builder.ints({50, 2, 3}).id()});
  graph.add_output("shape", builder.shape_of(wide));
  const Expr small = builder.unary("Neg", builder.unary("Abs", builder.wrap(a)));
  graph.add_output("y", builder.unary("Neg", small));
  CompileOptions plain;
  plain.passes = {};
  Session session(Model::compile(graph.clone(), plain));
  const std::vector<Tensor> results = session.run({{"a", random_floats({2, 3}, 1)}});
  EXPECT_EQ(results[0].to_ints(), (std::vector<std::int64_t>{50, 2, 3}));
}

}  // namespace
}  // namespace weft::runtime
