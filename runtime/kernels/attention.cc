// Attention in f32: softmax(cap(scale q k^T) + masks) v, never holding more than a chunk of scores.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "ops/cast.h"
#include "ops/op_def.h"
#include "runtime/cache.h"
#include "runtime/kernels/attention_masks.h"
#include "runtime/kernels/attention_work.h"
#include "runtime/kernels/kernel.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kQ = 0, kK = 1, kV = 2;

struct Settings {
  std::int64_t query_heads = 0, key_heads = 0;  // 0: from rank-4 inputs
  double scale = 0;                             // 0: 1 / sqrt(D)
  bool zero_masked_rows = false;
  AttentionMaskSettings masks;
};

// How to walk q, k, v or the output: [B, H, L, D] or [B, L, H * D].
struct Layout {
  std::int64_t batch = 0, heads = 0, length = 0, size = 0;
  std::int64_t batch_stride = 0, head_stride = 0, token_stride = 0;

  Layout() = default;
  Layout(const Extents& shape, std::int64_t packed_heads) : batch(shape[0]) {
    if (shape.size() == 4) {
      heads = shape[1];
      length = shape[2];
      size = shape[3];
      head_stride = length * size;
      token_stride = size;
      batch_stride = heads * length * size;
    } else {
      heads = packed_heads;
      if (heads > 0 && shape[2] % heads != 0) {
        fail(ErrorCode::kInvalidModel, "Attention of width {} with {} heads", shape[2], heads);
      }
      length = shape[1];
      size = shape[2] / std::max<std::int64_t>(heads, 1);
      head_stride = size;
      token_stride = heads * size;
      batch_stride = length * heads * size;
    }
  }
  void broadcast() { batch_stride = batch == 1 ? 0 : batch_stride; }
  std::int64_t at(std::int64_t b, std::int64_t h, std::int64_t t) const {
    return b * batch_stride + h * head_stride + t * token_stride;
  }
};

class BoundAttention final : public BoundKernel {
 public:
  BoundAttention(const Settings& settings, const BindContext& context) : settings_(settings) {
    const Layout q(context.inputs[kQ], settings.query_heads), k(context.inputs[kK], settings.key_heads),
        v(context.inputs[kV], settings.key_heads);
    check(q, k, v);
    masks_.check(context, q.batch, q.heads);
  }

  void run(const RunContext& context) override {
    locate(context);
    if (shape_.batch * shape_.queries * shape_.heads * shape_.value_size == 0) return;
    if (shape_.keys == 0) {  // an empty sum
      std::fill_n(context.out<float>(0), context.outputs[0]->size(), 0.0f);
      return;
    }
    masks_.prepare(context, shape_);
    const bool blocks = keys_ != nullptr && values_ != nullptr;
    const bool shared = keys_ == nullptr && values_ == nullptr && k_.batch == 1 && v_.batch == 1;
    work_.plan(shape_, blocks ? keys_ : nullptr, blocks ? values_ : nullptr, shared, context.pool->threads());
    if (work_.parts() > 1) {
      partials_.resize(static_cast<std::size_t>(shape_.batch * shape_.heads * shape_.queries * work_.parts()) *
                       partial_size());
    }
    run_all(context);
  }

 private:
  static void check(const Layout& q, const Layout& k, const Layout& v) {
    if (k.heads == 0 || q.heads % k.heads != 0 || k.length != v.length || k.size != q.size || k.heads != v.heads) {
      fail(ErrorCode::kInvalidModel, "Attention of {} heads of {} over keys [{}, {}, {}] and values [{}, {}, {}]",
           q.heads, q.size, k.heads, k.length, k.size, v.heads, v.length, v.size);
    }
    for (const Layout* layout : {&k, &v}) {
      if (layout->batch == q.batch || layout->batch == 1) continue;
      fail(ErrorCode::kInvalidModel, "Attention of a batch of {} over keys of {}", q.batch, layout->batch);
    }
  }

  // Where q, k and v are in this run: a cache grows without a new binding.
  void locate(const RunContext& context) {
    q_ = Layout(context.inputs[kQ]->shape(), settings_.query_heads);
    out_ = Layout(context.outputs[0]->shape(), settings_.query_heads);
    query_data_ = context.in<float>(kQ);
    out_data_ = context.out<float>(0);
    const bool alike = context.caches[kK] == nullptr || context.caches[kV] == nullptr ||
                       context.caches[kK]->dtype() == context.caches[kV]->dtype();
    const auto find = [&](std::size_t input, CacheLayout wanted, const CacheState*& cache, const float*& data) {
      Tensor& copy = input == kK ? key_copy_ : value_copy_;
      cache = context.caches[input];
      if (cache == nullptr) {
        // Halves of a cache that is not read in place.
        const bool wide = context.inputs[input]->dtype() == DType::kF32;
        if (!wide) copy = cast(*context.inputs[input], DType::kF32);
        data = wide ? context.in<float>(input) : copy.data<float>().data();
        return Layout(context.inputs[input]->shape(), settings_.key_heads);
      }
      if (cache->layout() != wanted || !alike) {  // made for another reader
        copy = cast(cache->to_tensor(), DType::kF32);
        cache = nullptr;
        data = copy.data<float>().data();
        return Layout(copy.shape(), 0);
      }
      element_ = simd::element_of(cache->dtype());
      return Layout(cache->shape(), 0);
    };
    element_ = simd::Element::kF32;
    k_ = find(kK, CacheLayout::kPanels, keys_, key_data_);
    v_ = find(kV, CacheLayout::kTokens, values_, value_data_);
    first_token_ = 0;
    for (const CacheState* cache : {keys_, values_}) {
      if (cache != nullptr) first_token_ = std::max(first_token_, static_cast<std::size_t>(cache->first_token()));
    }
    check(q_, k_, v_);
    k_.broadcast();
    v_.broadcast();
    shape_ = {q_.batch, q_.length, k_.length, q_.heads, k_.heads, q_.size, v_.size};
  }

