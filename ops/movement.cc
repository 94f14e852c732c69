// Operators that move elements by position: Transpose, Concat, Split, Slice.
#include "ops/movement.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// --- Integer contents --------------------------------------------------------------------------------

// nullopt where an extent depends on the run.
std::optional<Extents> constant_extents(const Shape& shape) {
  Extents extents;
  for (const Dim& dim : shape) {
    if (!dim.is_constant()) return std::nullopt;
    extents.push_back(dim.value());
  }
  return extents;
}

std::vector<Dim> seen_by(const StridedView& view, const std::vector<Dim>& elements) {
  std::vector<Dim> seen;
  const std::array<Extents, 1> strides = {view.strides};
  const std::int64_t length = view.shape.empty() ? 1 : view.shape.back();
  const std::int64_t step = view.shape.empty() ? 0 : view.strides.back();
  for_each_row<1>(view.shape, strides, [&](const std::array<std::int64_t, 1>& at) {
    for (std::int64_t i = 0; i < length; ++i)
      seen.push_back(elements[static_cast<std::size_t>(view.offset + at[0] + i * step)]);
  });
  return seen;
}

// --- Transpose -------------------------------------------------------------------------------------

std::vector<std::int64_t> permutation(const AttributeReader& attributes, std::int64_t rank) {
  std::vector<std::int64_t> perm;
  if (attributes.has("perm")) {
    perm = attributes.integers("perm");
  } else {
    perm.resize(static_cast<std::size_t>(rank));
    std::iota(perm.rbegin(), perm.rend(), 0);
  }
  std::vector<std::int64_t> sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted[i] != static_cast<std::int64_t>(i) || static_cast<std::int64_t>(sorted.size()) != rank) {
      fail(ErrorCode::kInvalidModel, "Transpose of rank {} by {}", rank, to_string(perm));
    }
  }
  if (static_cast<std::int64_t>(perm.size()) != rank) {
    fail(ErrorCode::kInvalidModel, "Transpose of rank {} by {}", rank, to_string(perm));
  }
  return perm;
}

void infer_transpose(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  Shape result;
  for (const std::int64_t axis : permutation(context.attributes(), context.rank(0))) {
    result.push_back(context.shape(0)[static_cast<std::size_t>(axis)]);
  }
  context.set_shape(0, std::move(result));
  const auto extents = constant_extents(context.shape(0));
  if (context.elements(0) != nullptr && extents)
    context.set_elements(0, seen_by(transposed_view(context.attributes(), *extents), *context.elements(0)));
}

void transpose_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const StridedView view = transposed_view(context.attributes(), x.shape());
  copy_view(x, view, context.output(0, x.dtype(), view.shape));
}

// --- Concat, Split ---------------------------------------------------------------------------------

void infer_concat(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), context.rank(0)));
  Shape result = context.shape(0);
  for (std::size_t i = 1; i < context.input_count(); ++i) {
    const Shape& next = context.shape(i);
    if (next.size() != result.size()) fail(ErrorCode::kInvalidModel, "Concat of different ranks");
    for (std::size_t k = 0; k < next.size(); ++k) {
      if (k == axis) {
        result[k] = result[k] + next[k];
      } else if (next[k].is_constant() && !(result[k] == next[k])) {
        if (result[k].is_constant()) {
          fail(ErrorCode::kInvalidModel, "Concat of {} and {}", to_string(context.shape(0)), to_string(next));
        }
        result[k] = next[k];
      }
    }
  }
  const bool vector = result.size() == 1;
  context.set_shape(0, std::move(result));
  std::vector<Dim> elements;
  for (std::size_t i = 0; vector && i < context.input_count(); ++i) {
    const auto* part = context.elements(i);
    if (part == nullptr) return;
    elements.insert(elements.end(), part->begin(), part->end());
  }
  if (vector) context.set_elements(0, std::move(elements));
}

