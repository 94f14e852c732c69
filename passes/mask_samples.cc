#include "passes/mask_samples.h"

#include <algorithm>
#include <map>
#include <set>

#include "ops/cast.h"
#include "passes/mask_cone.h"
#include "passes/node_util.h"

namespace weft {
namespace {

constexpr std::int64_t kSameCluster = 3;
constexpr std::size_t kLargestConstant = 1 << 24;

// --- Sizes -----------------------------------------------------------------------------------------

struct Sizes {
  std::int64_t batch, queries, past;
  std::int64_t spare = 0;  // columns of the source beyond the keys
};
// An empty past, one query, sizes that differ from each other, more than any small threshold.
constexpr Sizes kSpareTrial = {2, 4, 5, 2};
constexpr std::int64_t kMostImpossible = 4;
constexpr int kPatterns = 6;
constexpr Sizes kTrials[] = {{2, 4, 5}, {1, 6, 0}, {3, 1, 7}, {2, 5, 22}, {2, 26, 0}, {1, 2, 1}, {2, 13, 11}};

class SizeChooser {
 public:
  SizeChooser(const Graph& graph, const MaskUse& use, const Cone& cone) : use_(use) {
    const auto note = [&](const Dim& dim) {
      for (const std::string& name : dim.symbols()) symbols_.insert(name);
    };
    for (const Dim& dim : {use.batch, use.heads, use.queries, use.keys}) note(dim);
    for (const ValueId id : cone.sizes) {
      for (const Dim& dim : *graph.value(id).elements) note(dim);
    }
    if (cone.source.valid()) source_ = *shape_of(graph, cone.source);
    for (const Dim& dim : source_) note(dim);
    mask_ = *shape_of(graph, use.mask);
    for (const Dim& dim : mask_) note(dim);
  }

  // The source may have other sizes than the scores, as far as the graph's types tell.
  bool source_may_differ() const { return !source_.empty() && !(source_[1] == use_.keys); }

  Bindings choose(const Sizes& sizes) const {
    Bindings bindings;
    std::int64_t other = sizes.past;
    for (const std::string& name : symbols_) bindings[name] = other = other % 5 + 1;
    // Keys are the past and the queries, or as many as both by a name of their own.
    bind(bindings, use_.keys, use_.keys.symbol_name() ? sizes.past + sizes.queries : sizes.past);
    bind(bindings, use_.queries, sizes.queries);
    bind(bindings, use_.batch, sizes.batch);
    solve(bindings, use_.queries, sizes.queries);
    for (std::size_t axis = 0; axis < source_.size(); ++axis) {
      const auto name = source_[axis].symbol_name();
      const auto wanted = (axis == 0 ? use_.batch : use_.keys).evaluate(bindings);
      if (name && wanted && !appears_in(use_, *name)) bindings[*name] = *wanted + (axis == 1 ? sizes.spare : 0);
    }
    // What has to agree in every run: axes of the mask with those of the scores.
    const Dim scores[] = {use_.batch, use_.heads, use_.queries, use_.keys};
    for (std::size_t i = 0; i < mask_.size(); ++i) {
      const Dim& wanted = scores[4 - mask_.size() + i];
      const auto name = mask_[i].symbol_name();
      if (!name || mask_[i] == wanted || appears_in(use_, *name) || names_source_axis(mask_[i])) continue;
      if (const auto value = wanted.evaluate(bindings)) bindings[*name] = *value;
    }
    return bindings;
  }

 private:
  bool names_source_axis(const Dim& dim) const {
    return std::find(source_.begin(), source_.end(), dim) != source_.end();
  }

  static void bind(Bindings& bindings, const Dim& dim, std::int64_t value) {
    for (const std::string& name : dim.symbols()) bindings[name] = value;
  }

  // Of an extent that is computed, as frames are from samples of a sound: the first size that gives so many.
  static void solve(Bindings& bindings, const Dim& dim, std::int64_t value) {
    constexpr std::int64_t kLargest = 4096;
    const std::vector<std::string> names = dim.symbols();
    if (names.size() != 1 || dim.symbol_name()) return;
    for (std::int64_t size = value; size <= kLargest; ++size) {
      if (dim.evaluate({{names[0], size}}) != value) continue;
      bindings[names[0]] = size;
      return;
    }
  }

