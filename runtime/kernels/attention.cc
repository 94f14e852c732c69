// Attention: softmax(scale q k^T + mask) v, never holding more than a block of scores.
#include <algorithm>
#include <cmath>

#include "ops/op_def.h"
#include "runtime/cache.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

struct Settings {
  std::int64_t query_heads = 0, key_heads = 0;  // 0: from rank-4 inputs
  double scale = 0;                             // 0: 1 / sqrt(D)
  double softcap = 0;                           // 0: none
  bool causal = false;
  bool zero_masked_rows = false;
};

// How to walk q, k, v or the output: [B, H, L, D] or [B, L, H * D].
struct Layout {
  std::int64_t heads, length, size;
  std::int64_t batch_stride, head_stride, token_stride;

  Layout(const Extents& shape, std::int64_t packed_heads) {
    if (shape.size() == 4) {
      heads = shape[1];
      length = shape[2];
      size = shape[3];
      head_stride = length * size;
      token_stride = size;
      batch_stride = heads * length * size;
    } else {
      heads = packed_heads;
      length = shape[1];
      size = shape[2] / std::max<std::int64_t>(heads, 1);
      head_stride = size;
      token_stride = heads * size;
      batch_stride = length * heads * size;
    }
  }
  const float* at(const float* base, std::int64_t b, std::int64_t h) const {
    return base + b * batch_stride + h * head_stride;
  }
};

class BoundAttention final : public BoundKernel {
 public:
  BoundAttention(const Settings& settings, const BindContext& context)
      : settings_(settings),
        q_(context.inputs[0], settings.query_heads),
        k_(context.inputs[1], settings.key_heads),
        v_(context.inputs[2], settings.key_heads),
        out_(context.outputs[0], settings.query_heads),
        batch_(context.inputs[0][0]) {
    if (k_.heads == 0 || q_.heads % k_.heads != 0 || k_.length != v_.length || k_.size != q_.size ||
        k_.heads != v_.heads) {
      fail(ErrorCode::kInvalidModel, "Attention of q {}, k {}, v {}", to_string(context.inputs[0]),
           to_string(context.inputs[1]), to_string(context.inputs[2]));
    }
    for (Layout* layout : {&k_, &v_}) {
      const std::int64_t batch = context.inputs[layout == &k_ ? 1 : 2][0];
      if (batch != batch_ && batch != 1) {
        fail(ErrorCode::kInvalidModel, "Attention of a batch of {} over keys of {}", batch_, batch);
      }
      if (batch == 1) layout->batch_stride = 0;  // one for all
    }
    if (context.inputs.size() > 3 && context.node->inputs[3].valid()) set_mask(context.inputs[3]);
    scale_ = settings.scale != 0 ? static_cast<float>(settings.scale) : 1.0f / std::sqrt(static_cast<float>(q_.size));
    scratch_per_block_ = simd::attention_scratch(static_cast<std::size_t>(q_.size), static_cast<std::size_t>(v_.size));
    blocks_ = (q_.length + kRows - 1) / kRows;
    const auto tasks = static_cast<std::size_t>(batch_ * q_.heads * blocks_);
    slices_ = std::min<std::size_t>(tasks, static_cast<std::size_t>(context.pool->threads()) * 4);
    scratch_ = Tensor::zeros(DType::kF32, {static_cast<std::int64_t>(slices_ * scratch_per_block_)});
  }

  void run(const RunContext& context) override {
    const auto tasks = static_cast<std::size_t>(batch_ * q_.heads * blocks_);
    if (tasks == 0) return;
    // Slices own scratch memory; which thread runs a slice does not matter to the result.
    const auto slice = [&](std::size_t i) {
      float* scratch = scratch_.mutable_data<float>().data() + i * scratch_per_block_;
      for (std::size_t task = i * tasks / slices_; task < (i + 1) * tasks / slices_; ++task) {
        run_block(context, static_cast<std::int64_t>(task), scratch);
      }
    };
    const double work =
        static_cast<double>(batch_ * q_.heads * q_.length) * static_cast<double>(keys(context) * (q_.size + v_.size));
    if (work < 32 * 1024) {
      for (std::size_t i = 0; i < slices_; ++i) slice(i);
    } else {
      context.pool->parallel_for(slices_, slice);
    }
  }

 private:
  static constexpr std::int64_t kRows = simd::AttentionRows::kQueryRows;

