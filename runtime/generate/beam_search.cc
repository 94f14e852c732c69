// Beam search as transformers does it since 4.50.
#include <algorithm>
#include <cmath>

#include "runtime/generate/distribution.h"
#include "runtime/generate/search_base.h"
#include "runtime/generate/strategies.h"

namespace weft::runtime {
namespace {

constexpr float kImpossible = -1.0e9f;

class BeamSearch final : public SearchBase {
 public:
  BeamSearch(const GenerationConfig& config, const Prompt& prompt, const Callbacks& callbacks)
      : SearchBase(config, prompt, callbacks), beams_(static_cast<std::size_t>(config.num_beams)) {
    make_processors(prompt, callbacks);
    Beam start;
    start.tokens.assign(prompt.tokens.begin(), prompt.tokens.end());
    running_.assign(beams_, start);
    for (std::size_t i = 1; i < beams_; ++i) running_[i].score = kImpossible;
    start.score = kImpossible;
    best_.assign(beams_, start);
    streamed_ = start.tokens.size();
    done_ = prompt_length_ >= max_length_;
  }

  std::int64_t rows() const override { return config_.num_beams; }
  bool done() const override { return done_; }

  std::vector<Pick> step(const StepScores& scores) override {
    const std::vector<Candidate> candidates = best_candidates(scores);
    const bool all_stop = std::all_of(candidates.begin(), candidates.end(),
                                      [](const Candidate& c) { return c.reason != StopReason::kNone; });
    update_finished(candidates);
    const std::vector<Pick> picks = continue_running(candidates);
    may_improve_ = may_improve_ && can_improve();
    const bool closed = config_.early_stopping == EarlyStopping::kTrue && all_finished();
    done_ = !may_improve_ || closed || all_stop;
    return picks;
  }

  std::vector<Hypothesis> results() const override {
    std::vector<Hypothesis> results;
    for (std::int64_t i = 0; i < config_.num_return_sequences; ++i) {
      const Beam& beam = best_[static_cast<std::size_t>(i)];
      results.push_back({beam.tokens, static_cast<double>(beam.score), beam.reason, beam.token_scores});
    }
    return results;
  }

  // What all sequences that may still be the best have in common.
  std::vector<std::pair<std::int64_t, std::int64_t>> settled() override {
    std::vector<const std::vector<std::int64_t>*> possible;
    if (done_) {
      possible.push_back(&best_[0].tokens);
    } else {
      for (const Beam& beam : running_) possible.push_back(&beam.tokens);
      for (const Beam& beam : best_) {
        if (beam.finished) possible.push_back(&beam.tokens);
      }
    }
    std::vector<std::pair<std::int64_t, std::int64_t>> result;
    const std::size_t end = common_prefix(possible);
    for (; streamed_ < end; ++streamed_) result.emplace_back(0, (*possible[0])[streamed_]);
    return result;
  }

  // Beams under way count as finished.
  void cancel() override {
    std::vector<Beam> all;
    for (const Beam& beam : best_) {
      if (beam.finished) all.push_back(beam);
    }
    for (Beam beam : running_) {
      if (length() > prompt_length_) beam.score /= penalty(length() - prompt_length_);
      beam.reason = StopReason::kCancelled;
      all.push_back(std::move(beam));
    }
    std::vector<float> scores;
    for (const Beam& beam : all) scores.push_back(beam.score);
    best_.clear();
    for (const std::size_t i : top(scores, beams_)) best_.push_back(all[i]);
    done_ = true;
  }

 private:
  std::int64_t length() const { return static_cast<std::int64_t>(running_[0].tokens.size()); }

  float penalty(std::int64_t generated) const {
    return static_cast<float>(std::pow(static_cast<double>(generated), config_.length_penalty));
  }

  bool all_finished() const {
    return std::all_of(best_.begin(), best_.end(), [](const Beam& beam) { return beam.finished; });
  }

