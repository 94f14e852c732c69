// Masks of Attention told by what they compute: each form becomes attributes and gives the same numbers; what only
// looks like one stays a mask.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/passes/mask_decoder.h"

namespace weft {
namespace {

// Windows of an image are many batches, and none at all where it is as small as what masks are tried on.
TEST(Masks, AreNotReadOffScoresOfNoBatch) {
  Graph graph;
  Builder b(graph);
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{Dim::floor_div(B * S, Dim(64)), 2, 3, 4}});
  const Expr mask = b.constant(Tensor::of<float>({1, 1, 3, 3}, {0, 1, 2, 1, 0, 1, 2, 1, 0}));
  graph.add_output("y", b.make("Attention", {x, x, x, mask.id()}, {{"scale", 0.5}}));
  EXPECT_TRUE(absorb(graph, {{{"B", 8}, {"S", 16}}}).has_mask);
}

TEST(Masks, CausalFromTheEndOfThePast) {
  Decoder d;
  d.attend(d.causal());
  const Absorbed a = absorb(d.graph);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_EQ(std::get<std::string>(a.attributes.at("query_position")), "end");
  EXPECT_FALSE(a.has_mask);
  EXPECT_FALSE(a.has_padding);
}

// Vision models have one whose sizes are constants.
TEST(Masks, ConstantsThatExcludeNothing) {
  const auto has_mask = [](const Tensor& mask) {
    Graph graph;
    Builder b(graph);
    const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, 2, 5, 4}});
    graph.add_output("y", b.make("Attention", {x, x, x, b.constant(mask).id()}, {{"scale", 0.5}}));
    return absorb(graph, {{{"B", 2}}}).has_mask;
  };
  EXPECT_FALSE(has_mask(Tensor::full(DType::kBool, {1, 1, 5, 1}, 1)));
  EXPECT_FALSE(has_mask(Tensor::zeros(DType::kF32, {1, 1, 1, 5})));
  EXPECT_TRUE(has_mask(Tensor::of<float>({1, 1, 1, 5}, {0, 0, 0, 0, 1})));
}

TEST(Masks, NoFillIsKeptWhereEveryRowHasAKey) {
  Decoder d;
  d.attend(d.fill(d.causal()));
  const Absorbed a = absorb(d.graph);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_FALSE(a.attributes.contains("masked_fill"));
}

TEST(Masks, PaddingKeepsItsFill) {
  Decoder d;
  d.attend(d.fill(d.kept()));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_padding);
  EXPECT_FALSE(a.has_mask);
  EXPECT_EQ(std::get<double>(a.attributes.at("masked_fill")), kLowest);
  EXPECT_EQ(a.integer("is_causal"), -1);
}

TEST(Masks, OnesThatAreExcluded) {
  Decoder d;
  d.attend(d.fill(d.b.unary("Not", d.kept()), -INFINITY));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_padding);
  EXPECT_FALSE(a.has_mask);
}

TEST(Masks, WindowAndPaddingInOneCondition) {
  Decoder d;
  d.attend(d.fill(d.both(d.both(d.causal(), d.after(2)), d.kept())));
  const Absorbed a = absorb(d.graph);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_EQ(a.integer("left_window_size"), 1);
  EXPECT_EQ(a.integer("fill_per_condition"), -1);
  EXPECT_TRUE(a.has_padding);
  EXPECT_FALSE(a.has_mask);
}

// The sizes that are tried never reach such a window: it is made small for them.
TEST(Masks, WindowsLargerThanAnySample) {
  for (const std::int64_t window : {9, 16, 128, 4096, 131072}) {
    Decoder d;
    d.attend(d.both(d.causal(), d.after(window)));
    const Absorbed a = absorb(d.graph);
    EXPECT_EQ(a.integer("left_window_size"), window - 1);
    EXPECT_EQ(a.integer("is_causal"), 1);
    EXPECT_FALSE(a.has_mask);
  }
  Decoder d;
  d.attend(d.both(d.causal(), d.after(16)));
  absorb(d.graph, {{{"B", 1}, {"S", 20}, {"P", 3}}, {{"B", 1}, {"S", 2}, {"P", 40}}});
}

TEST(Masks, Chunks) {
  for (const std::int64_t size : {3, 1024}) {
    Decoder d;
    const Expr chunk = d.b.constant(Tensor::scalar<std::int64_t>(size));
    const Expr same = d.b.make("Equal", {d.b.make("Div", {d.key_positions().id(), chunk.id()}).id(),
                                         d.b.make("Div", {d.query_positions().id(), chunk.id()}).id()});
    d.attend(d.fill(d.both(d.causal(), same)));
    const Absorbed a = absorb(d.graph);
    EXPECT_EQ(a.integer("chunk_size"), size);
    EXPECT_EQ(a.integer("is_causal"), 1);
  }
}

