// Operators that move elements by index: Gather, Scatter, OneHot, NonZero, ...
#include <algorithm>
#include <cstring>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/index_util.h"
#include "ops/shape_util.h"
#include "ops/wrapping.h"

namespace weft {
namespace {

// --- Gather ----------------------------------------------------------------------------------------

void infer_gather(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const Shape& indices = context.shape(1);
  const auto axis = normalize_axis(context.integer("axis"), context.rank(0));
  Shape result(x.begin(), x.begin() + axis);
  result.insert(result.end(), indices.begin(), indices.end());
  result.insert(result.end(), x.begin() + axis + 1, x.end());
  context.set_shape(0, std::move(result));
  const auto* elements = context.elements(0);
  const auto at = context.integers(1);
  if (elements == nullptr || x.size() != 1 || !at) return;
  std::vector<Dim> picked;
  for (const std::int64_t index : *at) {
    picked.push_back(
        (*elements)[static_cast<std::size_t>(checked_index(index, static_cast<std::int64_t>(elements->size())))]);
  }
  context.set_elements(0, std::move(picked));
}

void gather_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const std::vector<std::int64_t> indices = context.input(1).to_ints();
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), x.rank()));
  Extents shape(x.shape().begin(), x.shape().begin() + static_cast<std::ptrdiff_t>(axis));
  shape.insert(shape.end(), context.input(1).shape().begin(), context.input(1).shape().end());
  shape.insert(shape.end(), x.shape().begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.shape().end());
  Tensor& out = context.output(0, x.dtype(), std::move(shape));
  const std::int64_t outer = product(x.shape(), 0, axis);
  const std::int64_t inner = product(x.shape(), axis + 1, x.shape().size());
  const std::int64_t extent = x.shape()[axis];
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.data<T>().data();
    T* to = out.mutable_data<T>().data();
    for (std::int64_t o = 0; o < outer; ++o) {
      for (const std::int64_t index : indices) {
        const T* row = from + (o * extent + checked_index(index, extent)) * inner;
        to = std::copy(row, row + inner, to);
      }
    }
  });
}

void infer_gather_elements(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  context.set_shape(0, context.shape(1));
}

// Calls body(offset into data, flat position among the indices) for each index along `axis`.
template <class Body>
void for_each_element_index(const Extents& data, const Tensor& indices, std::size_t axis, const Body& body) {
  const std::vector<std::int64_t> values = indices.to_ints();
  const Extents& shape = indices.shape();
  if (shape.size() != data.size())
    fail(ErrorCode::kInvalidModel, "indices of rank {} for data of rank {}", shape.size(), data.size());
  const Extents strides = row_major_strides(data);
  Extents position(shape.size(), 0);
  for (std::size_t n = 0; n < values.size(); ++n) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      offset += (i == axis ? checked_index(values[n], data[axis]) : checked_index(position[i], data[i])) * strides[i];
    }
    body(offset, static_cast<std::int64_t>(n));
    for (std::size_t i = shape.size(); i-- > 0 && ++position[i] == shape[i];) position[i] = 0;
  }
}

void gather_elements_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), x.rank()));
  Tensor& out = context.output(0, x.dtype(), context.input(1).shape());
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.data<T>().data();
    T* to = out.mutable_data<T>().data();
    for_each_element_index(x.shape(), context.input(1), axis,
                           [&](std::int64_t offset, std::int64_t n) { to[n] = from[offset]; });
  });
}

// --- GatherND, ScatterND ---------------------------------------------------------------------------

