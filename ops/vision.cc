// Sampling and selection in images: GridSample, RoiAlign, NonMaxSuppression.
#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/index_util.h"
#include "ops/resample.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// --- GridSample (ONNX 20) ---------------------------------------------------------------------------------------

// The weights of neighbours base - 1 .. base + 2 of a point `rest` behind base.
std::array<double, 4> cubic_weights(double rest) {
  constexpr double kA = -0.75;
  const auto near = [&](double d) { return ((kA + 2) * d - (kA + 3)) * d * d + 1; };
  const auto far = [&](double d) { return ((kA * d - 5 * kA) * d + 8 * kA) * d - 4 * kA; };
  return {far(1 + rest), near(rest), near(1 - rest), far(2 - rest)};
}

void infer_grid_sample(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const Shape& grid = context.shape(1);
  if (x.size() < 3 || grid.size() != x.size()) {
    fail(ErrorCode::kInvalidModel, "GridSample of {} at {}", to_string(x), to_string(grid));
  }
  Shape result = {x[0], x[1]};
  result.insert(result.end(), grid.begin() + 1, grid.end() - 1);
  context.set_shape(0, std::move(result));
}

void grid_sample_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64), grid = cast(context.input(1), DType::kF64);
  const std::int64_t rank = x.rank() - 2;
  if (rank < 1 || grid.rank() != x.rank() || grid.shape().back() != rank || grid.extent(0) != x.extent(0)) {
    fail(ErrorCode::kInvalidModel, "GridSample of {} at {}", to_string(x.shape()), to_string(grid.shape()));
  }
  const Extents image(x.shape().begin() + 2, x.shape().end());
  Extents shape = {x.extent(0), x.extent(1)};
  shape.insert(shape.end(), grid.shape().begin() + 1, grid.shape().end() - 1);
  Tensor y = Tensor::zeros(DType::kF64, shape);
  const std::int64_t points = product(grid.shape(), 1, grid.shape().size() - 1), pixels = element_count(image);
  const GridSampler sampler(context.attributes(), image);
  std::vector<std::int64_t> offsets(sampler.each());
  std::vector<double> weights(sampler.each());
  std::vector<double> at(static_cast<std::size_t>(rank));
  for (std::int64_t n = 0; pixels > 0 && n < x.extent(0); ++n) {
    for (std::int64_t point = 0; point < points; ++point) {
      const double* from = grid.data<double>().data() + (n * points + point) * rank;
      std::reverse_copy(from, from + rank, at.begin());  // the grid names the last axis first
      sampler.taps(at, offsets.data(), weights.data());
      for (std::int64_t c = n * x.extent(1); c < (n + 1) * x.extent(1); ++c) {
        double sum = 0;
        for (std::size_t k = 0; k < weights.size(); ++k) {
          if (weights[k] != 0) sum += weights[k] * x.data<double>()[static_cast<std::size_t>(c * pixels + offsets[k])];
        }
        y.mutable_data<double>()[static_cast<std::size_t>(c * points + point)] = sum;
      }
    }
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

// --- RoiAlign (ONNX 16) -----------------------------------------------------------------------------------------

void infer_roi_align(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  if (context.rank(0) != 4 || context.rank(1) != 2) {
    fail(ErrorCode::kInvalidModel, "RoiAlign of {} at {}", to_string(context.shape(0)), to_string(context.shape(1)));
  }
  context.set_shape(0, {context.shape(1)[0], context.shape(0)[1], Dim(context.integer("output_height")),
                        Dim(context.integer("output_width"))});
}

// Bilinear reading with the edge repeated by up to one pixel: four weighted corners.
struct Corners {
  std::array<std::int64_t, 4> offset{};
  std::array<double, 4> weight{};
};

std::optional<Corners> corners_at(double y, double x, std::int64_t height, std::int64_t width) {
  Corners corners;
  const auto near = [](double at, std::int64_t extent) { return at >= -1 && at <= static_cast<double>(extent); };
  if (!near(y, height) || !near(x, width)) return std::nullopt;
  const auto along = [](double at, std::int64_t extent) {
    at = std::max(at, 0.0);
    std::int64_t low = static_cast<std::int64_t>(at);
    if (low >= extent - 1) return std::tuple(extent - 1, extent - 1, 0.0);
    return std::tuple(low, low + 1, at - static_cast<double>(low));
  };
  const auto [top, bottom, v] = along(y, height);
  const auto [left, right, u] = along(x, width);
  corners.offset = {top * width + left, top * width + right, bottom * width + left, bottom * width + right};
  corners.weight = {(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u};
  return corners;
}

// Where the samples of a region lie along one axis: `count` in each bin, the first bin begins at `start`.
struct Samples {
  double start, bin, count;
  std::int64_t extent;  // of the image

  // ratio: samples of a bin, or 0 for one a pixel.
  Samples(double from, double bin_size, std::int64_t ratio, std::int64_t pixels)
      : start(from), bin(bin_size), count(static_cast<double>(ratio)), extent(pixels) {
    constexpr std::int64_t kMostGiven = 64;
    constexpr double kMost = 0x1p40;
    if (ratio <= 0) count = std::ceil(std::max(bin, 0.0));
    if (ratio > kMostGiven || !(count <= kMost)) {
      fail(ErrorCode::kUnsupported, "RoiAlign with {} samples along a bin", count);
    }
  }
  double at(std::int64_t place, std::int64_t sample) const {
    return start + (static_cast<double>(place) + (static_cast<double>(sample) + 0.5) / count) * bin;
  }
  // Samples [first, last) of a bin; the others are outside of the image.
  std::pair<std::int64_t, std::int64_t> inside(std::int64_t place) const {
    if (extent == 0) return {0, 0};
    if (bin == 0 || !std::isfinite(start)) return {0, static_cast<std::int64_t>(count)};
    const auto sample_of = [&](double position) {
      const double sample = ((position - start) / bin - static_cast<double>(place)) * count - 0.5;
      return number_cast<std::int64_t>(std::clamp(sample, 0.0, count));
    };
    const auto [low, high] = std::minmax({sample_of(-1), sample_of(static_cast<double>(extent))});
    return {low, std::min(high + 2, static_cast<std::int64_t>(count))};
  }
};

void roi_align_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64), rois = cast(context.input(1), DType::kF64);
  const auto batch = context.input(2).to_ints();
  const AttributeReader& attributes = context.attributes();
  const std::int64_t out_height = attributes.integer("output_height"), out_width = attributes.integer("output_width");
  const std::int64_t ratio = attributes.integer("sampling_ratio");
  const double scale = attributes.number("spatial_scale");
  const bool half = attributes.text("coordinate_transformation_mode") == "half_pixel";
  const bool average = attributes.text("mode") == "avg";
  if (x.rank() != 4 || rois.rank() != 2 || rois.extent(1) != 4 || out_height <= 0 || out_width <= 0 ||
      static_cast<std::int64_t>(batch.size()) != rois.extent(0)) {
    fail(ErrorCode::kInvalidModel, "RoiAlign of {} at {}", to_string(x.shape()), to_string(rois.shape()));
  }
  const std::int64_t height = x.extent(2), width = x.extent(3), channels = x.extent(1);
  Tensor y = Tensor::zeros(DType::kF64, {rois.extent(0), channels, out_height, out_width});
  double* to = y.mutable_data<double>().data();
  for (std::int64_t r = 0; r < rois.extent(0); ++r) {
    const double* roi = rois.data<double>().data() + r * 4;
    const double shift = half ? 0.5 : 0.0, left = roi[0] * scale - shift, top = roi[1] * scale - shift;
    double wide = roi[2] * scale - shift - left, high = roi[3] * scale - shift - top;
    if (!half) {
      wide = std::max(wide, 1.0);
      high = std::max(high, 1.0);
    }
    const double bin_height = high / static_cast<double>(out_height), bin_width = wide / static_cast<double>(out_width);
    const std::int64_t image = checked_index(batch[static_cast<std::size_t>(r)], x.extent(0));
    const Samples rows{top, bin_height, ratio, height}, columns{left, bin_width, ratio, width};
    for (std::int64_t place = 0; place < out_height * out_width; ++place) {
      const auto [first_row, last_row] = rows.inside(place / out_width);
      const auto [first_column, last_column] = columns.inside(place % out_width);
      const double total = rows.count * columns.count;
      const bool all =
          static_cast<double>(last_row - first_row) * static_cast<double>(last_column - first_column) == total;
      for (std::int64_t c = 0; c < channels; ++c) {
        const double* plane = x.data<double>().data() + (image * channels + c) * height * width;
        double sum = 0, largest = all ? -INFINITY : 0;  // what lies outside reads as 0
        for (std::int64_t i = first_row; i < last_row; ++i) {
          for (std::int64_t j = first_column; j < last_column; ++j) {
            const auto corners =
                corners_at(rows.at(place / out_width, i), columns.at(place % out_width, j), height, width);
            if (!corners) largest = std::max(largest, 0.0);
            for (std::size_t k = 0; corners && k < 4; ++k) {
              const double part = corners->weight[k] * plane[corners->offset[k]];
              sum += part;
              largest = std::max(largest, part);
            }
          }
        }
        to[(r * channels + c) * out_height * out_width + place] = total == 0 ? 0 : average ? sum / total : largest;
      }
    }
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

// --- NonMaxSuppression (ONNX 11) --------------------------------------------------------------------------------

void infer_suppression(InferContext& context) { context.set(0, DType::kI64, {context.unknown_dim(), Dim(3)}); }

struct Box {
  double top, left, bottom, right;
  double area() const { return (bottom - top) * (right - left); }
};

Box box_at(const float* at, bool centred) {
  if (centred) {
    const double x = at[0], y = at[1], w = at[2] / 2, h = at[3] / 2;
    return {y - h, x - w, y + h, x + w};
  }
  return {std::min(at[0], at[2]), std::min(at[1], at[3]), std::max(at[0], at[2]), std::max(at[1], at[3])};
}

double overlap(const Box& a, const Box& b) {
  const double high = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  const double wide = std::min(a.right, b.right) - std::max(a.left, b.left);
  if (high <= 0 || wide <= 0) return 0;
  return high * wide / (a.area() + b.area() - high * wide);
}

void suppression_kernel(KernelContext& context) {
  const Tensor& boxes = context.input(0);
  const Tensor& scores = context.input(1);
  const bool centred = context.integer("center_point_box") != 0;
  const auto scalar = [&](std::size_t i, double fallback) {
    return context.has(i) && context.input(i).size() > 0 ? context.input(i).item() : fallback;
  };
  const bool limited = context.has(2) && context.input(2).size() > 0;
  const std::int64_t most = limited ? only_integer(context.input(2)) : 0;
  const double iou_limit = scalar(3, 0);
  const double score_limit = context.has(4) && context.input(4).size() > 0 ? context.input(4).item() : -INFINITY;
  if (boxes.rank() != 3 || scores.rank() != 3 || boxes.extent(2) != 4 || boxes.extent(1) != scores.extent(2) ||
      boxes.extent(0) != scores.extent(0)) {
    fail(ErrorCode::kInvalidModel, "NonMaxSuppression of {} and {}", to_string(boxes.shape()),
         to_string(scores.shape()));
  }
  const std::int64_t count = boxes.extent(1);
  std::vector<std::int64_t> selected;
  for (std::int64_t row = 0; row < scores.extent(0) * scores.extent(1); ++row) {
    const std::int64_t batch = row / scores.extent(1);
    const float* score = scores.data<float>().data() + row * count;
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < count; ++i) {
      if (static_cast<double>(score[i]) > score_limit) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return score[a] > score[b]; });
    std::vector<Box> kept;
    for (const std::int64_t i : order) {
      if (static_cast<std::int64_t>(kept.size()) >= most) break;
      const Box box = box_at(boxes.data<float>().data() + (batch * count + i) * 4, centred);
      if (std::any_of(kept.begin(), kept.end(), [&](const Box& other) { return overlap(box, other) > iou_limit; })) {
        continue;
      }
      kept.push_back(box);
      selected.insert(selected.end(), {batch, row % scores.extent(1), i});
    }
  }
  const auto found = static_cast<std::int64_t>(selected.size()) / 3;
  context.set_output(0, Tensor::of<std::int64_t>({found, 3}, selected));
}

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}
AttributeDef text(std::string_view name, std::string_view fallback) {
  return {name, AttributeKind::kString, false, Attribute(std::string(fallback))};
}

}  // namespace

