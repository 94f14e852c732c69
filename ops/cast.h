// Conversions between element types.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

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

// One number by the same rules; To is the C++ type of a DType other than string.
template <class To>
To number_cast(double x) {
  if constexpr (std::is_same_v<To, bool>) {
    return x != 0;
  } else if constexpr (std::is_integral_v<To>) {
    if (std::isnan(x)) return 0;
    if (x <= static_cast<double>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (x >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(x);
  } else if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(x);
  } else {
    return To(static_cast<float>(x));
  }
}

// The only element; Error kInvalidArgument if there is not exactly one, or of strings.
std::int64_t only_integer(const Tensor& x);

}  // namespace weft
