// The instruction sets that weft's own kernels use.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace weft::runtime {

// Names restrict_isa() takes, from the least to the most.
std::span<const std::string_view> isa_names();

// Kernels use at most this instruction set from now on, in the whole process: to compare, or to have on one machine
// what another computes. Call it before the first model is compiled, as weights are packed for the instruction set in
// use. Operators that run on XNNPACK (convolutions, quantized products) choose for themselves. Error kInvalidArgument
// for an unknown name; asking for more than the CPU has is no error.
void restrict_isa(std::string_view name);

// Highway's name of the one in use: "AVX3", "AVX2", "SSE2", ...
std::string isa_in_use();

}  // namespace weft::runtime
