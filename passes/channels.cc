#include "passes/channels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cast.h"
#include "passes/node_util.h"

namespace weft {
namespace {

constexpr std::int64_t kMostChannels = 1 << 24;

std::int64_t extent_after(const Tensor& tensor, std::int64_t axis) {
  std::int64_t inner = 1;
  for (std::size_t i = static_cast<std::size_t>(axis) + 1; i < tensor.shape().size(); ++i) inner *= tensor.shape()[i];
  return inner;
}

template <class Visit>
void for_each_channel(const Tensor& tensor, std::int64_t axis, std::size_t channels, const Visit& visit) {
  const std::int64_t inner = extent_after(tensor, axis);
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    visit(static_cast<std::size_t>(i), static_cast<std::size_t>(i / inner) % channels);
  }
}

}  // namespace

std::optional<std::vector<double>> per_channel(const Graph& graph, ValueId constant, std::int64_t rank,
                                               std::int64_t axis, std::int64_t count) {
  if (!is_constant(graph, constant) || count > kMostChannels) return std::nullopt;
  const Tensor& tensor = *graph.value(constant).tensor;
  if (tensor.size() == 0) return std::nullopt;
  const auto own = static_cast<std::int64_t>(tensor.shape().size());
  if (own > rank || !is_float(tensor.dtype())) return std::nullopt;
  for (std::int64_t i = 0; i < own; ++i) {
    const std::int64_t extent = tensor.shape()[static_cast<std::size_t>(i)];
    if (extent != 1 && !(i + rank - own == axis && extent == count)) return std::nullopt;
  }
  const Tensor wide = cast(tensor.aligned(), DType::kF64);
  const std::span<const double> numbers = wide.data<double>();
  std::vector<double> result(static_cast<std::size_t>(count), numbers[0]);
  if (numbers.size() > 1) result.assign(numbers.begin(), numbers.end());
  return result;
}

std::optional<std::vector<double>> per_channel_or(const Graph& graph, ValueId constant, std::int64_t rank,
                                                  std::int64_t axis, std::int64_t count, double absent) {
  if (constant.valid()) return per_channel(graph, constant, rank, axis, count);
  if (count > kMostChannels) return std::nullopt;
  return std::vector<double>(static_cast<std::size_t>(count), absent);
}

bool is_identity(const std::vector<double>& factors) {
  return std::all_of(factors.begin(), factors.end(), [](double factor) { return factor == 1; });
}

bool can_scale(Match& match, const Pattern& weights, std::int64_t axis, const std::vector<double>& factors) {
  if (is_identity(factors)) return true;
  const Graph& graph = match.graph();
  const Value& value = graph.value(match[weights]);
  if (!is_constant(graph, match[weights])) return match.refuse("the weights are no constant");
  if (value.uses.size() != 1) return match.refuse("the weights are read elsewhere also");
  if (value.type.dtype != DType::kF32 && value.type.dtype != DType::kF64) {
    return match.refuse("the weights have no more than 16 bits");
  }
  const double largest =
      value.type.dtype == DType::kF32 ? static_cast<double>(std::numeric_limits<float>::max()) : 1e300;
  const Tensor wide = cast(graph.value(match[weights]).tensor->aligned(), DType::kF64);
  const std::span<const double> numbers = wide.data<double>();
  bool finite = true;
  for_each_channel(wide, axis, factors.size(), [&](std::size_t i, std::size_t channel) {
    finite = finite && std::abs(numbers[i] * factors[channel]) <= largest;
  });
  return finite || match.refuse("the scaled weights are not finite");
}

Tensor scale_along(const Tensor& tensor, std::int64_t axis, const std::vector<double>& factors) {
  Tensor wide = cast(tensor.aligned(), DType::kF64);
  const std::span<const double> from = wide.data<double>();
  Tensor result = Tensor::uninitialized(DType::kF64, tensor.shape());
  const std::span<double> to = result.mutable_data<double>();
  for_each_channel(wide, axis, factors.size(),
                   [&](std::size_t i, std::size_t channel) { to[i] = from[i] * factors[channel]; });
  return cast(result, tensor.dtype());
}

Tensor transform_bias(const Tensor* bias, const std::vector<double>& factors, const std::vector<double>& shifts,
                      DType dtype) {
  std::vector<double> result = shifts;
  if (bias != nullptr) {
    const Tensor wide = cast(bias->aligned(), DType::kF64);
    const std::span<const double> from = wide.data<double>();
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = from[i] * factors[i] + shifts[i];
  }
  return cast(Tensor::vector(std::span<const double>(result)), dtype);
}

}  // namespace weft
