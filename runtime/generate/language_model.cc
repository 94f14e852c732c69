#include "runtime/generate/language_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "ops/cast.h"
#include "passes/pipeline.h"
#include "runtime/generate/positions.h"

namespace weft::runtime {
namespace {

using Rows = std::vector<std::int64_t>;

Tensor ones(std::int64_t rows, std::int64_t columns) {
  Tensor result = Tensor::uninitialized(DType::kI64, {rows, columns});
  std::fill_n(result.mutable_data<std::int64_t>().data(), rows * columns, 1);
  return result;
}

Tensor as_rows(const std::vector<const std::vector<std::int64_t>*>& sequences) {
  const auto length = sequences[0]->size();
  Tensor result = Tensor::uninitialized(DType::kI64, {std::ssize(sequences), static_cast<std::int64_t>(length)});
  auto* data = result.mutable_data<std::int64_t>().data();
  for (const auto* sequence : sequences) data = std::copy(sequence->begin(), sequence->end(), data);
  return result;
}

// Copies the rows of `from` to rows `rows` of `to`, where `from` is shorter along `axis`: to its end or its beginning.
void place(const Tensor& from, const Rows& rows, std::size_t batch, std::size_t axis, bool at_end, Tensor& to) {
  const auto product = [](const Extents& shape, std::size_t first, std::size_t last) {
    return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(first),
                           shape.begin() + static_cast<std::ptrdiff_t>(last), std::int64_t{1}, std::multiplies<>());
  };
  const Extents &small = from.shape(), &large = to.shape();
  const std::int64_t outer = product(small, 0, batch), middle = product(small, batch + 1, axis);
  if (from.size() == 0) return;
  const std::int64_t inner =
      product(small, axis + 1, small.size()) * static_cast<std::int64_t>(from.byte_size()) / from.size();
  const std::int64_t shift = at_end ? large[axis] - small[axis] : 0;
  for (std::int64_t o = 0; o < outer; ++o) {
    for (std::size_t r = 0; r < rows.size(); ++r) {
      for (std::int64_t m = 0; m < middle; ++m) {
        const std::int64_t source = ((o * small[batch] + static_cast<std::int64_t>(r)) * middle + m) * small[axis];
        const std::int64_t target = ((o * large[batch] + rows[r]) * middle + m) * large[axis] + shift;
        std::memcpy(to.mutable_bytes().data() + target * inner, from.bytes().data() + source * inner,
                    static_cast<std::size_t>(small[axis] * inner));
      }
    }
  }
}

// The tensors of groups of rows as one, zeros where a row is shorter along `axis`.
Tensor assemble(const std::vector<std::pair<Rows, Tensor>>& groups, std::int64_t rows, std::size_t batch,
                std::size_t axis, bool at_end) {
  Extents shape = groups[0].second.shape();
  shape[batch] = rows;
  for (const auto& [group, tensor] : groups) shape[axis] = std::max(shape[axis], tensor.extent(axis));
  if (groups.size() == 1) return groups[0].second;
  Tensor result = Tensor::zeros(groups[0].second.dtype(), std::move(shape));
  for (const auto& [group, tensor] : groups) place(tensor, group, batch, axis, at_end, result);
  return result;
}

// The last position of logits [rows.size(), S, V] becomes rows `rows`.
void take_last(const Tensor& logits, const Rows& rows, std::int64_t count, Logits& result) {
  const std::int64_t steps = logits.extent(1), vocabulary = logits.extent(2);
  result.rows = count;
  result.vocabulary = vocabulary;
  result.values.resize(static_cast<std::size_t>(count * vocabulary));
  const float* data = logits.data<float>().data();
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const float* last = data + (static_cast<std::int64_t>(r) * steps + steps - 1) * vocabulary;
    std::copy_n(last, vocabulary, result.values.data() + rows[r] * vocabulary);
  }
}

