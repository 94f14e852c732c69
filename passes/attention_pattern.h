// What attention looks like between its two products: scores, what masks them, softmax and what follows it.
#pragma once

#include "passes/rule.h"

namespace weft {

struct AttentionHandles {
  Pattern q = any("q"), keys = any("transposed k"), v = any("v");
  Pattern mask = any("mask"), more_mask = any("second mask"), kept = any("condition"), dropped = any("condition");
  Pattern flat_mask = any("mask"), spread, merged, capped;
  Pattern head_factor = any("factor of a head");
  Pattern minus_mask = any("mask"), floored;  // taken off the scores; the masked scores where they are at least `floor`
  Scalar floor = scalar("floor");
  Pattern early_mask = any("mask");  // added to the scores before they are scaled
  Scalar sum_scale = scalar("scale of the sum"), late_scale = scalar("scale of the spread scores");
  Scalar inner_scale = scalar("scale of the product");      // before the factor of a head
  Pattern sinks = any("sinks"), with_sinks, without_sinks;  // one more score of each row, and its weight left out
  Scalar q_scale = scalar("scale of q"), k_scale = scalar("scale of k"), scale = scalar("scale of the scores"),
         cap = scalar("soft cap");
  Scalar kept_fill = scalar("fill"), dropped_fill = scalar("fill");
  Pattern early_kept = any("condition"), early_dropped = any("condition");  // filled before those above
  Scalar early_kept_fill = scalar("fill"), early_dropped_fill = scalar("fill");
  Pattern ones = any("mask of ones and zeros");  // scores * ones + (1 - ones) * fill
  Scalar ones_fill = scalar("fill");
  Pattern guarded, zeroed;
};

// The scores, scaled and perhaps capped: softcap * tanh(score / softcap).
Pattern scores_of(AttentionHandles& handles);
// The weights that scores give, perhaps guarded against rows of nothing, or set to 0 where scores had been filled.
Pattern weights_of(AttentionHandles& handles, const Pattern& scores);

// The same of scores with one more in each row, whose weight is left out.
Pattern weights_beside_sinks(AttentionHandles& handles, const Pattern& scores);

// All that masks scores but flat_mask.
std::vector<Pattern> masks_of(const AttentionHandles& handles);
// Whether the masks of a match are some that Attention applies too, to scores of `rank` axes.
bool check_mask(Match& match, const AttentionHandles& handles, std::int64_t rank);
// All of them, but flat_mask, as one; invalid without any.
Expr whole_mask(Builder& builder, const Match& match, const AttentionHandles& handles);
// The sum of two masks, either of which may be boolean or absent.
Expr both_masks(Builder& builder, Expr x, Expr y);
// The sinks of a match, one for each of so many heads: a value [H], a constant [1, H, 1, 1] or the like; else invalid,
// as it is without any.
ValueId sinks_of(const Match& match, const AttentionHandles& handles, const Dim& heads);
// The same as [H] of f32.
Expr sink_row(Builder& builder, ValueId sinks);
// q times its factor for each head, if there is one.
Expr query_of(Builder& builder, const Match& match, const AttentionHandles& handles);
Attributes attention_attributes(const Match& match, const AttentionHandles& handles);

}  // namespace weft