TEST(Masks, SumsFillTwice) {
  Decoder d;
  d.attend(d.fill(d.causal()) + d.fill(d.kept()));
  const Absorbed a = absorb(d.graph);
  EXPECT_EQ(a.integer("fill_per_condition"), 1);
  EXPECT_TRUE(a.has_padding);
  EXPECT_FALSE(a.has_mask);
}

TEST(Masks, WhatIsNoPaddingStaysBesideThePositions) {
  Decoder d;
  const Expr lowered = (1.0 - d.b.unsqueeze(d.b.cast(d.attention_mask, DType::kF32), {1, 2})) * -10000.0;
  d.attend(d.fill(d.causal(), -INFINITY) + lowered);
  const Absorbed a = absorb(d.graph);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_TRUE(a.has_mask);
  EXPECT_FALSE(a.has_padding);
}

// A table of more positions than samples see: a causal one, one with a window.
TEST(Masks, Tables) {
  for (const std::int64_t window : {0, 40}) {
    Decoder d;
    std::vector<std::uint8_t> bits;
    for (std::int64_t i = 0; i < 100 * 100; ++i) {
      const std::int64_t behind = i / 100 - i % 100;
      bits.push_back(behind >= 0 && (window == 0 || behind < window));
    }
    Tensor table = Tensor::uninitialized(DType::kBool, {1, 1, 100, 100});
    std::copy(bits.begin(), bits.end(), table.mutable_data<bool>().begin());
    const Expr total = d.b.extent_of(d.k, 2), start = total - d.b.extent_of(d.q, 2);
    const Expr rows = d.b.make("Slice", {d.b.constant(table).id(), start.id(), total.id(), d.b.ints({2}).id()});
    const Expr cut = d.b.make("Slice", {rows.id(), d.b.ints({0}).id(), total.id(), d.b.ints({3}).id()});
    d.attend(d.fill(cut));
    const Absorbed a = absorb(d.graph, {{{"B", 2}, {"S", 3}, {"P", 2}}, {{"B", 1}, {"S", 2}, {"P", 60}}});
    EXPECT_EQ(a.integer("is_causal"), 1);
    EXPECT_EQ(a.integer("left_window_size"), window == 0 ? -1 : window - 1);
    EXPECT_FALSE(a.has_mask);
  }
}

TEST(Masks, ATableWithOneBitOffIsNoBand) {
  Decoder d;
  Tensor table = Tensor::zeros(DType::kBool, {100, 100});
  for (std::size_t i = 0; i < 100 * 100; ++i) table.mutable_data<bool>()[i] = i % 100 <= i / 100;
  table.mutable_data<bool>()[99 * 100 + 50] = false;
  const Expr total = d.b.extent_of(d.k, 2), start = total - d.b.extent_of(d.q, 2);
  const Expr rows = d.b.make("Slice", {d.b.constant(table).id(), start.id(), total.id(), d.b.ints({0}).id()});
  d.attend(d.b.make("Slice", {rows.id(), d.b.ints({0}).id(), total.id(), d.b.ints({1}).id()}));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_mask);
  EXPECT_THAT(a.reason, ::testing::HasSubstr("no band"));
}

// --- Refusals ------------------------------------------------------------------------------------------------

TEST(Masks, OfGivenPositionsAreGeneral) {
  Decoder d;
  const Expr positions = d.input("cache_position", DType::kI64, {S});
  d.attend(d.b.make("LessOrEqual", {d.key_positions().id(), d.b.unsqueeze(positions, {1}).id()}));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_mask);
  EXPECT_THAT(a.reason, ::testing::HasSubstr("depends on the input \"cache_position\""));
}

TEST(Masks, OfNumbersOfTheGraphAreGeneral) {
  Decoder d;
  const Expr scores = d.b.matmul(d.q, d.b.transpose(d.k, {0, 1, 3, 2}));
  d.attend(d.b.make("Greater", {scores.id(), d.b.scalar(DType::kF32, 0.0).id()}));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_mask);
  EXPECT_THAT(a.reason, ::testing::HasSubstr("MatMul"));
}

// A bias of relative positions: rows of a table, found by t - p.
Expr relative_bias(Decoder& d) {
  std::vector<float> table(64);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i * i % 13) / 8;
  const Expr distance = d.b.make("Abs", {(d.key_positions() - d.query_positions()).id()});
  const Expr bias = d.b.make("Gather", {d.b.constant(Tensor::of<float>({32, 2}, table)).id(), distance.id()});
  return d.b.transpose(bias, {2, 0, 1});
}

TEST(Masks, PositionsAreTakenFromAWhereOverABoundedBias) {
  Decoder d;
  d.attend(d.b.where(d.causal(), relative_bias(d), d.b.scalar(DType::kF32, kLowest)));
  const Absorbed a = absorb(d.graph);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_TRUE(a.has_mask);
  EXPECT_FALSE(a.attributes.contains("masked_fill"));  // every row has a key
  EXPECT_THAT(a.reason, ::testing::HasSubstr("no band"));
}

