// ConvTranspose of f32 in any number of dimensions.
#pragma once

#include "runtime/kernels/kernel.h"

namespace weft::runtime {

// For a ConvTranspose whose inputs are f32.
std::unique_ptr<Kernel> make_transposed_convolution_kernel(bool constant_weights);

}  // namespace weft::runtime