GridSampler::GridSampler(const AttributeReader& attributes, Extents image)
    : align_(attributes.integer("align_corners") != 0),
      extents_(std::move(image)),
      strides_(row_major_strides(extents_)) {
  const std::string &mode = attributes.text("mode"), &padding = attributes.text("padding_mode");
  if (mode != "nearest" && mode != "linear" && mode != "cubic") {
    fail(ErrorCode::kInvalidModel, "GridSample has no mode \"{}\"", mode);
  }
  if (padding != "zeros" && padding != "border" && padding != "reflection") {
    fail(ErrorCode::kInvalidModel, "GridSample has no padding_mode \"{}\"", padding);
  }
  mode_ = mode == "nearest" ? Mode::kNearest : mode == "linear" ? Mode::kLinear : Mode::kCubic;
  padding_ = padding == "zeros" ? Padding::kZeros : padding == "border" ? Padding::kBorder : Padding::kReflection;
  const std::size_t along = mode_ == Mode::kNearest ? 1 : mode_ == Mode::kLinear ? 2 : 4;
  constexpr std::size_t kMostTaps = 256;  // of a point; they double, or quadruple, with every axis
  for (std::size_t i = 0; i < extents_.size() && each_ <= kMostTaps; ++i) each_ *= along;
  if (each_ > kMostTaps) fail(ErrorCode::kUnsupported, "GridSample in mode {} of {} axes", mode, extents_.size());
}

