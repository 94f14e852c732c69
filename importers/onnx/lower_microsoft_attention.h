// What the attention operators of com.microsoft share.
#pragma once

#include <optional>

#include "importers/onnx/lower_microsoft.h"

namespace weft::onnx {

// 0, 1, ... below length, i64[].
Expr range(Builder& b, Expr length);
// One extent of x, i64[].
Expr extent(Builder& b, Expr x, std::int64_t axis);

// [B, S, H * D] <-> [B, H, S, D]
Expr split_heads(Builder& b, Expr x, std::int64_t heads);
Expr merge_heads(Builder& b, Expr x);

// num_heads and kv_num_heads, of a size that arithmetic on them cannot overflow; Error kInvalidModel otherwise.
std::int64_t heads_of(Lowering& l, std::string_view name);

// The sum of those that are there.
Expr added(Expr x, Expr y);
// Along the axis of tokens.
Expr joined(Builder& b, Expr past, Expr now);

// cos and sin: [positions, D / 2], full after lookup and doubling; x: [B, H, S, D]; positions: [B, S].
Expr rotate(Builder& b, Expr x, Expr positions, Expr cos, Expr sin, bool interleaved);

struct Core {
  Expr q, k, v;  // [B, heads, length, size]
  Expr bias;     // additive, or none
  Expr allowed;  // boolean, or none
  std::optional<double> scale;
  double softcap = 0;
};

Expr attend(Builder& b, const Core& core);
// Attribute "scale"; 0 is as if it were not given.
std::optional<double> scale_of(Lowering& l);

std::vector<ValueId> group_query_attention(Lowering& l);

}  // namespace weft::onnx
