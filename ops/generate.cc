// Operators that make tensors out of shapes and numbers.
#include <algorithm>
#include <cmath>

#include "ops/families.h"
#include "ops/shape_util.h"
#include "ops/wrapping.h"

namespace weft {
namespace {

void infer_range(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  const auto known = [&](std::size_t i) -> std::optional<Dim> {
    const auto* elements = context.elements(i);
    return elements != nullptr && elements->size() == 1 ? std::optional<Dim>((*elements)[0]) : std::nullopt;
  };
  const auto start = known(0);
  const auto limit = known(1);
  const auto delta = known(2);
  if (!start || !limit || !delta || !delta->is_constant() || delta->is(0) || delta->is(INT64_MIN)) {
    const Tensor* a = context.tensor(0);
    const Tensor* b = context.tensor(1);
    const Tensor* c = context.tensor(2);
    if (a != nullptr && b != nullptr && c != nullptr && c->item() != 0) {
      const double count = std::ceil((b->item() - a->item()) / c->item());
      constexpr double kMost = 0x1p48;
      context.set_shape(0,
                        {count < kMost ? Dim(static_cast<std::int64_t>(std::max(0.0, count))) : context.unknown_dim()});
    } else {
      context.set_shape(0, {context.unknown_dim()});
    }
    return;
  }
  Dim length = *limit - *start;
  const std::int64_t step = delta->value();
  length = step > 0 ? Dim::ceil_div(length, Dim(step)) : Dim::ceil_div(length * Dim(-1), Dim(-step));
  length = Dim::max(length, Dim(0));
  if (length.is_constant() && length.value() <= static_cast<std::int64_t>(kMaxTrackedElements)) {
    std::vector<Dim> elements;
    for (std::int64_t i = 0; i < length.value(); ++i) elements.push_back(*start + Dim(i * step));
    context.set_elements(0, std::move(elements));
  }
  context.set_shape(0, {std::move(length)});
}

// Elements of start, start + delta, ... before limit; nullopt for too many. Integers exactly.
template <class T>
std::optional<std::int64_t> range_count(T start, T limit, T delta) {
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  if constexpr (std::is_integral_v<T>) {
    const __int128 distance = static_cast<__int128>(limit) - start, step = delta;
    if (distance == 0 || (distance > 0) != (step > 0)) return 0;
    const __int128 count = (distance + step + (step > 0 ? -1 : 1)) / step;
    return count < kMost ? std::optional(static_cast<std::int64_t>(count)) : std::nullopt;
  } else {
    const double count =
        std::ceil((static_cast<double>(limit) - static_cast<double>(start)) / static_cast<double>(delta));
    if (!(count < static_cast<double>(kMost))) return std::nullopt;
    return static_cast<std::int64_t>(std::max(0.0, count));
  }
}

void range_kernel(KernelContext& context) {
  const DType dtype = context.input(0).dtype();
  visit_dtype(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
      fail(ErrorCode::kInvalidModel, "Range of {}", to_string(dtype));
    } else {
      using Wide = std::conditional_t<std::is_arithmetic_v<T>, T, float>;
      const auto scalar = [&](std::size_t i) {
        if (context.input(i).size() != 1) {
          fail(ErrorCode::kInvalidArgument, "one element wanted, shape {} given", to_string(context.input(i).shape()));
        }
        return static_cast<Wide>(context.input(i).data<T>()[0]);
      };
      const Wide start = scalar(0), limit = scalar(1), delta = scalar(2);
      if (delta == 0) fail(ErrorCode::kInvalidArgument, "Range with a delta of 0");
      const auto count = range_count(start, limit, delta);
      if (!count) fail(ErrorCode::kInvalidArgument, "Range from {} to {} by {}", start, limit, delta);
      const auto y = context.output(0, dtype, {*count}).template mutable_data<T>();
      for (std::size_t i = 0; i < y.size(); ++i) {
        y[i] = static_cast<T>(wrapping_add(start, wrapping_multiply(static_cast<Wide>(i), delta)));
      }
    }
  });
}

void infer_constant_of_shape(InferContext& context) {
  const Tensor value = context.attributes().tensor("value").aligned();
  context.set_dtype(0, value.dtype());
  const auto* target = context.elements(0);
  if (target == nullptr) {
    const Shape& length = context.shape(0);
    if (length.size() != 1 || !length[0].is_constant()) return;
    Shape unknown;
    check_rank(length[0].value());
    for (std::int64_t i = 0; i < length[0].value(); ++i) unknown.push_back(context.unknown_dim());
    context.set_shape(0, std::move(unknown));
    return;
  }
  const Dim count = element_count(*target);
  if (is_integer(value.dtype()) && count.is_constant() && count.value() >= 0 &&
      count.value() <= static_cast<std::int64_t>(kMaxTrackedElements) && value.size() == 1) {
    context.set_elements(0, std::vector<Dim>(static_cast<std::size_t>(count.value()), Dim(value.to_ints()[0])));
  }
  context.set_shape(0, *target);
}

void constant_of_shape_kernel(KernelContext& context) {
  const Tensor value = context.attributes().tensor("value").aligned();
  if (value.size() != 1) fail(ErrorCode::kInvalidModel, "ConstantOfShape of {} values", value.size());
  Tensor& out = context.output(0, value.dtype(), context.input(0).to_ints());
  visit_storage(value.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (T& element : out.mutable_data<T>()) element = value.data<T>()[0];
  });
}

void infer_eye_like(InferContext& context) {
  context.set(0, context.attributes().has("dtype") ? context.attributes().type("dtype") : context.dtype(0),
              context.shape(0));
}

void eye_like_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  if (x.rank() != 2) fail(ErrorCode::kInvalidModel, "EyeLike of rank {}", x.rank());
  const DType dtype = context.attributes().has("dtype") ? context.attributes().type("dtype") : x.dtype();
  Tensor out = Tensor::zeros(dtype, x.shape());
  const Tensor one = Tensor::full(dtype, {}, 1.0);
  const std::int64_t k = std::clamp(context.integer("k"), -x.extent(0), x.extent(1));  // beyond, there is no diagonal
  visit_storage(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (std::int64_t r = 0; r < x.extent(0); ++r) {
      if (r + k < 0 || r + k >= x.extent(1)) continue;
      out.mutable_data<T>()[static_cast<std::size_t>(r * x.extent(1) + r + k)] = one.data<T>()[0];
    }
  });
  context.set_output(0, std::move(out));
}

}  // namespace

std::span<const OpDef> generate_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Range",
       .inputs = {{"start"}, {"limit"}, {"delta"}},
       .outputs = {{"output"}},
       .infer = infer_range,
       .reference = range_kernel},
      {.name = "ConstantOfShape",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {{"value", AttributeKind::kTensor, true}},
       .infer = infer_constant_of_shape,
       .reference = constant_of_shape_kernel},
      {.name = "EyeLike",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .attributes = {{"dtype", AttributeKind::kType}, {"k", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
       .infer = infer_eye_like,
       .reference = eye_like_kernel},
  };
  return ops;
}

}  // namespace weft
