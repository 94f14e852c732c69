// The passes, one file each; pipeline.cc gives their order.
#pragma once

#include <string_view>
#include <vector>

#include "passes/rule.h"

namespace weft {

struct Pass {
  std::string_view name;
  // Changes the graph, tells the context of each rewrite and returns how many it made.
  int (*run)(Graph& graph, PassContext& context);
};

// Canonical forms.
int canonicalize(Graph& graph, PassContext& context);
// Parts of canonicalize.
int drop_no_ops(Graph& graph, PassContext& context);
int root_shapes(Graph& graph, PassContext& context);
int canonicalize_spelling(Graph& graph, PassContext& context);
int canonicalize_products(Graph& graph, PassContext& context);
int canonicalize_weights(Graph& graph, PassContext& context);
int canonicalize_reductions(Graph& graph, PassContext& context);
int inline_branches(Graph& graph, PassContext& context);
int fold_shapes(Graph& graph, PassContext& context);
int fold_constants(Graph& graph, PassContext& context);
int eliminate_common_subexpressions(Graph& graph, PassContext& context);
int eliminate_dead_code(Graph& graph, PassContext& context);

// Fusions.
int fuse_normalization(Graph& graph, PassContext& context);
int fuse_activation(Graph& graph, PassContext& context);
int fuse_convolution(Graph& graph, PassContext& context);
int fuse_linear(Graph& graph, PassContext& context);
int fuse_quantized(Graph& graph, PassContext& context);
int fuse_rotary(Graph& graph, PassContext& context);
int fuse_attention(Graph& graph, PassContext& context);
int absorb_into_attention(Graph& graph, PassContext& context);
int absorb_masks(Graph& graph, PassContext& context);
int fuse_qkv(Graph& graph, PassContext& context);
int fuse_gate_up(Graph& graph, PassContext& context);
int fuse_residual_normalization(Graph& graph, PassContext& context);

// Shared by fuse_qkv and counts: the product with weights whose output, cut and rearranged but not mixed, reaches this
// value; invalid if there is none.
NodeId projection_of(const Graph& graph, ValueId value);

}  // namespace weft
