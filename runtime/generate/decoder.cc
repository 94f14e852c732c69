#include "runtime/generate/decoder.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "ops/cast.h"
#include "passes/pipeline.h"
#include "runtime/generate/model_folder.h"

namespace weft::runtime {
namespace {

// No tokens past.
Tensor empty_past(const Value& value, std::int64_t rows) {
  if (!value.type.shape || value.type.shape->size() < 3) {
    fail(ErrorCode::kUnsupported, "generation with the cache \"{}\" of {}", value.name, to_string(value.type));
  }
  const CacheAxes axes = cache_axes(value);
  Extents shape;
  for (std::size_t i = 0; i < value.type.shape->size(); ++i) {
    const Dim& dim = (*value.type.shape)[i];
    shape.push_back(i == axes.time ? 0 : i == axes.batch ? rows : dim.is_constant() ? dim.value() : 1);
  }
  return Tensor::zeros(value.type.dtype, std::move(shape));
}

// The first `length` of the time axis.
Tensor shortened(const Tensor& x, std::size_t axis, std::int64_t length) {
  std::vector<std::int64_t> kept(static_cast<std::size_t>(length));
  std::iota(kept.begin(), kept.end(), 0);
  return select_rows(x, axis, kept);
}

bool is_tokens(std::string_view name) { return name == "input_ids" || name == "decoder_input_ids"; }

}  // namespace

Tensor select_rows(const Tensor& x, std::size_t axis, std::span<const std::int64_t> picked) {
  Extents shape = x.shape();
  std::size_t outer = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= static_cast<std::size_t>(shape[i]);
  const auto count = static_cast<std::size_t>(shape[axis]);
  const std::size_t row = outer * count == 0 ? 0 : x.byte_size() / (outer * count);
  shape[axis] = std::ssize(picked);
  Tensor result = Tensor::uninitialized(x.dtype(), std::move(shape));
  if (row == 0 || picked.empty()) return result;
  std::byte* to = result.mutable_bytes().data();
  for (std::size_t o = 0; o < outer; ++o) {
    const std::byte* from = x.bytes().data() + o * count * row;
    for (const std::int64_t index : picked) {
      std::memcpy(to, from + static_cast<std::size_t>(index) * row, row);
      to += row;
    }
  }
  return result;
}

Decoder::Decoder(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool)
    : session_(std::move(model), std::move(pool)) {
  const auto add = [&](const std::string& name, ValueId past) {
    caches_.push_back(name);
    if (cache_stays(graph(), past, present_name(name))) staying_.insert(name);
  };
  for (const State& state : graph().states()) add(state.name, state.current);
  for (const ValueId id : graph().inputs()) {
    if (is_past(graph().value(id).name)) add(graph().value(id).name, id);
  }
}

bool Decoder::stays(std::string_view cache) const { return staying_.contains(cache); }

bool Decoder::is_state(std::string_view name) const {
  return std::any_of(graph().states().begin(), graph().states().end(),
                     [&](const State& state) { return state.name == name; });
}

void Decoder::start(TensorMap fixed, std::int64_t rows) {
  fixed_ = std::move(fixed);
  fixed_rows_.resize(static_cast<std::size_t>(rows));
  std::iota(fixed_rows_.begin(), fixed_rows_.end(), 0);
  pasts_.clear();
  length_ = 0;
  rows_ = rows;
  padding_.assign(static_cast<std::size_t>(rows), 0);
  session_.reset_states(rows);
  for (const std::string& name : caches_) {
    if (const auto given = fixed_.find(name); given != fixed_.end() && is_state(name)) {
      session_.set_state(name, given->second);
      fixed_.erase(given);
      continue;
    }
    const Value* value = find_input(graph(), name);
    if (value != nullptr && !fixed_.contains(name)) pasts_[name] = empty_past(*value, rows);
  }
}

void Decoder::start(TensorMap fixed, const Caches& past, std::vector<std::int64_t> padding) {
  start(std::move(fixed), std::ssize(padding));
  padding_ = std::move(padding);
  for (const auto& [name, value] : past) set_past(name, value);
}

void Decoder::set_past(const std::string& name, const Tensor& value) {
  if (is_state(name)) {
    session_.set_state(name, value);
    if (!stays(name)) length_ = value.extent(2);
    return;
  }
  const Value* given = find_input(graph(), name);
  if (given == nullptr) return;
  if (stays(name)) {
    pasts_.erase(name);
    fixed_[name] = value;
  } else {
    pasts_[name] = value;
    length_ = value.extent(cache_axes(*given).time);
  }
}

void Decoder::reorder(std::span<const std::int64_t> parents) {
  std::vector<std::int64_t> padding, fixed_rows;
  for (const std::int64_t parent : parents) {
    padding.push_back(padding_.at(static_cast<std::size_t>(parent)));
    fixed_rows.push_back(fixed_rows_.at(static_cast<std::size_t>(parent)));
  }
  const bool stays = std::ssize(parents) == rows_ && std::is_sorted(parents.begin(), parents.end()) &&
                     std::adjacent_find(parents.begin(), parents.end()) == parents.end();
  if (stays) return;
  session_.reorder_states(parents);
  for (auto& [name, past] : pasts_) past = select_rows(past, cache_axes(*find_input(graph(), name)).batch, parents);
  if (fixed_rows != fixed_rows_) {
    for (auto& [name, tensor] : fixed_) {
      const bool cache = is_past(name);
      tensor = select_rows(tensor, cache ? cache_axes(*find_input(graph(), name)).batch : 0, parents);
    }
  }
  padding_ = std::move(padding);
  fixed_rows_ = std::move(fixed_rows);
  rows_ = std::ssize(parents);
}

void Decoder::truncate(std::int64_t length) {
  for (const State& state : graph().states()) {
    if (!stays(state.name)) session_.truncate_state(state.name, length);
  }
  for (auto& [name, past] : pasts_) {
    if (!stays(name)) past = shortened(past, cache_axes(*find_input(graph(), name)).time, length);
  }
  length_ = length;
}

Tensor Decoder::input(const Value& value, const Tensor& tokens) const {
  const std::string& name = value.name;
  const std::int64_t steps = tokens.extent(1);
  const auto table = [&](std::int64_t columns, auto&& element) {
    Tensor result = Tensor::uninitialized(DType::kI64, {rows_, columns});
    const auto data = result.mutable_data<std::int64_t>();
    for (std::size_t at = 0; at < data.size(); ++at) {
      const auto c = static_cast<std::int64_t>(at) % columns;
      data[at] = element(padding_[at / static_cast<std::size_t>(columns)], c);
    }
    return cast(result, value.type.dtype);
  };
  if (is_tokens(name)) return cast(tokens, value.type.dtype);
  if (name == "attention_mask" || name == "decoder_attention_mask") {
    return table(length_ + steps, [](std::int64_t padding, std::int64_t c) { return c >= padding ? 1 : 0; });
  }
  if (name == "position_ids" || name == "decoder_position_ids") {
    return table(steps, [&](std::int64_t padding, std::int64_t c) { return length_ - padding + c; });
  }
  if (name == "cache_position") {
    Tensor positions = Tensor::uninitialized(DType::kI64, {steps});
    std::iota(positions.mutable_data<std::int64_t>().begin(), positions.mutable_data<std::int64_t>().end(), length_);
    return cast(positions, value.type.dtype);
  }
  fail(ErrorCode::kUnsupported, "generation does not know what input \"{}\" of the decoder is", name);
}

void Decoder::set_cache_budget(const std::shared_ptr<CacheBudget>& budget) {
  budget_ = budget;
  session_.set_cache_budget(budget);
}

// Of caches that are no states, which are there before the run and longer behind it; the session asks for the others.
void Decoder::check_budget(std::int64_t steps) const {
  std::uint64_t bytes = 0;
  for (const auto& [name, past] : pasts_) {
    Extents longer = past.shape();
    if (!stays(name)) longer[cache_axes(*find_input(graph(), name)).time] += steps;
    bytes += past.byte_size();
    bytes += static_cast<std::uint64_t>(element_count(longer)) * element_size(past.dtype());
  }
  budget_->require(bytes);
}

Tensor Decoder::run(const Tensor& tokens) {
  if (budget_ && !pasts_.empty()) check_budget(tokens.extent(1));
  TensorMap inputs = pasts_;
  for (const ValueId id : graph().inputs()) {
    const Value& value = graph().value(id);
    if (inputs.contains(value.name)) continue;
    if (const auto given = fixed_.find(value.name); given != fixed_.end())
      inputs[value.name] = cast(given->second, value.type.dtype);
    else if (!value.tensor)
      inputs[value.name] = input(value, tokens);
  }
  outputs_ = session_.run(inputs);
  length_ += tokens.extent(1);
  for (auto& [name, past] : pasts_) {
    if (stays(name)) continue;
    if (const auto index = output_index(graph(), present_name(name))) past = outputs_[*index];
  }
  const Tensor& logits = outputs_[output_index(graph(), "logits").value_or(0)];
  if (logits.rank() != 3 || logits.extent(0) != rows_ || logits.extent(1) == 0) {
    fail(ErrorCode::kUnsupported, "logits of {}{} for {} rows", to_string(logits.dtype()), to_string(logits.shape()),
         rows_);
  }
  return cast(logits, DType::kF32);
}

const Tensor* Decoder::output(std::string_view name) const {
  const auto index = output_index(graph(), name);
  return index ? &outputs_[*index] : nullptr;
}

Caches Decoder::past() const {
  Caches result(pasts_.begin(), pasts_.end());
  for (const State& state : graph().states()) result[state.name] = session_.state(state.name);
  return result;
}

}  // namespace weft::runtime
