// Operators that rearrange: DepthToSpace, ReverseSequence, TensorScatter, CenterCropPad, Col2Im, ...
#include <algorithm>
#include <numeric>

#include "ops/builder.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "ops/index_util.h"
#include "ops/shape_util.h"
#include "ops/wrapping.h"

namespace weft {
namespace {

// --- DepthToSpace, SpaceToDepth (ONNX 13) ---------------------------------------------------------------------

std::int64_t block_of(const AttributeReader& attributes) {
  const std::int64_t block = attributes.integer("blocksize");
  if (block <= 0) fail(ErrorCode::kInvalidModel, "blocks of {}", block);
  return block;
}

// [N, C, H, W] in pieces: extents of the axes in terms of the input's.
Expr extents(Expansion& e, Expr shape, std::span<const std::pair<std::int64_t, double>> parts) {
  std::vector<ValueId> dims;
  for (const auto& [axis, factor] : parts) {
    if (axis < 0) {
      dims.push_back(e.ints({static_cast<std::int64_t>(factor)}).id());
      continue;
    }
    const Expr extent = e.slice(shape, 0, axis, axis + 1);
    dims.push_back((factor >= 1 ? extent * factor : extent / (1 / factor)).id());
  }
  return e.concat(dims, 0);
}

void decompose_depth_to_space(Expansion& e) {
  const auto block = static_cast<double>(block_of(e.attributes()));
  const Expr x = e.input(0), shape = e.shape_of(x);
  const bool columns = e.attributes().text("mode") == "CRD";
  using Parts = std::vector<std::pair<std::int64_t, double>>;
  const Parts split = columns ? Parts{{0, 1}, {1, 1 / (block * block)}, {-1, block}, {-1, block}, {2, 1}, {3, 1}}
                              : Parts{{0, 1}, {-1, block}, {-1, block}, {1, 1 / (block * block)}, {2, 1}, {3, 1}};
  const Parts merged = {{0, 1}, {1, 1 / (block * block)}, {2, block}, {3, block}};
  const Expr pieces = e.reshape(x, extents(e, shape, split));
  const Expr moved = columns ? e.transpose(pieces, {0, 1, 4, 2, 5, 3}) : e.transpose(pieces, {0, 3, 4, 1, 5, 2});
  e.set_output(0, e.reshape(moved, extents(e, shape, merged)));
}

void decompose_space_to_depth(Expansion& e) {
  const auto block = static_cast<double>(block_of(e.attributes()));
  const Expr x = e.input(0), shape = e.shape_of(x);
  using Parts = std::vector<std::pair<std::int64_t, double>>;
  const Parts split = {{0, 1}, {1, 1}, {2, 1 / block}, {-1, block}, {3, 1 / block}, {-1, block}};
  const Parts merged = {{0, 1}, {1, block * block}, {2, 1 / block}, {3, 1 / block}};
  const Expr pieces = e.reshape(x, extents(e, shape, split));
  e.set_output(0, e.reshape(e.transpose(pieces, {0, 3, 5, 1, 2, 4}), extents(e, shape, merged)));
}

template <bool kToSpace>
void infer_blocks(InferContext& context) {
  const Dim block(block_of(context.attributes()));
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  if (x.size() != 4) fail(ErrorCode::kInvalidModel, "blocks of rank {}", x.size());
  if (kToSpace) {
    context.set_shape(0, {x[0], Dim::floor_div(x[1], block * block), x[2] * block, x[3] * block});
  } else {
    context.set_shape(0, {x[0], x[1] * block * block, Dim::floor_div(x[2], block), Dim::floor_div(x[3], block)});
  }
}

// --- ReverseSequence (ONNX 10) --------------------------------------------------------------------------------

void reverse_sequence_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const auto lengths = context.input(1).to_ints();
  const auto time = static_cast<std::size_t>(normalize_axis(context.integer("time_axis"), x.rank()));
  const auto batch = static_cast<std::size_t>(normalize_axis(context.integer("batch_axis"), x.rank()));
  if (time + batch != 1) fail(ErrorCode::kInvalidModel, "ReverseSequence along axes {} and {}", time, batch);
  if (static_cast<std::int64_t>(lengths.size()) != x.shape()[batch]) {
    fail(ErrorCode::kInvalidModel, "{} lengths for a batch of {}", lengths.size(), x.shape()[batch]);
  }
  for (const std::int64_t length : lengths) {
    if (length < 0 || length > x.shape()[time]) {
      fail(ErrorCode::kInvalidArgument, "a sequence of {} among {}", length, x.shape()[time]);
    }
  }
  const std::int64_t inner = product(x.shape(), 2, x.shape().size());
  Tensor& out = context.output(0, x.dtype(), x.shape());
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.data<T>().data();
    T* to = out.mutable_data<T>().data();
    for (std::int64_t first = 0; first < x.extent(0); ++first) {
      for (std::int64_t second = 0; second < x.extent(1); ++second) {
        const std::int64_t b = batch == 0 ? first : second, t = batch == 0 ? second : first;
        const std::int64_t length = lengths[static_cast<std::size_t>(b)];
        const std::int64_t source = t < length ? length - 1 - t : t;
        const std::int64_t row = batch == 0 ? b * x.extent(1) + source : source * x.extent(1) + b;
        std::copy(from + row * inner, from + (row + 1) * inner, to + (first * x.extent(1) + second) * inner);
      }
    }
  });
}

