#include "runtime/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "graph/text.h"
#include "ops/builder.h"
#include "runtime/memory_plan.h"
#include "tests/tensors.h"

namespace weft::runtime {
namespace {

using ::testing::HasSubstr;
using TensorMap = std::map<std::string, Tensor, std::less<>>;

const Dim B = Dim::symbol("B"), S = Dim::symbol("S"), P = Dim::symbol("P"), T = Dim::symbol("T");

// Runs one graph with its kernels and with reference kernels only.
void expect_same_as_reference(const Graph& graph, const TensorMap& inputs, double tolerance = 2e-5) {
  CompileOptions plain;
  plain.passes = {};
  Session fast(Model::compile(graph.clone(), plain), std::make_shared<ThreadPool>(2));
  std::vector<Tensor> given;
  for (const ValueId id : graph.inputs()) given.push_back(inputs.at(graph.value(id).name));
  const std::vector<Tensor> expected = evaluate_graph(graph, given);
  const std::vector<Tensor> actual = fast.run(inputs);
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_LE(largest_difference(actual[i], expected[i]), tolerance);
}

TEST(Kernels, RowwiseKernelsAgreeWithTheirDefinitions) {
  for (const std::int64_t width : {1, 3, 16, 33, 768}) {
    Graph graph;
    const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, Dim(width)}});
    Builder b(graph);
    const Expr scale = b.constant(random_floats({width}, 2)), bias = b.constant(random_floats({width}, 3));
    std::vector<Expr> made = {b.make("LayerNormalization", {x, scale.id(), bias.id()}),
                              b.make("LayerNormalization", {x, scale.id()}),
                              b.make("RMSNormalization", {x, scale.id()}),
                              b.make("Gelu", {x}),
                              b.make("Gelu", {x}, {{"approximate", std::string("tanh")}}),
                              b.make("Swish", {x}, {{"alpha", 1.702}}),
                              b.make("Relu", {x}),
                              b.make("Tanh", {x}),
                              b.make("Sigmoid", {x})};
    if (width % 2 == 0) {
      made.push_back(b.make("Rotary", {x, scale.id(), bias.id()}));
      made.push_back(b.make("Rotary", {x, scale.id(), bias.id()}, {{"interleaved", std::int64_t{1}}}));
    }
    const auto with_sum = [&](std::string_view op, std::vector<ValueId> inputs, Attributes attributes = {}) {
      for (const Expr result : b.make_many(op, inputs, 2, std::move(attributes))) made.push_back(result);
    };
    const ValueId skip = made[3];
    const Expr table = b.constant(random_floats({5, width}, 5)), other = b.constant(random_floats({3, width}, 6));
    const ValueId ids = graph.add_input("ids", {DType::kI64, Shape{B}});
    const Expr place = b.constant(Tensor::of<std::int32_t>({1}, {2}));
    with_sum("SkipLayerNormalization", {x, skip, scale, bias, scale});
    with_sum("SkipLayerNormalization", {x, skip, scale, ValueId(), bias});
    with_sum("SkipRMSNormalization", {x, skip, scale, bias});
    with_sum("EmbedLayerNormalization", {scale, bias, table, ids, other, place},
             {{"factors", std::vector<double>{3, 1}}});
    with_sum("EmbedRMSNormalization", {scale, table, ids});
    made.push_back(b.make("SkipRMSNormalization", {x, skip, scale}));
    made.push_back(b.make("EmbedRMSNormalization", {scale, other, place, table, ids}));
    for (std::size_t i = 0; i < made.size(); ++i) graph.add_output(fmt::format("y{}", i), made[i]);
    for (const std::int64_t rows : {0, 1, 7}) {
      Tensor input = random_floats({rows, width}, 4), places = Tensor::uninitialized(DType::kI64, {rows});
      for (std::int64_t i = 0; i < rows; ++i) places.mutable_data<std::int64_t>()[i] = i * 3 % 10 - 5;
      for (float& value : input.mutable_data<float>()) value *= 6;
      if (rows == 7 && width > 1) input.mutable_data<float>()[1] = NAN;
      SCOPED_TRACE(fmt::format("width {}, rows {}", width, rows));
      expect_same_as_reference(graph, {{"x", input}, {"ids", places}}, 1e-4);
    }
  }
}

