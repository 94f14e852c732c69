#include "runtime/generate/logits_processor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "graph/error.h"
#include "runtime/generate/distribution.h"

namespace weft::runtime {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
using Tokens = std::span<const std::int64_t>;

void forbid(std::span<float> scores, std::int64_t token) {
  if (token >= 0 && token < static_cast<std::int64_t>(scores.size())) {
    scores[static_cast<std::size_t>(token)] = kNever;
  }
}

// Scores of tokens that occurred are divided by the penalty, negative ones multiplied.
class RepetitionPenalty final : public LogitsProcessor {
 public:
  explicit RepetitionPenalty(double penalty) : penalty_(static_cast<float>(penalty)) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    const std::set<std::int64_t> seen(tokens.begin(), tokens.end());
    for (const std::int64_t token : seen) {
      if (token < 0 || token >= static_cast<std::int64_t>(scores.size())) continue;
      float& score = scores[static_cast<std::size_t>(token)];
      score = score < 0 ? score * penalty_ : score / penalty_;
    }
  }

 private:
  float penalty_;
};

// Tokens of the source are multiplied up.
class EncoderRepetitionPenalty final : public LogitsProcessor {
 public:
  EncoderRepetitionPenalty(double penalty, Tokens source)
      : penalty_(static_cast<float>(1 / penalty)), seen_(source.begin(), source.end()) {}
  void process(Tokens, std::span<float> scores) const override {
    for (const std::int64_t token : seen_) {
      if (token < 0 || token >= static_cast<std::int64_t>(scores.size())) continue;
      float& score = scores[static_cast<std::size_t>(token)];
      score = score < 0 ? score * penalty_ : score / penalty_;
    }
  }

 private:
  float penalty_;
  std::set<std::int64_t> seen_;
};

// Adds to the last token of a sequence whose beginning has just been written.
class SequenceBias final : public LogitsProcessor {
 public:
  explicit SequenceBias(std::vector<GenerationConfig::SequenceBias> biases) : biases_(std::move(biases)) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    for (const auto& [sequence, bias] : biases_) {
      if (sequence.empty() || sequence.size() > tokens.size() + 1) continue;
      const Tokens end = tokens.last(sequence.size() - 1);
      const std::int64_t token = sequence.back();
      if (!std::equal(end.begin(), end.end(), sequence.begin())) continue;
      if (token < 0 || token >= static_cast<std::int64_t>(scores.size())) {
        fail(ErrorCode::kInvalidArgument, "sequence_bias: the model has no token {}", token);
      }
      scores[static_cast<std::size_t>(token)] += static_cast<float>(bias);
    }
  }

 private:
  std::vector<GenerationConfig::SequenceBias> biases_;
};

// No n-gram of the source.
class EncoderNoRepeatNgram final : public LogitsProcessor {
 public:
  EncoderNoRepeatNgram(std::int64_t size, Tokens source)
      : size_(static_cast<std::size_t>(size)), source_(source.begin(), source.end()) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    if (tokens.size() + 1 < size_) return;
    const Tokens prefix = tokens.last(size_ - 1);
    for (std::size_t i = 0; i + size_ <= source_.size(); ++i) {
      if (std::equal(prefix.begin(), prefix.end(), source_.begin() + static_cast<std::ptrdiff_t>(i))) {
        forbid(scores, source_[i + size_ - 1]);
      }
    }
  }

 private:
  std::size_t size_;
  std::vector<std::int64_t> source_;
};

class RemoveInvalidValues final : public LogitsProcessor {
 public:
  void process(Tokens, std::span<float> scores) const override {
    constexpr float kMax = std::numeric_limits<float>::max();
    for (float& score : scores) score = std::isnan(score) ? 0.0f : std::clamp(score, -kMax, kMax);
  }
};

// From some length on the end tokens gain by factor^(tokens since then) - 1 of their magnitude.
class LengthDecay final : public LogitsProcessor {
 public:
  LengthDecay(const GenerationConfig::LengthDecay& decay, std::int64_t prompt_length, Tokens eos)
      : start_(decay.start + prompt_length), factor_(decay.factor), eos_(eos.begin(), eos.end()) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    const auto length = static_cast<std::int64_t>(tokens.size());
    if (length <= start_) return;
    const double growth = std::pow(factor_, static_cast<double>(length - start_)) - 1;
    for (const std::int64_t token : eos_) {
      if (token < 0 || token >= static_cast<std::int64_t>(scores.size())) continue;
      float& score = scores[static_cast<std::size_t>(token)];
      if (std::isfinite(score)) score += std::abs(score) * static_cast<float>(growth);
    }
  }

 private:
  std::int64_t start_;
  double factor_;
  std::set<std::int64_t> eos_;
};

