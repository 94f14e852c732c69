#include "runtime/kernels/attention_masks.h"

#include <algorithm>
#include <cmath>

namespace weft::runtime {
namespace {

constexpr std::size_t kMask = 3, kKeyPadding = 4, kAlibiSlopes = 5, kSinks = 6;

// Scores this much lower have no weight beside one that is not: 2^-126 is exp(-87), and scores of models differ by
// hundreds at most. A fill nearer to 0 is added like any other mask.
constexpr float kOverwhelmingFill = -1000;
// The same beside a mask, which may raise scores too.
constexpr float kOverwhelmingAnyMask = -1e30f;

bool given(std::span<const Extents> inputs, const Node& node, std::size_t i) {
  return i < inputs.size() && i < node.inputs.size() && node.inputs[i].valid();
}

}  // namespace

AttentionMaskSettings::AttentionMaskSettings(const AttributeReader& attributes) {
  causal = attributes.integer("is_causal") != 0;
  const std::string& placed = attributes.text("query_position");
  if (placed != "start" && placed != "end") {
    fail(ErrorCode::kInvalidModel, "Attention has no query_position \"{}\"", placed);
  }
  queries_at_end = placed == "end";
  left = attributes.integer("left_window_size");
  right = attributes.integer("right_window_size");
  chunk = attributes.integer("chunk_size");
  if (left < -1 || right < -1 || chunk < 0) {
    fail(ErrorCode::kInvalidModel, "Attention with window sizes {} and {}, chunk size {}", left, right, chunk);
  }
  softcap = attributes.number("softcap");
  fill = static_cast<float>(attributes.number("masked_fill"));
  fill_per_condition = attributes.integer("fill_per_condition") != 0;
}

std::int64_t attention_window(const Node& node) {
  const AttentionMaskSettings settings(AttributeReader(get_op(node.op), node.attributes));
  // Rows that attend no key attend those that are masked, where the fill is finite; others look at them for its sake.
  const bool masked = has_input(node, kMask) || has_input(node, kKeyPadding);
  if (std::isfinite(settings.fill) && (masked || settings.fill > kOverwhelmingFill)) return -1;
  if (!settings.queries_at_end) return -1;
  if (settings.left >= 0 && settings.chunk > 0) return std::min(settings.left, settings.chunk - 1);
  return settings.left >= 0 ? settings.left : settings.chunk - 1;
}

bool AttentionMasks::takes(const Graph& graph, const Node& node) {
  const auto is_one_of = [&](std::size_t input, std::initializer_list<DType> dtypes) {
    return !has_input(node, input) ||
           std::any_of(dtypes.begin(), dtypes.end(), [&](DType dtype) { return input_is(graph, node, input, dtype); });
  };
  return is_one_of(kMask, {DType::kF32, DType::kBool}) &&
         is_one_of(kKeyPadding, {DType::kBool, DType::kI32, DType::kI64}) && is_one_of(kAlibiSlopes, {DType::kF32}) &&
         is_one_of(kSinks, {DType::kF32});
}

void AttentionMasks::check(const BindContext& context, std::int64_t batch, std::int64_t heads) const {
  const Node& node = *context.node;
  if (given(context.inputs, node, kMask) && context.inputs[kMask].size() > 4) {
    fail(ErrorCode::kInvalidModel, "Attention mask {} has more than four axes", to_string(context.inputs[kMask]));
  }
  const auto check = [&](std::size_t input, std::string_view what, bool fits) {
    if (fits) return;
    fail(ErrorCode::kInvalidModel, "Attention of {} heads and a batch of {} with {} of {}", heads, batch, what,
         to_string(context.inputs[input]));
  };
  if (given(context.inputs, node, kKeyPadding)) {
    const Extents& shape = context.inputs[kKeyPadding];
    check(kKeyPadding, "key_padding", shape.size() == 2 && (shape[0] == batch || shape[0] == 1));
  }
  for (const auto& [input, what] : {std::pair{kAlibiSlopes, "slopes"}, std::pair{kSinks, "sinks"}}) {
    if (given(context.inputs, node, input)) check(input, what, context.inputs[input] == Extents{heads});
  }
}

void AttentionMasks::prepare(const RunContext& context, const AttentionShape& shape) {
  shape_ = shape;
  const auto input = [&](std::size_t i) { return i < context.inputs.size() ? context.inputs[i] : nullptr; };
  mask_ = nullptr;
  mask_bits_ = nullptr;
  rows_.clear();
  if (const Tensor* mask = input(kMask)) prepare_mask(*mask, shape);
  if (const Tensor* padding = input(kKeyPadding)) prepare_padding(*padding, shape);
  const Tensor *slopes = input(kAlibiSlopes), *sinks = input(kSinks);
  slopes_ = slopes != nullptr ? slopes->data<float>().data() : nullptr;
  sinks_ = sinks != nullptr ? sinks->data<float>().data() : nullptr;
}

void AttentionMasks::prepare_mask(const Tensor& mask, const AttentionShape& shape) {
  const std::int64_t full[] = {shape.batch, shape.heads, shape.queries, shape.keys};
  std::int64_t stride = 1;
  const auto rank = static_cast<std::size_t>(mask.rank());
  std::fill(std::begin(strides_), std::end(strides_), 0);
  for (std::size_t i = rank; i-- > 0;) {
    const std::size_t axis = 4 - rank + i;
    const std::int64_t extent = mask.shape()[i];
    if (extent != 1 && extent != full[axis]) {
      fail(ErrorCode::kInvalidModel, "Attention mask {} does not broadcast to {}", to_string(mask.shape()),
           to_string(full));
    }
    strides_[axis] = extent == 1 ? 0 : stride;
    stride *= extent;
  }
  if (mask.dtype() == DType::kBool) {
    mask_bits_ = reinterpret_cast<const std::uint8_t*>(mask.data<bool>().data());
  } else {
    mask_ = mask.data<float>().data();
  }
}

void AttentionMasks::prepare_padding(const Tensor& padding, const AttentionShape& shape) {
  const auto keys = static_cast<std::size_t>(shape.keys);
  if (padding.extent(1) != shape.keys) {
    fail(ErrorCode::kInvalidModel, "Attention over {} keys with key_padding of {}", shape.keys,
         to_string(padding.shape()));
  }
  padding_.resize(static_cast<std::size_t>(padding.size()));
  const auto convert = [&](auto data) {
    std::transform(data.begin(), data.end(), padding_.begin(), [](auto x) { return std::uint8_t{x != 0}; });
  };
  switch (padding.dtype()) {
    case DType::kBool: convert(padding.data<bool>()); break;
    case DType::kI32: convert(padding.data<std::int32_t>()); break;
    default: convert(padding.data<std::int64_t>());
  }
  for (std::size_t b = 0; b < static_cast<std::size_t>(padding.extent(0)); ++b) {
    const auto begin = padding_.begin() + static_cast<std::ptrdiff_t>(b * keys), end = begin + shape.keys;
    const auto first = std::find(begin, end, 1);
    auto last = end;
    while (last != first && last[-1] == 0) --last;
    rows_.push_back({first - begin, last - begin, std::find(first, last, 0) == last});
  }
}

bool AttentionMasks::attends(const Padding& padding, const std::uint8_t* bits, std::int64_t offset, std::int64_t first,
                             std::int64_t last) const {
  first = std::max(first, padding.first);
  last = std::min(last, padding.last);
  if (mask_ == nullptr && mask_bits_ == nullptr) {
    return first < last && (padding.whole || std::find(bits + first, bits + last, 1) != bits + last);
  }
  for (std::int64_t t = first; t < last; ++t) {
    const std::int64_t at = offset + t * strides_[3];
    const bool kept = mask_ != nullptr ? mask_[at] > kOverwhelmingFill : mask_bits_[at] != 0;
    if (kept && (padding.whole || bits[t] != 0)) return true;
  }
  return false;
}

void AttentionMasks::apply(simd::AttentionRow& row, const AttentionMaskSettings& settings, float scale, std::int64_t b,
                           std::int64_t h, std::int64_t s) const {
  const std::int64_t position = settings.queries_at_end ? s + shape_.keys - shape_.queries : s;
  const auto [left, right, chunk] = std::tuple(settings.left, settings.right, settings.chunk);
  std::int64_t first = 0, last = shape_.keys;
  if (settings.causal) last = std::min(last, position + 1);
  if (left >= 0) first = std::max(first, position < left ? 0 : position - left);
  if (right >= 0) last = std::min(last, position + std::min(right, shape_.keys + shape_.queries) + 1);
  if (chunk > 0 && position < 0) last = 0;  // in no chunk of a key
  if (chunk > 0 && position >= 0) {
    const std::int64_t start = position - position % chunk;
    first = std::max(first, start);
    if (chunk < shape_.keys) last = std::min(last, start + chunk);
  }
  first = std::clamp<std::int64_t>(first, 0, shape_.keys);
  last = std::clamp<std::int64_t>(last, first, shape_.keys);
  Padding padding{0, shape_.keys, true};
  const std::uint8_t* bits = nullptr;
  if (!rows_.empty()) {
    const std::size_t from = rows_.size() == 1 ? 0 : static_cast<std::size_t>(b);
    padding = rows_[from];
    bits = padding_.data() + from * static_cast<std::size_t>(shape_.keys);
  }
  const std::int64_t offset = b * strides_[0] + h * strides_[1] + s * strides_[2];
  const float overwhelming = mask_ != nullptr ? kOverwhelmingAnyMask : kOverwhelmingFill;
  const bool finite = std::isfinite(settings.fill);
  const bool exact = finite && (settings.fill > overwhelming || !attends(padding, bits, offset, first, last));
  if (exact) {  // what is not attended counts too
    row.first = 0;
    row.last = static_cast<std::size_t>(shape_.keys);
    row.padding = bits;
    row.fill = settings.fill;
  } else {
    first = std::max(first, std::min(padding.first, last));
    last = std::max(first, std::min(last, padding.last));
    row.first = static_cast<std::size_t>(first);
    row.last = static_cast<std::size_t>(last);
    row.padding = padding.whole ? nullptr : bits;
    row.fill = -INFINITY;
  }
  row.allowed = static_cast<std::size_t>(first);
  row.forbidden = static_cast<std::size_t>(last);
  if (mask_ != nullptr) row.mask = mask_ + offset;
  if (mask_bits_ != nullptr) row.mask_bits = mask_bits_ + offset;
  if (slopes_ != nullptr) row.slope = slopes_[h];
  row.position = static_cast<float>(position);
  row.sink = sink(h);
  row.plain = !exact && row.padding == nullptr && mask_ == nullptr && mask_bits_ == nullptr && slopes_ == nullptr &&
              settings.softcap == 0 && scale > 0;
}

}  // namespace weft::runtime