TEST(Kernels, RowsThatATableDoesNotHaveAreAnError) {
  Graph graph;
  const ValueId ids = graph.add_input("ids", {DType::kI32, Shape{B, S}});
  Builder b(graph);
  const Expr scale = b.constant(random_floats({4}, 1)), table = b.constant(random_floats({3, 4}, 2));
  graph.add_output("y", b.make("EmbedRMSNormalization", {scale, table, ids}));
  CompileOptions plain;
  plain.passes = {};
  Session session(Model::compile(graph.clone(), plain));
  for (const std::int32_t index : {3, -4}) {
    EXPECT_THROW(session.run({{"ids", Tensor::of<std::int32_t>({1, 2}, {0, index})}}), Error);
  }
  EXPECT_EQ(session.run({{"ids", Tensor::of<std::int32_t>({1, 2}, {2, -1})}})[0].shape(), (Extents{1, 2, 4}));
}

TEST(Kernels, LinearOfEveryShapeAndActivation) {
  for (const auto& [inputs, outputs] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {5, 3}, {64, 200}, {300, 1000}}) {
    Graph graph;
    const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, S, Dim(inputs)}});
    Builder b(graph);
    const Expr weight = b.constant(random_floats({inputs, outputs}, 1)), bias = b.constant(random_floats({outputs}, 2));
    int number = 0;
    for (const char* activation : {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"}) {
      graph.add_output(fmt::format("y{}", number++),
                       b.make("Linear", {x, weight.id(), bias.id()}, {{"activation", std::string(activation)}}));
    }
    graph.add_output("z", b.make("Linear", {x, weight.id()}));
    for (const std::int64_t rows : {0, 1, 9})
      expect_same_as_reference(graph, {{"x", random_floats({2, rows, inputs}, 3)}}, 2e-4);
  }
}

TEST(Session, ExplainsWrongInputs) {
  Graph graph;
  const ValueId ids = graph.add_input("input_ids", {DType::kF32, Shape{B, S}});
  const ValueId mask = graph.add_input("mask", {DType::kF32, Shape{B, S}});
  Builder b(graph);
  graph.add_output("y", b.wrap(ids) + b.wrap(mask));
  Session session(Model::compile(std::move(graph)), std::make_shared<ThreadPool>(1));
  const auto error_of = [&](const TensorMap& inputs) -> std::string {
    try {
      session.run(inputs);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const Tensor x = Tensor::zeros(DType::kF32, {2, 3});
  EXPECT_EQ(error_of({{"input_ids", x}, {"mask", x}}), "");
  EXPECT_THAT(error_of({{"input_ids", x}}), HasSubstr("\"mask\" (f32[B, S]) is missing"));
  EXPECT_THAT(error_of({{"input_idx", x}, {"mask", x}}), HasSubstr("did you mean \"input_ids\""));
  EXPECT_THAT(error_of({{"input_ids", x}, {"mask", Tensor::zeros(DType::kF32, {2, 4})}}), HasSubstr("S = 4"));
  EXPECT_THAT(error_of({{"input_ids", x}, {"mask", Tensor::zeros(DType::kI64, {2, 3})}}), HasSubstr("i64 is given"));
}

// A block as decoders have it, its caches as states.
Graph decoder_block() {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, S, Dim(8)}});
  const ValueId past_k = graph.add_input("past.key", {DType::kF32, Shape{B, Dim(2), P, Dim(4)}});
  const ValueId past_v = graph.add_input("past.value", {DType::kF32, Shape{B, Dim(2), P, Dim(4)}});
  Builder b(graph);
  const auto project = [&](std::uint32_t seed) {
    const Expr y = b.make("MatMul", {x, b.constant(random_floats({8, 8}, seed)).id()});
    return b.transpose(b.reshape(y, std::vector<std::int64_t>{0, 0, 2, 4}), {0, 2, 1, 3});
  };
  const ValueId ks[] = {past_k, project(1).id()};
  const ValueId vs[] = {past_v, project(2).id()};
  const Expr k = b.concat(ks, 2), v = b.concat(vs, 2);
  const Expr scores = b.matmul(project(3), b.transpose(k, {0, 1, 3, 2})) * 0.5;
  graph.add_output("y", b.matmul(b.softmax(scores, -1), v));
  graph.add_output("present.key", k);
  graph.add_output("present.value", v);
  return graph;
}

