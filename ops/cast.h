// Conversions between element types.
#pragma once

#include "graph/narrow.h"
#include "graph/tensor.h"

namespace weft {

// How Cast treats 8-bit floats: see narrow_from_double (graph/narrow.h).
struct CastOptions {
  bool saturate = true;
  Rounding rounding = Rounding::kUp;  // of f8e8m0
};

// Cast of ONNX. To integers: truncation towards zero; out of range saturates, NaN gives 0, and integers
// that do not fit a narrower type wrap. To bool: anything but zero is true (NaN too). Floats round to
// nearest even. Strings read and write decimal numbers ("1.5", "NaN", "INF").
// Error kInvalidArgument for a string that is no number.
Tensor cast(const Tensor& x, DType to, const CastOptions& options = {});

}  // namespace weft
