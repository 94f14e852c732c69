// Operators whose axes, sizes or bounds were attributes once and are inputs now.
#include <array>
#include <limits>

#include "importers/onnx/lower.h"
#include "ops/shape_util.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

// Input `index`, or attribute `name` of older versions as a constant; invalid when neither is given.
ValueId ints_or_input(Lowering& l, std::string_view name, std::size_t index) {
  if (const auto given = l.integers(name)) return l.builder().ints(*given).id();
  return l.maybe(index).id();
}

// op(data, axes): Squeeze, Unsqueeze, Reduce*.
Values with_axes(Lowering& l) {
  const std::array<ValueId, 2> inputs = {l.input(0).id(), ints_or_input(l, "axes", 1)};
  return l.pass(l.op(), inputs);
}

// PyTorch's TorchScript exporter counts some axes from the end.
Values transpose(Lowering& l) {
  auto perm = l.integers("perm");
  if (!perm) return l.pass("Transpose", l.inputs());
  for (std::int64_t& axis : *perm) {
    if (axis < 0) axis += static_cast<std::int64_t>(perm->size());
  }
  return {l.builder().transpose(l.input(0), *perm).id()};
}

Values split(Lowering& l) {
  const ValueId sizes = ints_or_input(l, "split", 1);
  Attributes attributes = l.schema_attributes("Split");
  if (!sizes.valid() && !attributes.contains("num_outputs")) {
    attributes["num_outputs"] = static_cast<std::int64_t>(l.output_count());
  }
  std::size_t pieces = l.output_count();  // outputs at the end may be left out
  if (const auto given = attributes.find("num_outputs"); given != attributes.end()) {
    const std::int64_t count = std::get<std::int64_t>(given->second);
    constexpr std::int64_t kMost = 1 << 16;
    if (count < static_cast<std::int64_t>(pieces) || count > kMost) {
      fail(ErrorCode::kInvalidModel, "Split into {} with {} outputs", count, pieces);
    }
    pieces = static_cast<std::size_t>(count);
  }
  const std::array<ValueId, 2> inputs = {l.input(0).id(), sizes};
  const auto values = l.builder().make_many("Split", inputs, pieces, std::move(attributes));
  return {values.begin(), values.end()};
}

Values slice(Lowering& l) {
  if (l.opset() >= 10) return l.pass("Slice", l.inputs());
  const auto starts = l.integers("starts");
  const auto ends = l.integers("ends");
  if (!starts || !ends) fail(ErrorCode::kInvalidModel, "Slice without starts or ends");
  const auto axes = l.integers("axes");
  Builder& b = l.builder();
  return {b.make("Slice",
                 {l.input(0).id(), b.ints(*starts).id(), b.ints(*ends).id(), axes ? b.ints(*axes).id() : ValueId()})
              .id()};
}

Values pad(Lowering& l) {
  if (l.opset() >= 11) return l.pass("Pad", l.inputs());
  Builder& b = l.builder();
  const auto pads = l.integers("pads");
  if (!pads) fail(ErrorCode::kInvalidModel, "Pad without pads");
  const Expr value = b.scalar(b.dtype(l.input(0)), l.number("value", 0));
  return {
      b.make("Pad", {l.input(0).id(), b.ints(*pads).id(), value.id()}, {{"mode", l.text("mode", "constant")}}).id()};
}

Values clip(Lowering& l) {
  if (l.opset() >= 11) return l.pass("Clip", l.inputs());
  Builder& b = l.builder();
  const DType dtype = b.dtype(l.input(0));
  constexpr double kMax = static_cast<double>(std::numeric_limits<float>::max());
  const Expr low = b.scalar(dtype, l.number("min", -kMax));
  const Expr high = b.scalar(dtype, l.number("max", kMax));
  return {b.make("Clip", {l.input(0).id(), low.id(), high.id()}).id()};
}

Values top_k(Lowering& l) {
  if (l.opset() >= 10) return l.pass("TopK", l.inputs());
  const std::array<ValueId, 2> inputs = {l.input(0).id(), l.builder().ints({l.integer("k", 1)}).id()};
  return l.pass("TopK", inputs);
}

// Before opset 13 the tensor is a matrix, cut at axis (default 1), and rows are normalized.
Values softmax(Lowering& l) {
  if (l.opset() >= 13) return l.pass(l.op(), l.inputs());
  Builder& b = l.builder();
  const Expr x = l.input(0);
  const std::int64_t rank = b.rank(x);
  const std::int64_t axis = normalize_axis(l.integer("axis", 1), rank);
  if (axis == rank - 1) return {b.make(l.op(), {x.id()}, {{"axis", std::int64_t{-1}}}).id()};
  const Expr flat = b.make("Flatten", {x.id()}, {{"axis", axis}});
  const Expr y = b.make(l.op(), {flat.id()}, {{"axis", std::int64_t{-1}}});
  return {b.reshape(y, b.shape_of(x)).id()};
}

}  // namespace

std::span<const LoweringEntry> axes_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"Squeeze", with_axes},
      {"Unsqueeze", with_axes},
      {"ReduceSum", with_axes},
      {"ReduceMean", with_axes},
      {"ReduceMax", with_axes},
      {"ReduceMin", with_axes},
      {"ReduceProd", with_axes},
      {"ReduceL1", with_axes},
      {"ReduceL2", with_axes},
      {"ReduceLogSum", with_axes},
      {"ReduceLogSumExp", with_axes},
      {"ReduceSumSquare", with_axes},
      {"Transpose", transpose},
      {"Split", split},
      {"Slice", slice},
      {"Pad", pad},
      {"Clip", clip},
      {"TopK", top_k},
      {"Softmax", softmax},
      {"LogSoftmax", softmax},
      {"Hardmax", softmax},
  };
  return kEntries;
}

}  // namespace weft::onnx
