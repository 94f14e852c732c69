// The parts of Attention's definition that exporters need apart.
#pragma once

#include "ops/builder.h"

namespace weft {

// What a node of Attention (docs/operators.md) adds to its scores: mask, slopes, and what positions and key_padding
// exclude. Broadcasts to [B, Hq, S, T]; of q's dtype. Invalid when it adds nothing. q and k: [B, heads, length, size].
Expr attention_bias(Expansion& node, Expr q, Expr k);

// Attention's reading of an input of rank 3: [B, length, heads * size] -> [B, heads, length, size]; rank 4 stays.
Expr split_heads(Expansion& node, Expr x, std::int64_t heads);
// [B, H, T, D] -> [B, H * group, T, D]: each head serves `group` query heads that follow each other.
Expr repeat_heads(Expansion& node, Expr x, std::int64_t group);
// Query heads per key head. Error kInvalidModel when there is no whole number of them.
std::int64_t heads_per_key(Expansion& node, Expr q, Expr k);

}  // namespace weft
