// Spectra: DFT, STFT, windows, mel filters.
#include <cmath>
#include <numbers>
#include <numeric>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/fourier.h"
#include "ops/index_util.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

using std::numbers::pi;

std::int64_t bins(std::int64_t length, bool onesided) { return onesided ? length / 2 + 1 : length; }

// --- DFT (ONNX 20) --------------------------------------------------------------------------------------------

std::int64_t signal_axis(std::int64_t axis, std::int64_t rank) {
  const std::int64_t result = normalize_axis(axis, rank);
  if (result == rank - 1) fail(ErrorCode::kInvalidModel, "DFT along the axis of real and imaginary parts");
  return result;
}

void infer_dft(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape result = context.shape(0);
  const auto axis = context.has(2) ? context.integers(2) : std::vector<std::int64_t>{-2};
  const bool onesided = context.integer("onesided") != 0, inverse = context.integer("inverse") != 0;
  if (result.size() < 2) fail(ErrorCode::kInvalidModel, "DFT of {}", to_string(result));
  result.back() = Dim(onesided && inverse ? 1 : 2);
  if (!axis || axis->size() != 1) {
    for (std::size_t i = 0; i + 1 < result.size(); ++i) result[i] = context.unknown_dim();
  } else {
    Dim& length = result[static_cast<std::size_t>(signal_axis((*axis)[0], context.rank(0)))];
    if (context.has(1)) {
      const auto* given = context.elements(1);
      length = given != nullptr && given->size() == 1 ? (*given)[0] : context.unknown_dim();
    } else if (onesided && inverse) {
      length = (length - Dim(1)) * Dim(2);
    }
    if (onesided && !inverse) length = Dim::floor_div(length, Dim(2)) + Dim(1);
  }
  context.set_shape(0, std::move(result));
}

