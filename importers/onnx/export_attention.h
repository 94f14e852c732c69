// Attention in the forms of a target.
#pragma once

#include "ops/builder.h"

namespace weft::onnx {

// Masks that several layers share are made once: those of equal extents and inputs. One per graph.
class BiasCache {
 public:
  // What the node adds to its scores (see attention_bias()); invalid when nothing. q, k: [B, heads, length, size].
  Expr bias_of(Expansion& node, const Node& attention, Expr q, Expr k);
  // The f32 mask with what is as low as a float can be, or -inf, as the float above that. ONNX Runtime's Attention
  // takes the lowest float for -inf: rows of nothing else were 0 then, not the mean that softmax gives.
  Expr with_floor(Builder& builder, Expr mask);

 private:
  std::map<std::string, ValueId> known_;
  std::map<ValueId, ValueId> floored_;
};

// Replaces Attention by the standard operator, or by com.microsoft's MultiHeadAttention. Returns false, and leaves it,
// where that one cannot express it.
bool spell_standard_attention(Graph& graph, NodeId node, BiasCache& biases);
bool spell_multi_head_attention(Graph& graph, NodeId node, BiasCache& biases);

}  // namespace weft::onnx