  std::size_t partial_size() const { return simd::attention_partial(static_cast<std::size_t>(shape_.value_size)); }

  // Which thread takes a task does not matter to the result.
  void run_all(const RunContext& context) {
    const std::size_t scratch_size =
        simd::attention_scratch(static_cast<std::size_t>(shape_.size), static_cast<std::size_t>(shape_.value_size));
    const std::size_t tasks = work_.items().size() * static_cast<std::size_t>(shape_.key_heads);
    const double work = static_cast<double>(shape_.batch * shape_.heads * shape_.queries) *
                        static_cast<double>(shape_.keys * (shape_.size + shape_.value_size));
    constexpr double kSerialWork = 32 * 1024;
    const std::size_t slots =
        work < kSerialWork ? 1 : std::min(tasks, static_cast<std::size_t>(context.pool->threads()));
    std::byte* scratch = context.pool->scratch(slots * scratch_size * sizeof(float));
    std::size_t most_rows = 0;
    for (const AttentionItem& item : work_.items()) most_rows = std::max<std::size_t>(most_rows, item.row_count);
    rows_.resize(slots * most_rows);
    // Heads that follow one another lie side by side in a cache: a slot takes its own part of the tasks first, then
    // what others have not begun.
    if (next_.size() < slots) next_ = std::vector<Next>(slots);
    for (std::size_t i = 0; i < slots; ++i) next_[i].task.store(i * tasks / slots, std::memory_order_relaxed);
    const auto heads = static_cast<std::size_t>(shape_.key_heads);
    const auto slot = [&](std::size_t i) {
      float* own = reinterpret_cast<float*>(scratch) + i * scratch_size;
      const auto rows = std::span(rows_).subspan(i * most_rows, most_rows);
      for (std::size_t j = 0; j < slots; ++j) {
        const std::size_t part = (i + j) % slots, end = (part + 1) * tasks / slots;
        std::atomic<std::size_t>& next = next_[part].task;
        for (std::size_t task = next++; task < end; task = next++)
          run_task(work_.items()[task / heads], static_cast<std::int64_t>(task % heads), own, rows);
      }
    };
    if (slots == 1) {
      slot(0);
    } else {
      context.pool->parallel_for(slots, slot);
    }
    if (work_.parts() > 1) finish(reinterpret_cast<float*>(scratch));
  }

  simd::AttentionTask task(float* scratch) const {
    simd::AttentionTask task;
    task.size = static_cast<std::size_t>(shape_.size);
    task.value_size = static_cast<std::size_t>(shape_.value_size);
    task.scale =
        static_cast<float>(settings_.scale != 0 ? settings_.scale : 1 / std::sqrt(static_cast<double>(shape_.size)));
    task.softcap = static_cast<float>(settings_.masks.softcap);
    task.fill_per_condition = settings_.masks.fill_per_condition;
    task.zero_masked_rows = settings_.zero_masked_rows;
    task.has_sinks = masks_.has_sinks();
    task.mask_key_stride = masks_.key_stride();
    task.element = element_;
    task.scratch = scratch;
    return task;
  }

  simd::AttentionRow row(std::int64_t b, std::int64_t h, std::int64_t s) const {
    simd::AttentionRow row;
    row.q = query_data_ + q_.at(b, h, s);
    row.out = out_data_ + out_.at(b, h, s);
    return row;
  }
  // Query row `index` of a batch row and key head: position by position, the heads of a group together.
  std::size_t partial_of(std::int64_t b, std::int64_t key_head, std::int64_t index) const {
    return static_cast<std::size_t>(((b * shape_.key_heads + key_head) * shape_.rows() + index) * work_.parts()) *
           partial_size();
  }

