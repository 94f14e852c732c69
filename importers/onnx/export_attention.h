// Attention in the forms of a target.
#pragma once

#include "ops/builder.h"

namespace weft::onnx {

// Masks that several layers share are made once: those of equal extents and inputs. One per graph.
class BiasCache {
 public:
  // What the node adds to its scores (see attention_bias()); invalid when nothing. q, k: [B, heads, length, size].
  Expr bias_of(Expansion& node, const Node& attention, Expr q, Expr k);

 private:
  std::map<std::string, ValueId> known_;
};

// Replaces Attention by the standard operator, or by com.microsoft's MultiHeadAttention. Returns false, and leaves it,
// where that one cannot express it.
bool spell_standard_attention(Graph& graph, NodeId node, BiasCache& biases);
bool spell_multi_head_attention(Graph& graph, NodeId node, BiasCache& biases);

}  // namespace weft::onnx