// --- TensorScatter (ONNX 24) ----------------------------------------------------------------------------------

void tensor_scatter_kernel(KernelContext& context) {
  const Tensor& past = context.input(0);
  const Tensor& update = context.input(1);
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), past.rank()));
  const bool circular = context.attributes().text("mode") == "circular";
  Extents expected = past.shape();
  if (axis == 0 || update.rank() != past.rank()) fail(ErrorCode::kInvalidModel, "TensorScatter along axis {}", axis);
  expected[axis] = update.shape()[axis];
  if (update.shape() != expected || update.dtype() != past.dtype()) {
    fail(ErrorCode::kInvalidModel, "TensorScatter of {} into {}", to_string(update.shape()), to_string(past.shape()));
  }
  const std::int64_t batch = past.extent(0), capacity = past.shape()[axis], added = update.shape()[axis];
  std::vector<std::int64_t> start(static_cast<std::size_t>(batch), 0);
  if (context.has(2)) start = context.input(2).to_ints();
  if (static_cast<std::int64_t>(start.size()) != batch)
    fail(ErrorCode::kInvalidModel, "{} write indices", start.size());
  const std::int64_t middle = product(past.shape(), 1, axis), inner = product(past.shape(), axis + 1, expected.size());
  Tensor out = past.clone();
  visit_storage(past.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = update.data<T>().data();
    T* to = out.mutable_data<T>().data();
    for (std::int64_t row = 0; row < batch * middle; ++row) {
      const std::int64_t first = start[static_cast<std::size_t>(row / middle)];
      for (std::int64_t s = 0; s < added; ++s) {
        const std::int64_t place = circular && capacity > 0 ? first % capacity : first;
        if (place < 0 || place >= capacity || (!circular && place >= capacity - s)) {
          fail(ErrorCode::kInvalidArgument, "position {} of a cache of {}", wrapping_add(first, s), capacity);
        }
        const std::int64_t at = (place + s) % capacity;
        std::copy_n(from + (row * added + s) * inner, inner, to + (row * capacity + at) * inner);
      }
    }
  });
  context.set_output(0, std::move(out));
}

// --- CenterCropPad (ONNX 18), Col2Im (ONNX 18) ---------------------------------------------------------------

