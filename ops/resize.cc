// Resize: interpolation along each axis in turn (ONNX 19).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/resample.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

struct Axis {
  std::int64_t input = 0, output = 0;
  double scale = 1;           // output / input as asked for, perhaps not exact
  double start = 0, end = 1;  // region of interest
};

// What one axis reads, and which of its outputs lie outside of a cropped region.
struct AxisTaps : Resampling {
  std::vector<bool> outside;
};

double source_coordinate(const std::string& mode, const Axis& axis, std::int64_t at) {
  const auto x = static_cast<double>(at);
  const auto in = static_cast<double>(axis.input);
  const double out = axis.scale * in;
  if (mode == "asymmetric") return x / axis.scale;
  if (mode == "align_corners") return out == 1 ? 0 : x * (in - 1) / (out - 1);
  if (mode == "pytorch_half_pixel") return axis.output > 1 ? (x + 0.5) / axis.scale - 0.5 : -0.5;
  if (mode == "tf_crop_and_resize") {
    if (axis.output <= 1) return 0.5 * (axis.start + axis.end) * (in - 1);
    return axis.start * (in - 1) + x * (axis.end - axis.start) * (in - 1) / static_cast<double>(axis.output - 1);
  }
  const double centre = (x + 0.5) / axis.scale - 0.5;
  if (mode == "half_pixel") return centre;
  if (mode == "half_pixel_symmetric") return centre + in / 2 * (1 - static_cast<double>(axis.output) / out);
  fail(ErrorCode::kInvalidModel, "Resize has no coordinate_transformation_mode \"{}\"", mode);
}

std::int64_t nearest(const std::string& mode, double x) {
  if (mode == "floor") return number_cast<std::int64_t>(std::floor(x));
  if (mode == "ceil") return number_cast<std::int64_t>(std::ceil(x));
  if (mode == "round_prefer_floor") return number_cast<std::int64_t>(std::ceil(x - 0.5));
  if (mode == "round_prefer_ceil") return number_cast<std::int64_t>(std::floor(x + 0.5));
  fail(ErrorCode::kInvalidModel, "Resize has no nearest_mode \"{}\"", mode);
}

