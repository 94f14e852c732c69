// Greedy search and sampling: rows that go on each for itself.
#include <algorithm>
#include <cmath>

#include "graph/error.h"
#include "runtime/generate/distribution.h"
#include "runtime/generate/search_base.h"
#include "runtime/generate/strategies.h"

namespace weft::runtime {
namespace {

// A row that ends leaves.
class TokenSearch final : public SearchBase {
 public:
  TokenSearch(const GenerationConfig& config, const Prompt& prompt, const Callbacks& callbacks)
      : SearchBase(config, prompt, callbacks) {
    make_processors(prompt, callbacks);
    Beam start;
    start.tokens.assign(prompt.tokens.begin(), prompt.tokens.end());
    sequences_.assign(static_cast<std::size_t>(config.num_return_sequences), start);
    if (prompt_length_ >= max_length_) return;
    for (std::size_t i = 0; i < sequences_.size(); ++i) active_.push_back(i);
  }

  std::int64_t rows() const override { return static_cast<std::int64_t>(active_.size()); }
  bool done() const override { return active_.empty(); }

  std::vector<Pick> step(const StepScores& scores) override {
    begin_step();
    std::vector<Pick> picks;
    std::vector<std::size_t> going_on;
    for (std::size_t row = 0; row < active_.size(); ++row) {
      Beam& sequence = sequences_[active_[row]];
      const std::span<const float> x = processed(scores, row, sequence.tokens, false);
      const std::size_t token = choose(x, active_[row], sequence.tokens.size());
      sequence.tokens.push_back(static_cast<std::int64_t>(token));
      if (records()) sequence.token_scores.push_back(record(row, token, static_cast<double>(x[token])));
      settled_.emplace_back(active_[row], token);
      sequence.reason = stop_.check(sequence.tokens);
      if (sequence.reason == StopReason::kNone && scores.last) sequence.reason = StopReason::kTime;
      if (sequence.reason != StopReason::kNone) continue;
      going_on.push_back(active_[row]);
      picks.push_back({static_cast<std::int64_t>(row), static_cast<std::int64_t>(token)});
    }
    active_ = std::move(going_on);
    return picks;
  }

  std::vector<Hypothesis> results() const override {
    std::vector<Hypothesis> results;
    for (const Beam& s : sequences_) results.push_back({s.tokens, 0, s.reason, s.token_scores});
    return results;
  }

  std::vector<std::pair<std::int64_t, std::int64_t>> settled() override { return std::exchange(settled_, {}); }

  void cancel() override {
    for (const std::size_t i : active_) sequences_[i].reason = StopReason::kCancelled;
    active_.clear();
  }

 private:
  std::size_t choose(std::span<const float> x, std::size_t sequence, std::size_t position) const {
    const std::size_t best = top(x, 1)[0];
    if (x[best] == -std::numeric_limits<float>::infinity()) {
      fail(ErrorCode::kInvalidArgument, "generation: these options leave no token after {} tokens", position);
    }
    if (!config_.do_sample) return best;
    const double u =
        uniform(config_.seed, stream_, static_cast<std::uint32_t>(sequence), static_cast<std::uint32_t>(position), 0);
    return draw(softmax(x), u);
  }

  std::vector<Beam> sequences_;
  std::vector<std::size_t> active_;  // which sequences the rows are
  std::vector<std::pair<std::int64_t, std::int64_t>> settled_;
};

}  // namespace

std::unique_ptr<Search> make_token_search(const GenerationConfig& config, const Prompt& prompt,
                                          const Callbacks& callbacks) {
  return std::make_unique<TokenSearch>(config, prompt, callbacks);
}

}  // namespace weft::runtime