std::vector<std::int64_t> listed_axes(const AttributeReader& attributes, std::int64_t rank) {
  std::vector<std::int64_t> axes(static_cast<std::size_t>(rank));
  std::iota(axes.begin(), axes.end(), 0);
  if (!attributes.has("axes")) return axes;
  axes.clear();
  for (const std::int64_t axis : attributes.integers("axes")) axes.push_back(normalize_axis(axis, rank));
  return axes;
}

void infer_center(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape result = context.shape(0);
  const auto axes = listed_axes(context.attributes(), context.rank(0));
  const auto* wanted = context.elements(1);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const bool known = wanted != nullptr && i < wanted->size();
    result[static_cast<std::size_t>(axes[i])] = known ? (*wanted)[i] : context.unknown_dim();
  }
  context.set_shape(0, std::move(result));
}

void center_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const auto axes = listed_axes(context.attributes(), x.rank());
  const auto wanted = context.input(1).to_ints();
  if (wanted.size() != axes.size()) fail(ErrorCode::kInvalidModel, "CenterCropPad of {} axes", axes.size());
  Extents shape = x.shape();
  Extents shift(shape.size(), 0);  // source index = index + shift
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(axes[i]);
    if (wanted[i] < 0) fail(ErrorCode::kInvalidModel, "CenterCropPad to {}", to_string(wanted));
    const std::int64_t difference = shape[axis] - wanted[i];
    shift[axis] = difference >= 0 ? difference / 2 : -(-difference / 2);
    shape[axis] = wanted[i];
  }
  Tensor& out = context.output(0, x.dtype(), shape);
  const Extents from_strides = row_major_strides(x.shape()), to_strides = row_major_strides(shape);
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (std::int64_t n = 0; n < out.size(); ++n) {
      std::int64_t offset = 0;
      bool inside = true;
      for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        const std::int64_t at = n / to_strides[axis] % shape[axis] + shift[axis];
        inside = inside && at >= 0 && at < x.shape()[axis];
        offset += at * from_strides[axis];
      }
      out.mutable_data<T>()[static_cast<std::size_t>(n)] = inside ? x.data<T>()[static_cast<std::size_t>(offset)] : T{};
    }
  });
}

void infer_col2im(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const auto* image = context.elements(1);
  const auto block = context.integers(2);
  if (image == nullptr || !block) return;
  const std::int64_t taps = element_count(*block);
  if (taps <= 0 || context.rank(0) != 3) {
    fail(ErrorCode::kInvalidModel, "Col2Im of {} with blocks of {}", to_string(context.shape(0)), to_string(*block));
  }
  Shape result = {context.shape(0)[0], Dim::floor_div(context.shape(0)[1], Dim(taps))};
  result.insert(result.end(), image->begin(), image->end());
  context.set_shape(0, std::move(result));
}

