#include "ops/window.h"

#include <algorithm>

namespace weft {
namespace {

std::vector<std::int64_t> list(const AttributeReader& attributes, std::string_view name, std::size_t count,
                               std::int64_t fallback) {
  if (!attributes.has(name)) return std::vector<std::int64_t>(count, fallback);
  const std::vector<std::int64_t>& values = attributes.integers(name);
  if (values.size() != count) fail(ErrorCode::kInvalidModel, "{} has {} values, {} wanted", name, values.size(), count);
  return values;
}

}  // namespace

Window::Window(const AttributeReader& attributes, std::vector<std::int64_t> kernel_shape,
               std::span<const std::int64_t> input)
    : kernel(std::move(kernel_shape)) {
  const std::size_t rank = kernel.size();
  if (input.size() != rank) fail(ErrorCode::kInvalidModel, "a window of {} axes on {}", rank, input.size());
  strides = list(attributes, "strides", rank, 1);
  dilations = list(attributes, "dilations", rank, 1);
  const std::vector<std::int64_t> pads = list(attributes, "pads", 2 * rank, 0);
  pads_begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank));
  pads_end.assign(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
  for (std::size_t i = 0; i < rank; ++i) {
    if (kernel[i] < 1 || strides[i] < 1 || dilations[i] < 1)
      fail(ErrorCode::kInvalidModel, "a window with an extent below 1");
  }
  // So that arithmetic on them does not overflow.
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  for (const auto& values : {kernel, strides, dilations, pads}) {
    for (const std::int64_t value : values) {
      if (value > kMost || value < -kMost) fail(ErrorCode::kInvalidModel, "a window with an extent of {}", value);
    }
  }
  const std::string& mode = attributes.text("auto_pad");
  if (mode == "VALID") {
    std::fill(pads_begin.begin(), pads_begin.end(), 0);
    std::fill(pads_end.begin(), pads_end.end(), 0);
  } else if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    for (std::size_t i = 0; i < rank; ++i) {
      const std::int64_t out = (input[i] + strides[i] - 1) / strides[i];
      const std::int64_t total =
          std::max<std::int64_t>(0, (out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - input[i]);
      pads_begin[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      pads_end[i] = total - pads_begin[i];
    }
  } else if (mode != "NOTSET") {
    fail(ErrorCode::kInvalidModel, "auto_pad \"{}\"", mode);
  }
}

std::int64_t Window::output_extent(std::size_t axis, std::int64_t input, bool ceil_mode) const {
  const std::int64_t reach = (kernel[axis] - 1) * dilations[axis] + 1;
  const std::int64_t room = input + pads_begin[axis] + pads_end[axis] - reach;
  if (room < 0) return 0;
  std::int64_t count = (room + (ceil_mode ? strides[axis] - 1 : 0)) / strides[axis] + 1;
  // A window that starts in the padding behind the input is not taken.
  if (ceil_mode && (count - 1) * strides[axis] >= input + pads_begin[axis]) --count;
  return count;
}

std::pair<std::int64_t, std::int64_t> Window::taps_inside(std::size_t axis, std::int64_t output, std::int64_t begin,
                                                          std::int64_t end) const {
  const std::int64_t first = output * strides[axis] - pads_begin[axis];
  const auto taps_before = [&](std::int64_t limit) {
    const std::int64_t room = limit - first;  // of a tap's distance from the first
    return std::clamp<std::int64_t>(room <= 0 ? 0 : (room - 1) / dilations[axis] + 1, 0, kernel[axis]);
  };
  const std::int64_t from = taps_before(begin);
  return {from, std::max(from, taps_before(end))};
}

Shape infer_window(InferContext& context, const Shape& input, const std::vector<std::int64_t>& kernel, bool ceil_mode) {
  const AttributeReader& attributes = context.attributes();
  const std::string& mode = attributes.text("auto_pad");
  Shape result;
  std::vector<std::int64_t> known;
  for (const Dim& dim : input) known.push_back(dim.is_constant() ? dim.value() : 1);
  const Window window(attributes, kernel, known);
  for (std::size_t i = 0; i < input.size(); ++i) {
    if (input[i].is_constant()) {
      result.emplace_back(window.output_extent(i, input[i].value(), ceil_mode));
    } else if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
      result.push_back(Dim::ceil_div(input[i], Dim(window.strides[i])));
    } else if (ceil_mode) {
      result.push_back(context.unknown_dim());
    } else {
      const Dim room =
          input[i] + Dim(window.pads_begin[i] + window.pads_end[i] - (kernel[i] - 1) * window.dilations[i] - 1);
      result.push_back(Dim::max(Dim::floor_div(room, Dim(window.strides[i])) + Dim(1), Dim(0)));
    }
  }
  return result;
}

std::vector<AttributeDef> window_attributes(std::vector<AttributeDef> more) {
  std::vector<AttributeDef> all = {
      {"auto_pad", AttributeKind::kString, false, Attribute(std::string("NOTSET"))},
      {"dilations", AttributeKind::kInts},
      {"kernel_shape", AttributeKind::kInts},
      {"pads", AttributeKind::kInts},
      {"strides", AttributeKind::kInts},
  };
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace weft