void concat_kernel(KernelContext& context) {
  const Tensor& first = context.input(0);
  const std::int64_t axis = normalize_axis(context.integer("axis"), first.rank());
  Extents shape = first.shape();
  auto& total = shape[static_cast<std::size_t>(axis)];
  for (std::size_t i = 1; i < context.input_count(); ++i) {
    const Tensor& next = context.input(i);
    for (std::int64_t k = 0; k < first.rank(); ++k) {
      if (next.rank() != first.rank() || (k != axis && next.extent(k) != first.extent(k)) ||
          next.dtype() != first.dtype()) {
        fail(ErrorCode::kInvalidModel, "Concat of {} and {}", to_string(first.shape()), to_string(next.shape()));
      }
    }
    total += next.extent(axis);
  }
  Tensor& out = context.output(0, first.dtype(), shape);
  std::int64_t outer = 1, inner = 1;
  for (std::int64_t k = 0; k < axis; ++k) outer *= first.extent(k);
  for (std::int64_t k = axis + 1; k < first.rank(); ++k) inner *= first.extent(k);
  visit_storage(first.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = out.mutable_data<T>().data();
    for (std::int64_t o = 0; o < outer; ++o) {
      for (std::size_t i = 0; i < context.input_count(); ++i) {
        const std::int64_t block = context.input(i).extent(axis) * inner;
        const T* from = context.input(i).data<T>().data() + o * block;
        to = std::copy(from, from + block, to);
      }
    }
  });
}

void infer_split(InferContext& context) {
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_dtype(i, context.dtype(0));
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), context.rank(0)));
  const Shape& x = context.shape(0);
  const auto pieces = static_cast<std::int64_t>(context.output_count());
  const auto* sizes = context.elements(1);
  Dim start;
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    Shape shape = x;
    if (sizes != nullptr) {
      if (sizes->size() != context.output_count()) fail(ErrorCode::kInvalidModel, "Split into {} sizes", sizes->size());
      shape[axis] = (*sizes)[i];
    } else if (context.has(1)) {
      shape[axis] = context.unknown_dim();
    } else {
      const Dim chunk = Dim::ceil_div(x[axis], Dim(pieces));
      shape[axis] = i + 1 < context.output_count() ? chunk : x[axis] - chunk * Dim(pieces - 1);
    }
    const auto* elements = context.elements(0);
    const auto within = [&](const Dim& dim) {
      return dim.is_constant() && dim.value() >= 0 && dim.value() <= static_cast<std::int64_t>(elements->size());
    };
    if (elements != nullptr && x.size() == 1 && within(start) && within(shape[axis]) && within(start + shape[axis])) {
      const auto first = elements->begin() + start.value();
      context.set_elements(i, {first, first + shape[axis].value()});
    }
    start = start + shape[axis];
    context.set(i, context.dtype(0), std::move(shape));
  }
}

void split_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const std::int64_t axis = normalize_axis(context.integer("axis"), x.rank());
  const auto sizes = split_sizes(x.extent(axis), context.has(1) ? &context.input(1) : nullptr, context.output_count());
  StridedView view{x.shape(), row_major_strides(x.shape())};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    view.shape[static_cast<std::size_t>(axis)] = sizes[i];
    if (context.wants(i)) copy_view(x, view, context.output(i, x.dtype(), view.shape));
    view.offset += sizes[i] * view.strides[static_cast<std::size_t>(axis)];
  }
}

// --- Slice -----------------------------------------------------------------------------------------

struct Cut {
  std::int64_t start, step, count;
};

// ONNX 13: bounds are clamped before anything is added, so that INT64_MAX means "to the end".
Cut resolve_cut(std::int64_t start, std::int64_t end, std::int64_t step, std::int64_t extent) {
  if (step == 0) fail(ErrorCode::kInvalidModel, "Slice with a step of 0");
  const auto wrap = [&](std::int64_t index) { return index < 0 ? (index < -extent ? -1 : index + extent) : index; };
  if (step > 0) {
    start = std::clamp<std::int64_t>(start < -extent ? 0 : wrap(start), 0, extent);
    end = std::clamp<std::int64_t>(end < -extent ? 0 : wrap(end), 0, extent);
    return {start, step, end > start ? (end - start - 1) / step + 1 : 0};
  }
  start = std::clamp<std::int64_t>(wrap(start), -1, extent - 1);
  end = std::clamp<std::int64_t>(wrap(end), -1, extent - 1);
  if (start <= end) return {0, step, 0};
  const std::uint64_t stride = std::uint64_t{0} - static_cast<std::uint64_t>(step);
  return {start, step, static_cast<std::int64_t>(static_cast<std::uint64_t>(start - end - 1) / stride) + 1};
}

