#include "runtime/generate/search.h"

#include <algorithm>

#include "graph/error.h"
#include "runtime/generate/distribution.h"
#include "runtime/generate/search_base.h"
#include "runtime/generate/strategies.h"

namespace weft::runtime {

SearchBase::SearchBase(const GenerationConfig& config, const Prompt& prompt, const Callbacks& callbacks)
    : config_(config),
      prompt_length_(static_cast<std::int64_t>(prompt.tokens.size())),
      max_length_(max_sequence_length(config, prompt_length_)),
      stream_(prompt.stream),
      stop_(config, max_length_, callbacks, prompt.number) {}

void SearchBase::make_processors(const Prompt& prompt, const Callbacks& callbacks,
                                 const std::vector<std::int64_t>* chosen) {
  ProcessorContext context;
  context.prompt_length = prompt_length_;
  context.max_length = max_length_;
  context.encoder_tokens = prompt.encoder_tokens;
  if (callbacks.allowed_tokens) {
    context.allowed_tokens = [allowed = callbacks.allowed_tokens, number = prompt.number](Tokens tokens) {
      return allowed(number, tokens);
    };
  }
  context.chosen = chosen;
  processors_ = make_logits_processors(config_, context);
}

std::span<float> SearchBase::processed(const StepScores& scores, std::size_t row, Tokens tokens,
                                       bool as_log_probabilities) {
  const auto size = static_cast<std::size_t>(scores.vocabulary);
  const std::span<float> x = scores.logits.subspan(row * size, size);
  if (records()) {
    raw_.emplace_back(x.begin(), x.end());
    log_softmax(raw_.back());
  }
  if (as_log_probabilities || !scores.unconditional.empty()) log_softmax(x);
  if (!scores.unconditional.empty()) {
    const auto other = scores.unconditional.subspan(row * size, size);
    std::vector<float> unconditional(other.begin(), other.end());
    log_softmax(unconditional);
    const auto scale = static_cast<float>(*config_.guidance_scale);
    for (std::size_t i = 0; i < size; ++i) x[i] = scale * (x[i] - unconditional[i]) + unconditional[i];
  }
  process(processors_, tokens, x);
  return x;
}

TokenScore SearchBase::record(std::size_t row, std::size_t token, double score) const {
  const std::vector<float>& raw = raw_[row];
  TokenScore result{score, static_cast<double>(raw[token]), {}};
  for (const std::size_t i : top(raw, static_cast<std::size_t>(config_.top_logprobs))) {
    result.alternatives.emplace_back(static_cast<std::int64_t>(i), static_cast<double>(raw[i]));
  }
  return result;
}

Beam continued(const Beam& parent, const Candidate& candidate, bool records) {
  Beam beam = parent;
  beam.tokens.push_back(candidate.token);
  beam.score = candidate.score;
  if (records) beam.token_scores.push_back(candidate.record);
  return beam;
}

std::size_t common_prefix(std::span<const std::vector<std::int64_t>* const> sequences) {
  if (sequences.empty()) return 0;
  std::size_t length = sequences[0]->size();
  for (const auto* other : sequences.subspan(1)) {
    const auto [end, at] =
        std::mismatch(sequences[0]->begin(), sequences[0]->begin() + static_cast<std::ptrdiff_t>(length),
                      other->begin(), other->end());
    length = static_cast<std::size_t>(end - sequences[0]->begin());
  }
  return length;
}

std::int64_t max_sequence_length(const GenerationConfig& config, std::int64_t prompt_length) {
  constexpr std::int64_t kDefaultNewTokens = 20;
  if (config.max_new_tokens) return prompt_length + *config.max_new_tokens;
  if (config.max_length) return *config.max_length;
  const std::int64_t length = prompt_length + kDefaultNewTokens;
  return config.max_position_embeddings ? std::min(length, *config.max_position_embeddings) : length;
}

std::unique_ptr<Search> make_search(const GenerationConfig& config, const Prompt& prompt, const Callbacks& callbacks) {
  if (config.num_beam_groups > 1) return make_group_beam_search(config, prompt, callbacks);
  if (config.num_beams > 1) return make_beam_search(config, prompt, callbacks);
  return make_token_search(config, prompt, callbacks);
}

}  // namespace weft::runtime
