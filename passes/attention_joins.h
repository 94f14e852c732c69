// Attention that is written as several, and becomes one before it is fused.
#pragma once

#include "ops/builder.h"
#include "passes/pass_context.h"

namespace weft {

// softmax(...) v1, softmax(...) v2, ... of the same weights are softmax(...) [v1, v2, ...], split. Returns how many
// weights were shared.
int join_values(Graph& graph, PassContext& context);

// Scores of several groups of keys side by side, [q k1^T, q k2^T, ...], whose softmax weighs the values of each group
// for one sum, w1 v1 + w2 v2 + ...: q [k1, k2, ...]^T and w [v1, v2, ...]. Groups may have scales that are equal, masks
// of their own, and a product of rows of two axes as one (blocks of queries that all see the same keys). Returns how
// many were joined.
int join_keys(Graph& graph, PassContext& context);

// Scores that are the sum of two products, a q1 k1^T + b q2 k2^T, are one of as many numbers more:
// a [q1, b/a q2] [k1, k2]^T. Not where keys come of a cache. Returns how many were joined.
int join_products(Graph& graph, PassContext& context);

// The softmax of the last axis that scores alone go into, masked and scaled as they may be; invalid if they do not.
NodeId softmax_below(const Graph& graph, ValueId scores);

// [.., a, b] -> [.., b, a]
Expr swap_last_two(Builder& builder, Expr x);

}  // namespace weft