// Keys' kernel.
double cubic(double x, double a) {
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Appends what one coordinate reads.
class TapReader {
 public:
  TapReader(const AttributeReader& attributes, const Axis& axis)
      : axis_(axis),
        transform_(attributes.text("coordinate_transformation_mode")),
        mode_(attributes.text("mode")),
        nearest_mode_(attributes.text("nearest_mode")),
        coefficient_(attributes.number("cubic_coeff_a")),
        antialias_(attributes.integer("antialias") != 0),
        exclude_outside_(attributes.integer("exclude_outside") != 0) {
    if (mode_ != "nearest" && mode_ != "cubic" && mode_ != "linear") {
      fail(ErrorCode::kInvalidModel, "Resize has no mode \"{}\"", mode_);
    }
    const bool cubic = mode_ == "cubic";
    if (antialias_) squeeze_ = std::min(axis.scale, 1.0);
    const double reach = (cubic ? 2.0 : 1.0) / squeeze_;
    first_ = number_cast<std::int64_t>(std::floor(-reach)) + 1;
    end_ = (cubic && antialias_) || !cubic || squeeze_ == 1.0 ? 2 - first_ : 3;
  }

  std::size_t each() const { return mode_ == "nearest" ? 1 : static_cast<std::size_t>(end_ - first_); }

  void read(std::int64_t at, AxisTaps& taps) const {
    const double x = source_coordinate(transform_, axis_, at);
    taps.outside.push_back(transform_ == "tf_crop_and_resize" && (x < 0 || x > static_cast<double>(axis_.input - 1)));
    if (mode_ == "nearest") {
      taps.index.push_back(clamped(nearest(nearest_mode_, x)));
      taps.weight.push_back(1);
      return;
    }
    const double base = std::ceil(x) - 1;  // so that the rest lies in (0, 1]
    // Beyond these everything reads the edge.
    const auto limit = static_cast<double>(axis_.input + end_ - first_);
    const auto whole = number_cast<std::int64_t>(std::clamp(base, -limit, limit));
    std::vector<double> weights;
    double total = 0;
    for (std::int64_t i = first_; i < end_; ++i) {
      const double distance = (static_cast<double>(i) - (x - base)) * squeeze_;
      double weight = mode_ == "cubic" ? cubic(distance, coefficient_) : std::max(0.0, 1 - std::abs(distance));
      if (exclude_outside_ && whole + i != clamped(whole + i)) weight = 0;
      taps.index.push_back(clamped(whole + i));
      weights.push_back(weight);
      total += weight;
    }
    const bool scaled = antialias_ || exclude_outside_;
    for (const double weight : weights) taps.weight.push_back(static_cast<float>(scaled ? weight / total : weight));
  }

 private:
  std::int64_t clamped(std::int64_t i) const { return std::clamp<std::int64_t>(i, 0, axis_.input - 1); }

  Axis axis_;
  std::string transform_, mode_, nearest_mode_;
  double coefficient_, squeeze_ = 1;
  bool antialias_, exclude_outside_;
  std::int64_t first_ = 0, end_ = 1;  // of the taps, from the one at or before the coordinate
};

std::int64_t scaled_extent(std::int64_t input, double scale) {
  const double output = std::floor(scale * static_cast<double>(input));
  if (!(scale > 0) || !(output < 0x1p40)) fail(ErrorCode::kInvalidArgument, "Resize with a scale of {}", scale);
  return static_cast<std::int64_t>(output);
}

// Axes listed in the attribute, or all.
std::vector<std::int64_t> resized_axes(const AttributeReader& attributes, std::int64_t rank) {
  std::vector<std::int64_t> axes;
  if (attributes.has("axes")) {
    for (const std::int64_t axis : attributes.integers("axes")) axes.push_back(normalize_axis(axis, rank));
  } else {
    axes.resize(static_cast<std::size_t>(rank));
    std::iota(axes.begin(), axes.end(), 0);
  }
  return axes;
}

std::vector<Axis> plan_axes(const AttributeReader& attributes, std::span<const Tensor* const> inputs) {
  const Tensor& x = *inputs[0];
  // An empty list counts as left out.
  const auto list = [&](std::size_t i) -> const Tensor* {
    return i < inputs.size() && inputs[i] != nullptr && inputs[i]->size() > 0 ? inputs[i] : nullptr;
  };
  std::vector<Axis> plan;
  for (const std::int64_t extent : x.shape()) plan.push_back({extent, extent, 1.0, 0.0, 1.0});
  const auto axes = resized_axes(attributes, x.rank());
  const auto expect = [&](const Tensor& given, std::size_t per_axis, std::string_view name) {
    if (given.rank() != 1 || given.size() != static_cast<std::int64_t>(axes.size() * per_axis)) {
      fail(ErrorCode::kInvalidModel, "Resize of {} axes with {} of {}", axes.size(), name, to_string(given.shape()));
    }
  };
  if (list(1) != nullptr && attributes.text("coordinate_transformation_mode") == "tf_crop_and_resize") {
    const Tensor region = cast(*list(1), DType::kF64);
    expect(region, 2, "roi");
    for (std::size_t i = 0; i < axes.size(); ++i) {
      plan[static_cast<std::size_t>(axes[i])].start = region.data<double>()[i];
      plan[static_cast<std::size_t>(axes[i])].end = region.data<double>()[i + axes.size()];
    }
  }
  if (list(3) != nullptr) {
    const std::vector<std::int64_t> sizes = list(3)->to_ints();
    expect(*list(3), 1, "sizes");
    const std::string& policy = attributes.text("keep_aspect_ratio_policy");
    double common = 0;
    for (std::size_t i = 0; i < axes.size(); ++i) {
      Axis& axis = plan[static_cast<std::size_t>(axes[i])];
      if (sizes[i] < 0 || (axis.input == 0 && sizes[i] > 0)) {
        fail(ErrorCode::kInvalidArgument, "Resize of an axis of {} to {}", axis.input, sizes[i]);
      }
      axis.output = sizes[i];
      axis.scale = axis.input == 0 ? 1 : static_cast<double>(sizes[i]) / static_cast<double>(axis.input);
      const bool first = i == 0;
      common = first                    ? axis.scale
               : policy == "not_larger" ? std::min(common, axis.scale)
                                        : std::max(common, axis.scale);
    }
    for (std::size_t i = 0; policy != "stretch" && i < axes.size(); ++i) {
      Axis& axis = plan[static_cast<std::size_t>(axes[i])];
      axis.scale = common;
      axis.output = number_cast<std::int64_t>(std::floor(common * static_cast<double>(axis.input) + 0.5));
    }
  } else if (list(2) != nullptr) {
    const Tensor scales = cast(*list(2), DType::kF64);
    expect(scales, 1, "scales");
    for (std::size_t i = 0; i < axes.size(); ++i) {
      Axis& axis = plan[static_cast<std::size_t>(axes[i])];
      axis.scale = scales.data<double>()[i];
      axis.output = scaled_extent(axis.input, axis.scale);
    }
  } else {
    fail(ErrorCode::kInvalidModel, "Resize without scales or sizes");
  }
  for (const Axis& axis : plan) {
    if (axis.output < 0 || (axis.input == 0 && axis.output > 0)) {
      fail(ErrorCode::kInvalidArgument, "Resize of an axis of {} to {}", axis.input, axis.output);
    }
  }
  return plan;
}

// A tensor around one axis.
struct Around {
  std::int64_t outer = 1, extent = 1, inner = 1;
  Extents resized;

  Around(const Extents& shape, std::size_t axis, std::int64_t output) : extent(shape[axis]), resized(shape) {
    for (std::size_t i = 0; i < axis; ++i) outer *= shape[i];
    for (std::size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
    resized[axis] = output;
  }
};

std::vector<AxisTaps> all_taps(const AttributeReader& attributes, const std::vector<Axis>& plan) {
  std::vector<AxisTaps> axes(plan.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    axes[i].output = plan[i].output;
    const bool whole = plan[i].start == 0 && plan[i].end == 1;
    if (plan[i].output == plan[i].input && plan[i].scale == 1 && whole) continue;
    const TapReader reader(attributes, plan[i]);
    axes[i].each = reader.each();
    constexpr std::size_t kTap = sizeof(std::int64_t) + sizeof(float);
    check_size(DType::kU8, Extents{plan[i].output, static_cast<std::int64_t>(axes[i].each), kTap});
    for (std::int64_t at = 0; at < plan[i].output; ++at) reader.read(at, axes[i]);
  }
  return axes;
}

// x with one axis resampled.
Tensor resample(const Tensor& x, std::size_t axis, const Resampling& taps) {
  const Around around(x.shape(), axis, taps.output);
  Tensor y = Tensor::zeros(x.dtype(), around.resized);
  if (y.size() == 0) return y;
  const std::size_t each = taps.each;
  const float* from = x.data<float>().data();
  float* to = y.mutable_data<float>().data();
  for (std::int64_t o = 0; o < around.outer; ++o, from += around.extent * around.inner) {
    for (std::size_t at = 0; at < taps.index.size(); at += each, to += around.inner) {
      for (std::size_t k = at; k < at + each; ++k) {
        const float* row = from + taps.index[k] * around.inner;
        for (std::int64_t i = 0; i < around.inner; ++i) to[i] += taps.weight[k] * row[i];
      }
    }
  }
  return y;
}

// Nearest moves elements of any type.
Tensor pick(const Tensor& x, std::size_t axis, const Resampling& taps) {
  const Around around(x.shape(), axis, taps.output);
  Tensor y = Tensor::uninitialized(x.dtype(), around.resized);
  if (y.size() == 0) return y;
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.data<T>().data();
    T* to = y.mutable_data<T>().data();
    for (std::int64_t o = 0; o < around.outer; ++o, from += around.extent * around.inner) {
      for (const std::int64_t i : taps.index) to = std::copy_n(from + i * around.inner, around.inner, to);
    }
  });
  return y;
}