Rows all_rows(std::int64_t count) {
  Rows rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// Rows by a key, in ascending order of it.
template <class Key, class Of>
std::map<Key, Rows> grouped(std::size_t count, Of of) {
  std::map<Key, Rows> groups;
  for (std::size_t i = 0; i < count; ++i) groups[of(i)].push_back(static_cast<std::int64_t>(i));
  return groups;
}

bool same_shapes(const TensorMap& a, const TensorMap& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.shape() == y.second.shape();
  });
}

}  // namespace

LanguageModel::LanguageModel(const GenerationModel& model, std::shared_ptr<ThreadPool> pool) {
  if (model.encoder) encoder_ = std::make_unique<Session>(model.encoder, pool);
  if (model.decoder) first_ = std::make_unique<Decoder>(model.decoder, pool);
  if (model.decoder_with_past) next_ = std::make_unique<Decoder>(model.decoder_with_past, pool);
  if (model.decoder_source) first_source_ = std::make_unique<Session>(model.decoder_source, pool);
  if (model.decoder_with_past_source) next_source_ = std::make_unique<Session>(model.decoder_with_past_source, pool);
  if (next_ && next_->caches().empty() && !first_) {
    first_ = std::move(next_);
    first_source_ = std::move(next_source_);
  }
  for (const Decoder* decoder : {first_.get(), next_.get()}) {
    const auto limit = decoder != nullptr ? runtime::position_limit(decoder->graph()) : std::nullopt;
    if (limit) position_limit_ = position_limit_ ? std::min(*position_limit_, *limit) : *limit;
  }
  source_in_decoder_ =
      !encoder_ && find_input((first_ ? *first_ : *next_).graph(), "decoder_input_ids") && takes("input_ids");
}

bool LanguageModel::takes(std::string_view input) const {
  for (const auto* decoder : {&first_, &next_}) {
    if (*decoder && find_input((*decoder)->graph(), input)) return true;
  }
  for (const auto* source : {&first_source_, &next_source_}) {
    if (*source && find_input((*source)->model().graph(), input)) return true;
  }
  return false;
}

void LanguageModel::compute_of_source(Session* session) {
  if (session == nullptr) return;
  const Graph& graph = session->model().graph();
  TensorMap inputs;
  for (const ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    inputs[value.name] = cast(fixed_.at(value.name), value.type.dtype);
  }
  const std::vector<Tensor> values = session->run(inputs);
  for (std::size_t i = 0; i < values.size(); ++i) fixed_[graph.outputs()[i].name] = values[i];
}

void LanguageModel::set_profile(Profile* profile) {
  if (encoder_) encoder_->set_profile(profile);
  if (first_) first_->set_profile(profile);
  if (next_) next_->set_profile(profile);
  if (first_source_) first_source_->set_profile(profile);
  if (next_source_) next_source_->set_profile(profile);
}

const Tensor* LanguageModel::output(std::string_view name) const {
  const Decoder& decoder = first_ ? *first_ : *next_;
  if (const Tensor* found = decoder.output(name)) return found;
  if (!encoder_) return nullptr;
  const std::optional<std::size_t> index = output_index(encoder_->model().graph(), name);
  return index && *index < encoded_.size() ? &encoded_[*index] : nullptr;
}

void LanguageModel::set_cache_budget(const std::shared_ptr<CacheBudget>& budget) {
  if (first_) first_->set_cache_budget(budget);
  if (next_) next_->set_cache_budget(budget);
}

CacheUsage LanguageModel::cache_usage() const {
  CacheUsage sum;
  if (first_) sum += first_->cache_usage();
  if (next_) sum += next_->cache_usage();
  return sum;
}

// --- Sources --------------------------------------------------------------------------------------------------------

bool LanguageModel::masks_source() const {
  const std::string_view name = source_in_decoder_ ? "attention_mask" : "encoder_attention_mask";
  const auto takes = [&](const Decoder* decoder, const Session* source) {
    return !decoder || find_input(decoder->graph(), name) || (source && find_input(source->model().graph(), name));
  };
  return takes(first_.get(), first_source_.get()) && takes(next_.get(), next_source_.get());
}