  // Enough that num_beams of them go on when every end token is among them; best first.
  std::vector<Candidate> best_candidates(const StepScores& scores) {
    begin_step();
    const auto size = static_cast<std::size_t>(scores.vocabulary);
    std::vector<float> before;
    for (std::size_t row = 0; row < beams_; ++row) {
      const std::span<float> x = processed(scores, row, running_[row].tokens, true);
      if (records()) before.insert(before.end(), x.begin(), x.end());
      for (float& score : x) score += running_[row].score;
    }
    const std::size_t kept = std::max<std::size_t>(2, 1 + config_.eos_token_id.size()) * beams_;
    std::vector<Candidate> candidates;
    for (const std::size_t index : config_.do_sample ? drawn(scores.logits, kept) : top(scores.logits, kept)) {
      Candidate candidate;
      candidate.parent = index / size;
      candidate.token = static_cast<std::int64_t>(index % size);
      candidate.score = scores.logits[index];
      std::vector<std::int64_t> tokens = running_[candidate.parent].tokens;
      tokens.push_back(candidate.token);
      candidate.reason = stop_.check(tokens);
      if (candidate.reason == StopReason::kNone && scores.last) candidate.reason = StopReason::kTime;
      if (records()) {
        candidate.record = record(candidate.parent, index % size, static_cast<double>(before[index]));
      }
      candidates.push_back(std::move(candidate));
    }
    return candidates;
  }

  // Without replacement: the largest of logits with Gumbel noise (Vieira 2014) are a draw one after the other.
  std::vector<std::size_t> drawn(std::span<const float> logits, std::size_t count) const {
    std::vector<float> keys(logits.size());
    const auto step = static_cast<std::uint32_t>(length());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (logits[i] == -std::numeric_limits<float>::infinity()) {
        keys[i] = logits[i];
        continue;
      }
      const double u = uniform(config_.seed, stream_, 0, step, static_cast<std::uint32_t>(i));
      keys[i] = logits[i] + static_cast<float>(-std::log(-std::log(u)));
    }
    const std::vector<std::size_t> picked = top(keys, count);
    std::vector<float> scores;
    for (const std::size_t index : picked) scores.push_back(logits[index]);
    std::vector<std::size_t> sorted;
    for (const std::size_t i : top(scores, picked.size())) sorted.push_back(picked[i]);
    return sorted;
  }

  // Candidates among the first num_beams that stop compete with the best finished so far.
  void update_finished(const std::vector<Candidate>& candidates) {
    const bool full = config_.early_stopping == EarlyStopping::kTrue && all_finished();
    std::vector<float> scores;
    for (const Beam& beam : best_) scores.push_back(beam.score);
    const float divisor = penalty(length() + 1 - prompt_length_);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      float score = candidates[i].score / divisor;
      if (full) score += kImpossible;
      if (!may_improve_) score += kImpossible;
      if (!finishes(candidates, i)) score += kImpossible;
      scores.push_back(score);
    }
    std::vector<Beam> next;
    for (const std::size_t index : top(scores, beams_)) {
      if (index < beams_) {
        next.push_back(best_[index]);
        continue;
      }
      const Candidate& candidate = candidates[index - beams_];
      next.push_back(continued(running_[candidate.parent], candidate, records()));
      next.back().score = scores[index];
      next.back().finished = finishes(candidates, index - beams_);
      next.back().reason = candidate.reason;
    }
    best_ = std::move(next);
  }

  bool finishes(const std::vector<Candidate>& candidates, std::size_t i) const {
    return candidates[i].reason != StopReason::kNone && i < beams_;
  }

  std::vector<Pick> continue_running(const std::vector<Candidate>& candidates) {
    std::vector<float> scores;
    for (const Candidate& candidate : candidates) {
      scores.push_back(candidate.score + (candidate.reason != StopReason::kNone ? kImpossible : 0.0f));
    }
    std::vector<Beam> next;
    std::vector<Pick> picks;
    for (const std::size_t index : top(scores, beams_)) {
      const Candidate& candidate = candidates[index];
      next.push_back(continued(running_[candidate.parent], candidate, records()));
      next.back().score = scores[index];
      picks.push_back({static_cast<std::int64_t>(candidate.parent), candidate.token});
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

  std::size_t beams_;
  std::vector<Beam> running_;
  std::vector<Beam> best_;
  std::size_t streamed_ = 0;
  bool may_improve_ = true;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<Search> make_beam_search(const GenerationConfig& config, const Prompt& prompt,
                                         const Callbacks& callbacks) {
  return std::make_unique<BeamSearch>(config, prompt, callbacks);
}

}  // namespace weft::runtime
