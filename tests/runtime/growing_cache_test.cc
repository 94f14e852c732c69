// Plans that follow caches and inputs as they grow, against evaluation node by node.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "ops/builder.h"
#include "runtime/profile.h"
#include "runtime/session.h"
#include "tests/tensors.h"

namespace weft::runtime {
namespace {

const Dim B = Dim::symbol("B"), S = Dim::symbol("S"), P = Dim::symbol("P"), T = Dim::symbol("T");
constexpr std::int64_t kHeads = 2, kSize = 4;

// A session and, beside it, the same graph evaluated node by node with states as tensors.
class Twin {
 public:
  explicit Twin(const Graph& graph)
      : graph_(graph.clone()), session_(compiled(graph), std::make_shared<ThreadPool>(2)) {}

  void reset(std::int64_t batch) {
    session_.reset_states(batch);
    states_.clear();
    for (std::size_t i = 0; i < graph_.states().size(); ++i)
      states_.push_back(Tensor::zeros(DType::kF32, {batch, kHeads, 0, kSize}));
  }

  void run(std::span<const Tensor> inputs) {
    std::vector<Tensor> given(inputs.begin(), inputs.end());
    given.insert(given.end(), states_.begin(), states_.end());
    std::vector<Tensor> expected = evaluate_graph(graph_, given);
    const std::vector<Tensor> actual = session_.run(inputs);
    for (std::size_t i = 0; i < actual.size(); ++i) {
      EXPECT_LE(largest_difference(actual[i], expected[i]), 1e-5)
          << "output " << i << " at past " << states_[0].extent(2);
    }
    states_.assign(expected.begin() + static_cast<std::ptrdiff_t>(actual.size()), expected.end());
    for (std::size_t i = 0; i < states_.size(); ++i)
      EXPECT_TRUE(session_.state(graph_.states()[i].name).identical(states_[i])) << "state " << i;
  }

  std::int64_t past() const { return states_[0].extent(2); }
  Session& session() { return session_; }

 private:
  static std::shared_ptr<const Model> compiled(const Graph& graph) {
    CompileOptions plain;
    plain.passes = {};
    return Model::compile(graph.clone(), plain);
  }

  Graph graph_;
  Session session_;
  std::vector<Tensor> states_;
};

// Attention of x over a growing cache of x. masked: with an input [B, 1, S, T]; else causal from its own lengths.
struct Decoder {
  Graph graph;
  ValueId x, current, keys, attended;

  explicit Decoder(bool masked) {
    x = graph.add_input("x", {DType::kF32, Shape{B, Dim(kHeads), S, Dim(kSize)}});
    current = graph.add_state("cache", {DType::kF32, Shape{B, Dim(kHeads), P, Dim(kSize)}});
    Builder b(graph);
    keys = b.make("CacheAppend", {current, x}, {{"axis", std::int64_t{2}}}).id();
    graph.set_state_next("cache", keys);
    std::vector<ValueId> inputs = {x, keys, keys};
    if (masked) inputs.push_back(graph.add_input("mask", {DType::kF32, Shape{B, Dim(1), S, T}}));
    attended = Builder(graph).make("Attention", inputs).id();
    graph.add_output("y", attended);
  }

