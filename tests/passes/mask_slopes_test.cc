// Masks that are ALiBi's: a slope for each head times the distance of positions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/passes/mask_decoder.h"

namespace weft {
namespace {

// [2, 1, 1] times something of positions.
Expr per_head(Decoder& d, Expr of_positions) {
  const Expr slopes = d.b.constant(Tensor::of<float>({2, 1, 1}, {0.25f, 0.0625f}));
  return slopes * d.b.unsqueeze(d.b.cast(of_positions, DType::kF32), {0, 1});
}

TEST(MaskSlopes, SlopesOfHeads) {
  Decoder d;
  d.attend(d.fill(d.both(d.causal(), d.kept())) + per_head(d, d.key_positions()));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_slopes);
  EXPECT_TRUE(a.has_padding);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_FALSE(a.has_mask);
}

TEST(MaskSlopes, SlopesUnderAFill) {
  Decoder d;
  const Expr excluded = d.b.unary("Not", d.causal());
  d.attend(d.b.where(excluded, d.b.scalar(DType::kF32, kLowest), per_head(d, d.key_positions() - d.query_positions())));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_slopes);
  EXPECT_EQ(a.integer("is_causal"), 1);
  EXPECT_FALSE(a.has_mask);
}

// slope * (t - 63), of which the last T columns are taken.
Expr last_of_table(Decoder& d, float odd_one) {
  std::vector<float> steps;
  for (const float slope : {0.5f, 0.0625f}) {
    for (int t = 0; t < 64; ++t) steps.push_back(slope * static_cast<float>(t - 63) + (t == 3 ? odd_one : 0));
  }
  const Expr table = d.b.constant(Tensor::of<float>({2, 1, 64}, steps));
  const ValueId start = (d.b.extent_of(d.k, 2) * -1.0).id();
  return d.b.make("Slice", {table.id(), start, d.b.ints({64}).id(), d.b.ints({2}).id()});
}

TEST(MaskSlopes, SlopesCutFromATable) {
  Decoder d;
  d.attend(d.fill(d.causal()) + last_of_table(d, 0));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_slopes);
  EXPECT_FALSE(a.has_mask);
}

TEST(MaskSlopes, TablesOfOtherStepsFarAwayAreGeneral) {
  Decoder d;
  d.attend(d.fill(d.causal()) + last_of_table(d, 1));
  const Absorbed a = absorb(d.graph);
  EXPECT_FALSE(a.has_slopes);
  EXPECT_TRUE(a.has_mask);
  EXPECT_EQ(a.integer("is_causal"), 1);
}

TEST(MaskSlopes, ThatDifferBetweenHeadsByMoreThanASlopeAreGeneral) {
  Decoder d;
  d.attend(per_head(d, d.key_positions() * d.key_positions()));
  const Absorbed a = absorb(d.graph);
  EXPECT_TRUE(a.has_mask);
  EXPECT_THAT(a.reason, ::testing::HasSubstr("by more than a slope"));
}

TEST(MaskSlopes, SlopesThatAreRoundedAreGeneral) {
  Decoder d;
  d.attend(d.b.cast(d.b.cast(per_head(d, d.key_positions()), DType::kF16), DType::kF32));
  EXPECT_TRUE(absorb(d.graph).has_mask);
}

TEST(MaskSlopes, SinksSeeWhatSlopesLeaveOpen) {
  Decoder d;
  const Expr sinks = d.b.constant(Tensor::vector<float>(std::vector<float>{0.5f, -1.0f}));
  const std::vector<ValueId> inputs = {d.q, d.k, d.v, per_head(d, d.key_positions()), {}, {}, sinks};
  d.graph.add_output("y", d.b.make("Attention", inputs, {{"scale", 0.5}}));
  EXPECT_TRUE(absorb(d.graph).has_mask);
}

}  // namespace
}  // namespace weft
