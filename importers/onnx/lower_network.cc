// Layers of networks whose signature or meaning changed, or that weft writes with others.
#include <array>
#include <cmath>

#include "importers/onnx/lower.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

// Statistics of this batch, and the running ones moved towards them.
Values trained_batch_normalization(Lowering& l, double epsilon) {
  Builder& b = l.builder();
  const double momentum = l.number("momentum", 0.9);
  const Expr x = l.input(0);
  std::vector<std::int64_t> axes = {0}, rest;
  for (std::int64_t i = 2; i < b.rank(x); ++i) axes.push_back(i);
  for (std::int64_t i = 1; i + 1 < b.rank(x); ++i) rest.push_back(i);
  const auto per_channel = [&](Expr parameter) { return rest.empty() ? parameter : b.unsqueeze(parameter, rest); };
  const Expr mean = b.mean(x, axes);
  const Expr centred = x - mean;
  const Expr variance = b.mean(centred * centred, axes);
  const Expr y = centred / b.sqrt(variance + epsilon) * per_channel(l.input(1)) + per_channel(l.input(2));
  const auto running = [&](Expr before, Expr now) {
    return (before * momentum + b.squeeze(now, axes) * (1 - momentum)).id();
  };
  return {y.id(), running(l.input(3), mean), running(l.input(4), variance)};
}

Values batch_normalization(Lowering& l) {
  if (l.integer("spatial", 1) != 1) fail(ErrorCode::kUnsupported, "BatchNormalization with spatial = 0");
  const auto epsilon = l.number("epsilon", 1e-5);
  if (l.integer("training_mode", 0) != 0) return trained_batch_normalization(l, epsilon);
  l.ignore("momentum");
  Values inputs;
  for (std::size_t i = 0; i < 5; ++i) inputs.push_back(l.input(i).id());
  return {l.builder().make("BatchNormalization", inputs, {{"epsilon", epsilon}}).id()};
}

Values mean_variance_normalization(Lowering& l) {
  Builder& b = l.builder();
  const auto axes = l.integers("axes").value_or(std::vector<std::int64_t>{0, 2, 3});
  const DType dtype = b.dtype(l.input(0));
  const Expr x = dtype == DType::kF64 ? l.input(0) : b.cast(l.input(0), DType::kF32);
  const Expr centred = x - b.mean(x, axes);
  constexpr double kEpsilon = 1e-9;
  return {b.cast(centred / (b.sqrt(b.mean(centred * centred, axes)) + kEpsilon), dtype).id()};
}

// Opset 18 has one scale and bias per group, 21 one per channel.
Values group_normalization(Lowering& l) {
  if (l.opset() >= 21) return l.pass("GroupNormalization", l.inputs());
  Builder& b = l.builder();
  const std::int64_t groups = l.integer("num_groups", 1);
  const Shape& x = b.shape(l.input(0));
  const Dim per_group = Dim::floor_div(x.at(1), Dim(groups));
  if (!per_group.is_constant()) fail(ErrorCode::kUnsupported, "GroupNormalization of unknown channels");
  const auto spread = [&](Expr parameter) {
    const Expr wide = b.make("Expand", {b.unsqueeze(parameter, {1}).id(), b.ints({groups, per_group.value()}).id()});
    return b.reshape(wide, std::vector<std::int64_t>{-1}).id();
  };
  return {b.make("GroupNormalization", {l.input(0).id(), spread(l.input(1)), spread(l.input(2))},
                 {{"epsilon", l.number("epsilon", 1e-5)}, {"num_groups", groups}})
              .id()};
}

Values upsample(Lowering& l) {
  Builder& b = l.builder();
  ValueId scales = l.maybe(1).id();
  if (const AttributeProto* given = l.find("scales")) {
    scales = b.constant(Tensor::vector<float>(given->floats)).id();
  }
  return {b.make("Resize", {l.input(0).id(), ValueId(), scales},
                 {{"mode", l.text("mode", "nearest")},
                  {"coordinate_transformation_mode", std::string("asymmetric")},
                  {"nearest_mode", std::string("floor")}})
              .id()};
}

Values resize(Lowering& l) {
  if (l.opset() >= 11) return l.pass("Resize", l.inputs());
  return {l.builder()
              .make("Resize", {l.input(0).id(), ValueId(), l.input(1).id()},
                    {{"mode", l.text("mode", "nearest")},
                     {"coordinate_transformation_mode", std::string("asymmetric")},
                     {"nearest_mode", std::string("floor")}})
              .id()};
}

// Before opset 20 the modes were called after two dimensions.
Values grid_sample(Lowering& l) {
  Attributes attributes = l.schema_attributes("GridSample");
  const std::string mode = l.text("mode", "linear");
  attributes["mode"] = std::string(mode == "bilinear" ? "linear" : mode == "bicubic" ? "cubic" : mode);
  return {l.builder().make("GridSample", l.inputs(), std::move(attributes)).id()};
}

Values roi_align(Lowering& l) {
  Attributes attributes = l.schema_attributes("RoiAlign");
  if (l.opset() < 16) attributes["coordinate_transformation_mode"] = std::string("output_half_pixel");
  return {l.builder().make("RoiAlign", l.inputs(), std::move(attributes)).id()};
}

// Opset 17 has the axis as an attribute.
Values dft(Lowering& l) {
  if (l.opset() >= 20) return l.pass("DFT", l.inputs());
  const Expr axis = l.builder().constant(Tensor::scalar<std::int64_t>(l.integer("axis", 1)));
  const std::array<ValueId, 3> inputs = {l.input(0).id(), l.maybe(1).id(), axis.id()};
  return l.pass("DFT", inputs);
}

Values scatter(Lowering& l) { return l.pass("ScatterElements", l.inputs()); }

}  // namespace

std::span<const LoweringEntry> network_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"BatchNormalization", batch_normalization},
      {"GroupNormalization", group_normalization},
      {"MeanVarianceNormalization", mean_variance_normalization},
      {"GridSample", grid_sample},
      {"RoiAlign", roi_align},
      {"DFT", dft},
      {"Upsample", upsample},
      {"Resize", resize},
      {"Scatter", scatter},
  };
  return kEntries;
}

}  // namespace weft::onnx