// What the encoder makes of rows that have one shape, and which of it is real.
Tensor LanguageModel::encode_rows(std::span<const Source> sources, const Rows& rows, Tensor& mask) {
  const Graph& graph = encoder_->model().graph();
  const Source& example = sources[static_cast<std::size_t>(rows[0])];
  TensorMap inputs = example.encoder_inputs;
  for (auto& [name, tensor] : inputs) {
    std::vector<std::pair<Rows, Tensor>> parts;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      parts.push_back(
          {{static_cast<std::int64_t>(i)}, sources[static_cast<std::size_t>(rows[i])].encoder_inputs.at(name)});
    }
    if (tensor.rank() > 1) tensor = assemble(parts, std::ssize(rows), 0, 1, false);
  }
  std::vector<const std::vector<std::int64_t>*> tokens;
  for (const std::int64_t row : rows) tokens.push_back(&sources[static_cast<std::size_t>(row)].encoder_tokens);
  const auto length = static_cast<std::int64_t>(example.encoder_tokens.size());
  mask = Tensor();
  if (length > 0) {
    mask = ones(std::ssize(rows), length);
    const Value* ids = find_input(graph, "input_ids");
    inputs["input_ids"] = ids ? cast(as_rows(tokens), ids->type.dtype) : as_rows(tokens);
  }
  if (const auto given = inputs.find("attention_mask"); given != inputs.end())
    mask = cast(given->second, DType::kI64);
  else if (const Value* wanted = find_input(graph, "attention_mask"); wanted && length > 0)
    inputs["attention_mask"] = cast(mask, wanted->type.dtype);
  encoded_ = encoder_->run(inputs);
  const Tensor states = encoded_[output_index(graph, "encoder_hidden_states").value_or(0)];
  if (mask.rank() != 2 || mask.extent(1) != states.extent(1)) mask = ones(states.extent(0), states.extent(1));
  return states;
}

TensorMap LanguageModel::encode(std::span<const Source> sources) {
  const auto count = std::ssize(sources);
  std::vector<std::pair<Rows, Tensor>> states, masks;
  if (source_in_decoder_) {
    for (std::int64_t row = 0; row < count; ++row) {
      const auto& tokens = sources[static_cast<std::size_t>(row)].encoder_tokens;
      states.push_back({{row}, as_rows({&tokens})});
      masks.push_back({{row}, ones(1, std::ssize(tokens))});
    }
    return {{"input_ids", assemble(states, count, 0, 1, false)},
            {"attention_mask", assemble(masks, count, 0, 1, false)}};
  }
  if (!encoder_) return {};
  using Key = std::pair<std::size_t, std::vector<Extents>>;
  const auto key = [&](std::size_t i) {
    Key result{sources[i].encoder_tokens.size(), {}};
    for (const auto& [name, tensor] : sources[i].encoder_inputs) {
      result.second.push_back(tensor.shape());
      if (tensor.rank() < 2) result.second.push_back({static_cast<std::int64_t>(i)});  // a length, say: encoded alone
    }
    return result;
  };
  std::map<std::string, std::vector<std::pair<Rows, Tensor>>, std::less<>> caches;
  for (const auto& [shape, rows] : grouped<Key>(sources.size(), key)) {
    Tensor mask;
    states.emplace_back(rows, encode_rows(sources, rows, mask));
    masks.emplace_back(rows, mask);
    for (const std::string& name : next_ ? next_->caches() : std::vector<std::string>()) {
      const auto index = is_cross(name) ? output_index(encoder_->model().graph(), present_name(name)) : std::nullopt;
      if (index) caches[name].emplace_back(rows, encoded_[*index]);
    }
  }
  TensorMap result = {{"encoder_hidden_states", assemble(states, count, 0, 1, false)},
                      {"encoder_attention_mask", assemble(masks, count, 0, 1, false)}};
  for (const auto& [name, parts] : caches) result[name] = assemble(parts, count, 0, 2, false);
  return result;
}