  const MaskUse& use_;
  Shape mask_, source_;
  std::set<std::string> symbols_;
};

// --- Running ---------------------------------------------------------------------------------------

// Small numbers for the thresholds of a trial; clusters keep the distances inside them.
std::vector<Threshold> shrink(const std::vector<std::int64_t>& values, std::int64_t trial) {
  std::vector<Threshold> result;
  std::int64_t next = 3 + trial % 3;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0 && values[i] - values[i - 1] <= kSameCluster) {
      next = result.back().small + (values[i] - values[i - 1]);
    } else if (i > 0) {
      next = result.back().small + 4 + trial % 2;
    }
    result.push_back({values[i], next});
  }
  return result;
}

Tensor integers_of(DType dtype, const Extents& shape, const std::vector<double>& values) {
  Tensor tensor = Tensor::uninitialized(dtype, shape);
  visit_dtype(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T>) {
      std::transform(values.begin(), values.end(), tensor.mutable_data<T>().begin(),
                     [](double x) { return number_cast<T>(x); });
    }
  });
  return tensor;
}

std::vector<double> numbers_of(const Tensor& tensor) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(tensor.size()));
  visit_dtype(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T>) {
      for (const T x : tensor.data<T>()) values.push_back(static_cast<double>(x));
    } else if constexpr (requires(T x) { static_cast<float>(x); }) {
      for (const T x : tensor.data<T>()) values.push_back(static_cast<float>(x));
    }
  });
  return values;
}

class Sampler {
 public:
  Sampler(const Graph& graph, const MaskUse& use, const Cone& cone)
      : graph_(graph), use_(use), cone_(cone), chooser_(graph, use, cone) {}

  bool run(MaskSamples& result, std::string& reason) {
    result.source = cone_.source;
    result.source_is_integer = cone_.source.valid() && is_integer(graph_.value(cone_.source).type.dtype);
    result.is_bool = graph_.value(use_.mask).type.dtype == DType::kBool;
    result.is_rounded = cone_.is_rounded;
    std::int64_t trial = 0, impossible = 0;
    for (const Sizes& sizes : kTrials) {
      const Outcome outcome = run_trial(sizes, trial++, result, reason);
      if (outcome == Outcome::kRefused) return false;
      impossible += outcome == Outcome::kImpossible;
    }
    if (chooser_.source_may_differ()) {
      // Either it runs, and only the first columns count, or such a source cannot be given.
      MaskSamples spare;
      result.source_is_exact = run_trial(kSpareTrial, trial, spare, reason) != Outcome::kSampled;
      if (!result.source_is_exact) {
        result.samples.insert(result.samples.end(), spare.samples.begin(), spare.samples.end());
      }
    }
    return impossible <= kMostImpossible;
  }

 private:
  enum class Outcome : std::uint8_t { kSampled, kImpossible, kRefused };

  // Impossible: the graph itself does not run on these sizes (more than its tables hold, for one).
  Outcome run_trial(const Sizes& sizes, std::int64_t trial, MaskSamples& result, std::string& reason) {
    const Bindings bindings = chooser_.choose(sizes);
    const int patterns = cone_.source.valid() ? kPatterns : 1;
    for (int pattern = 0; pattern < patterns; ++pattern) {
      try {
        if (!run_one(bindings, trial, pattern, result, reason)) return Outcome::kRefused;
      } catch (const Error& error) {
        reason = fmt::format("it cannot be run on small sizes: {}", error.what());
        return Outcome::kImpossible;
      }
    }
    return Outcome::kSampled;
  }

