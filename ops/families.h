// Every family of operators: a function that gives its definitions. Adding a family means a line here
// and one in op_table.cc.
#pragma once

#include <span>

#include "ops/op_def.h"

namespace weft {

std::span<const OpDef> unary_ops();
std::span<const OpDef> binary_ops();
std::span<const OpDef> logic_ops();
std::span<const OpDef> cast_ops();
std::span<const OpDef> reduce_ops();
std::span<const OpDef> along_axis_ops();
std::span<const OpDef> matmul_ops();
std::span<const OpDef> normalization_ops();
std::span<const OpDef> convolution_ops();
std::span<const OpDef> pooling_ops();
std::span<const OpDef> recurrent_ops();
std::span<const OpDef> fused_ops();
std::span<const OpDef> fused_normalization_ops();
std::span<const OpDef> attention_ops();
std::span<const OpDef> shape_ops();
std::span<const OpDef> movement_ops();
std::span<const OpDef> padding_ops();
std::span<const OpDef> gather_ops();
std::span<const OpDef> generate_ops();
std::span<const OpDef> control_ops();
std::span<const OpDef> scan_ops();
std::span<const OpDef> sequence_ops();
std::span<const OpDef> quantize_ops();
std::span<const OpDef> packed_weights_ops();
std::span<const OpDef> resize_ops();
std::span<const OpDef> rearrange_ops();
std::span<const OpDef> select_ops();
std::span<const OpDef> signal_ops();
std::span<const OpDef> vision_ops();
std::span<const OpDef> bits_ops();
std::span<const OpDef> state_space_ops();

}  // namespace weft