void dft_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64);
  const bool onesided = context.integer("onesided") != 0, inverse = context.integer("inverse") != 0;
  if (x.rank() < 2 || x.shape().back() < 1 || x.shape().back() > 2) {
    fail(ErrorCode::kInvalidModel, "DFT of {}", to_string(x.shape()));
  }
  const std::int64_t given_axis = context.has(2) ? only_integer(context.input(2)) : -2;
  const auto axis = static_cast<std::size_t>(signal_axis(given_axis, x.rank()));
  const std::int64_t given = x.shape()[axis], parts = x.shape().back();
  const std::int64_t length = context.has(1)        ? only_integer(context.input(1))
                              : onesided && inverse ? (given - 1) * 2
                                                    : given;
  if (length <= 0) fail(ErrorCode::kInvalidArgument, "DFT of length {}", length);
  Extents shape = x.shape();
  const std::int64_t kept = onesided && !inverse ? bins(length, true) : length;
  const std::int64_t out_parts = onesided && inverse ? 1 : 2;
  shape[axis] = kept;
  shape.back() = out_parts;
  const std::int64_t outer = product(x.shape(), 0, axis), inner = product(x.shape(), axis + 1, x.shape().size() - 1);
  Tensor y = Tensor::uninitialized(DType::kF64, shape);
  const FourierTransform transform(length, inverse);
  const double* from = x.data<double>().data();
  double* to = y.mutable_data<double>().data();
  for (std::int64_t o = 0; o < outer; ++o) {
    for (std::int64_t i = 0; i < inner; ++i) {
      std::vector<std::complex<double>> line(static_cast<std::size_t>(length));
      for (std::int64_t n = 0; n < std::min(given, length); ++n) {
        const double* at = from + ((o * given + n) * inner + i) * parts;
        line[static_cast<std::size_t>(n)] = {at[0], parts == 2 ? at[1] : 0.0};
      }
      for (std::int64_t n = std::max<std::int64_t>(given, 1); onesided && inverse && n < length;
           ++n) {  // the other half is its conjugate
        line[static_cast<std::size_t>(n)] = std::conj(line[static_cast<std::size_t>(length - n)]);
      }
      transform(line);
      for (std::int64_t k = 0; k < kept; ++k) {
        const std::complex<double>& value = line[static_cast<std::size_t>(k)];
        double* at = to + ((o * kept + k) * inner + i) * out_parts;
        const double factor = inverse ? 1.0 / static_cast<double>(length) : 1.0;
        at[0] = value.real() * factor;
        if (out_parts == 2) at[1] = value.imag() * factor;
      }
    }
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

// --- STFT (ONNX 17) -------------------------------------------------------------------------------------------

void infer_stft(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& signal = context.shape(0);
  if (signal.size() < 2) fail(ErrorCode::kInvalidModel, "STFT of {}", to_string(signal));
  const auto step = context.integers(1);
  std::optional<Dim> length;
  if (context.has(3) && context.elements(3) != nullptr && context.elements(3)->size() == 1)
    length = (*context.elements(3))[0];
  if (!length && !context.has(3) && context.has(2)) length = context.shape(2).at(0);
  Dim frames = context.unknown_dim(), kept = context.unknown_dim();
  if (length && step && step->size() == 1 && (*step)[0] > 0) {
    frames = Dim::floor_div(signal[1] - *length, Dim((*step)[0])) + Dim(1);
  }
  if (length) kept = context.integer("onesided") != 0 ? Dim::floor_div(*length, Dim(2)) + Dim(1) : *length;
  context.set_shape(0, {signal[0], frames, kept, Dim(2)});
}

void stft_kernel(KernelContext& context) {
  const Tensor signal = cast(context.input(0), DType::kF64);
  const std::int64_t step = only_integer(context.input(1));
  const bool onesided = context.integer("onesided") != 0;
  const Tensor window = context.has(2) ? cast(context.input(2), DType::kF64) : Tensor::zeros(DType::kF64, {0});
  const std::int64_t length = context.has(3) ? only_integer(context.input(3)) : window.size();
  const std::int64_t samples = signal.rank() >= 2 ? signal.extent(1) : 0;
  const std::int64_t parts = signal.rank() == 3 ? signal.extent(2) : 1;
  if (signal.rank() < 2 || signal.rank() > 3 || step <= 0 || length <= 0 || length > samples || parts < 1 ||
      parts > 2 || (context.has(2) && window.size() != length)) {
    fail(ErrorCode::kInvalidArgument, "STFT of {} in frames of {} every {}", to_string(signal.shape()), length, step);
  }
  const std::int64_t frames = (samples - length) / step + 1, kept = bins(length, onesided);
  Tensor y = Tensor::uninitialized(DType::kF64, {signal.extent(0), frames, kept, 2});
  const FourierTransform transform(length, false);
  double* to = y.mutable_data<double>().data();
  std::vector<std::complex<double>> line(static_cast<std::size_t>(length));
  for (std::int64_t b = 0; b < signal.extent(0); ++b) {
    for (std::int64_t frame = 0; frame < frames; ++frame) {
      const double* from = signal.data<double>().data() + (b * samples + frame * step) * parts;
      for (std::int64_t n = 0; n < length; ++n) {
        const double weight = context.has(2) ? window.data<double>()[static_cast<std::size_t>(n)] : 1.0;
        line[static_cast<std::size_t>(n)] = {from[n * parts] * weight, parts == 2 ? from[n * parts + 1] * weight : 0.0};
      }
      transform(line);
      for (std::int64_t k = 0; k < kept; ++k) {
        *to++ = line[static_cast<std::size_t>(k)].real();
        *to++ = line[static_cast<std::size_t>(k)].imag();
      }
    }
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

// --- Windows and filters (ONNX 17) ------------------------------------------------------------------------------

void infer_window(InferContext& context) {
  context.set_dtype(0, context.attributes().type("output_datatype"));
  const auto* size = context.elements(0);
  context.set_shape(0, {size != nullptr && size->size() == 1 ? (*size)[0] : context.unknown_dim()});
}

// a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N), N one less for symmetric windows.
template <int kKind>
void window_kernel(KernelContext& context) {
  constexpr double kTerms[3][3] = {{0.5, 0.5, 0}, {25.0 / 46, 21.0 / 46, 0}, {0.42, 0.5, 0.08}};
  const std::int64_t size = only_integer(context.input(0));
  const bool periodic = context.integer("periodic") != 0;
  Tensor y = Tensor::uninitialized(DType::kF64, {size});
  const auto period = static_cast<double>(periodic ? size : size - 1);
  for (std::int64_t n = 0; n < size; ++n) {
    const double angle = period > 0 ? 2 * pi * static_cast<double>(n) / period : 0;
    y.mutable_data<double>()[static_cast<std::size_t>(n)] =
        kTerms[kKind][0] - kTerms[kKind][1] * std::cos(angle) + kTerms[kKind][2] * std::cos(2 * angle);
  }
  context.set_output(0, cast(y, context.attributes().type("output_datatype")));
}

void infer_mel(InferContext& context) {
  context.set_dtype(0, context.attributes().type("output_datatype"));
  const auto known = [&](std::size_t i) -> std::optional<Dim> {
    const auto* elements = context.elements(i);
    return elements != nullptr && elements->size() == 1 ? std::optional<Dim>((*elements)[0]) : std::nullopt;
  };
  const auto mels = known(0), length = known(1);
  context.set_shape(0, {length ? Dim::floor_div(*length, Dim(2)) + Dim(1) : context.unknown_dim(),
                        mels ? *mels : context.unknown_dim()});
}

// Triangles between mel frequencies that are equally far apart, at whole bins.
void mel_kernel(KernelContext& context) {
  const std::int64_t mels = only_integer(context.input(0)), length = only_integer(context.input(1));
  const double rate = context.input(2).item(), low = context.input(3).item(), high = context.input(4).item();
  if (mels < 0 || length <= 0 || !(rate > 0)) fail(ErrorCode::kInvalidArgument, "MelWeightMatrix of {} bands", mels);
  const std::int64_t rows = length / 2 + 1;
  Tensor y = Tensor::zeros(DType::kF64, {rows, mels});
  const auto to_mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  const double first = to_mel(low), step = (to_mel(high) - first) / static_cast<double>(mels + 2);
  std::vector<std::int64_t> edges;
  for (std::int64_t i = 0; i < mels + 2; ++i) {
    const double hertz = 700 * (std::pow(10, (static_cast<double>(i) * step + first) / 2595) - 1);
    edges.push_back(number_cast<std::int64_t>(std::floor((static_cast<double>(length) + 1) * hertz / rate)));
  }
  const auto at = [&](std::int64_t bin, std::int64_t band) -> double& {
    if (bin < 0 || bin >= rows) fail(ErrorCode::kInvalidArgument, "a mel band at bin {} of {}", bin, rows);
    return y.mutable_data<double>()[static_cast<std::size_t>(bin * mels + band)];
  };
  for (std::int64_t band = 0; band < mels; ++band) {
    const auto i = static_cast<std::size_t>(band);
    const std::int64_t left = edges[i], centre = edges[i + 1], right = edges[i + 2];
    if (centre == left) {
      at(centre, band) = 1;
    } else {
      for (std::int64_t bin = left; bin <= centre; ++bin) {
        at(bin, band) = static_cast<double>(bin - left) / static_cast<double>(centre - left);
      }
    }
    for (std::int64_t bin = centre; right > centre && bin < right; ++bin) {
      at(bin, band) = static_cast<double>(right - bin) / static_cast<double>(right - centre);
    }
  }
  context.set_output(0, cast(y, context.attributes().type("output_datatype")));
}

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}
AttributeDef output_datatype() { return {"output_datatype", AttributeKind::kType, false, Attribute(DType::kF32)}; }

OpDef window(std::string_view name, void (*reference)(KernelContext&)) {
  return {.name = name,
          .inputs = {{"size"}},
          .outputs = {{"output"}},
          .attributes = {output_datatype(), integer("periodic", 1)},
          .infer = infer_window,
          .reference = reference};
}

}  // namespace

std::span<const OpDef> signal_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "DFT",
       .inputs = {{"input"}, {"dft_length", Arity::kOptional}, {"axis", Arity::kOptional}},
       .outputs = {{"output"}},
       .attributes = {integer("inverse", 0), integer("onesided", 0)},
       .infer = infer_dft,
       .reference = dft_kernel},
      {.name = "STFT",
       .inputs = {{"signal"}, {"frame_step"}, {"window", Arity::kOptional}, {"frame_length", Arity::kOptional}},
       .outputs = {{"output"}},
       .attributes = {integer("onesided", 1)},
       .infer = infer_stft,
       .reference = stft_kernel},
      window("HannWindow", window_kernel<0>),
      window("HammingWindow", window_kernel<1>),
      window("BlackmanWindow", window_kernel<2>),
      {.name = "MelWeightMatrix",
       .inputs = {{"num_mel_bins"}, {"dft_length"}, {"sample_rate"}, {"lower_edge_hertz"}, {"upper_edge_hertz"}},
       .outputs = {{"output"}},
       .attributes = {output_datatype()},
       .infer = infer_mel,
       .reference = mel_kernel},
  };
  return ops;
}

}  // namespace weft
