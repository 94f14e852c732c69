// Operators on the bits of elements.
#include <algorithm>

#include "graph/narrow.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// Shifts by the width or more give 0 (ONNX 11 leaves them open; NumPy's rule).
void shift_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const Tensor& by = context.input(1);
  const std::string& direction = context.attributes().text("direction");
  if (x.dtype() != by.dtype() || (direction != "LEFT" && direction != "RIGHT")) {
    fail(ErrorCode::kInvalidModel, "BitShift \"{}\" of {} by {}", direction, to_string(x.dtype()),
         to_string(by.dtype()));
  }
  const Extents shape = broadcast_extents(x.shape(), by.shape());
  Tensor& out = context.output(0, x.dtype(), shape);
  const std::array<Extents, 3> strides = {broadcast_strides(x.shape(), shape), broadcast_strides(by.shape(), shape),
                                          row_major_strides(shape)};
  const auto step = [&](std::size_t k) { return shape.empty() ? 0 : strides[k].back(); };
  const std::int64_t length = shape.empty() ? 1 : shape.back();
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_unsigned_v<T> && !std::is_same_v<T, bool>) {
      for_each_row<3>(shape, strides, [&](const std::array<std::int64_t, 3>& at) {
        for (std::int64_t i = 0; i < length; ++i) {
          const std::uint64_t value = x.data<T>()[static_cast<std::size_t>(at[0] + i * step(0))];
          const std::uint64_t places = by.data<T>()[static_cast<std::size_t>(at[1] + i * step(1))];
          std::uint64_t result = 0;
          if (places < 8 * sizeof(T)) result = direction == "LEFT" ? value << places : value >> places;
          out.mutable_data<T>()[static_cast<std::size_t>(at[2] + i)] = static_cast<T>(result);
        }
      });
    } else {
      fail(ErrorCode::kInvalidModel, "BitShift of {}", to_string(x.dtype()));
    }
  });
}

void infer_bit_cast(InferContext& context) {
  const DType from = context.dtype(0), to = context.attributes().type("to");
  if (is_object(from) || is_object(to) || packed_bits(from) != packed_bits(to)) {
    fail(ErrorCode::kInvalidModel, "BitCast of {} to {}", to_string(from), to_string(to));
  }
  context.set_dtype(0, to);
  context.set_shape(0, context.shape(0));
}

// The same bits (ONNX 26). Narrow integers keep their sign extension.
void bit_cast_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const DType to = context.attributes().type("to");
  Tensor& out = context.output(0, to, x.shape());
  const auto from = x.bytes();
  std::copy(from.begin(), from.end(), out.mutable_bytes().begin());
  const int bits = packed_bits(to);
  if (bits == 8 || !is_narrow(to)) return;
  const unsigned mask = (1u << bits) - 1;
  const bool is_signed = to == DType::kI4 || to == DType::kI2;
  for (std::byte& element : out.mutable_bytes()) {
    unsigned code = std::to_integer<unsigned>(element) & mask;
    if (is_signed && (code >> (bits - 1)) != 0) code |= ~mask;
    element = static_cast<std::byte>(code);
  }
}

}  // namespace

std::span<const OpDef> bits_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "BitShift",
       .inputs = {{"X"}, {"Y"}},
       .outputs = {{"Z"}},
       .attributes = {{"direction", AttributeKind::kString, true}},
       .infer = infer_broadcast,
       .reference = shift_kernel},
      {.name = "BitCast",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {{"to", AttributeKind::kType, true}},
       .infer = infer_bit_cast,
       .reference = bit_cast_kernel},
  };
  return ops;
}

}  // namespace weft