  void set_mask(const Extents& shape) {
    const Extents full = {batch_, q_.heads, q_.length, k_.length};
    if (shape.size() > 4) {
      fail(ErrorCode::kInvalidModel, "Attention mask {} has more than four axes", to_string(shape));
    }
    const Extents strides = row_major_strides(shape);
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const std::size_t axis = 4 - shape.size() + i;
      if (shape[i] != 1 && shape[i] != full[axis]) {
        fail(ErrorCode::kInvalidModel, "Attention mask {} does not broadcast to {}", to_string(shape), to_string(full));
      }
      mask_strides_[axis] = shape[i] == 1 ? 0 : strides[i];
    }
    has_mask_ = true;
  }

  // A cache may have grown since this was bound.
  std::int64_t keys(const RunContext& context) const {
    return context.caches[1] != nullptr ? context.caches[1]->length() : k_.length;
  }

  void run_block(const RunContext& context, std::int64_t task, float* scratch) const {
    const std::int64_t block = task % blocks_;
    const std::int64_t h = task / blocks_ % q_.heads;
    const std::int64_t b = task / blocks_ / q_.heads;
    const std::int64_t first = block * kRows;
    const std::int64_t key_head = h / (q_.heads / k_.heads);
    simd::AttentionRows rows{};
    rows.q = q_.at(context.in<float>(0), b, h) + first * q_.token_stride;
    rows.q_stride = static_cast<std::size_t>(q_.token_stride);
    rows.rows = static_cast<std::size_t>(std::min(kRows, q_.length - first));
    const auto locate = [&](std::size_t input, const Layout& layout, const float*& base, std::size_t& stride) {
      if (const CacheState* cache = context.caches[input]) {
        base = cache->head(std::min(b, cache->batch() - 1), key_head);
        stride = cache->token_stride();
      } else {
        base = layout.at(context.in<float>(input), b, key_head);
        stride = static_cast<std::size_t>(layout.token_stride);
      }
    };
    locate(1, k_, rows.k, rows.k_stride);
    locate(2, v_, rows.v, rows.v_stride);
    rows.keys = static_cast<std::size_t>(keys(context));
    rows.size = static_cast<std::size_t>(q_.size);
    rows.value_size = static_cast<std::size_t>(v_.size);
    rows.scale = scale_;
    rows.softcap = static_cast<float>(settings_.softcap);
    if (has_mask_) {
      const std::int64_t offset = b * mask_strides_[0] + h * mask_strides_[1] + first * mask_strides_[2];
      if (context.inputs[3]->dtype() == DType::kBool) {
        rows.mask_bits = reinterpret_cast<const std::uint8_t*>(context.in<bool>(3)) + offset;
      } else {
        rows.mask = context.in<float>(3) + offset;
      }
      rows.mask_row_stride = static_cast<std::size_t>(mask_strides_[2]);
      rows.mask_key_stride = static_cast<std::size_t>(mask_strides_[3]);
    }
    if (settings_.causal) rows.causal_from = first;
    rows.zero_masked_rows = settings_.zero_masked_rows;
    rows.out = const_cast<float*>(out_.at(context.out<float>(0), b, h)) + first * out_.token_stride;
    rows.out_stride = static_cast<std::size_t>(out_.token_stride);
    rows.scratch = scratch;
    simd::attend(rows);
  }

  Settings settings_;
  Layout q_, k_, v_, out_;
  std::int64_t batch_;
  std::int64_t blocks_ = 0;
  bool has_mask_ = false;
  std::int64_t mask_strides_[4] = {0, 0, 0, 0};
  float scale_ = 1;
  std::size_t scratch_per_block_ = 0;
  std::size_t slices_ = 1;
  Tensor scratch_;
};

class AttentionKernel final : public Kernel {
 public:
  explicit AttentionKernel(const Settings& settings) : settings_(settings) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundAttention>(settings_, context);
  }
  bool reads_cache(std::size_t input) const override { return input == 1 || input == 2; }

 private:
  Settings settings_;
};

// Masks that only the definition knows: of positions other than from the start, of padding, slopes, sinks.
bool has_other_masks(const Node& node) {
  for (std::size_t i = 4; i < node.inputs.size(); ++i) {
    if (has_input(node, i)) return true;
  }
  const AttributeReader attributes(get_op(node.op), node.attributes);
  return attributes.text("query_position") != "start" || attributes.integer("left_window_size") >= 0 ||
         attributes.integer("right_window_size") >= 0 || attributes.integer("chunk_size") != 0 ||
         attributes.number("masked_fill") != -INFINITY || attributes.integer("fill_per_condition") != 0;
}

}  // namespace

std::unique_ptr<Kernel> make_attention_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Attention" || has_other_masks(node)) return nullptr;
  for (std::size_t i = 0; i < 3; ++i) {
    const TensorType& type = graph.value(node.inputs[i]).type;
    if (type.dtype != DType::kF32 || !type.shape || type.shape->size() < 3) return nullptr;
  }
  if (has_input(node, 3) && !input_is(graph, node, 3, DType::kF32) && !input_is(graph, node, 3, DType::kBool)) {
    return nullptr;
  }
  const auto integer = [&](std::string_view name) -> std::int64_t {
    const auto found = node.attributes.find(name);
    return found == node.attributes.end() ? 0 : std::get<std::int64_t>(found->second);
  };
  Settings settings;
  settings.query_heads = integer("q_num_heads");
  settings.key_heads = integer("kv_num_heads");
  settings.causal = integer("is_causal") != 0;
  settings.zero_masked_rows = integer("zero_masked_rows") != 0;
  if (const auto found = node.attributes.find("scale"); found != node.attributes.end()) {
    settings.scale = std::get<double>(found->second);
  }
  if (const auto found = node.attributes.find("softcap"); found != node.attributes.end()) {
    settings.softcap = std::get<double>(found->second);
  }
  return std::make_unique<AttentionKernel>(settings);
}

}  // namespace weft::runtime
