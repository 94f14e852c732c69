// Loops over rows of elements of any type, compiled for several instruction sets and chosen at run time. Operators by
// their ONNX names; null where there is no loop for the type. Integers wrap around.
#pragma once

#include <cstddef>
#include <string_view>

#include "graph/dtype.h"

namespace weft::runtime::elements {

// y[i] = f(x[i]); y may be x where they are of one size.
using MapRow = void (*)(const void* x, void* y, std::size_t count);
MapRow map_row(std::string_view op, DType dtype);
MapRow cast_row(DType from, DType to);

// y[i] = f(a[i], b[i]); an operand that does not advance is one element. y may be an operand of its size.
using PairRow = void (*)(const void* a, bool a_advances, const void* b, bool b_advances, void* y, std::size_t count);
PairRow pair_row(std::string_view op, DType dtype);

// y[i] = condition[i] ? a[i] : b[i], elements of `size` bytes.
using SelectRow = void (*)(const void* condition, bool condition_advances, const void* a, bool a_advances,
                           const void* b, bool b_advances, void* y, std::size_t count);
SelectRow select_row(std::size_t size);

}  // namespace weft::runtime::elements
