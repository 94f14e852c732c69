// What scales and shifts the channels of a convolution, BatchNormalization above all, as its weights and bias.
#include <algorithm>
#include <cmath>

#include "passes/channels.h"
#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

// y = factor * convolution + shift, a pair for each channel.
struct ChannelMap {
  std::vector<double> factors, shifts;
};
using ReadMap = std::function<std::optional<ChannelMap>(const Match&, std::int64_t rank, std::int64_t channels)>;

std::optional<ChannelMap> map_of(const Match& m, const Pattern& weight, const ReadMap& read) {
  const Shape* shape = shape_of(m.graph(), m[weight]);
  if (shape == nullptr || shape->size() < 3 || !(*shape)[0].is_constant() || (*shape)[0].is(0)) return std::nullopt;
  return read(m, static_cast<std::int64_t>(shape->size()), (*shape)[0].value());
}

bool is_finite(const std::vector<double>& numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](double x) { return std::isfinite(x); });
}

// `convolution` is Conv(x, weight, bias?).
Rule convolution_rule(std::string name, const Pattern& root, const Pattern& convolution, const Pattern& weight,
                      const ReadMap& read) {
  const auto bias_of = [=](const Graph& graph, const Node& conv) -> const Tensor* {
    const bool has = conv.inputs.size() > 2 && conv.inputs[2].valid();
    return has ? &*graph.value(conv.inputs[2]).tensor : nullptr;
  };
  return {std::move(name), root,
          [=](Match& m) {
            const Node& conv = m.node(convolution);
            if (conv.inputs.size() > 2 && conv.inputs[2].valid() && !is_constant(m.graph(), conv.inputs[2])) {
              return m.refuse("the convolution's bias is no constant");
            }
            const auto map = map_of(m, weight, read);
            if (!map) return m.refuse("there is not one number for each channel");
            if (!is_finite(map->factors) || !is_finite(map->shifts)) return m.refuse("a number is not finite");
            return can_scale(m, weight, 0, map->factors);
          },
          [=](Builder& b, const Match& m) {
            const ChannelMap map = map_of(m, weight, read).value();
            const Node& conv = m.node(convolution);
            const Attributes attributes = conv.attributes;
            const ValueId x = conv.inputs[0];
            const Tensor weights = *b.graph().value(m[weight]).tensor;
            const Tensor bias = transform_bias(bias_of(b.graph(), conv), map.factors, map.shifts, weights.dtype());
            const ValueId scaled =
                is_identity(map.factors) ? m[weight] : b.constant(scale_along(weights, 0, map.factors)).id();
            return b.make("Conv", {x, scaled, b.constant(bias).id()}, attributes);
          }};
}

Rule batch_normalization() {
  const Pattern weight = constant("weight");
  const Pattern convolution = open_op("Conv", {any("x"), weight});
  const Pattern scale = constant("scale"), bias = constant("bias"), mean = constant("mean"), var = constant("var");
  const Pattern root = op("BatchNormalization", {convolution, scale, bias, mean, var});
  return convolution_rule(
      "fuse-batch-normalization", root, convolution, weight,
      [=](const Match& m, std::int64_t, std::int64_t channels) -> std::optional<ChannelMap> {
        const auto read = [&](const Pattern& p) { return per_channel(m.graph(), m[p], 1, 0, channels); };
        const auto scales = read(scale), biases = read(bias), means = read(mean), variances = read(var);
        if (!scales || !biases || !means || !variances) return std::nullopt;
        const double epsilon = attributes_of(m.node(root)).number("epsilon");
        ChannelMap map;
        for (std::size_t i = 0; i < static_cast<std::size_t>(channels); ++i) {
          map.factors.push_back((*scales)[i] / std::sqrt((*variances)[i] + epsilon));
          map.shifts.push_back((*biases)[i] - (*means)[i] * map.factors[i]);
        }
        return map;
      });
}

enum class Operation { kMul, kDiv, kAdd, kSub };

Rule arithmetic(std::string name, Operation operation) {
  const Pattern weight = constant("weight"), operand = constant("operand");
  const Pattern convolution = open_op("Conv", {any("x"), weight});
  const auto root = [&] {
    switch (operation) {
      case Operation::kMul: return convolution * operand;
      case Operation::kDiv: return convolution / operand;
      case Operation::kAdd: return convolution + operand;
      default: return convolution - operand;
    }
  };
  return convolution_rule(std::move(name), root(), convolution, weight,
                          [=](const Match& m, std::int64_t rank, std::int64_t channels) -> std::optional<ChannelMap> {
                            const auto numbers = per_channel(m.graph(), m[operand], rank, 1, channels);
                            if (!numbers) return std::nullopt;
                            const auto count = static_cast<std::size_t>(channels);
                            ChannelMap map{std::vector<double>(count, 1.0), std::vector<double>(count, 0.0)};
                            for (std::size_t i = 0; i < count; ++i) {
                              const double x = (*numbers)[i];
                              if (operation == Operation::kMul) map.factors[i] = x;
                              if (operation == Operation::kDiv) map.factors[i] = 1 / x;
                              if (operation == Operation::kAdd) map.shifts[i] = x;
                              if (operation == Operation::kSub) map.shifts[i] = -x;
                            }
                            return map;
                          });
}

}  // namespace

int fuse_convolution(Graph& graph, PassContext& context) {
  return run_rules(
      graph,
      {batch_normalization(), arithmetic("fuse-convolution-scale", Operation::kMul),
       arithmetic("fuse-convolution-divisor", Operation::kDiv), arithmetic("fuse-convolution-bias", Operation::kAdd),
       arithmetic("fuse-convolution-subtrahend", Operation::kSub)},
      context);
}

}  // namespace weft