double GridSampler::padded(double x, std::size_t axis) const {
  const auto extent = static_cast<double>(extents_[axis]);
  if (!std::isfinite(x)) return padding_ == Padding::kZeros ? -1e9 : 0;
  if (padding_ == Padding::kBorder) return std::clamp(x, 0.0, extent - 1);
  if (padding_ == Padding::kReflection) {
    const double low = align_ ? 0 : -0.5, high = align_ ? extent - 1 : extent - 0.5;
    const double span = high - low;
    if (span <= 0) return 0;
    double offset = std::fmod(std::abs(x - low), 2 * span);
    if (offset > span) offset = 2 * span - offset;
    return std::clamp(offset + low, 0.0, extent - 1);
  }
  return x;
}

void GridSampler::taps(std::span<const double> at, std::int64_t* offsets, double* weights) const {
  offsets[0] = 0;
  weights[0] = 1;
  std::size_t count = 1;
  for (std::size_t axis = 0; axis < at.size(); ++axis) {
    const auto extent = static_cast<double>(extents_[axis]);
    double x = align_ ? (at[axis] + 1) / 2 * (extent - 1) : ((at[axis] + 1) * extent - 1) / 2;
    if (mode_ != Mode::kCubic) x = padded(x, axis);  // cubic pads each neighbour
    const double base = mode_ == Mode::kNearest ? std::nearbyint(x) : std::floor(x), rest = x - base;
    std::array<double, 4> weight = {1, 0, 0, 0};
    if (mode_ == Mode::kLinear) weight = {1 - rest, rest, 0, 0};
    if (mode_ == Mode::kCubic) weight = cubic_weights(rest);
    const std::size_t along = mode_ == Mode::kNearest ? 1 : mode_ == Mode::kLinear ? 2 : 4;
    for (std::size_t k = along; k-- > 0;) {  // the first last: it takes the place of what it is made of
      double whole = base + static_cast<double>(k) - (mode_ == Mode::kCubic ? 1 : 0);
      if (mode_ == Mode::kCubic) whole = std::nearbyint(padded(whole, axis));
      const bool inside = whole >= 0 && whole <= extent - 1 && weight[k] != 0;
      const std::int64_t offset = inside ? static_cast<std::int64_t>(whole) * strides_[axis] : 0;
      for (std::size_t i = 0; i < count; ++i) {
        weights[k * count + i] = inside ? weights[i] * weight[k] : 0;
        offsets[k * count + i] = offsets[i] + offset;
      }
    }
    count *= along;
  }
}

