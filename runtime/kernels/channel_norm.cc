// Norms over the positions of a channel, or of a group of channels: InstanceNormalization, GroupNormalization.
#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/index_util.h"
#include "ops/op_def.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/reduce_simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 16 * 1024;  // elements worth handing to a thread

// x [batch, channels, positions...], statistics over the channels of a group.
class BoundChannelNorm final : public BoundKernel {
 public:
  BoundChannelNorm(const Extents& shape, std::size_t groups, float epsilon)
      : channels_(static_cast<std::size_t>(shape[1])),
        each_(groups == 0 ? 0 : channels_ / groups),
        count_(static_cast<std::size_t>(shape[0]) * groups),
        positions_(static_cast<std::size_t>(product(shape, 2, shape.size()))),
        epsilon_(epsilon) {}

  void run(const RunContext& context) override {
    const float* x = context.in<float>(0);
    const float* scale = context.in<float>(1);
    const float* bias = context.in<float>(2);
    float* y = context.out<float>(0);
    const std::size_t size = each_ * positions_;
    if (size == 0) return;
    const std::size_t together = std::max<std::size_t>(1, kGrain / size);
    context.pool->parallel_for((count_ + together - 1) / together, [&](std::size_t i) {
      for (std::size_t n = i * together; n < std::min(count_, (i + 1) * together); ++n) {
        const reduce::Moments moments = reduce::moments(x + n * size, size);
        const float inverse = 1.0f / std::sqrt(moments.variance + epsilon_);
        for (std::size_t c = 0; c < each_; ++c) {
          const std::size_t channel = (n * each_ + c) % channels_, at = n * size + c * positions_;
          const float factor = inverse * scale[channel];
          reduce::centre(x + at, moments.mean, factor, bias[channel], y + at, positions_);
        }
      }
    });
  }

 private:
  std::size_t channels_, each_, count_, positions_;
  float epsilon_;
};

class ChannelNormKernel final : public Kernel {
 public:
  ChannelNormKernel(std::optional<std::int64_t> groups, float epsilon) : groups_(groups), epsilon_(epsilon) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    const Extents& shape = context.inputs[0];
    const std::int64_t groups = groups_.value_or(shape[1]);
    if (groups > 0 && shape[1] % groups != 0)
      fail(ErrorCode::kInvalidModel, "a normalization of {} channels in {} groups", shape[1], groups);
    for (const std::size_t i : {1, 2}) {
      if (element_count(context.inputs[i]) != shape[1])
        fail(ErrorCode::kInvalidModel, "a normalization of {} channels with {} parameters", shape[1],
             to_string(context.inputs[i]));
    }
    return std::make_unique<BoundChannelNorm>(shape, static_cast<std::size_t>(groups), epsilon_);
  }
  bool may_overwrite(std::size_t input) const override { return input == 0; }

 private:
  std::optional<std::int64_t> groups_;  // none: each channel by itself
  float epsilon_;
};

}  // namespace

std::unique_ptr<Kernel> make_channel_norm_kernel(const Graph& graph, const Node& node) {
  const bool grouped = node.op == "GroupNormalization";
  if (!grouped && node.op != "InstanceNormalization") return nullptr;
  const TensorType& x = graph.value(node.inputs[0]).type;
  if (!x.shape || x.shape->size() < 2) return nullptr;
  for (const std::size_t i : {0, 1, 2}) {
    if (!input_is(graph, node, i, DType::kF32)) return nullptr;
  }
  const AttributeReader attributes(get_op(node.op), node.attributes);
  const auto epsilon = static_cast<float>(attributes.number("epsilon"));
  if (!grouped) return std::make_unique<ChannelNormKernel>(std::nullopt, epsilon);
  const std::int64_t groups = attributes.integer("num_groups");
  const Dim& channels = (*x.shape)[1];
  const bool fits = groups > 0 && !(channels.is_constant() && channels.value() % groups != 0);
  return fits ? std::make_unique<ChannelNormKernel>(groups, epsilon) : nullptr;
}

}  // namespace weft::runtime
