// Conversions between element types.
#pragma once

#include "graph/tensor.h"

namespace weft {

// Cast of ONNX. To integers: truncation towards zero; out of range saturates, NaN gives 0, and integers
// that do not fit a narrower type wrap. To bool: anything but zero is true (NaN too). Floats round to
// nearest even. Strings read and write decimal numbers ("1.5", "NaN", "INF").
// Error kInvalidArgument for a string that is no number.
Tensor cast(const Tensor& x, DType to);

}  // namespace weft
