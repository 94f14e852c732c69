// Operators that surround, repeat or blank elements: Pad, Tile, Trilu.
#include <algorithm>
#include <numeric>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/movement.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// Pads before and after each axis.
std::vector<std::int64_t> full_pads(const std::vector<std::int64_t>& given, std::vector<std::int64_t> axes,
                                    std::int64_t rank) {
  std::vector<std::int64_t> pads(static_cast<std::size_t>(2 * rank), 0);
  if (given.size() != 2 * axes.size()) fail(ErrorCode::kInvalidModel, "Pad with {} pads", given.size());
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(normalize_axis(axes[i], rank));
    constexpr std::int64_t kMost = std::int64_t{1} << 60;
    for (const std::int64_t pad : {given[i], given[i + axes.size()]}) {
      if (pad < -kMost || pad > kMost) fail(ErrorCode::kInvalidModel, "Pad by {}", pad);
    }
    pads[axis] = given[i];
    pads[axis + static_cast<std::size_t>(rank)] = given[i + axes.size()];
  }
  return pads;
}

std::vector<std::int64_t> all_axes(std::int64_t rank) {
  std::vector<std::int64_t> axes(static_cast<std::size_t>(rank));
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

void infer_pad(InferContext& context) {
  const std::string& mode = context.attributes().text("mode");
  if (mode != "constant" && mode != "edge" && mode != "reflect" && mode != "wrap") {
    fail(ErrorCode::kInvalidModel, "Pad has no mode \"{}\"", mode);
  }
  if (context.has(2) && context.dtype(2) != context.dtype(0)) {
    fail(ErrorCode::kInvalidModel, "Pad of {} with {}", to_string(context.dtype(0)), to_string(context.dtype(2)));
  }
  context.set_dtype(0, context.dtype(0));
  Shape result = context.shape(0);
  const auto* pads = context.elements(1);
  std::optional<std::vector<std::int64_t>> axes = all_axes(context.rank(0));
  if (context.has(3)) axes = context.integers(3);
  if (pads == nullptr || !axes || pads->size() != 2 * axes->size()) {
    for (Dim& dim : result) dim = context.unknown_dim();
  } else {
    for (std::size_t i = 0; i < axes->size(); ++i) {
      Dim& dim = result[static_cast<std::size_t>(normalize_axis((*axes)[i], context.rank(0)))];
      dim = dim + (*pads)[i] + (*pads)[i + axes->size()];
    }
  }
  context.set_shape(0, std::move(result));
}

void pad_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const std::string& mode = context.attributes().text("mode");
  std::vector<const Tensor*> inputs;
  for (std::size_t i = 0; i < context.input_count(); ++i)
    inputs.push_back(context.has(i) ? &context.input(i) : nullptr);
  const Padding padding = padding_of(inputs);
  const Extents &shape = padding.shape, &before = padding.before;
  const std::size_t rank = shape.size();
  Tensor& out = context.output(0, x.dtype(), shape);
  const Extents strides = row_major_strides(x.shape());
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T filler{};
    if (context.has(2) && context.input(2).size() > 0) filler = context.input(2).data<T>()[0];
    const T* from = x.data<T>().data();
    T* to = out.mutable_data<T>().data();
    Extents index(rank, 0);
    const std::int64_t total = out.size();
    for (std::int64_t n = 0; n < total; ++n) {
      std::int64_t offset = 0;
      for (std::size_t i = 0; i < rank && offset >= 0; ++i) {
        const std::int64_t source = padded_source(index[i] - before[i], x.shape()[i], mode);
        offset = source < 0 ? -1 : offset + source * strides[i];
      }
      to[n] = offset < 0 ? filler : from[offset];
      for (std::size_t i = rank; i-- > 0 && ++index[i] == shape[i];) index[i] = 0;
    }
  });
}

void infer_tile(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape result = context.shape(0);
  const auto* repeats = context.elements(1);
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = repeats != nullptr && i < repeats->size() ? result[i] * (*repeats)[i] : context.unknown_dim();
  }
  context.set_shape(0, std::move(result));
}

void tile_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const auto repeats = context.input(1).to_ints();
  Tensor& out = context.output(0, x.dtype(), tiled_shape(x.shape(), repeats));
  copy_view(x, tiled_view(x.shape(), repeats), out);
}