std::span<const OpDef> vision_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "GridSample",
       .inputs = {{"X"}, {"grid"}},
       .outputs = {{"Y"}},
       .attributes = {integer("align_corners", 0), text("mode", "linear"), text("padding_mode", "zeros")},
       .infer = infer_grid_sample,
       .reference = grid_sample_kernel},
      {.name = "RoiAlign",
       .inputs = {{"X"}, {"rois"}, {"batch_indices"}},
       .outputs = {{"Y"}},
       .attributes = {text("coordinate_transformation_mode", "half_pixel"),
                      text("mode", "avg"),
                      integer("output_height", 1),
                      integer("output_width", 1),
                      integer("sampling_ratio", 0),
                      {"spatial_scale", AttributeKind::kFloat, false, Attribute(1.0)}},
       .infer = infer_roi_align,
       .reference = roi_align_kernel},
      {.name = "NonMaxSuppression",
       .inputs = {{"boxes"},
                  {"scores"},
                  {"max_output_boxes_per_class", Arity::kOptional},
                  {"iou_threshold", Arity::kOptional},
                  {"score_threshold", Arity::kOptional}},
       .outputs = {{"selected_indices"}},
       .attributes = {integer("center_point_box", 0)},
       .infer = infer_suppression,
       .reference = suppression_kernel},
  };
  return ops;
}

}  // namespace weft