void infer_gather_nd(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const Shape& x = context.shape(0);
  const Shape& indices = context.shape(1);
  const std::int64_t batch = context.integer("batch_dims");
  if (indices.empty()) fail(ErrorCode::kInvalidModel, "GatherND with scalar indices");
  if (batch < 0 || batch >= context.rank(1) || batch >= context.rank(0)) {
    fail(ErrorCode::kInvalidModel, "GatherND with batch_dims {} and indices of {}", batch, to_string(indices));
  }
  if (!indices.back().is_constant()) return;
  if (indices.back().value() > context.rank(0) - batch) {
    fail(ErrorCode::kInvalidModel, "GatherND with indices of {}", to_string(indices));
  }
  const std::int64_t taken = batch + indices.back().value();
  Shape result(indices.begin(), indices.end() - 1);
  result.insert(result.end(), x.begin() + taken, x.end());
  context.set_shape(0, std::move(result));
}

// Length of the last axis, whose elements are a position together.
std::size_t tuple_width(const Tensor& indices, std::int64_t rank) {
  if (indices.rank() < 1 || indices.shape().back() > rank) {
    fail(ErrorCode::kInvalidModel, "indices of {} for data of rank {}", to_string(indices.shape()), rank);
  }
  return static_cast<std::size_t>(indices.shape().back());
}

void gather_nd_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const Tensor& indices = context.input(1);
  const std::int64_t batch_dims = context.integer("batch_dims");
  const std::size_t width = tuple_width(indices, x.rank());
  const bool aligned = batch_dims >= 0 && batch_dims < std::min(indices.rank(), x.rank()) &&
                       std::equal(x.shape().begin(), x.shape().begin() + batch_dims, indices.shape().begin());
  const auto batch = static_cast<std::size_t>(batch_dims);
  if (!aligned || batch + width > x.shape().size()) {
    fail(ErrorCode::kInvalidModel, "GatherND from {} with batch_dims {} and indices of {}", to_string(x.shape()),
         batch_dims, to_string(indices.shape()));
  }
  const std::vector<std::int64_t> values = indices.to_ints();
  Extents shape(indices.shape().begin(), indices.shape().end() - 1);
  shape.insert(shape.end(), x.shape().begin() + static_cast<std::ptrdiff_t>(batch + width), x.shape().end());
  Tensor& out = context.output(0, x.dtype(), std::move(shape));
  const Extents strides = row_major_strides(x.shape());
  const std::int64_t inner = product(x.shape(), batch + width, x.shape().size());
  const std::int64_t tuples = out.size() / std::max<std::int64_t>(inner, 1);
  const std::int64_t per_batch = product(indices.shape(), batch, indices.shape().size() - 1);
  const std::int64_t batch_stride = batch == 0 ? 0 : strides[batch - 1];
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = out.mutable_data<T>().data();
    for (std::int64_t n = 0; n < tuples; ++n) {
      std::int64_t offset = n / per_batch * batch_stride;
      for (std::size_t k = 0; k < width; ++k) {
        offset +=
            checked_index(values[static_cast<std::size_t>(n) * width + k], x.shape()[batch + k]) * strides[batch + k];
      }
      const T* row = x.data<T>().data() + offset;
      to = std::copy(row, row + inner, to);
    }
  });
}

// data combined with update by "none", "add", "mul", "max" or "min".
template <class T>
void combine(T& data, const T& update, const std::string& reduction) {
  if (reduction == "none") {
    data = update;
  } else if constexpr (!std::is_arithmetic_v<T> && !std::is_same_v<T, Float16> && !std::is_same_v<T, BFloat16>) {
    fail(ErrorCode::kInvalidModel, "scattering elements that are no numbers with reduction {}", reduction);
  } else {
    const auto widen = [](const T& x) {
      if constexpr (std::is_arithmetic_v<T>)
        return x;
      else
        return static_cast<float>(x);
    };
    const auto a = widen(data);
    const auto b = widen(update);
    if (reduction == "add")
      data = static_cast<T>(wrapping_add(a, b));
    else if (reduction == "mul")
      data = static_cast<T>(wrapping_multiply(a, b));
    else if (reduction == "max")
      data = a > b || a != a ? data : update;
    else if (reduction == "min")
      data = a < b || a != a ? data : update;
    else
      fail(ErrorCode::kInvalidModel, "scattering with reduction \"{}\"", reduction);
  }
}