// Sums the columns [N, C * taps, L] where they overlap in the image.
void col2im_kernel(KernelContext& context) {
  const Tensor x = cast(context.input(0), DType::kF64);
  const Extents image = context.input(1).to_ints(), block = context.input(2).to_ints();
  const std::size_t rank = image.size();
  const auto list = [&](std::string_view name, std::size_t count, std::int64_t fallback) {
    auto values = context.attributes().has(name) ? context.attributes().integers(name)
                                                 : std::vector<std::int64_t>(count, fallback);
    if (values.size() != count) fail(ErrorCode::kInvalidModel, "Col2Im with {} {}", values.size(), name);
    return values;
  };
  const auto strides = list("strides", rank, 1), dilations = list("dilations", rank, 1),
             pads = list("pads", 2 * rank, 0);
  const std::int64_t taps = element_count(block);
  Extents columns;
  for (std::size_t i = 0; i < rank; ++i) {
    if (block.size() != rank) fail(ErrorCode::kInvalidModel, "Col2Im of rank {}", rank);
    constexpr std::int64_t kMost = std::int64_t{1} << 30;  // so that arithmetic does not overflow
    for (const std::int64_t size : {image[i], block[i], strides[i], dilations[i]}) {
      if (size < 0 || size > kMost) fail(ErrorCode::kInvalidModel, "Col2Im with an extent of {}", size);
    }
    const auto is_far = [](std::int64_t pad) { return pad < -kMost || pad > kMost; };
    if (strides[i] == 0 || is_far(pads[i]) || is_far(pads[i + rank])) {
      fail(ErrorCode::kInvalidModel, "Col2Im with a stride of {} and pads of {}", strides[i], to_string(pads));
    }
    columns.push_back((image[i] + pads[i] + pads[i + rank] - dilations[i] * (block[i] - 1) - 1) / strides[i] + 1);
  }
  if (x.rank() != 3 || taps <= 0 || x.extent(1) % taps != 0 || x.extent(2) != element_count(columns)) {
    fail(ErrorCode::kInvalidModel, "Col2Im of {} to {}", to_string(x.shape()), to_string(image));
  }
  const std::int64_t channels = x.extent(1) / taps, places = x.extent(2), pixels = element_count(image);
  Extents shape = {x.extent(0), channels};
  shape.insert(shape.end(), image.begin(), image.end());
  Tensor y = Tensor::zeros(DType::kF64, shape);
  const Extents image_strides = row_major_strides(image);
  for (std::int64_t tap = 0; x.size() > 0 && tap < taps; ++tap) {
    for (std::int64_t place = 0; place < places; ++place) {
      std::int64_t rest_tap = tap, rest_place = place, offset = 0;
      bool inside = true;
      for (std::size_t i = rank; i-- > 0;) {
        const std::int64_t at = rest_place % columns[i] * strides[i] - pads[i] + rest_tap % block[i] * dilations[i];
        rest_tap /= block[i];
        rest_place /= columns[i];
        inside = inside && at >= 0 && at < image[i];
        offset += at * image_strides[i];
      }
      for (std::int64_t plane = 0; inside && plane < x.extent(0) * channels; ++plane) {
        y.mutable_data<double>()[static_cast<std::size_t>(plane * pixels + offset)] +=
            x.data<double>()[static_cast<std::size_t>((plane * taps + tap) * places + place)];
      }
    }
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
}

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}

}  // namespace

std::span<const OpDef> rearrange_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "DepthToSpace",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {{"blocksize", AttributeKind::kInt, true},
                      {"mode", AttributeKind::kString, false, Attribute(std::string("DCR"))}},
       .infer = infer_blocks<true>,
       .decompose = decompose_depth_to_space},
      {.name = "SpaceToDepth",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {{"blocksize", AttributeKind::kInt, true}},
       .infer = infer_blocks<false>,
       .decompose = decompose_space_to_depth},
      {.name = "ReverseSequence",
       .inputs = {{"input"}, {"sequence_lens"}},
       .outputs = {{"Y"}},
       .attributes = {integer("batch_axis", 1), integer("time_axis", 0)},
       .infer = infer_same_as_first,
       .reference = reverse_sequence_kernel},
      {.name = "TensorScatter",
       .inputs = {{"past_cache"}, {"update"}, {"write_indices", Arity::kOptional}},
       .outputs = {{"present_cache"}},
       .attributes = {integer("axis", -2), {"mode", AttributeKind::kString, false, Attribute(std::string("linear"))}},
       .infer = infer_same_as_first,
       .reference = tensor_scatter_kernel},
      {.name = "CenterCropPad",
       .inputs = {{"input_data"}, {"shape"}},
       .outputs = {{"output_data"}},
       .attributes = {{"axes", AttributeKind::kInts}},
       .infer = infer_center,
       .reference = center_kernel},
      {.name = "Col2Im",
       .inputs = {{"input"}, {"image_shape"}, {"block_shape"}},
       .outputs = {{"output"}},
       .attributes = {{"strides", AttributeKind::kInts},
                      {"dilations", AttributeKind::kInts},
                      {"pads", AttributeKind::kInts}},
       .infer = infer_col2im,
       .reference = col2im_kernel},
  };
  return ops;
}

}  // namespace weft
