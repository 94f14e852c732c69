// Operators that pick elements by what they hold: Compress (ONNX 11), Unique (ONNX 11).
#include <algorithm>
#include <numeric>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/index_util.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// Slices of x at the given places along an axis.
Tensor take(const Tensor& x, std::size_t axis, const std::vector<std::int64_t>& places) {
  Extents shape = x.shape();
  const std::int64_t outer = product(shape, 0, axis), inner = product(shape, axis + 1, shape.size());
  const std::int64_t extent = shape[axis];
  shape[axis] = static_cast<std::int64_t>(places.size());
  Tensor out = Tensor::uninitialized(x.dtype(), std::move(shape));
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = out.mutable_data<T>().data();
    for (std::int64_t o = 0; o < outer; ++o) {
      for (const std::int64_t place : places) {
        to = std::copy_n(x.data<T>().data() + (o * extent + place) * inner, inner, to);
      }
    }
  });
  return out;
}

void infer_compress(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  if (!context.attributes().has("axis")) {
    context.set_shape(0, {context.unknown_dim()});
    return;
  }
  Shape result = context.shape(0);
  result[static_cast<std::size_t>(normalize_axis(context.integer("axis"), context.rank(0)))] = context.unknown_dim();
  context.set_shape(0, std::move(result));
}

void compress_kernel(KernelContext& context) {
  const bool flat = !context.attributes().has("axis");
  const Tensor x = flat ? context.input(0).reshaped({context.input(0).size()}) : context.input(0);
  const auto axis = static_cast<std::size_t>(flat ? 0 : normalize_axis(context.integer("axis"), x.rank()));
  const auto condition = context.input(1).data<bool>();
  std::vector<std::int64_t> places;
  for (std::size_t i = 0; i < condition.size(); ++i) {
    if (!condition[i]) continue;
    checked_index(static_cast<std::int64_t>(i), x.shape()[axis]);
    places.push_back(static_cast<std::int64_t>(i));
  }
  context.set_output(0, take(x, axis, places));
}

void infer_unique(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  for (std::size_t i = 1; i < context.output_count(); ++i) context.set(i, DType::kI64, {context.unknown_dim()});
  if (!context.attributes().has("axis")) {
    context.set_shape(0, {context.unknown_dim()});
  } else {
    infer_compress(context);
  }
}

// -1, 0, 1: slices a and b of x [outer, extent, inner] in lexicographic order; NaN after everything.
template <class T>
int compare_slices(const T* x, std::int64_t outer, std::int64_t extent, std::int64_t inner, std::int64_t a,
                   std::int64_t b) {
  for (std::int64_t o = 0; o < outer; ++o) {
    for (std::int64_t i = 0; i < inner; ++i) {
      const T& left = x[(o * extent + a) * inner + i];
      const T& right = x[(o * extent + b) * inner + i];
      if (left < right) return -1;
      if (right < left) return 1;
      if constexpr (std::is_floating_point_v<T>) {
        if ((left != left) != (right != right)) return left != left ? 1 : -1;
      }
    }
  }
  return 0;
}

void unique_kernel(KernelContext& context) {
  const bool flat = !context.attributes().has("axis");
  const Tensor x = flat ? context.input(0).reshaped({context.input(0).size()}) : context.input(0);
  const auto axis = static_cast<std::size_t>(flat ? 0 : normalize_axis(context.integer("axis"), x.rank()));
  const bool narrow = x.dtype() == DType::kF16 || x.dtype() == DType::kBF16;
  const Tensor keys = narrow ? cast(x, DType::kF32) : x;
  const std::int64_t extent = x.shape()[axis];
  const std::int64_t outer = product(x.shape(), 0, axis), inner = product(x.shape(), axis + 1, x.shape().size());
  MemoryLimit::check(static_cast<std::size_t>(extent) * 4 * sizeof(std::int64_t));
  std::vector<std::int64_t> order(static_cast<std::size_t>(extent));
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::int64_t> first, inverse(order.size()), counts;
  visit_dtype(keys.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      return;
    } else {
      const T* data = keys.data<T>().data();
      const auto compare = [&](std::int64_t a, std::int64_t b) {
        return compare_slices(data, outer, extent, inner, a, b);
      };
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return compare(a, b) < 0; });
      for (std::size_t i = 0; i < order.size(); ++i) {
        if (i == 0 || compare(order[i - 1], order[i]) != 0) {
          first.push_back(order[i]);
          counts.push_back(0);
        }
        ++counts.back();
        inverse[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(first.size()) - 1;
      }
    }
  });
  if (context.integer("sorted") == 0) {  // in order of appearance
    std::vector<std::size_t> by_place(first.size());
    std::iota(by_place.begin(), by_place.end(), 0);
    std::sort(by_place.begin(), by_place.end(), [&](std::size_t a, std::size_t b) { return first[a] < first[b]; });
    std::vector<std::int64_t> places, numbers(first.size()), renamed(first.size());
    for (std::size_t i = 0; i < by_place.size(); ++i) {
      places.push_back(first[by_place[i]]);
      numbers[i] = counts[by_place[i]];
      renamed[by_place[i]] = static_cast<std::int64_t>(i);
    }
    first = std::move(places);
    counts = std::move(numbers);
    for (std::int64_t& index : inverse) index = renamed[static_cast<std::size_t>(index)];
  }
  context.set_output(0, take(x, axis, first));
  const std::vector<std::int64_t>* more[] = {&first, &inverse, &counts};
  for (std::size_t i = 0; i < 3; ++i) {
    if (context.wants(i + 1)) context.set_output(i + 1, Tensor::vector<std::int64_t>(*more[i]));
  }
}

}  // namespace

std::span<const OpDef> select_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Compress",
       .inputs = {{"input"}, {"condition"}},
       .outputs = {{"output"}},
       .attributes = {{"axis", AttributeKind::kInt}},
       .infer = infer_compress,
       .reference = compress_kernel},
      {.name = "Unique",
       .inputs = {{"X"}},
       .outputs =
           {{"Y"}, {"indices", Arity::kOptional}, {"inverse_indices", Arity::kOptional}, {"counts", Arity::kOptional}},
       .attributes = {{"axis", AttributeKind::kInt},
                      {"sorted", AttributeKind::kInt, false, Attribute(std::int64_t{1})}},
       .infer = infer_unique,
       .reference = unique_kernel},
  };
  return ops;
}

}  // namespace weft