// A reduction computes; without one elements of any type are moved.
template <class Body>
void visit_scattered(DType dtype, const std::string& reduction, const Body& body) {
  if (reduction == "none") {
    visit_storage(dtype, body);
  } else {
    visit_dtype(dtype, body);
  }
}

void infer_scatter(InferContext& context) { infer_same_as_first(context); }

void scatter_elements_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const auto axis = static_cast<std::size_t>(normalize_axis(context.integer("axis"), x.rank()));
  const std::string& reduction = context.attributes().text("reduction");
  if (context.input(2).shape() != context.input(1).shape())
    fail(ErrorCode::kInvalidModel, "indices and updates differ in shape");
  Tensor out = x.clone();
  visit_scattered(x.dtype(), reduction, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = out.mutable_data<T>().data();
    const T* updates = context.input(2).data<T>().data();
    for_each_element_index(x.shape(), context.input(1), axis,
                           [&](std::int64_t offset, std::int64_t n) { combine(to[offset], updates[n], reduction); });
  });
  context.set_output(0, std::move(out));
}

void scatter_nd_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const Tensor& indices = context.input(1);
  const std::string& reduction = context.attributes().text("reduction");
  const std::vector<std::int64_t> values = indices.to_ints();
  const std::size_t width = tuple_width(indices, x.rank());
  const Extents strides = row_major_strides(x.shape());
  const std::int64_t inner = product(x.shape(), width, x.shape().size());
  const std::int64_t tuples = product(indices.shape(), 0, indices.shape().size() - 1);
  if (context.input(2).size() != tuples * inner)
    fail(ErrorCode::kInvalidModel, "ScatterND with updates of {}", to_string(context.input(2).shape()));
  Tensor out = x.clone();
  visit_scattered(x.dtype(), reduction, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = out.mutable_data<T>().data();
    const T* updates = context.input(2).data<T>().data();
    for (std::int64_t n = 0; n < tuples; ++n) {
      std::int64_t offset = 0;
      for (std::size_t k = 0; k < width; ++k) {
        offset += checked_index(values[static_cast<std::size_t>(n) * width + k], x.shape()[k]) * strides[k];
      }
      for (std::int64_t i = 0; i < inner; ++i) combine(to[offset + i], updates[n * inner + i], reduction);
    }
  });
  context.set_output(0, std::move(out));
}

// --- OneHot, NonZero, Compress ---------------------------------------------------------------------

void infer_one_hot(InferContext& context) {
  context.set_dtype(0, context.dtype(2));
  if (context.has_shape(2) && is_static(context.shape(2)) && !element_count(context.shape(2)).is(2)) {
    fail(ErrorCode::kInvalidModel, "OneHot of {} values", element_count(context.shape(2)).to_string());
  }
  Shape result = context.shape(0);
  const auto axis = normalize_axis(context.integer("axis"), context.rank(0) + 1);
  const auto depth = context.integers(1);
  const Tensor* tensor = context.tensor(1);
  const auto* elements = context.elements(1);
  Dim extent = elements != nullptr && elements->size() == 1 ? (*elements)[0] : context.unknown_dim();
  if (!depth && tensor != nullptr) extent = Dim(only_integer(tensor->aligned()));
  result.insert(result.begin() + axis, extent);
  context.set_shape(0, std::move(result));
}

