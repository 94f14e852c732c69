// Operators that look at or change shapes without moving elements.
#include <algorithm>

#include "ops/families.h"
#include "ops/movement.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

void pass_elements(InferContext& context) {
  if (const auto* elements = context.elements(0)) context.set_elements(0, *elements);
}

// --- Shape, Size -----------------------------------------------------------------------------------

// [start, end) of ONNX 15: negative counts from the back, then clamped.
std::pair<std::int64_t, std::int64_t> shape_range(const AttributeReader& attributes, std::int64_t rank) {
  std::int64_t start = attributes.integer("start");
  std::int64_t end = attributes.has("end") ? attributes.integer("end") : rank;
  if (start < 0) start += rank;
  if (end < 0) end += rank;
  start = std::clamp<std::int64_t>(start, 0, rank);
  return {start, std::max(start, std::clamp<std::int64_t>(end, 0, rank))};
}

void infer_shape(InferContext& context) {
  context.set_dtype(0, DType::kI64);
  if (!context.has_shape(0)) {
    context.set_shape(0, {context.unknown_dim()});
    return;
  }
  const Shape& shape = context.shape(0);
  const auto [start, end] = shape_range(context.attributes(), context.rank(0));
  std::vector<Dim> elements(shape.begin() + start, shape.begin() + end);
  context.set_shape(0, {Dim(static_cast<std::int64_t>(elements.size()))});
  context.set_elements(0, std::move(elements));
}

void shape_kernel(KernelContext& context) {
  const Extents& shape = context.input(0).shape();
  const auto [start, end] = shape_range(context.attributes(), context.input(0).rank());
  Tensor& out = context.output(0, DType::kI64, {end - start});
  std::copy(shape.begin() + start, shape.begin() + end, out.mutable_data<std::int64_t>().begin());
}

void infer_size(InferContext& context) {
  context.set_dtype(0, DType::kI64);
  context.set_shape(0, {});
  if (context.has_shape(0)) context.set_elements(0, {element_count(context.shape(0))});
}

void size_kernel(KernelContext& context) {
  context.output(0, DType::kI64, {}).mutable_data<std::int64_t>()[0] = context.input(0).size();
}

// --- Reshape ---------------------------------------------------------------------------------------

void infer_reshape(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const auto* target = context.elements(1);
  if (target == nullptr) {
    // The rank at least is the length of the shape, when that is known.
    const Shape& length = context.shape(1);
    if (length.size() == 1 && length[0].is_constant()) {
      Shape unknown;
      check_rank(length[0].value());
      for (std::int64_t i = 0; i < length[0].value(); ++i) unknown.push_back(context.unknown_dim());
      context.set_shape(0, std::move(unknown));
    }
    return;
  }
  const bool copy_zero = context.integer("allowzero") == 0;
  Shape result;
  std::optional<std::size_t> inferred;
  for (std::size_t i = 0; i < target->size(); ++i) {
    const Dim& dim = (*target)[i];
    if (dim.is(-1)) {
      if (inferred) fail(ErrorCode::kInvalidModel, "Reshape with two extents of -1");
      inferred = i;
      result.emplace_back(1);
    } else if (dim.is(0) && copy_zero) {
      if (i >= context.shape(0).size()) fail(ErrorCode::kInvalidModel, "Reshape copies axis {}, which is not there", i);
      result.push_back(context.shape(0)[i]);
    } else if (dim.is_constant() && dim.value() < 0) {
      fail(ErrorCode::kInvalidModel, "Reshape to the extent {}", dim.value());
    } else {
      result.push_back(dim);
    }
  }
  if (inferred) {
    // Extents that are copied cancel, also when they are 0.
    Dim total(1), known(1);
    const Shape& x = context.shape(0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (!(i < target->size() && (*target)[i].is(0) && copy_zero)) total = total * x[i];
    }
    for (std::size_t i = 0; i < result.size(); ++i) {
      if (!((*target)[i].is(0) && copy_zero)) known = known * result[i];
    }
    if (known.is(0)) fail(ErrorCode::kInvalidModel, "Reshape cannot infer -1 beside an extent of 0");
    const auto exact = Dim::exact_div(total, known);
    result[*inferred] = exact ? *exact : Dim::floor_div(total, known);
  }
  context.set_shape(0, std::move(result));
  pass_elements(context);
}

