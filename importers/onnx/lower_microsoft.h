// Operators of the domain com.microsoft, which ONNX Runtime's optimizer and model builder write, as compositions.
#pragma once

#include "importers/onnx/lower.h"

namespace weft::onnx {

inline constexpr std::string_view kMicrosoftDomain = "com.microsoft";

// Null when weft does not have it.
LowerFunction find_microsoft_lowering(std::string_view op);

std::span<const LoweringEntry> microsoft_layer_lowerings();
std::span<const LoweringEntry> microsoft_quantized_lowerings();
std::span<const LoweringEntry> microsoft_attention_lowerings();
std::span<const LoweringEntry> microsoft_expert_lowerings();

// u8[..., n] of packed elements of 2, 4 or 8 bits, low bits first -> u8[..., n * 8 / bits].
Expr unpack_bits(Builder& b, Expr packed, std::int64_t bits);

// Operators that ONNX Runtime writes into the default domain though ONNX has none of their names.
std::span<const LoweringEntry> misplaced_lowerings();

}  // namespace weft::onnx