// A bound as an offset from the front, clamped to [0, extent], for a step of 1; nullopt if undecidable.
std::optional<Dim> symbolic_bound(const Dim& bound, const Dim& extent) {
  if (bound.is_constant()) {
    const std::int64_t value = bound.value();
    if (value >= std::numeric_limits<std::int32_t>::max()) return extent;
    if (value == 0) return Dim(0);
    return value > 0 ? Dim::min(bound, extent) : Dim::max(extent + bound, Dim(0));
  }
  if (bound.never_negative()) return Dim::min(bound, extent);
  if (extent + bound == Dim(0)) return Dim(0);  // the front, also where there is nothing
  if ((bound * Dim(-1)).always_positive()) return Dim::max(extent + bound, Dim(0));
  return std::nullopt;
}

std::optional<Dim> symbolic_extent(const Dim& extent, const Dim& start, const Dim& end, const Dim& step) {
  if (!step.is_constant()) return std::nullopt;
  if (extent.is_constant() && start.is_constant() && end.is_constant()) {
    return Dim(resolve_cut(start.value(), end.value(), step.value(), extent.value()).count);
  }
  if (step.value() <= 0) {
    const bool all = step.is(-1) && start.is(-1) && end.is_constant() && end.value() < -(std::int64_t{1} << 31);
    return all ? std::optional<Dim>(extent) : std::nullopt;
  }
  const auto from = symbolic_bound(start, extent);
  const auto to = symbolic_bound(end, extent);
  if (!from || !to) return std::nullopt;
  const Dim length = Dim::max(*to - *from, Dim(0));
  return step.is(1) ? length : Dim::ceil_div(length, step);
}

// Which of the contents a slice takes, where all of it is known.
void infer_sliced_elements(InferContext& context, const std::vector<std::int64_t>& axes) {
  const auto extents = constant_extents(context.shape(0));
  const auto starts = context.integers(1), ends = context.integers(2), steps = context.integers(4);
  const auto complete = [&](const auto& list) { return list && list->size() == axes.size(); };
  if (context.elements(0) == nullptr || !extents || !complete(starts) || !complete(ends) ||
      (context.has(4) && !complete(steps))) {
    return;
  }
  StridedView view{*extents, row_major_strides(*extents)};
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(normalize_axis(axes[i], context.rank(0)));
    const Cut cut = resolve_cut((*starts)[i], (*ends)[i], steps ? (*steps)[i] : 1, view.shape[axis]);
    view.offset += cut.count > 0 ? cut.start * view.strides[axis] : 0;
    view.strides[axis] *= cut.count > 1 ? cut.step : 1;
    view.shape[axis] = cut.count;
  }
  context.set_elements(0, seen_by(view, *context.elements(0)));
}

void infer_slice(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const auto* starts = context.elements(1);
  const auto* ends = context.elements(2);
  const auto* steps = context.elements(4);
  std::optional<std::vector<std::int64_t>> axes;
  if (context.has(3)) {
    axes = context.integers(3);
  } else {
    const Shape& count = context.shape(1);
    if (count.size() == 1 && count[0].is_constant()) {
      if (count[0].value() > context.rank(0)) {
        fail(ErrorCode::kInvalidModel, "Slice of {} axes of {}", count[0].value(), to_string(x));
      }
      axes.emplace(static_cast<std::size_t>(count[0].value()));
      std::iota(axes->begin(), axes->end(), 0);
    }
  }
  Shape result = x;
  if (!axes) {
    for (Dim& dim : result) dim = context.unknown_dim();
    context.set_shape(0, std::move(result));
    return;
  }
  for (std::size_t i = 0; i < axes->size(); ++i) {
    const auto axis = static_cast<std::size_t>(normalize_axis((*axes)[i], context.rank(0)));
    std::optional<Dim> extent;
    if (starts != nullptr && ends != nullptr && i < starts->size() && i < ends->size() &&
        (!context.has(4) || (steps != nullptr && i < steps->size()))) {
      extent = symbolic_extent(x[axis], (*starts)[i], (*ends)[i], steps != nullptr ? (*steps)[i] : Dim(1));
    }
    result[axis] = extent ? *extent : context.unknown_dim();
  }
  context.set_shape(0, std::move(result));
  infer_sliced_elements(context, *axes);
}

void slice_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  std::vector<const Tensor*> inputs;
  for (std::size_t i = 0; i < context.input_count(); ++i)
    inputs.push_back(context.has(i) ? &context.input(i) : nullptr);
  const StridedView view = sliced_view(inputs);
  copy_view(x, view, context.output(0, x.dtype(), view.shape));
}

}  // namespace