class Renormalize final : public LogitsProcessor {
 public:
  void process(Tokens, std::span<float> scores) const override { log_softmax(scores); }
};

class NoRepeatNgram final : public LogitsProcessor {
 public:
  explicit NoRepeatNgram(std::int64_t size) : size_(static_cast<std::size_t>(size)) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    if (tokens.size() + 1 < size_) return;
    const Tokens prefix = tokens.last(size_ - 1);
    for (std::size_t i = 0; i + size_ <= tokens.size(); ++i) {
      if (std::equal(prefix.begin(), prefix.end(), tokens.begin() + static_cast<std::ptrdiff_t>(i))) {
        forbid(scores, tokens[i + size_ - 1]);
      }
    }
  }

 private:
  std::size_t size_;
};

// Sequences that must not come about; a single token never, a longer one not after its beginning.
class NoBadWords final : public LogitsProcessor {
 public:
  explicit NoBadWords(std::vector<std::vector<std::int64_t>> words) : words_(std::move(words)) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    for (const auto& word : words_) {
      if (word.empty() || word.size() > tokens.size() + 1) continue;
      const Tokens end = tokens.last(word.size() - 1);
      if (std::equal(end.begin(), end.end(), word.begin())) forbid(scores, word.back());
    }
  }

 private:
  std::vector<std::vector<std::int64_t>> words_;
};

// Tokens that other groups of beams chose cost something.
class Diversity final : public LogitsProcessor {
 public:
  Diversity(double penalty, const std::vector<std::int64_t>& chosen) : penalty_(penalty), chosen_(chosen) {}
  void process(Tokens, std::span<float> scores) const override {
    std::map<std::int64_t, int> counts;
    for (const std::int64_t token : chosen_) ++counts[token];
    for (const auto& [token, count] : counts) {
      if (token < 0 || token >= static_cast<std::int64_t>(scores.size())) continue;
      scores[static_cast<std::size_t>(token)] -= static_cast<float>(penalty_ * count);
    }
  }

 private:
  double penalty_;
  const std::vector<std::int64_t>& chosen_;
};

// Only what a callback allows.
class AllowedTokens final : public LogitsProcessor {
 public:
  explicit AllowedTokens(std::function<std::vector<std::int64_t>(Tokens)> allowed) : allowed_(std::move(allowed)) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    const std::vector<std::int64_t> allowed = allowed_(tokens);
    if (allowed.empty()) fail(ErrorCode::kInvalidArgument, "no token is allowed after {} tokens", tokens.size());
    std::vector<float> kept(scores.size(), kNever);
    for (const std::int64_t token : allowed) {
      if (token < 0 || token >= static_cast<std::int64_t>(scores.size())) {
        fail(ErrorCode::kInvalidArgument, "allowed tokens: the model has no token {}", token);
      }
      kept[static_cast<std::size_t>(token)] = scores[static_cast<std::size_t>(token)];
    }
    std::copy(kept.begin(), kept.end(), scores.begin());
  }

 private:
  std::function<std::vector<std::int64_t>(Tokens)> allowed_;
};

// These tokens not before the sequence has this length.
class MinLength final : public LogitsProcessor {
 public:
  MinLength(std::int64_t length, std::vector<std::int64_t> eos)
      : length_(static_cast<std::size_t>(length)), eos_(std::move(eos)) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    if (tokens.size() >= length_) return;
    for (const std::int64_t token : eos_) forbid(scores, token);
  }

 private:
  std::size_t length_;
  std::vector<std::int64_t> eos_;
};

// At exactly this length only these tokens.
class ForcedTokens final : public LogitsProcessor {
 public:
  ForcedTokens(std::int64_t at, std::vector<std::int64_t> tokens)
      : at_(static_cast<std::size_t>(at)), tokens_(std::move(tokens)) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    if (tokens.size() != at_) return;
    std::fill(scores.begin(), scores.end(), kNever);
    for (const std::int64_t token : tokens_) {
      if (token >= 0 && token < static_cast<std::int64_t>(scores.size())) {
        scores[static_cast<std::size_t>(token)] = 0;
      }
    }
  }

 private:
  std::size_t at_;
  std::vector<std::int64_t> tokens_;
};

