#include "ops/shape_util.h"

#include <algorithm>

namespace weft {

std::int64_t normalize_axis(std::int64_t axis, std::int64_t rank) {
  if (axis < -rank || axis >= rank) {
    fail(ErrorCode::kInvalidModel, "axis {} of a tensor of rank {}", axis, rank);
  }
  return axis < 0 ? axis + rank : axis;
}

std::vector<std::int64_t> normalize_axes(std::span<const std::int64_t> axes, std::int64_t rank) {
  std::vector<std::int64_t> result;
  for (const std::int64_t axis : axes) result.push_back(normalize_axis(axis, rank));
  std::sort(result.begin(), result.end());
  if (std::adjacent_find(result.begin(), result.end()) != result.end()) {
    fail(ErrorCode::kInvalidModel, "an axis is given twice");
  }
  return result;
}

Dim broadcast_dim(const Dim& a, const Dim& b) {
  if (a == b || b.is(1)) return a;
  if (a.is(1)) return b;
  if (a.is_constant() && b.is_constant()) {
    fail(ErrorCode::kInvalidModel, "dimensions {} and {} do not broadcast", a.value(), b.value());
  }
  if (a.is_constant()) return a;
  if (b.is_constant()) return b;
  return Dim::max(a, b);
}

Shape broadcast_shapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  const std::size_t shift = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    result[shift + i] = broadcast_dim(longer[shift + i], shorter[i]);
  }
  return result;
}

Extents broadcast_extents(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  const auto longer = a.size() >= b.size() ? a : b;
  const auto shorter = a.size() >= b.size() ? b : a;
  Extents result(longer.begin(), longer.end());
  const std::size_t shift = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    std::int64_t& extent = result[shift + i];
    if (extent == 1) {
      extent = shorter[i];
    } else if (shorter[i] != 1 && shorter[i] != extent) {
      fail(ErrorCode::kInvalidModel, "shapes {} and {} do not broadcast", to_string(a), to_string(b));
    }
  }
  return result;
}

bool is_partition(std::span<const std::int64_t> sizes, std::int64_t total) {
  for (const std::int64_t size : sizes) {
    if (size < 0 || size > total) return false;
    total -= size;
  }
  return total == 0;
}

Extents broadcast_strides(std::span<const std::int64_t> shape, std::span<const std::int64_t> target) {
  Extents strides(target.size(), 0);
  const Extents own = row_major_strides(shape);
  const std::size_t shift = target.size() - shape.size();
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != 1) strides[shift + i] = own[i];
  }
  return strides;
}

void infer_same_as_first(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  context.set_shape(0, context.shape(0));
}

void infer_broadcast(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  context.set_shape(0, broadcast_shapes(context.shape(0), context.shape(1)));
}

void infer_elements(InferContext& context, DimFunction f) {
  const std::vector<Dim>* a = context.elements(0);
  const std::vector<Dim>* b = context.elements(1);
  if (a == nullptr || b == nullptr || context.rank(0) > 1 || context.rank(1) > 1) return;
  const std::size_t count = std::max(a->size(), b->size());
  if (a->empty() || b->empty() || (a->size() != count && a->size() != 1) || (b->size() != count && b->size() != 1)) {
    return;
  }
  std::vector<Dim> result;
  for (std::size_t i = 0; i < count; ++i) {
    std::optional<Dim> value = f((*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]);
    if (!value) return;
    result.push_back(std::move(*value));
  }
  context.set_elements(0, std::move(result));
}

}  // namespace weft