void copy_view(const Tensor& x, const StridedView& view, Tensor& out) {
  if (out.size() == 0) return;
  const Extents& shape = view.shape;
  const std::array<Extents, 2> both = {view.strides, row_major_strides(shape)};
  const std::int64_t length = shape.empty() ? 1 : shape.back();
  const std::int64_t step = shape.empty() ? 0 : view.strides.back();
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.data<T>().data() + view.offset;
    T* to = out.mutable_data<T>().data();
    for_each_row<2>(shape, both, [&](const std::array<std::int64_t, 2>& at) {
      const T* source = from + at[0];
      T* target = to + at[1];
      if (step == 1) {
        std::copy(source, source + length, target);
      } else {
        for (std::int64_t i = 0; i < length; ++i) target[i] = source[i * step];
      }
    });
  });
}

StridedView transposed_view(const AttributeReader& attributes, const Extents& x) {
  const Extents own = row_major_strides(x);
  StridedView view;
  for (const std::int64_t axis : permutation(attributes, static_cast<std::int64_t>(x.size()))) {
    view.shape.push_back(x[static_cast<std::size_t>(axis)]);
    view.strides.push_back(own[static_cast<std::size_t>(axis)]);
  }
  return view;
}

StridedView sliced_view(std::span<const Tensor* const> inputs) {
  const auto given = [&](std::size_t i) { return i < inputs.size() && inputs[i] != nullptr; };
  const Tensor& x = *inputs[0];
  const auto starts = inputs[1]->to_ints();
  const auto ends = inputs[2]->to_ints();
  std::vector<std::int64_t> axes(starts.size()), steps(starts.size(), 1);
  std::iota(axes.begin(), axes.end(), 0);
  if (given(3)) axes = inputs[3]->to_ints();
  if (given(4)) steps = inputs[4]->to_ints();
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) {
    fail(ErrorCode::kInvalidModel, "Slice with lists of different lengths");
  }
  normalize_axes(axes, x.rank());  // none twice
  const Extents dense = row_major_strides(x.shape());
  StridedView view{x.shape(), dense};
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(normalize_axis(axes[i], x.rank()));
    const Cut cut = resolve_cut(starts[i], ends[i], steps[i], x.shape()[axis]);
    view.offset += cut.count > 0 ? cut.start * dense[axis] : 0;
    view.strides[axis] = cut.count > 1 ? view.strides[axis] * cut.step : view.strides[axis];
    view.shape[axis] = cut.count;
  }
  return view;
}

std::vector<std::int64_t> split_sizes(std::int64_t total, const Tensor* sizes, std::size_t pieces) {
  std::vector<std::int64_t> result;
  if (sizes != nullptr) {
    result = sizes->to_ints();
  } else {
    const auto count = static_cast<std::int64_t>(pieces);
    const std::int64_t chunk = (total + count - 1) / count;
    for (std::int64_t i = 0; i < count; ++i) {
      result.push_back(std::max<std::int64_t>(0, std::min(chunk, total - i * chunk)));
    }
  }
  if (result.size() != pieces || !is_partition(result, total)) {
    fail(ErrorCode::kInvalidModel, "Split of {} into {}", total, to_string(result));
  }
  return result;
}

std::span<const OpDef> movement_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Transpose",
       .inputs = {{"data"}},
       .outputs = {{"transposed"}},
       .attributes = {{"perm", AttributeKind::kInts}},
       .infer = infer_transpose,
       .reference = transpose_kernel},
      {.name = "Concat",
       .inputs = {{"inputs_0"}, {"inputs", Arity::kVariadic}},
       .outputs = {{"concat_result"}},
       .attributes = {{"axis", AttributeKind::kInt, true}},
       .infer = infer_concat,
       .reference = concat_kernel},
      {.name = "Split",
       .inputs = {{"input"}, {"split", Arity::kOptional}},
       .outputs = {{"outputs", Arity::kVariadic}},
       .attributes = {{"axis", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
                      {"num_outputs", AttributeKind::kInt}},
       .infer = infer_split,
       .reference = split_kernel},
      {.name = "Slice",
       .inputs = {{"data"}, {"starts"}, {"ends"}, {"axes", Arity::kOptional}, {"steps", Arity::kOptional}},
       .outputs = {{"output"}},
       .infer = infer_slice,
       .reference = slice_kernel},
  };
  return ops;
}

}  // namespace weft