// --- Prompts --------------------------------------------------------------------------------------------------------

// Caches of groups of rows as those of one batch.
Caches LanguageModel::merge(const std::vector<std::pair<Rows, Caches>>& groups, std::int64_t rows) const {
  Caches merged;
  for (const auto& [name, example] : groups[0].second) {
    std::vector<std::pair<Rows, Tensor>> parts;
    for (const auto& [group, caches] : groups) parts.emplace_back(group, caches.at(name));
    const Value* input = find_input(next_->graph(), name);
    const CacheAxes axes = input != nullptr ? cache_axes(*input) : CacheAxes{};
    merged[name] = assemble(parts, rows, axes.batch, axes.time, !next_->stays(name));
  }
  return merged;
}

Logits LanguageModel::start(std::span<const Source> sources) {
  const auto count = std::ssize(sources);
  fixed_ = encode(sources);
  compute_of_source(first_source_.get());
  compute_of_source(next_source_.get());
  sequences_.clear();
  for (const Source& source : sources) sequences_.push_back(source.prompt);
  if (!next_) return recompute();
  const auto by_length = grouped<std::size_t>(sources.size(), [&](std::size_t i) { return sequences_[i].size(); });
  const std::size_t longest = by_length.rbegin()->first;
  Decoder& decoder = first_ ? *first_ : *next_;
  Logits result;
  std::vector<std::pair<Rows, Caches>> groups;
  for (const auto& [length, rows] : by_length) {
    TensorMap fixed;
    for (const auto& [name, tensor] : fixed_) fixed[name] = select_rows(tensor, 0, rows);
    std::vector<const std::vector<std::int64_t>*> tokens;
    for (const std::int64_t row : rows) tokens.push_back(&sequences_[static_cast<std::size_t>(row)]);
    decoder.start(std::move(fixed), std::ssize(rows));
    take_last(decoder.run(as_rows(tokens)), rows, count, result);
    if (!first_ && by_length.size() == 1) return result;
    if (!first_) {
      groups.emplace_back(rows, next_->past());
      continue;
    }
    groups.emplace_back(rows, Caches{});
    for (const std::string& name : next_->caches()) {
      const Tensor* present = first_->output(present_name(name));
      if (present != nullptr) groups.back().second[name] = *present;
    }
  }
  std::vector<std::int64_t> padding;
  for (const auto& sequence : sequences_) padding.push_back(static_cast<std::int64_t>(longest - sequence.size()));
  next_->start(fixed_, merge(groups, count), std::move(padding));
  return result;
}

Logits LanguageModel::step(std::span<const std::int64_t> parents, std::span<const std::int64_t> tokens) {
  const auto count = std::ssize(parents);
  if (next_) {
    next_->reorder(parents);
    Logits result;
    const Tensor logits = next_->run(Tensor::of<std::int64_t>({count, 1}, tokens));
    take_last(logits, all_rows(count), count, result);
    return result;
  }
  std::vector<std::vector<std::int64_t>> continued;
  for (std::size_t r = 0; r < parents.size(); ++r) {
    continued.push_back(sequences_[static_cast<std::size_t>(parents[r])]);
    continued.back().push_back(tokens[r]);
  }
  const bool same_rows = std::ranges::equal(parents, all_rows(std::ssize(sequences_)));
  sequences_ = std::move(continued);
  for (auto& [name, tensor] : fixed_) {
    if (!same_rows) tensor = select_rows(tensor, 0, parents);
  }
  return recompute();
}

