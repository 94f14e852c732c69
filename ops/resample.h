// Where operators that sample images read, and with what weights, for their kernels.
#pragma once

#include <span>

#include "ops/op_def.h"

namespace weft {

// One axis of Resize.
struct Resampling {
  std::int64_t output = 0;          // extent
  std::size_t each = 0;             // taps of an output coordinate; 0: the axis stays as it is
  std::vector<std::int64_t> index;  // [output, each]
  std::vector<float> weight;        // [output, each]
};
// Of every axis of inputs[0] (absent inputs: null), but not what tf_crop_and_resize reads outside of its region.
// Error kInvalidModel, kInvalidArgument for lists that do not fit.
std::vector<Resampling> resamplings(const AttributeReader& attributes, std::span<const Tensor* const> inputs);

// GridSample of one plane of an image.
class GridSampler {
 public:
  // Error kInvalidModel for modes that do not exist.
  GridSampler(const AttributeReader& attributes, Extents image);

  std::size_t each() const { return each_; }  // taps of a point
  // at: coordinates in [-1, 1] along the axes, the first axis first. A tap outside of the image weighs 0.
  void taps(std::span<const double> at, std::int64_t* offsets, double* weights) const;

 private:
  enum class Mode : std::uint8_t { kNearest, kLinear, kCubic };
  enum class Padding : std::uint8_t { kZeros, kBorder, kReflection };
  double padded(double x, std::size_t axis) const;

  Mode mode_;
  Padding padding_;
  bool align_;
  std::size_t each_ = 1;
  Extents extents_, strides_;
};

}  // namespace weft