  static Tensor tokens(std::int64_t batch, std::int64_t count, std::uint32_t seed) {
    return random_floats({batch, kHeads, count, kSize}, seed);
  }
};

TEST(GrowingCache, OnePlanServesEveryLength) {
  Twin twin(Decoder(false).graph);
  for (const std::int64_t batch : {1, 7}) {
    twin.reset(batch);
    twin.run(std::vector{Decoder::tokens(batch, 5, 1)});  // the prompt
    for (std::uint32_t i = 0; i < 70; ++i) twin.run(std::vector{Decoder::tokens(batch, 1, 2 + i)});
    twin.run(std::vector{Decoder::tokens(batch, 0, 1)});
    twin.run(std::vector{Decoder::tokens(batch, 3, 1)});
  }
}

TEST(GrowingCache, AMaskThatGrowsIsFollowed) {
  Decoder decoder(true);
  Builder b(decoder.graph);
  const ValueId mask = *decoder.graph.find_value("mask");
  decoder.graph.add_output("scaled", b.make("Mul", {mask, b.constant(Tensor::scalar(2.0f))}));
  Twin twin(decoder.graph);
  for (int round = 0; round < 2; ++round) {
    twin.reset(2);
    twin.run(std::vector{Decoder::tokens(2, 4, 1), random_floats({2, 1, 4, 4}, 2)});
    for (std::uint32_t i = 0; i < 60; ++i)
      twin.run(std::vector{Decoder::tokens(2, 1, i), random_floats({2, 1, 1, twin.past() + 1}, i)});
  }
}

// Positions 0 ... T - 1 are known when bound while they are few (kMaxTrackedElements); then a step computes them.
TEST(GrowingCache, WhatIsKnownFromTheLengthChanges) {
  Decoder decoder(false);
  Graph& graph = decoder.graph;
  Builder b(graph);
  const Expr shape = b.make("Shape", {decoder.keys});
  const Expr length = b.make("Gather", {shape, b.constant(Tensor::scalar<std::int64_t>(2))});
  const Expr range = b.make("Range", {b.constant(Tensor::scalar<std::int64_t>(0)).id(), length.id(),
                                      b.constant(Tensor::scalar<std::int64_t>(1)).id()});
  graph.add_output("positions", range);
  graph.add_output("angles", b.make("Cast", {range}, {{"to", DType::kF32}}));
  Twin twin(graph);
  twin.reset(1);
  twin.run(std::vector{Decoder::tokens(1, 250, 1)});
  for (std::uint32_t i = 0; i < 12; ++i) twin.run(std::vector{Decoder::tokens(1, 1, i)});
  EXPECT_EQ(twin.past(), 262);
}

TEST(GrowingCache, TheStateBeforeTheRunCanBeReadToo) {
  Decoder decoder(false);
  Builder b(decoder.graph);
  decoder.graph.add_output("before", decoder.current);
  decoder.graph.add_output("after", decoder.keys);
  // Behind the append, over what was there before it.
  decoder.graph.add_output("over_before", b.make("Attention", {decoder.attended, decoder.current, decoder.current}));
  Twin twin(decoder.graph);
  twin.reset(1);
  for (std::uint32_t i = 0; i < 6; ++i) twin.run(std::vector{Decoder::tokens(1, 2, i)});
}

TEST(GrowingCache, ABadInputLeavesTheSessionUsable) {
  Twin twin(Decoder(true).graph);
  twin.reset(1);
  twin.run(std::vector{Decoder::tokens(1, 2, 1), random_floats({1, 1, 2, 2}, 1)});
  const std::vector bad = {Decoder::tokens(1, 1, 1), random_floats({1, 1, 1, 9}, 1)};  // the mask fits no cache of 3
  EXPECT_THROW(twin.session().run(bad), Error);
  EXPECT_THROW(twin.session().run(std::vector<Tensor>{}), Error);
  EXPECT_THROW(twin.session().run(std::vector{bad[0]}), Error);
  twin.run(std::vector{Decoder::tokens(1, 1, 1), random_floats({1, 1, 1, 3}, 1)});
}

// --- Results ---------------------------------------------------------------------------------------

TEST(Results, StayWhatTheyAreWhileTheCallerHasThem) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{S, Dim(1024)}});
  Builder b(graph);
  graph.add_output("y", b.make("Relu", {x}));
  Session session(Model::compile(std::move(graph)), std::make_shared<ThreadPool>(1));
  const Tensor first = random_floats({64, 1024}, 1), second = random_floats({64, 1024}, 2);
  const Tensor kept = session.run(std::vector{first})[0];
  const Tensor copy = kept.clone();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    Tensor other = session.run(std::vector{second})[0];
    threads.emplace_back([other = std::move(other), &copy] { EXPECT_FALSE(other.identical(copy)); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(kept.identical(copy));
}

TEST(Profile, SaysWhatEveryNodeTook) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{S, Dim(8)}});
  Builder b(graph);
  graph.add_output("y", b.make("Relu", {b.make("MatMul", {x, b.constant(random_floats({8, 3}, 1)).id()})}));
  CompileOptions plain;
  plain.passes = {};
  Session session(Model::compile(std::move(graph), plain), std::make_shared<ThreadPool>(1));
  Profile profile;
  session.set_profile(&profile);
  session.run(std::vector{random_floats({5, 8}, 2)});
  profile.set_phase("again");
  session.run(std::vector{random_floats({5, 8}, 2)});
  session.set_profile(nullptr);
  session.run(std::vector{random_floats({5, 8}, 2)});
  ASSERT_EQ(profile.runs().size(), 2u);
  EXPECT_EQ(profile.phases()[profile.runs()[1].phase], "again");
  const Profile::Run& run = profile.runs()[0];
  ASSERT_EQ(run.steps.size(), 2u);
  EXPECT_EQ(session.model().graph().node(run.steps[0].node).op, "MatMul");
  EXPECT_EQ(run.steps[0].cost.flops, 2 * 5 * 8 * 3);
  EXPECT_EQ(run.steps[0].cost.bytes, 8 * 3 * 4);
  EXPECT_LE(run.start, run.steps[0].start);
  EXPECT_LE(run.steps[0].start, run.steps[0].end);
  EXPECT_LE(run.steps[1].end, run.end);
}

}  // namespace
}  // namespace weft::runtime