TEST(Masks, PaddingIsTakenFromAWhereOverABoundedBias) {
  Decoder d;
  d.attend(d.b.where(d.kept(), relative_bias(d), d.b.scalar(DType::kF32, kLowest)));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_padding);
  EXPECT_TRUE(a.has_mask);
  EXPECT_TRUE(a.attributes.contains("masked_fill"));
}

TEST(Masks, AFillOverABiasOfAnySizeStays) {
  for (const double low : {kLowest, -std::numeric_limits<double>::infinity()}) {
    Decoder d;
    const Expr bias = d.input("bias", DType::kF32, {Dim(2), S, d.keys});
    d.attend(d.b.where(d.causal(), bias, d.b.scalar(DType::kF32, low)));
    const Absorbed a = absorb(d.graph);
    EXPECT_EQ(a.integer("is_causal"), std::isinf(low) ? 1 : -1) << low;  // -inf is the last word whatever is added
    EXPECT_TRUE(a.has_mask);
  }
}

TEST(Masks, AWhereOverAnotherFillsOnce) {
  Decoder d;
  d.attend(d.b.where(d.causal(), d.fill(d.kept()), d.b.scalar(DType::kF32, kLowest)));
  const Absorbed a = absorb(d.graph);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_TRUE(a.has_padding);
  EXPECT_EQ(a.integer("fill_per_condition"), -1);
  EXPECT_FALSE(a.has_mask);
}

// (1 - attention_mask) * fill: padding, of an attention_mask that holds ones and zeros.
TEST(Masks, PaddingByArithmetic) {
  for (const double low : {kLowest, -10000.0}) {
    Decoder d;
    const Expr flags = d.b.unsqueeze(d.b.cast(d.attention_mask, DType::kF32), {1, 2});
    d.attend((1.0 - flags) * low);
    const Absorbed a = absorb(d.graph);
    EXPECT_TRUE(a.has_padding);
    EXPECT_FALSE(a.has_mask);
    EXPECT_EQ(std::get<double>(a.attributes.at("masked_fill")), low);
  }
}

TEST(Masks, FloatsOfAnySizeAreNoPadding) {
  Decoder d;
  const Expr soft = d.input("soft", DType::kF32, {B, d.keys});
  d.attend(d.b.unsqueeze((1.0 - soft) * -10000.0, {1, 2}));
  const Absorbed a = absorb(d.graph);
  EXPECT_FALSE(a.has_padding);
  EXPECT_TRUE(a.has_mask);
}

TEST(Masks, ThatOnlyPreferAreGeneral) {
  Decoder d;
  d.attend(d.fill(d.causal(), -5.0));
  EXPECT_TRUE(absorb(d.graph).has_mask);
}

// Rows without any key attend all of them: no fill says that.
TEST(Masks, ThatOpenEmptyRowsAreGeneral) {
  Decoder d;
  const Expr allowed = d.both(d.causal(), d.kept());
  const Expr any = d.b.make("ReduceMax", {d.b.cast(allowed, DType::kI32).id(), d.b.ints({-1}).id()});
  d.attend(d.b.make("Or", {allowed.id(), d.b.unary("Not", d.b.cast(any, DType::kBool)).id()}));
  EXPECT_TRUE(absorb(d.graph).has_mask);
}

// Key t is padding of the key before it.
TEST(Masks, OfShiftedPaddingAreGeneral) {
  Decoder d;
  const Expr shifted = d.b.make("Pad", {d.b.slice(d.attention_mask, 1, 0, -1).id(), d.b.ints({1, 0}).id(),
                                        d.b.constant(Tensor::scalar<std::int64_t>(1)).id(), d.b.ints({1}).id()});
  d.attend(d.fill(d.b.unsqueeze(d.b.cast(shifted, DType::kBool), {1, 2})));
  EXPECT_TRUE(absorb(d.graph).has_mask);
}

// A source with columns of its own: those beyond the keys do not count.
TEST(Masks, SourcesMayBeLongerThanTheKeys) {
  Decoder d;
  const Expr source = d.input("long_mask", DType::kI64, {B, Dim::symbol("L")});
  const Expr cut = d.b.make("Gather", {source.id(), d.key_positions().id()}, {{"axis", std::int64_t{1}}});
  d.attend(d.fill(d.both(d.causal(), d.b.unsqueeze(d.b.cast(cut, DType::kBool), {1, 2}))));
  const Absorbed a =
      absorb(d.graph, {{{"B", 2}, {"S", 3}, {"P", 2}, {"L", 5}}, {{"B", 2}, {"S", 3}, {"P", 2}, {"L", 11}}});
  EXPECT_TRUE(a.has_padding);
  EXPECT_FALSE(a.has_mask);
}

}  // namespace
}  // namespace weft
