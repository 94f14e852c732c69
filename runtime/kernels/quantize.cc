// QuantizeLinear and DequantizeLinear between f32 and bytes (and i32), one scale for all or one for each index of an
// axis; DynamicQuantizeLinear. Other types, blocks and rounding to floats stay with the reference.
#include "runtime/kernels/quantize.h"

#include <algorithm>
#include <cmath>

#include "ops/op_def.h"
#include "ops/shape_util.h"
#include "runtime/kernels/convert.h"
#include "runtime/kernels/integer_product.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kChunk = 16 * 1024;

// Runs of `run` elements, each with the scale of index (i % scales).
struct Runs {
  std::size_t run = 0, scales = 1, count = 0;
};

Runs runs_of(const BindContext& context) {
  const Extents &x = context.inputs[0], &scale = context.inputs[1];
  const auto total = static_cast<std::size_t>(element_count(x));
  if (element_count(scale) == 1) return {kChunk, 1, total};
  const AttributeReader attributes(get_op(context.node->op), context.node->attributes);
  const std::int64_t axis = normalize_axis(attributes.integer("axis"), static_cast<std::int64_t>(x.size()));
  if (scale[0] != x[static_cast<std::size_t>(axis)]) {
    fail(ErrorCode::kInvalidModel, "{} scales for an axis of {}", scale[0], x[static_cast<std::size_t>(axis)]);
  }
  const auto inner = element_count(std::span(x).subspan(static_cast<std::size_t>(axis) + 1));
  return {static_cast<std::size_t>(inner), static_cast<std::size_t>(scale[0]), total};
}

template <class Body>
void for_each_run(ThreadPool& pool, const Runs& runs, const Body& body) {
  const std::size_t count = (runs.count + runs.run - 1) / runs.run;
  const std::size_t together = std::max<std::size_t>(1, kChunk / runs.run);  // runs of one task
  pool.parallel_for((count + together - 1) / together, [&](std::size_t task) {
    for (std::size_t i = task * together; i < std::min(count, (task + 1) * together); ++i) {
      body(i % runs.scales, i * runs.run, std::min(runs.run, runs.count - i * runs.run));
    }
  });
}

class BoundQuantize final : public BoundKernel {
 public:
  explicit BoundQuantize(const BindContext& context)
      : runs_(runs_of(context)), quantizes_(context.node->op == "QuantizeLinear") {}

  void run(const RunContext& context) override {
    const float* scales = context.in<float>(1);
    std::vector<std::int32_t> zeros = zero_points(context.inputs.size() > 2 ? context.inputs[2] : nullptr);
    if (zeros.size() == 1) zeros.assign(runs_.scales, zeros[0]);
    if (zeros.size() != runs_.scales) {
      fail(ErrorCode::kInvalidModel, "{} zero points for {} scales", zeros.size(), runs_.scales);
    }
    const Tensor& x = *context.inputs[0];
    Tensor& y = *context.outputs[0];
    for_each_run(*context.pool, runs_, [&](std::size_t s, std::size_t first, std::size_t count) {
      if (quantizes_) {
        convert::quantize(x.data<float>().data() + first, scales[s], zeros[s], y.dtype() == DType::kI8,
                          reinterpret_cast<std::uint8_t*>(y.mutable_bytes().data()) + first, count);
        return;
      }
      float* to = y.mutable_data<float>().data() + first;
      if (x.dtype() == DType::kI32) {
        convert::dequantize(x.data<std::int32_t>().data() + first, zeros[s], scales[s], to, count);
      } else {
        convert::dequantize(reinterpret_cast<const std::uint8_t*>(x.bytes().data()) + first, x.dtype() == DType::kI8,
                            zeros[s], scales[s], to, count);
      }
    });
  }

 private:
  Runs runs_;
  bool quantizes_;
};

class BoundDynamicQuantize final : public BoundKernel {
 public:
  void run(const RunContext& context) override {
    const Tensor& x = *context.inputs[0];
    const float* from = context.in<float>(0);
    const auto count = static_cast<std::size_t>(x.size());
    const Quantization made = range_quantization(from, count, *context.pool);
    if (context.outputs.size() > 1 && context.outputs[1] != nullptr) context.out<float>(1)[0] = made.scale;
    if (context.outputs.size() > 2 && context.outputs[2] != nullptr) {
      context.out<std::uint8_t>(2)[0] = static_cast<std::uint8_t>(made.zero);
    }
    if (context.outputs[0] == nullptr) return;
    quantize(from, count, made, context.out<std::uint8_t>(0), *context.pool);
  }
};

class BoundNothing final : public BoundKernel {
 public:
  void run(const RunContext&) override {}
};

class QuantizeKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (context.node->op == "DynamicQuantizeLinear") return std::make_unique<BoundDynamicQuantize>();
    if (element_count(context.outputs[0]) == 0) return std::make_unique<BoundNothing>();
    return std::make_unique<BoundQuantize>(context);
  }
};

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kI8; }

}  // namespace

Quantization range_quantization(const float* x, std::size_t count, ThreadPool& pool) {
  const std::size_t chunks = (count + kChunk - 1) / kChunk;
  std::vector<float> lowest(chunks + 1, 0.0f), highest(chunks + 1, 0.0f);  // zero is in the range
  pool.parallel_for(chunks, [&](std::size_t i) {
    const std::size_t length = std::min(kChunk, count - i * kChunk);
    lowest[i] = tile::smallest_of(x + i * kChunk, length);
    highest[i] = tile::largest_of(x + i * kChunk, length);
  });
  const float low = tile::smallest_of(lowest.data(), lowest.size());
  const float scale = (tile::largest_of(highest.data(), highest.size()) - low) / 255.0f;
  const float exact = std::nearbyint(-low / scale);
  return {scale, std::isnan(exact) ? 0 : static_cast<std::int32_t>(std::clamp(exact, 0.0f, 255.0f))};
}

void quantize(const float* x, std::size_t count, const Quantization& by, std::uint8_t* y, ThreadPool& pool) {
  pool.parallel_for((count + kChunk - 1) / kChunk, [&](std::size_t i) {
    convert::quantize(x + i * kChunk, by.scale, by.zero, false, y + i * kChunk, std::min(kChunk, count - i * kChunk));
  });
}

std::unique_ptr<Kernel> make_quantize_kernel(const Graph& graph, const Node& node) {
  if (node.op == "DynamicQuantizeLinear" && input_is(graph, node, 0, DType::kF32))
    return std::make_unique<QuantizeKernel>();
  const bool quantizes = node.op == "QuantizeLinear";
  if ((!quantizes && node.op != "DequantizeLinear") || !input_is(graph, node, 1, DType::kF32)) return nullptr;
  const DType from = graph.value(node.inputs[0]).type.dtype, to = graph.value(node.outputs[0]).type.dtype;
  if (quantizes ? from != DType::kF32 || !is_byte(to) : to != DType::kF32 || (!is_byte(from) && from != DType::kI32)) {
    return nullptr;
  }
  const TensorType& scale = graph.value(node.inputs[1]).type;
  if (!scale.shape || scale.shape->size() > 1) return nullptr;
  return std::make_unique<QuantizeKernel>();
}

}  // namespace weft::runtime