void one_hot_kernel(KernelContext& context) {
  const Tensor indices = cast(context.input(0), DType::kI64);
  const std::int64_t depth = only_integer(context.input(1));
  const Tensor& values = context.input(2);
  if (values.size() != 2) fail(ErrorCode::kInvalidModel, "OneHot of {} values", values.size());
  const auto axis = normalize_axis(context.integer("axis"), indices.rank() + 1);
  Extents shape = indices.shape();
  shape.insert(shape.begin() + axis, depth);
  const std::int64_t inner = product(indices.shape(), static_cast<std::size_t>(axis), indices.shape().size());
  Tensor& out = context.output(0, values.dtype(), std::move(shape));
  const auto at = indices.data<std::int64_t>();
  visit_storage(values.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto out_data = out.mutable_data<T>();
    std::fill(out_data.begin(), out_data.end(), values.data<T>()[0]);
    for (std::size_t n = 0; n < at.size(); ++n) {
      const std::int64_t index = at[n] < 0 ? at[n] + depth : at[n];
      if (index < 0 || index >= depth) continue;
      const auto flat = static_cast<std::int64_t>(n);
      out_data[static_cast<std::size_t>((flat / inner * depth + index) * inner + flat % inner)] = values.data<T>()[1];
    }
  });
}

void infer_non_zero(InferContext& context) {
  context.set_dtype(0, DType::kI64);
  context.set_shape(0, {Dim(context.rank(0)), context.unknown_dim()});
}

void non_zero_kernel(KernelContext& context) {
  const Tensor flags = cast(context.input(0), DType::kBool);
  const Extents& shape = flags.shape();
  std::vector<std::int64_t> found;
  const auto data = flags.data<bool>();
  for (std::size_t n = 0; n < data.size(); ++n) {
    if (data[n]) found.push_back(static_cast<std::int64_t>(n));
  }
  const auto count = static_cast<std::int64_t>(found.size());
  Tensor& out = context.output(0, DType::kI64, {flags.rank(), count});
  const Extents strides = row_major_strides(shape);
  for (std::int64_t axis = 0; axis < flags.rank(); ++axis) {
    for (std::int64_t n = 0; n < count; ++n) {
      out.mutable_data<std::int64_t>()[static_cast<std::size_t>(axis * count + n)] =
          found[static_cast<std::size_t>(n)] / strides[static_cast<std::size_t>(axis)] %
          shape[static_cast<std::size_t>(axis)];
    }
  }
}

AttributeDef reduction() { return {"reduction", AttributeKind::kString, false, Attribute(std::string("none"))}; }
AttributeDef axis(std::int64_t fallback) { return {"axis", AttributeKind::kInt, false, Attribute(fallback)}; }

}  // namespace

std::span<const OpDef> gather_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Gather",
       .inputs = {{"data"}, {"indices"}},
       .outputs = {{"output"}},
       .attributes = {axis(0)},
       .infer = infer_gather,
       .reference = gather_kernel},
      {.name = "GatherElements",
       .inputs = {{"data"}, {"indices"}},
       .outputs = {{"output"}},
       .attributes = {axis(0)},
       .infer = infer_gather_elements,
       .reference = gather_elements_kernel},
      {.name = "GatherND",
       .inputs = {{"data"}, {"indices"}},
       .outputs = {{"output"}},
       .attributes = {{"batch_dims", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
       .infer = infer_gather_nd,
       .reference = gather_nd_kernel},
      {.name = "ScatterElements",
       .inputs = {{"data"}, {"indices"}, {"updates"}},
       .outputs = {{"output"}},
       .attributes = {axis(0), reduction()},
       .infer = infer_scatter,
       .reference = scatter_elements_kernel},
      {.name = "ScatterND",
       .inputs = {{"data"}, {"indices"}, {"updates"}},
       .outputs = {{"output"}},
       .attributes = {reduction()},
       .infer = infer_scatter,
       .reference = scatter_nd_kernel},
      {.name = "OneHot",
       .inputs = {{"indices"}, {"depth"}, {"values"}},
       .outputs = {{"output"}},
       .attributes = {axis(-1)},
       .infer = infer_one_hot,
       .reference = one_hot_kernel},
      {.name = "NonZero", .inputs = {{"X"}}, .outputs = {{"Y"}}, .infer = infer_non_zero, .reference = non_zero_kernel},
  };
  return ops;
}

}  // namespace weft