// Wherever any axis looked outside of a cropped region.
void fill_outside(Tensor& y, const std::vector<AxisTaps>& taps, float value) {
  const Extents strides = row_major_strides(y.shape());
  for (std::int64_t n = 0; n < y.size(); ++n) {
    for (std::size_t axis = 0; axis < taps.size(); ++axis) {
      const std::int64_t at = n / strides[axis] % y.shape()[axis];
      if (!taps[axis].outside.empty() && taps[axis].outside[static_cast<std::size_t>(at)]) {
        y.mutable_data<float>()[static_cast<std::size_t>(n)] = value;
      }
    }
  }
}

void resize_kernel(KernelContext& context) {
  const AttributeReader& attributes = context.attributes();
  std::vector<const Tensor*> inputs;
  for (std::size_t i = 0; i < context.input_count(); ++i)
    inputs.push_back(context.has(i) ? &context.input(i) : nullptr);
  const std::vector<AxisTaps> taps = all_taps(attributes, plan_axes(attributes, inputs));
  const bool moves = attributes.text("mode") == "nearest";
  const bool crops = attributes.text("coordinate_transformation_mode") == "tf_crop_and_resize";
  const DType dtype = context.input(0).dtype();
  Tensor y = moves && !crops ? context.input(0) : cast(context.input(0), DType::kF32);
  for (std::size_t axis = 0; axis < taps.size(); ++axis) {
    if (taps[axis].each > 0) y = moves ? pick(y, axis, taps[axis]) : resample(y, axis, taps[axis]);
  }
  if (crops) fill_outside(y, taps, static_cast<float>(attributes.number("extrapolation_value")));
  context.set_output(0, cast(y, dtype));
}