// Rows of one length at a time, so that nothing has to be masked.
Logits LanguageModel::recompute() {
  Logits result;
  const auto by_length = grouped<std::size_t>(sequences_.size(), [&](std::size_t i) { return sequences_[i].size(); });
  for (const auto& [length, rows] : by_length) {
    TensorMap fixed;
    if (by_length.size() == 1)
      fixed = fixed_;
    else
      for (const auto& [name, tensor] : fixed_) fixed[name] = select_rows(tensor, 0, rows);
    std::vector<const std::vector<std::int64_t>*> tokens;
    for (const std::int64_t row : rows) tokens.push_back(&sequences_[static_cast<std::size_t>(row)]);
    first_->start(std::move(fixed), std::ssize(rows));
    take_last(first_->run(as_rows(tokens)), rows, std::ssize(sequences_), result);
  }
  return result;
}

// In runs short enough that the model gives the logits of all positions.
Logits LanguageModel::extend(std::span<const std::int64_t> tokens) {
  Logits result;
  while (!tokens.empty()) {
    const std::size_t count = next_ ? std::min(tokens.size(), static_cast<std::size_t>(kAllPositions)) : 1;
    const auto some = tokens.first(count);
    Tensor logits;
    if (next_) {
      logits = next_->run(Tensor::of<std::int64_t>({1, std::ssize(some)}, some));
    } else {
      sequences_[0].push_back(some[0]);
      first_->start(fixed_, 1);
      logits = first_->run(as_rows({&sequences_[0]}));
    }
    if (logits.extent(1) < std::ssize(some)) {
      fail(ErrorCode::kUnsupported, "speculation needs logits of all positions, the model gives those of the last one");
    }
    result.rows += std::ssize(some);
    result.vocabulary = logits.extent(2);
    const auto data = logits.data<float>().last(static_cast<std::size_t>(std::ssize(some) * result.vocabulary));
    result.values.insert(result.values.end(), data.begin(), data.end());
    tokens = tokens.subspan(count);
  }
  return result;
}

void LanguageModel::truncate(std::int64_t length) {
  if (next_)
    next_->truncate(length);
  else
    sequences_[0].resize(static_cast<std::size_t>(length));
}

// --- Batches --------------------------------------------------------------------------------------------------------

bool LanguageModel::together(const Source& a, const Source& b) {
  if (has_source() && !masks_source() &&
      (a.encoder_tokens.size() != b.encoder_tokens.size() || !same_shapes(a.encoder_inputs, b.encoder_inputs))) {
    return false;
  }
  if (!next_ || a.prompt.size() == b.prompt.size()) return true;
  return ignores_padding(a.prompt.size() > b.prompt.size() ? a : b);
}

bool LanguageModel::ignores_padding(const Source& source) {
  const bool masks = find_input(next_->graph(), "attention_mask") != nullptr ||
                     find_input(next_->graph(), "decoder_attention_mask") != nullptr;
  if (!ignores_padding_) ignores_padding_ = masks && try_padding(source);
  return *ignores_padding_;
}

// The same step alone and with padding: positions that count it, or a mask that nobody reads, show.
bool LanguageModel::try_padding(const Source& source) {
  constexpr std::size_t kLong = 6;
  constexpr float kTolerance = 3e-5f;  // of the largest logit: what rotation by other angles rounds differently
  Source longer = source, shorter = source;
  longer.prompt.resize(std::min(longer.prompt.size(), kLong));
  shorter.prompt.resize(1);
  const std::vector<std::int64_t> rows = {0, 1}, one = {0};
  const std::vector<std::int64_t> tokens = {source.prompt.back(), source.prompt.back()};
  const Source both[] = {longer, shorter};
  start(both);
  const Logits padded = step(rows, tokens);
  start(std::span(both).last(1));
  const Logits alone = step(one, std::span(tokens).first(1));
  float largest = 0, difference = 0;
  for (std::size_t i = 0; i < alone.values.size(); ++i) {
    largest = std::max(largest, std::abs(alone.values[i]));
    difference = std::max(difference, std::abs(alone.values[i] - padded.row(1)[i]));
  }
  return difference <= kTolerance * largest;
}

}  // namespace weft::runtime