TEST(Session, StatesGiveWhatPastInputsGive) {
  CompileOptions options;
  options.states = {{"past.key", "present.key"}, {"past.value", "present.value"}};
  Session cached(Model::compile(decoder_block(), options), std::make_shared<ThreadPool>(1));
  ASSERT_EQ(cached.model().graph().states().size(), 2u);
  Session plain(Model::compile(decoder_block()), std::make_shared<ThreadPool>(1));
  cached.reset_states(2);
  Tensor k = Tensor::zeros(DType::kF32, {2, 2, 0, 4}), v = k;
  const std::int64_t lengths[] = {3, 1, 1, 40, 1};
  for (int step = 0; step < 5; ++step) {
    const Tensor x = random_floats({2, lengths[step], 8}, 10 + static_cast<std::uint32_t>(step));
    const std::vector<Tensor> expected = plain.run({{"x", x}, {"past.key", k}, {"past.value", v}});
    EXPECT_LE(largest_difference(cached.run({{"x", x}})[0], expected[0]), 1e-6);
    k = expected[1];
    v = expected[2];
  }
  EXPECT_TRUE(cached.state("past.key").identical(k));
}

TEST(Session, BatchMatesAndThreadsDoNotChangeBytes) {
  const auto model = Model::compile(decoder_block());
  const auto run = [&](const Tensor& x, int threads) {
    Session session(model, std::make_shared<ThreadPool>(threads));
    const Tensor past = Tensor::zeros(DType::kF32, {x.extent(0), 2, 0, 4});
    return session.run({{"x", x}, {"past.key", past}, {"past.value", past}})[0];
  };
  const Tensor seven = random_floats({7, 5, 8}, 1);
  const Tensor reference = run(seven, 1);
  EXPECT_TRUE(run(seven, 2).identical(reference));
  EXPECT_TRUE(run(seven, 4).identical(reference));
  Tensor first = Tensor::uninitialized(DType::kF32, {1, 5, 8});
  std::copy_n(seven.data<float>().begin(), 40, first.mutable_data<float>().begin());
  const Tensor alone = run(first, 1);
  EXPECT_TRUE(std::equal(alone.data<float>().begin(), alone.data<float>().end(), reference.data<float>().begin()));
}

TEST(MemoryPlan, NeverOverlapsWhatIsAlive) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<MemoryRequest> requests(random() % 40);
    std::size_t sum = 0;
    for (MemoryRequest& request : requests) {
      request.bytes = random() % 500;
      request.first = random() % 30;
      request.last = request.first + random() % 6;
      sum += request.bytes + 128;
    }
    const std::size_t total = plan_memory(requests);
    EXPECT_LE(total, sum);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      EXPECT_LE(requests[i].offset + requests[i].bytes, total);
      EXPECT_EQ(requests[i].offset % 64, 0u);
      for (std::size_t j = 0; j < i; ++j) {
        const bool together = requests[i].first <= requests[j].last && requests[j].first <= requests[i].last;
        const bool apart = requests[i].offset + requests[i].bytes <= requests[j].offset ||
                           requests[j].offset + requests[j].bytes <= requests[i].offset;
        EXPECT_TRUE(!together || apart);
      }
    }
  }
}