class SuppressTokens final : public LogitsProcessor {
 public:
  // at: only at this length; negative: always.
  SuppressTokens(std::vector<std::int64_t> tokens, std::int64_t at) : tokens_(std::move(tokens)), at_(at) {}
  void process(Tokens tokens, std::span<float> scores) const override {
    if (at_ >= 0 && static_cast<std::int64_t>(tokens.size()) != at_) return;
    for (const std::int64_t token : tokens_) forbid(scores, token);
  }

 private:
  std::vector<std::int64_t> tokens_;
  std::int64_t at_;
};

}  // namespace

LogitsProcessors make_logits_processors(const GenerationConfig& config, const ProcessorContext& context) {
  const auto& [prompt_length, max_length, encoder_tokens, allowed_tokens, chosen] = context;
  LogitsProcessors list;
  if (!config.sequence_bias.empty()) list.push_back(std::make_unique<SequenceBias>(config.sequence_bias));
  if (chosen != nullptr) list.push_back(std::make_unique<Diversity>(config.diversity_penalty, *chosen));
  if (config.encoder_repetition_penalty != 1.0 && !encoder_tokens.empty()) {
    list.push_back(std::make_unique<EncoderRepetitionPenalty>(config.encoder_repetition_penalty, encoder_tokens));
  }
  if (config.repetition_penalty != 1.0) {
    list.push_back(std::make_unique<RepetitionPenalty>(config.repetition_penalty));
  }
  if (config.no_repeat_ngram_size > 0) {
    list.push_back(std::make_unique<NoRepeatNgram>(config.no_repeat_ngram_size));
  }
  if (config.encoder_no_repeat_ngram_size > 0 && !encoder_tokens.empty()) {
    list.push_back(std::make_unique<EncoderNoRepeatNgram>(config.encoder_no_repeat_ngram_size, encoder_tokens));
  }
  if (!config.bad_words_ids.empty()) {
    // A bad word that is an end token on its own is not forbidden.
    auto words = config.bad_words_ids;
    std::erase_if(words, [&](const auto& word) {
      return word.size() == 1 &&
             std::find(config.eos_token_id.begin(), config.eos_token_id.end(), word[0]) != config.eos_token_id.end();
    });
    list.push_back(std::make_unique<NoBadWords>(std::move(words)));
  }
  const std::int64_t shortest =
      config.min_new_tokens ? prompt_length + *config.min_new_tokens : config.min_length;  // the former wins
  if (shortest > 0 && !config.eos_token_id.empty()) {
    list.push_back(std::make_unique<MinLength>(shortest, config.eos_token_id));
  }
  if (allowed_tokens) list.push_back(std::make_unique<AllowedTokens>(allowed_tokens));
  if (config.forced_bos_token_id) {
    list.push_back(std::make_unique<ForcedTokens>(1, std::vector<std::int64_t>{*config.forced_bos_token_id}));
  }
  if (!config.forced_eos_token_id.empty()) {
    list.push_back(std::make_unique<ForcedTokens>(max_length - 1, config.forced_eos_token_id));
  }
  if (config.remove_invalid_values) list.push_back(std::make_unique<RemoveInvalidValues>());
  if (config.exponential_decay_length_penalty) {
    list.push_back(
        std::make_unique<LengthDecay>(*config.exponential_decay_length_penalty, prompt_length, config.eos_token_id));
  }
  if (!config.suppress_tokens.empty()) {
    list.push_back(std::make_unique<SuppressTokens>(config.suppress_tokens, -1));
  }
  if (!config.begin_suppress_tokens.empty()) {
    const bool forced = config.forced_bos_token_id && prompt_length == 1;
    list.push_back(std::make_unique<SuppressTokens>(config.begin_suppress_tokens, prompt_length + forced));
  }
  if (config.do_sample) add_logits_warpers(config, list);
  if (config.renormalize_logits) list.push_back(std::make_unique<Renormalize>());
  return list;
}

void process(const LogitsProcessors& processors, Tokens tokens, std::span<float> scores) {
  for (const auto& processor : processors) processor->process(tokens, scores);
}

}  // namespace weft::runtime