void reshape_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const std::vector<std::int64_t> target = context.input(1).to_ints();
  const bool copy_zero = context.integer("allowzero") == 0;
  Extents shape;
  std::optional<std::size_t> inferred;
  for (std::size_t i = 0; i < target.size(); ++i) {
    std::int64_t extent = target[i];
    if (extent == -1) {
      if (inferred) fail(ErrorCode::kInvalidModel, "Reshape with two extents of -1");
      inferred = i;
      extent = 1;
    } else if (extent == 0 && copy_zero) {
      if (i >= x.shape().size()) fail(ErrorCode::kInvalidModel, "Reshape copies axis {}, which is not there", i);
      extent = x.shape()[i];
    }
    shape.push_back(extent);
  }
  if (inferred) {
    // Extents that are copied cancel, also when they are 0.
    Extents from = x.shape(), to = shape;
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (target[i] == 0 && copy_zero) from[i] = to[i] = 1;
    }
    const std::int64_t total = element_count(from), known = element_count(to);
    if (known == 0) fail(ErrorCode::kInvalidModel, "Reshape cannot infer -1 beside an extent of 0");
    if (total % known == 0) shape[*inferred] = total / known;
  }
  if (element_count(shape) != x.size()) {
    fail(ErrorCode::kInvalidModel, "Reshape of {} to {}", to_string(x.shape()), to_string(target));
  }
  context.set_output(0, x.reshaped(std::move(shape)));
}

// --- Flatten, Squeeze, Unsqueeze, Identity -----------------------------------------------------------

void infer_flatten(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  std::int64_t axis = context.integer("axis");
  if (axis < 0) axis += context.rank(0);
  if (axis < 0 || axis > context.rank(0)) fail(ErrorCode::kInvalidModel, "Flatten at axis {}", axis);
  context.set_shape(
      0, {element_count(Shape(x.begin(), x.begin() + axis)), element_count(Shape(x.begin() + axis, x.end()))});
}

void flatten_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  std::int64_t axis = context.integer("axis");
  if (axis < 0) axis += x.rank();
  if (axis < 0 || axis > x.rank()) fail(ErrorCode::kInvalidModel, "Flatten at axis {}", axis);
  const std::span<const std::int64_t> shape = x.shape();
  const auto cut = static_cast<std::size_t>(axis);
  context.set_output(0, x.reshaped({element_count(shape.first(cut)), element_count(shape.subspan(cut))}));
}

void infer_squeeze(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  Shape result;
  if (!context.has(1)) {
    for (const Dim& dim : x) {
      if (!dim.is_constant()) return;  // the rank depends on it
      if (!dim.is(1)) result.push_back(dim);
    }
  } else {
    const auto given = context.integers(1);
    if (!given) return;
    const auto axes = normalize_axes(*given, context.rank(0));
    for (std::int64_t i = 0; i < context.rank(0); ++i) {
      const Dim& dim = x[static_cast<std::size_t>(i)];
      const bool dropped = std::binary_search(axes.begin(), axes.end(), i);
      if (!dropped)
        result.push_back(dim);
      else if (dim.is_constant() && !dim.is(1))
        fail(ErrorCode::kInvalidModel, "Squeeze of axis {} of {}", i, to_string(x));
    }
  }
  context.set_shape(0, std::move(result));
  pass_elements(context);
}

void squeeze_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  Extents shape;
  std::vector<std::int64_t> axes;
  if (context.has(1)) axes = normalize_axes(context.input(1).to_ints(), x.rank());
  for (std::int64_t i = 0; i < x.rank(); ++i) {
    const bool dropped = context.has(1) ? std::binary_search(axes.begin(), axes.end(), i) : x.extent(i) == 1;
    if (!dropped)
      shape.push_back(x.extent(i));
    else if (x.extent(i) != 1)
      fail(ErrorCode::kInvalidModel, "Squeeze of axis {} of {}", i, to_string(x.shape()));
  }
  context.set_output(0, x.reshaped(std::move(shape)));
}

void infer_unsqueeze(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const auto given = context.integers(1);
  if (!given) return;
  const auto rank = context.rank(0) + static_cast<std::int64_t>(given->size());
  const auto axes = normalize_axes(*given, rank);
  Shape result = context.shape(0);
  for (const std::int64_t axis : axes) result.insert(result.begin() + axis, Dim(1));
  context.set_shape(0, std::move(result));
  pass_elements(context);
}

