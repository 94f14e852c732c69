#include "runtime/generate/speculation.h"

#include <algorithm>

#include "runtime/cache.h"
#include "runtime/generate/search.h"

namespace weft::runtime {
namespace {

// What is wrong of it must be within what caches can forget.
constexpr std::int64_t kLongestDraft = CacheState::kTakenBack - 1;

class PromptLookup final : public Drafter {
 public:
  PromptLookup(const GenerationConfig& config, std::int64_t prompt_length)
      : count_(std::min(*config.prompt_lookup_num_tokens, kLongestDraft)),
        longest_(config.max_matching_ngram_size),
        max_length_(max_sequence_length(config, prompt_length)) {}

  std::vector<std::int64_t> propose(std::span<const std::int64_t> sequence) override {
    const std::int64_t length = std::ssize(sequence);
    const std::int64_t room = std::min(count_, max_length_ - length - 1);
    for (std::int64_t n = std::min(longest_, length - 1); n > 0 && room > 0; --n) {
      const auto end = sequence.last(static_cast<std::size_t>(n));
      const auto found = std::search(sequence.begin(), sequence.end() - 1, end.begin(), end.end());
      if (found == sequence.end() - 1) continue;
      const auto from = found + n;
      return {from, from + std::min<std::int64_t>(room, sequence.end() - from)};
    }
    return {};
  }

 private:
  std::int64_t count_, longest_, max_length_;
};

class Assistant final : public Drafter {
 public:
  Assistant(const GenerationConfig& config, TokenModel& model, Source source, std::uint32_t stream)
      : config_(config), model_(model), source_(std::move(source)), stream_(stream) {
    max_length_ = max_sequence_length(config, std::ssize(source_.prompt));
    config_.max_length.reset();
    config_.stop_strings.clear();
    config_.output_scores = false;
    config_.top_logprobs = 0;
  }

  std::vector<std::int64_t> propose(std::span<const std::int64_t> sequence) override {
    const std::int64_t most = std::min(config_.num_assistant_tokens, kLongestDraft);
    const std::int64_t room = std::min(most, max_length_ - std::ssize(sequence) - 1);
    if (room <= 0) return {};
    GenerationConfig config = config_;
    config.max_new_tokens = room;
    const auto search = make_search(config, {sequence, source_.encoder_tokens, stream_, 0});
    std::vector<std::int64_t> draft;
    Logits logits = read(sequence);
    for (;;) {
      const auto last = std::span(logits.values).last(static_cast<std::size_t>(logits.vocabulary));
      const std::vector<Pick> picks = search->step({last, logits.vocabulary, {}, false});
      draft.push_back(search->results()[0].tokens.back());
      if (search->done()) return draft;
      read_.push_back(picks[0].token);
      logits = model_.extend({&read_.back(), 1});
    }
  }

 private:
  // The scores after this sequence, of which most has been read before.
  Logits read(std::span<const std::int64_t> sequence) {
    if (read_.empty()) {
      read_ = source_.prompt;
      model_.start({&source_, 1});
    }
    const auto differs = std::mismatch(read_.begin(), read_.end(), sequence.begin(), sequence.end() - 1).first;
    read_.erase(differs, read_.end());
    model_.truncate(std::ssize(read_));
    const auto rest = sequence.subspan(read_.size());
    read_.insert(read_.end(), rest.begin(), rest.end());
    return model_.extend(rest);
  }

  GenerationConfig config_;
  TokenModel& model_;
  Source source_;
  std::uint32_t stream_;
  std::int64_t max_length_ = 0;
  std::vector<std::int64_t> read_;  // what the model has seen
};

}  // namespace

std::unique_ptr<Drafter> make_prompt_lookup(const GenerationConfig& config, std::int64_t prompt_length) {
  return std::make_unique<PromptLookup>(config, prompt_length);
}

std::unique_ptr<Drafter> make_assistant(const GenerationConfig& config, TokenModel& assistant, Source source,
                                        std::uint32_t stream) {
  return std::make_unique<Assistant>(config, assistant, std::move(source), stream);
}

}  // namespace weft::runtime
