#include "runtime/generate/search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/generate/distribution.h"

namespace weft::runtime {
namespace {

constexpr float kImpossible = -1.0e9f;

bool contains(std::span<const std::int64_t> tokens, std::int64_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

class GreedySearch final : public Search {
 public:
  GreedySearch(const GenerationConfig& config, const Prompt& prompt)
      : config_(config),
        tokens_(prompt.tokens.begin(), prompt.tokens.end()),
        max_length_(max_sequence_length(config, static_cast<std::int64_t>(tokens_.size()))),
        processors_(make_logits_processors(config, static_cast<std::int64_t>(tokens_.size()), max_length_,
                                           prompt.encoder_tokens)) {
    done_ = static_cast<std::int64_t>(tokens_.size()) >= max_length_;
  }

  std::int64_t rows() const override { return 1; }
  bool done() const override { return done_; }

  std::vector<Pick> step(std::span<float> logits, std::int64_t /*vocabulary*/) override {
    process(processors_, tokens_, logits);
    const auto best = std::max_element(logits.begin(), logits.end());
    const std::int64_t token = best - logits.begin();
    tokens_.push_back(token);
    done_ = contains(config_.eos_token_id, token) || static_cast<std::int64_t>(tokens_.size()) >= max_length_;
    return {{0, token}};
  }

  std::vector<Hypothesis> results() const override { return {{tokens_, 0}}; }

 private:
  GenerationConfig config_;
  std::vector<std::int64_t> tokens_;
  std::int64_t max_length_;
  LogitsProcessors processors_;
  bool done_ = false;
};

// Rows are samples; one that ends leaves.
class SamplingSearch final : public Search {
 public:
  SamplingSearch(const GenerationConfig& config, const Prompt& prompt)
      : config_(config),
        stream_(prompt.stream),
        max_length_(max_sequence_length(config, static_cast<std::int64_t>(prompt.tokens.size()))),
        processors_(make_logits_processors(config, static_cast<std::int64_t>(prompt.tokens.size()), max_length_,
                                           prompt.encoder_tokens)) {
    samples_.assign(static_cast<std::size_t>(config.num_return_sequences),
                    {prompt.tokens.begin(), prompt.tokens.end()});
    if (static_cast<std::int64_t>(prompt.tokens.size()) < max_length_) {
      active_.resize(samples_.size());
      std::iota(active_.begin(), active_.end(), 0);
    }
  }

  std::int64_t rows() const override { return static_cast<std::int64_t>(active_.size()); }
  bool done() const override { return active_.empty(); }

  std::vector<Pick> step(std::span<float> logits, std::int64_t vocabulary) override {
    const auto size = static_cast<std::size_t>(vocabulary);
    std::vector<Pick> picks;
    std::vector<std::size_t> going_on;
    for (std::size_t row = 0; row < active_.size(); ++row) {
      std::vector<std::int64_t>& tokens = samples_[active_[row]];
      const std::span<float> scores = logits.subspan(row * size, size);
      process(processors_, tokens, scores);
      const double u = uniform(config_.seed, stream_, static_cast<std::uint32_t>(active_[row]),
                               static_cast<std::uint32_t>(tokens.size()), 0);
      const auto token = static_cast<std::int64_t>(draw(softmax(scores), u));
      tokens.push_back(token);
      if (contains(config_.eos_token_id, token) || static_cast<std::int64_t>(tokens.size()) >= max_length_) continue;
      going_on.push_back(active_[row]);
      picks.push_back({static_cast<std::int64_t>(row), token});
    }
    active_ = std::move(going_on);
    return picks;
  }

  std::vector<Hypothesis> results() const override {
    std::vector<Hypothesis> results;
    for (const auto& tokens : samples_) results.push_back({tokens, 0});
    return results;
  }

 private:
  GenerationConfig config_;
  std::uint32_t stream_;
  std::int64_t max_length_;
  LogitsProcessors processors_;
  std::vector<std::vector<std::int64_t>> samples_;
  std::vector<std::size_t> active_;  // which samples the rows are
};

class BeamSearch final : public Search {
 public:
  BeamSearch(const GenerationConfig& config, const Prompt& prompt)
      : config_(config),
        stream_(prompt.stream),
        beams_(static_cast<std::size_t>(config.num_beams)),
        prompt_length_(static_cast<std::int64_t>(prompt.tokens.size())),
        max_length_(max_sequence_length(config, prompt_length_)),
        processors_(make_logits_processors(config, prompt_length_, max_length_, prompt.encoder_tokens)) {
    const Beam start{{prompt.tokens.begin(), prompt.tokens.end()}, 0, false};
    running_.assign(beams_, start);
    for (std::size_t i = 1; i < beams_; ++i) running_[i].score = kImpossible;
    best_.assign(beams_, {{prompt.tokens.begin(), prompt.tokens.end()}, kImpossible, false});
    done_ = prompt_length_ >= max_length_;
  }

  std::int64_t rows() const override { return config_.num_beams; }
  bool done() const override { return done_; }

  std::vector<Pick> step(std::span<float> logits, std::int64_t vocabulary) override {
    const auto size = static_cast<std::size_t>(vocabulary);
    for (std::size_t row = 0; row < beams_; ++row) {
      const std::span<float> scores = logits.subspan(row * size, size);
      log_softmax(scores);
      process(processors_, running_[row].tokens, scores);
      for (float& score : scores) score += running_[row].score;
    }
    const std::size_t kept = std::max<std::size_t>(2, 1 + config_.eos_token_id.size()) * beams_;
    std::vector<Candidate> candidates;
    bool all_stop = true;
    for (const std::size_t index : config_.do_sample ? drawn(logits, kept) : top(logits, kept)) {
      Candidate candidate;
      candidate.parent = index / size;
      candidate.token = static_cast<std::int64_t>(index % size);
      candidate.score = logits[index];
      candidate.stops = contains(config_.eos_token_id, candidate.token) || length() + 1 >= max_length_;
      all_stop = all_stop && candidate.stops;
      candidates.push_back(candidate);
    }
    update_finished(candidates);
    const std::vector<Pick> picks = continue_running(candidates);
    may_improve_ = may_improve_ && can_improve();
    const bool all_finished = std::all_of(best_.begin(), best_.end(), [](const Beam& beam) { return beam.finished; });
    const bool closed = all_finished && config_.early_stopping == EarlyStopping::kTrue;
    done_ = !may_improve_ || closed || all_stop;
    return picks;
  }

  std::vector<Hypothesis> results() const override {
    std::vector<Hypothesis> results;
    for (std::int64_t i = 0; i < config_.num_return_sequences; ++i) {
      const Beam& beam = best_[static_cast<std::size_t>(i)];
      results.push_back({beam.tokens, static_cast<double>(beam.score)});
    }
    return results;
  }

 private:
  struct Beam {
    std::vector<std::int64_t> tokens;
    float score = 0;
    bool finished = false;
  };
  struct Candidate {
    std::size_t parent = 0;
    std::int64_t token = 0;
    float score = 0;
    bool stops = false;
  };

  // Without replacement: the largest of logits with Gumbel noise (Vieira 2014) are a draw one after the other.
  std::vector<std::size_t> drawn(std::span<const float> logits, std::size_t count) const {
    std::vector<float> keys(logits.size());
    const auto step = static_cast<std::uint32_t>(length());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const double u = uniform(config_.seed, stream_, 0, step, static_cast<std::uint32_t>(i));
      keys[i] = logits[i] + static_cast<float>(-std::log(-std::log(u)));
    }
    return top(keys, count);
  }

  std::int64_t length() const { return static_cast<std::int64_t>(running_[0].tokens.size()); }

  float penalty(std::int64_t generated) const {
    return static_cast<float>(std::pow(static_cast<double>(generated), config_.length_penalty));
  }

  Beam continued(const Candidate& candidate) const {
    Beam beam = running_[candidate.parent];
    beam.tokens.push_back(candidate.token);
    beam.score = candidate.score;
    return beam;
  }

  // Candidates among the first num_beams that stop compete with the best finished so far.
  void update_finished(const std::vector<Candidate>& candidates) {
    const bool full = config_.early_stopping == EarlyStopping::kTrue &&
                      std::all_of(best_.begin(), best_.end(), [](const Beam& beam) { return beam.finished; });
    std::vector<Beam> merged = best_;
    std::vector<float> scores;
    for (const Beam& beam : merged) scores.push_back(beam.score);
    const float divisor = penalty(length() + 1 - prompt_length_);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const bool finishes = candidates[i].stops && i < beams_;
      float score = candidates[i].score / divisor;
      if (full) score += kImpossible;
      if (!may_improve_) score += kImpossible;
      if (!finishes) score += kImpossible;
      Beam beam = continued(candidates[i]);
      beam.score = score;
      beam.finished = finishes;
      scores.push_back(score);
      merged.push_back(std::move(beam));
    }
    std::vector<Beam> next;
    for (const std::size_t index : top(scores, beams_)) next.push_back(merged[index]);
    best_ = std::move(next);
  }