void unsqueeze_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const std::vector<std::int64_t> given = context.input(1).to_ints();
  const auto axes = normalize_axes(given, x.rank() + static_cast<std::int64_t>(given.size()));
  Extents shape = x.shape();
  for (const std::int64_t axis : axes) shape.insert(shape.begin() + axis, 1);
  context.set_output(0, x.reshaped(std::move(shape)));
}

void infer_identity(InferContext& context) {
  infer_same_as_first(context);
  pass_elements(context);
}
void identity_kernel(KernelContext& context) { context.set_output(0, context.input(0)); }

// --- Expand ----------------------------------------------------------------------------------------

void infer_expand(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const auto* target = context.elements(1);
  if (target == nullptr) {
    const Shape& length = context.shape(1);
    if (length.size() != 1 || !length[0].is_constant()) return;
    const auto rank = std::max(context.rank(0), length[0].value());
    Shape unknown;
    check_rank(rank);
    for (std::int64_t i = 0; i < rank; ++i) unknown.push_back(context.unknown_dim());
    context.set_shape(0, std::move(unknown));
    return;
  }
  Shape wanted;
  for (const Dim& dim : *target) {
    // PyTorch's -1 ("keep") reaches Expand in some exports; broadcasting with 1 keeps as well.
    wanted.push_back(dim.is(-1) ? Dim(1) : dim);
  }
  context.set_shape(0, broadcast_shapes(x, wanted));
  const auto* elements = context.elements(0);
  const auto result = broadcast_shapes(x, wanted);
  if (elements != nullptr && elements->size() == 1 && result.size() == 1 && result[0].is_constant() &&
      result[0].value() >= 0 && result[0].value() <= static_cast<std::int64_t>(kMaxTrackedElements)) {
    context.set_elements(0, std::vector<Dim>(static_cast<std::size_t>(result[0].value()), (*elements)[0]));
  }
}

void expand_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const StridedView view = expanded_view(x, context.input(1));
  copy_view(x, view, context.output(0, x.dtype(), view.shape));
}

}  // namespace

StridedView expanded_view(const Tensor& x, const Tensor& shape) {
  Extents wanted = shape.to_ints();
  std::replace(wanted.begin(), wanted.end(), std::int64_t{-1}, std::int64_t{1});
  StridedView view{broadcast_extents(x.shape(), wanted), {}};
  view.strides = broadcast_strides(x.shape(), view.shape);
  return view;
}

std::span<const OpDef> shape_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Shape",
       .inputs = {{"data"}},
       .outputs = {{"shape"}},
       .attributes = {{"start", AttributeKind::kInt, false, Attribute(std::int64_t{0})}, {"end", AttributeKind::kInt}},
       .infer = infer_shape,
       .reference = shape_kernel},
      {.name = "Size", .inputs = {{"data"}}, .outputs = {{"size"}}, .infer = infer_size, .reference = size_kernel},
      {.name = "Reshape",
       .inputs = {{"data"}, {"shape"}},
       .outputs = {{"reshaped"}},
       .attributes = {{"allowzero", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
       .infer = infer_reshape,
       .reference = reshape_kernel},
      {.name = "Flatten",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {{"axis", AttributeKind::kInt, false, Attribute(std::int64_t{1})}},
       .infer = infer_flatten,
       .reference = flatten_kernel},
      {.name = "Squeeze",
       .inputs = {{"data"}, {"axes", Arity::kOptional}},
       .outputs = {{"squeezed"}},
       .infer = infer_squeeze,
       .reference = squeeze_kernel},
      {.name = "Unsqueeze",
       .inputs = {{"data"}, {"axes"}},
       .outputs = {{"expanded"}},
       .infer = infer_unsqueeze,
       .reference = unsqueeze_kernel},
      {.name = "Identity",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .infer = infer_identity,
       .reference = identity_kernel},
      {.name = "Expand",
       .inputs = {{"input"}, {"shape"}},
       .outputs = {{"output"}},
       .infer = infer_expand,
       .reference = expand_kernel},
  };
  return ops;
}

}  // namespace weft