  bool run_one(const Bindings& bindings, std::int64_t trial, int pattern, MaskSamples& result, std::string& reason) {
    const bool heads_agree = mask_has_one_head();
    const auto batch = use_.batch.evaluate(bindings),
               heads = heads_agree ? std::optional<std::int64_t>(1) : use_.heads.evaluate(bindings),
               queries = use_.queries.evaluate(bindings), keys = use_.keys.evaluate(bindings);
    if (!batch || !heads || !queries || !keys) {
      reason = "the sizes of the scores are not known";
      return false;
    }
    // Of no scores at all every mask says the same.
    if (std::min({*batch, *heads, *queries, *keys}) < 1) fail(ErrorCode::kInvalidArgument, "there are no scores");
    check_size(DType::kF64, Extents{*batch, *queries, *keys});
    const std::vector<Threshold> thresholds = shrink(cone_.thresholds, trial);
    std::vector<double> padding;
    Extents source;
    if (cone_.source.valid()) {
      source = *weft::evaluate(*shape_of(graph_, cone_.source), bindings);
      check_size(DType::kF64, source);
      padding = contents(source, pattern);
    }
    const Tensor mask = evaluate(bindings, thresholds, padding, source);
    return read(mask, {*batch, *heads, *queries, *keys}, padding, source, thresholds, result, reason);
  }