  std::vector<Pick> continue_running(const std::vector<Candidate>& candidates) {
    std::vector<float> scores;
    for (const Candidate& candidate : candidates) {
      scores.push_back(candidate.score + (candidate.stops ? kImpossible : 0.0f));
    }
    std::vector<Beam> next;
    std::vector<Pick> picks;
    for (const std::size_t index : top(scores, beams_)) {
      next.push_back(continued(candidates[index]));
      next.back().score = scores[index];
      picks.push_back({static_cast<std::int64_t>(candidates[index].parent), candidates[index].token});
    }
    running_ = std::move(next);
    return picks;
  }

  // Could the best running beam still beat the worst of the finished ones?
  bool can_improve() const {
    const bool optimistic = config_.early_stopping == EarlyStopping::kNever && config_.length_penalty > 0;
    const std::int64_t generated = (optimistic ? max_length_ : length()) - prompt_length_;
    const float possible = running_[0].score / penalty(generated);
    float worst = best_[0].score;
    for (const Beam& beam : best_) worst = std::min(worst, beam.score);
    return std::any_of(best_.begin(), best_.end(),
                       [&](const Beam& beam) { return possible > (beam.finished ? worst : kImpossible); });
  }

  GenerationConfig config_;
  std::uint32_t stream_;
  std::size_t beams_;
  std::int64_t prompt_length_;
  std::int64_t max_length_;
  LogitsProcessors processors_;
  std::vector<Beam> running_;
  std::vector<Beam> best_;
  bool may_improve_ = true;
  bool done_ = false;
};

}  // namespace

std::int64_t max_sequence_length(const GenerationConfig& config, std::int64_t prompt_length) {
  return config.max_new_tokens ? prompt_length + *config.max_new_tokens : config.max_length;
}

std::unique_ptr<Search> make_search(const GenerationConfig& config, const Prompt& prompt) {
  if (config.num_beams > 1) return std::make_unique<BeamSearch>(config, prompt);
  if (config.do_sample) return std::make_unique<SamplingSearch>(config, prompt);
  return std::make_unique<GreedySearch>(config, prompt);
}

}  // namespace weft::runtime