  void run_task(const AttentionItem& item, std::int64_t key_head, float* scratch, std::span<simd::AttentionRow> rows) {
    simd::AttentionTask task = this->task(scratch);
    const auto part = static_cast<std::int64_t>(item.part);
    const std::int64_t part_keys = work_.parts() > 1 ? AttentionWork::kPartKeys : shape_.keys;
    task.begin = static_cast<std::size_t>(part * part_keys);
    task.end = static_cast<std::size_t>(std::min((part + 1) * part_keys, shape_.keys));
    const std::span<const std::uint32_t> batch_rows = work_.batch_rows(item);
    auto place = static_cast<std::size_t>(item.first_row / shape_.rows());
    std::int64_t index = item.first_row % shape_.rows();
    std::int64_t s = index / shape_.group(), member = index % shape_.group();
    for (std::uint32_t i = 0; i < item.row_count; ++i) {
      const std::int64_t b = batch_rows[place], h = key_head * shape_.group() + member;
      rows[i] = row(b, h, s);
      masks_.apply(rows[i], settings_.masks, task.scale, b, h, s);
      if (rows[i].first < first_token_) {
        fail(ErrorCode::kInternal, "attention looks at token {}, dropped before {}", rows[i].first, first_token_);
      }
      if (work_.parts() > 1) {
        rows[i].partial = partials_.data() + partial_of(b, key_head, index) + item.part * partial_size();
      }
      ++index;
      if (++member < shape_.group()) continue;
      member = 0;
      if (++s < shape_.queries) continue;
      s = index = 0;
      ++place;
    }
    task.rows = rows.first(item.row_count);
    const simd::AttentionSegment whole = whole_segment(batch_rows[0], key_head);
    task.segments = item.segment_count > 0 ? work_.segments(item) : std::span(&whole, 1);
    if (keys_ != nullptr) task.key_offset = keys_->head_offset(key_head);
    if (values_ != nullptr) task.value_offset = values_->head_offset(key_head);
    simd::attend(task);
  }

  simd::AttentionSegment whole_segment(std::int64_t b, std::int64_t key_head) const {
    simd::AttentionSegment segment;
    segment.last = (static_cast<std::size_t>(shape_.keys) + simd::kPanelKeys - 1) / simd::kPanelKeys;
    const auto source = [&](const CacheState* cache, const float* data, const Layout& layout) {
      simd::AttentionSource source;
      if (cache != nullptr) {
        source.blocks = cache->blocks(cache->batch() == 1 ? 0 : b).data();
      } else {
        source.base = data + layout.at(b, key_head, 0);
        source.stride = static_cast<std::size_t>(layout.token_stride);
      }
      return source;
    };
    segment.keys = source(keys_, key_data_, k_);
    segment.values = source(values_, value_data_, v_);
    return segment;
  }

  void finish(float* scratch) {
    const simd::AttentionTask task = this->task(scratch);
    for (std::int64_t b = 0; b < shape_.batch; ++b) {
      for (std::int64_t h = 0; h < shape_.key_heads; ++h) {
        for (std::int64_t i = 0; i < shape_.rows(); ++i) {
          const std::int64_t head = h * shape_.group() + i % shape_.group();
          simd::AttentionRow row = this->row(b, head, i / shape_.group());
          row.sink = masks_.sink(head);
          simd::finish_attention(task, row, partials_.data() + partial_of(b, h, i),
                                 static_cast<std::size_t>(work_.parts()));
        }
      }
    }
  }

  Settings settings_;
  AttentionMasks masks_;
  AttentionWork work_;
  std::vector<float> partials_;           // of rows whose keys are cut into parts
  std::vector<simd::AttentionRow> rows_;  // of the tasks at work
  struct alignas(64) Next {
    std::atomic<std::size_t> task = 0;
  };
  std::vector<Next> next_;  // of each slot's part of the tasks
  // Of the run:
  Layout q_, k_, v_, out_;
  AttentionShape shape_;
  const CacheState *keys_ = nullptr, *values_ = nullptr;
  std::size_t first_token_ = 0;  // that the caches still have
  const float *query_data_ = nullptr, *key_data_ = nullptr, *value_data_ = nullptr;
  float* out_data_ = nullptr;
  simd::Element element_ = simd::Element::kF32;  // of caches
  Tensor key_copy_, value_copy_;
};

class AttentionKernel final : public Kernel {
 public:
  explicit AttentionKernel(const Settings& settings) : settings_(settings) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundAttention>(settings_, context);
  }
  bool reads_cache(std::size_t input) const override { return input == kK || input == kV; }

 private:
  Settings settings_;
};

}  // namespace

std::unique_ptr<Kernel> make_attention_kernel(const Graph& graph, const Node& node) {
  if (node.op != "Attention") return nullptr;
  for (std::size_t i = kQ; i <= kV; ++i) {
    const TensorType& type = graph.value(node.inputs[i]).type;
    if (type.dtype != DType::kF32 || !type.shape || type.shape->size() < 3) return nullptr;
  }
  if (!AttentionMasks::takes(graph, node)) return nullptr;
  const AttributeReader attributes(get_op(node.op), node.attributes);
  Settings settings;
  settings.query_heads = attributes.integer("q_num_heads");
  settings.key_heads = attributes.integer("kv_num_heads");
  settings.scale = attributes.has("scale") ? attributes.number("scale") : 0;
  settings.zero_masked_rows = attributes.integer("zero_masked_rows") != 0;
  settings.masks = AttentionMaskSettings(attributes);
  return std::make_unique<AttentionKernel>(settings);
}

}  // namespace weft::runtime