void infer_resize(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  // An empty list counts as left out; of one whose length is not known nobody can say.
  const auto given = [&](std::size_t i) -> std::optional<bool> {
    if (!context.has(i)) return false;
    if (!context.has_shape(i) || context.shape(i).size() != 1 || !context.shape(i)[0].is_constant())
      return std::nullopt;
    return !context.shape(i)[0].is(0);
  };
  if (const auto scales = given(2), sizes = given(3); scales && sizes && *scales == *sizes) {
    fail(ErrorCode::kInvalidModel, "Resize needs either scales or sizes");
  }
  Shape result = context.shape(0);
  const AttributeReader& attributes = context.attributes();
  const auto axes = resized_axes(attributes, context.rank(0));
  const auto* sizes = context.elements(3);
  const Tensor* scales = context.tensor(2);
  const bool stretched = attributes.text("keep_aspect_ratio_policy") == "stretch";
  for (std::size_t i = 0; i < axes.size(); ++i) {
    Dim& dim = result[static_cast<std::size_t>(axes[i])];
    if (sizes != nullptr && sizes->size() == axes.size() && stretched) {
      dim = (*sizes)[i];
    } else if (scales != nullptr && scales->size() == static_cast<std::int64_t>(axes.size()) && dim.is_constant()) {
      const double factor = cast(*scales, DType::kF64).data<double>()[i];
      dim = Dim(scaled_extent(dim.value(), factor));
    } else {
      dim = context.unknown_dim();
    }
  }
  context.set_shape(0, std::move(result));
}

AttributeDef text(std::string_view name, std::string_view fallback) {
  return {name, AttributeKind::kString, false, Attribute(std::string(fallback))};
}

}  // namespace

std::vector<Resampling> resamplings(const AttributeReader& attributes, std::span<const Tensor* const> inputs) {
  std::vector<Resampling> result;
  for (AxisTaps& taps : all_taps(attributes, plan_axes(attributes, inputs))) result.push_back(std::move(taps));
  return result;
}

std::span<const OpDef> resize_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Resize",
       .inputs = {{"X"}, {"roi", Arity::kOptional}, {"scales", Arity::kOptional}, {"sizes", Arity::kOptional}},
       .outputs = {{"Y"}},
       .attributes = {text("mode", "nearest"),
                      text("coordinate_transformation_mode", "half_pixel"),
                      text("nearest_mode", "round_prefer_floor"),
                      text("keep_aspect_ratio_policy", "stretch"),
                      {"cubic_coeff_a", AttributeKind::kFloat, false, Attribute(-0.75)},
                      {"extrapolation_value", AttributeKind::kFloat, false, Attribute(0.0)},
                      {"exclude_outside", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
                      {"antialias", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
                      {"axes", AttributeKind::kInts}},
       .infer = infer_resize,
       .reference = resize_kernel},
  };
  return ops;
}

}  // namespace weft
