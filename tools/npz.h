// NumPy's .npy and .npz files.
#pragma once

#include <map>
#include <span>
#include <string>

#include "graph/tensor.h"

namespace weft::tools {

// Little-endian arrays of numbers and bool in C or Fortran order. Error kInvalidArgument otherwise, kIo.
Tensor parse_npy(std::span<const std::byte> bytes);
std::string write_npy(const Tensor& tensor);  // bf16 is written as f32, which holds it exactly

Tensor read_npy(const std::string& path);
std::map<std::string, Tensor, std::less<>> read_npz(const std::string& path);
void write_npz(const std::string& path, const std::map<std::string, Tensor, std::less<>>& tensors);

}  // namespace weft::tools