void trilu_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  if (x.rank() < 2) fail(ErrorCode::kInvalidModel, "Trilu of rank {}", x.rank());
  const bool upper = context.integer("upper") != 0;
  const std::int64_t k = context.has(1) ? only_integer(context.input(1)) : 0;
  const std::int64_t rows = x.extent(x.rank() - 2);
  const std::int64_t columns = x.extent(x.rank() - 1);
  Tensor& out = context.output(0, x.dtype(), x.shape());
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.data<T>().data();
    T* to = out.mutable_data<T>().data();
    for (std::int64_t n = 0; n < x.size(); ++n) {
      const std::int64_t r = n / columns % rows;
      const std::int64_t c = n % columns;
      const bool kept = upper ? c - r >= k : c - r <= k;
      to[n] = kept ? from[n] : T{};
    }
  });
}

}  // namespace

Padding padding_of(std::span<const Tensor* const> inputs) {
  const Tensor& x = *inputs[0];
  const bool has_axes = inputs.size() > 3 && inputs[3] != nullptr;
  const auto pads = full_pads(inputs[1]->to_ints(), has_axes ? inputs[3]->to_ints() : all_axes(x.rank()), x.rank());
  const std::size_t rank = x.shape().size();
  Padding padding{x.shape(), {pads.begin(), pads.begin() + x.rank()}};
  for (std::size_t i = 0; i < rank; ++i) {
    padding.shape[i] += pads[i] + pads[i + rank];
    if (padding.shape[i] < 0) fail(ErrorCode::kInvalidModel, "Pad removes more than there is");
  }
  return padding;
}

Extents tiled_shape(const Extents& x, std::span<const std::int64_t> repeats) {
  if (repeats.size() != x.size()) fail(ErrorCode::kInvalidModel, "Tile of rank {} by {}", x.size(), to_string(repeats));
  Extents shape = x;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    constexpr std::int64_t kMost = std::int64_t{1} << 60;
    if (repeats[i] < 0 || repeats[i] > kMost / std::max<std::int64_t>(shape[i], 1)) {
      fail(ErrorCode::kInvalidModel, "Tile by {}", to_string(repeats));
    }
    shape[i] *= repeats[i];
  }
  return shape;
}

StridedView tiled_view(const Extents& x, std::span<const std::int64_t> repeats) {
  const Extents strides = row_major_strides(x);
  StridedView view;
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (const auto& [extent, stride] : {std::pair(repeats[i], std::int64_t{0}), std::pair(x[i], strides[i])}) {
      if (extent == 1) continue;
      view.shape.push_back(extent);
      view.strides.push_back(stride);
    }
  }
  return view;
}

std::int64_t padded_source(std::int64_t index, std::int64_t extent, const std::string& mode) {
  if (index >= 0 && index < extent) return index;
  if (mode == "constant") return -1;
  if (extent == 0) fail(ErrorCode::kInvalidModel, "Pad of an empty axis in mode {}", mode);
  if (mode == "edge") return std::clamp<std::int64_t>(index, 0, extent - 1);
  if (mode == "wrap") return ((index % extent) + extent) % extent;
  if (extent == 1) return 0;
  const std::int64_t period = 2 * (extent - 1);
  const std::int64_t phase = ((index % period) + period) % period;
  return phase < extent ? phase : period - phase;
}

std::span<const OpDef> padding_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Pad",
       .inputs = {{"data"}, {"pads"}, {"constant_value", Arity::kOptional}, {"axes", Arity::kOptional}},
       .outputs = {{"output"}},
       .attributes = {{"mode", AttributeKind::kString, false, Attribute(std::string("constant"))}},
       .infer = infer_pad,
       .reference = pad_kernel},
      {.name = "Tile",
       .inputs = {{"input"}, {"repeats"}},
       .outputs = {{"output"}},
       .infer = infer_tile,
       .reference = tile_kernel},
      {.name = "Trilu",
       .inputs = {{"input"}, {"k", Arity::kOptional}},
       .outputs = {{"output"}},
       .attributes = {{"upper", AttributeKind::kInt, false, Attribute(std::int64_t{1})}},
       .infer = infer_same_as_first,
       .reference = trilu_kernel},
  };
  return ops;
}

}  // namespace weft