// Shapes that only the run knows: kernels are bound then, weights that were packed are not read, and a view that
// an If hands on outlives its source's place in the arena.
TEST(SessionDynamic, BindsWhenShapesAreKnown) {
  const Graph graph = parse_graph(R"(graph "main"(%x: f32[N, 4], %flags: bool[N]) -> ("y" = %y, "z" = %z) {
  const %w: f32[4, 3] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  const %axes: i64[1] = [0]
  %kept: f32[u0, 4] = Compress(%x, %flags) {axis = 0}
  %y: f32[u0, 3] = MatMul(%kept, %w)
  %a: f32[N, 4] = Neg(%x)
  %b: f32[1, N, 4] = Unsqueeze(%a, %axes)
  %some: bool[u0, 3] = IsNaN(%y)
  %counted: bool[] = ReduceMax(%some) {keepdims = 0}
  %view: f32[*] = If(%counted, %b) "then_branch" graph "t"(%p: f32[1, N, 4]) -> ("o" = %o) {
    const %axes: i64[1] = [0]
    %o: f32[N, 4] = Squeeze(%p, %axes)
  } "else_branch" graph "e"(%p: f32[1, N, 4]) -> ("o" = %p) {
  }
  %c: f32[N, 4] = Exp(%x)
  %d: f32[N, 4] = Abs(%c)
  %e: f32[N, 4] = Sqrt(%d)
  %z: f32[*] = Add(%view, %e)
})");
  const Tensor x = random_floats({3, 4}, 5);
  for (const std::size_t first : {0u, 1u}) {
    Tensor flags = Tensor::zeros(DType::kBool, {3});
    for (std::size_t i = first; i < 3; ++i) flags.mutable_data<bool>()[i] = true;
    expect_same_as_reference(graph, {{"x", x}, {"flags", flags}});
  }
}

// Merged decoders get placeholders for caches that are not there yet: no symbol of theirs counts then.
TEST(SessionInputs, PlaceholdersOfBranchesThatDoNotRunMayDisagree) {
  const Graph graph = parse_graph(R"(graph "main"(%x: f32[N], %cache: f32[N], %cached: bool[1]) -> ("y" = %y) {
  %y: f32[*] = If(%cached, %x, %cache) "then_branch" graph "t"(%a: f32[N], %b: f32[N]) -> ("o" = %o) {
    %o: f32[N] = Add(%a, %b)
  } "else_branch" graph "e"(%a: f32[N], %b: f32[N]) -> ("o" = %o) {
    %o: f32[N] = Neg(%a)
  }
})");
  const auto flag = [](bool value) { return Tensor::scalar<bool>(value).reshaped({1}); };
  const Tensor x = random_floats({3}, 1), nothing = Tensor::zeros(DType::kF32, {0});
  expect_same_as_reference(graph, {{"x", x}, {"cache", nothing}, {"cached", flag(false)}});
  expect_same_as_reference(graph, {{"x", x}, {"cache", x}, {"cached", flag(true)}});
  Session session(Model::compile(graph.clone()));
  EXPECT_THROW(session.run({{"x", x}, {"cache", nothing}, {"cached", flag(true)}}), Error);
  EXPECT_THROW(session.run({{"x", x}, {"cache", Tensor::zeros(DType::kF32, {0, 1})}, {"cached", flag(false)}}), Error);
}

// Found by fuzzing: keys of one batch row serve every row of the queries, and no other number does.
TEST(AttentionBatch, BatchOfKeysIsThatOfQueriesOrOne) {
  Graph graph;
  const ValueId q = graph.add_input("q", {DType::kF32, Shape{B, 2, S, 8}});
  const ValueId k = graph.add_input("k", {DType::kF32, Shape{P, 2, T, 8}});
  Builder b(graph);
  graph.add_output("y", b.make("Attention", {q, k, k}));
  expect_same_as_reference(graph, {{"q", random_floats({3, 2, 5, 8}, 1)}, {"k", random_floats({1, 2, 7, 8}, 2)}});
  Session session(Model::compile(graph.clone()));
  EXPECT_THROW(session.run({{"q", random_floats({3, 2, 5, 8}, 1)}, {"k", random_floats({2, 2, 7, 8}, 2)}}), Error);
}

TEST(ConvolutionKernel, DepthwiseAgreesWithItsDefinition) {
  for (const std::int64_t outputs : {4, 8}) {
    Graph graph;
    const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, 4, S}});
    Builder b(graph);
    const Expr w = b.constant(random_floats({outputs, 1, 3}, 1)), bias = b.constant(random_floats({outputs}, 2));
    graph.add_output("y", b.make("Conv", {x, w.id(), bias.id()}, {{"group", std::int64_t{4}}}));
    expect_same_as_reference(graph, {{"x", random_floats({2, 4, 9}, 3)}});
  }
}

}  // namespace
}  // namespace weft::runtime
