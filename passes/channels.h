// Constants that scale or shift the channels of what weights compute, and the weights that do so themselves.
#pragma once

#include <optional>
#include <vector>

#include "passes/matcher.h"

namespace weft {

// One number for each of `count` channels, of a constant that broadcasts to a tensor of `rank` axes and varies along
// `axis` at most; nullopt for anything else, and for more channels than a pass makes numbers for.
std::optional<std::vector<double>> per_channel(const Graph& graph, ValueId constant, std::int64_t rank,
                                               std::int64_t axis, std::int64_t count);

// The same where the constant may be missing (an invalid id), which means `absent` for each.
std::optional<std::vector<double>> per_channel_or(const Graph& graph, ValueId constant, std::int64_t rank,
                                                  std::int64_t axis, std::int64_t count, double absent);

bool is_identity(const std::vector<double>& factors);  // all are 1

// For conditions: the factors change nothing, or these are weights of one reader and of f32 or f64 that stay finite
// with what lies along `axis` multiplied by them. Otherwise refuses.
bool can_scale(Match& match, const Pattern& weights, std::int64_t axis, const std::vector<double>& factors);

// The tensor with what lies along `axis` multiplied by these factors, each product rounded once.
Tensor scale_along(const Tensor& tensor, std::int64_t axis, const std::vector<double>& factors);

// bias * factor + shift of each channel, of this dtype; without a bias the shifts.
Tensor transform_bias(const Tensor* bias, const std::vector<double>& factors, const std::vector<double>& shifts,
                      DType dtype);

}  // namespace weft
