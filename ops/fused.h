// What products share that give their columns in several outputs, each with an activation: attributes `widths` (without
// them there is one output) and `activations` (without them there are none).
#pragma once

#include "ops/builder.h"

namespace weft {

std::vector<AttributeDef> cut_attributes();
// Error kInvalidModel when the widths are no parts of the last axis, or not as many as outputs or activations.
void set_cut_shapes(InferContext& context, Shape whole);
// Sets the outputs: the parts of y, activated; a residual is added to the only one.
void cut_and_activate(Expansion& e, Expr y, Expr residual = Expr());

}  // namespace weft