  // All ones, padding on either side, at random, and numbers that masks do not hold.
  static std::vector<double> contents(const Extents& shape, int pattern) {
    const std::int64_t batch = shape[0], keys = shape[1];
    std::vector<double> values;
    std::uint32_t random = 12345u + static_cast<std::uint32_t>(pattern);
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t t = 0; t < keys; ++t) {
        random = random * 1664525u + 1013904223u;
        const std::uint32_t dice = random >> 24;
        const double odd[] = {1, 2, 0, -1};
        const double value = pattern == 0   ? 1
                             : pattern == 1 ? t > b
                             : pattern == 2 ? t + b + 1 < keys
                             : pattern == 3 ? dice % 3 != 0
                             : pattern == 4 ? odd[dice % 4]
                                            : 0;  // kPatterns in all
        values.push_back(value);
      }
    }
    return values;
  }

  Tensor evaluate(const Bindings& bindings, const std::vector<Threshold>& thresholds,
                  const std::vector<double>& padding, const Extents& source_shape) {
    std::map<ValueId, Tensor> values;
    if (cone_.source.valid()) {
      values[cone_.source] = integers_of(graph_.value(cone_.source).type.dtype, source_shape, padding);
    }
    for (const ValueId id : cone_.sizes) values[id] = size_tensor(id, bindings);
    for (const NodeId id : cone_.nodes) {
      const Node& node = graph_.node(id);
      std::vector<const Tensor*> inputs;
      for (const ValueId input : node.inputs) {
        inputs.push_back(input.valid() ? &read_value(input, node.op, thresholds, values) : nullptr);
      }
      std::vector<Tensor> results = evaluate_node(node, inputs);
      for (std::size_t i = 0; i < results.size(); ++i) {
        if (!node.outputs[i].valid()) continue;
        if (results[i].byte_size() > kLargestConstant) fail(ErrorCode::kUnsupported, "too large");
        values[node.outputs[i]] = std::move(results[i]);
      }
    }
    return read_value(use_.mask, {}, thresholds, values);
  }

  const Tensor& read_value(ValueId id, std::string_view reader, const std::vector<Threshold>& thresholds,
                           std::map<ValueId, Tensor>& values) {
    const Value& value = graph_.value(id);
    if (value.kind != ValueKind::kConstant) return values.at(id);
    if (const auto table = cone_.tables.find(id); table != cone_.tables.end()) {
      const auto small = [&](std::int64_t change) {
        const std::int64_t size =
            std::abs(change) < kLeastThreshold ? std::abs(change) : small_of(thresholds, std::abs(change));
        return change < 0 ? -size : size;
      };
      return values[id] = make_band_table(table->second, small);
    }
    const auto number = is_threshold_reader(reader) ? threshold_of(graph_, id) : std::nullopt;
    if (!number || thresholds.empty()) {
      Tensor& constant = constants_[id];
      if (constant.rank() == 1 && constant.size() == 0) constant = value.tensor->aligned();
      return constant;
    }
    const bool negative = value.tensor->aligned().to_ints().front() < 0;
    const auto small = static_cast<double>(small_of(thresholds, *number));
    return values[id] = integers_of(value.type.dtype, value.tensor->shape(), {negative ? -small : small});
  }

  bool mask_has_one_head() const {
    const Shape& mask = *shape_of(graph_, use_.mask);
    return mask.size() < 3 || mask[mask.size() - 3].is(1);
  }

  static std::int64_t small_of(const std::vector<Threshold>& thresholds, std::int64_t value) {
    return std::find_if(thresholds.begin(), thresholds.end(), [&](const Threshold& t) { return t.value == value; })
        ->small;
  }

  Tensor size_tensor(ValueId id, const Bindings& bindings) const {
    const Value& value = graph_.value(id);
    std::vector<double> numbers;
    for (const Dim& dim : *value.elements) {
      const auto number = dim.evaluate(bindings);
      if (!number) fail(ErrorCode::kUnsupported, "a size is not known");
      numbers.push_back(static_cast<double>(*number));
    }
    return integers_of(value.type.dtype, *weft::evaluate(*value.type.shape, {}), numbers);
  }

  // One sample per batch row, of every head where they differ.
  bool read(const Tensor& mask, const Extents& scores, const std::vector<double>& padding, const Extents& source,
            const std::vector<Threshold>& thresholds, MaskSamples& result, std::string& reason) const {
    const auto rank = static_cast<std::size_t>(mask.rank());
    Extents strides = row_major_strides(mask.shape()), full(4, 0);
    for (std::size_t i = 0; i < rank; ++i) {
      const std::size_t axis = 4 - rank + i;
      if (mask.shape()[i] != 1 && mask.shape()[i] != scores[axis]) {
        reason = fmt::format("{} does not fit scores {}", to_string(mask.shape()), to_string(scores));
        return false;
      }
      full[axis] = mask.shape()[i] == 1 ? 0 : strides[i];
    }
    std::vector<double> values = numbers_of(mask);
    if (use_.excludes) std::for_each(values.begin(), values.end(), [](double& x) { x = 1 - x; });
    const std::int64_t heads = full[1] == 0 ? 1 : scores[1];
    for (std::int64_t b = 0; b < scores[0]; ++b) {
      for (std::int64_t h = 0; h < heads; ++h) {
        MaskSample sample{scores[2], scores[3], h, {}, {}, thresholds};
        if (!padding.empty()) {
          sample.padding.assign(padding.begin() + b * source[1], padding.begin() + b * source[1] + scores[3]);
        }
        for (std::int64_t s = 0; s < scores[2]; ++s) {
          for (std::int64_t t = 0; t < scores[3]; ++t) {
            sample.values.push_back(
                values[static_cast<std::size_t>(b * full[0] + h * full[1] + s * full[2] + t * full[3])]);
          }
        }
        if (h > 0 && sample.values != result.samples[result.samples.size() - static_cast<std::size_t>(h)].values) {
          result.heads = heads;
        }
        result.samples.push_back(std::move(sample));
      }
    }
    return true;
  }

  const Graph& graph_;
  const MaskUse& use_;
  const Cone& cone_;
  SizeChooser chooser_;
  std::map<ValueId, Tensor> constants_;
};

}  // namespace

std::optional<MaskSamples> sample_mask(const Graph& graph, const MaskUse& use, std::string& reason) {
  const Shape* shape = shape_of(graph, use.mask);
  if (shape == nullptr || shape->size() > 4) {
    reason = "its rank is not known";
    return std::nullopt;
  }
  const auto cone = find_cone(graph, use, reason);
  if (!cone) return std::nullopt;
  MaskSamples samples;
  if (!Sampler(graph, use, *cone).run(samples, reason)) return std::nullopt;
  if (samples.heads == 1) std::erase_if(samples.samples, [](const MaskSample& sample) { return sample.head > 0; });
  return samples;
}

}  // namespace weft
