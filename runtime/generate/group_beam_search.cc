// Diverse beam search as transformers does it up to 4.56: groups of beams, each with its own list of finished ones.
#include <algorithm>
#include <cmath>

#include "graph/error.h"
#include "runtime/generate/distribution.h"
#include "runtime/generate/search_base.h"
#include "runtime/generate/strategies.h"

namespace weft::runtime {
namespace {

constexpr float kImpossible = -1.0e9f;

struct Group {
  std::vector<Beam> running;
  std::vector<Hypothesis> finished;  // as they were added
  double worst = 1.0e9;
  bool done = false;
};

class GroupBeamSearch final : public SearchBase {
 public:
  GroupBeamSearch(const GenerationConfig& config, const Prompt& prompt, const Callbacks& callbacks)
      : SearchBase(config, prompt, callbacks),
        size_(static_cast<std::size_t>(config.num_beams / config.num_beam_groups)) {
    make_processors(prompt, callbacks, &chosen_);
    Beam start;
    start.tokens.assign(prompt.tokens.begin(), prompt.tokens.end());
    streamed_ = start.tokens.size();
    Group group;
    group.running.assign(size_, start);
    for (std::size_t i = 1; i < size_; ++i) group.running[i].score = kImpossible;
    groups_.assign(static_cast<std::size_t>(config.num_beam_groups), group);
    if (prompt_length_ >= max_length_) finish();
  }

  std::int64_t rows() const override { return config_.num_beams; }
  bool done() const override { return done_; }

  std::vector<Pick> step(const StepScores& scores) override {
    begin_step();
    chosen_.clear();
    std::vector<Pick> picks;
    for (std::size_t g = 0; g < groups_.size(); ++g) step_group(scores, g, picks);
    bool all_stop = true;
    for (const Group& group : groups_) {
      for (const Beam& beam : group.running) all_stop = all_stop && (scores.last || beam.reason != StopReason::kNone);
    }
    const bool all_done = std::all_of(groups_.begin(), groups_.end(), [](const Group& group) { return group.done; });
    if (all_done || all_stop) finish(scores.last ? StopReason::kTime : StopReason::kNone);
    return picks;
  }

  std::vector<Hypothesis> results() const override { return results_; }

  std::vector<std::pair<std::int64_t, std::int64_t>> settled() override {
    std::vector<std::pair<std::int64_t, std::int64_t>> result;
    if (!done_) return result;  // groups are there to disagree
    for (; streamed_ < results_[0].tokens.size(); ++streamed_) result.emplace_back(0, results_[0].tokens[streamed_]);
    return result;
  }

  void cancel() override { finish(StopReason::kCancelled); }

 private:
  std::int64_t padding() const {
    return config_.pad_token_id ? *config_.pad_token_id : config_.eos_token_id.empty() ? 0 : config_.eos_token_id[0];
  }

  void step_group(const StepScores& scores, std::size_t g, std::vector<Pick>& picks) {
    Group& group = groups_[g];
    const auto width = static_cast<std::size_t>(scores.vocabulary);
    std::vector<float> all;
    for (std::size_t i = 0; i < size_; ++i) {
      const auto x = processed(scores, g * size_ + i, group.running[i].tokens, true);
      for (const float score : x) all.push_back(score + group.running[i].score);
    }
    std::vector<Candidate> next;
    const std::vector<std::size_t> order = top(all, std::max<std::size_t>(2, 1 + config_.eos_token_id.size()) * size_);
    for (std::size_t rank = 0; rank < order.size() && next.size() < size_ && !group.done; ++rank) {
      Candidate candidate;
      candidate.parent = order[rank] / width;
      candidate.token = static_cast<std::int64_t>(order[rank] % width);
      candidate.score = all[order[rank]];
      const Beam& parent = group.running[candidate.parent];
      if (records()) {
        candidate.record = record(g * size_ + candidate.parent, order[rank] % width,
                                  static_cast<double>(candidate.score - parent.score));
      }
      if (!stop_.is_end_token(candidate.token))
        next.push_back(std::move(candidate));
      else if (rank < size_)
        add_finished(group, parent, candidate);
    }
    if (group.done) next.assign(size_, {0, padding(), 0, StopReason::kNone, {}});
    if (next.size() < size_)
      fail(ErrorCode::kInvalidArgument, "generation: these options leave too few tokens for beams");
    if (!group.done) group.done = is_done(group, all[order[0]]);
    std::vector<Beam> running;
    for (const Candidate& candidate : next) {
      running.push_back(continued(group.running[candidate.parent], candidate, records()));
      running.back().reason = stop_.check(running.back().tokens);
      chosen_.push_back(candidate.token);
      picks.push_back({static_cast<std::int64_t>(g * size_ + candidate.parent), candidate.token});
    }
    group.running = std::move(running);
  }

  double penalized(double score, std::int64_t generated) const {
    return score / std::pow(static_cast<double>(generated), config_.length_penalty);
  }

  // The end token is not written yet, see finish().
  void add_finished(Group& group, const Beam& parent, const Candidate& candidate) {
    Beam beam = parent;
    beam.score = candidate.score;
    beam.reason = StopReason::kEndToken;
    if (records()) beam.token_scores.push_back(candidate.record);
    add(group, beam, length_of(parent) + 1 - prompt_length_);
  }

  static std::int64_t length_of(const Beam& beam) { return static_cast<std::int64_t>(beam.tokens.size()); }

  // Keeps the best, as many as a group has beams.
  void add(Group& group, const Beam& beam, std::int64_t generated) {
    const double score = penalized(static_cast<double>(beam.score), generated);
    if (group.finished.size() >= size_ && score <= group.worst) return;
    group.finished.push_back({beam.tokens, score, beam.reason, beam.token_scores});
    const auto lower = [](const Hypothesis& a, const Hypothesis& b) { return a.score < b.score; };
    if (group.finished.size() > size_)
      group.finished.erase(std::min_element(group.finished.begin(), group.finished.end(), lower));
    group.worst = std::min_element(group.finished.begin(), group.finished.end(), lower)->score;
  }

  bool is_done(const Group& group, float best) const {
    if (group.finished.size() < size_) return false;
    if (config_.early_stopping == EarlyStopping::kTrue) return true;
    const bool optimistic = config_.early_stopping == EarlyStopping::kNever && config_.length_penalty > 0;
    const std::int64_t generated = (optimistic ? max_length_ : length_of(group.running[0]) + 1) - prompt_length_;
    return group.worst >= penalized(static_cast<double>(best), generated);
  }

  // Beams under way join the finished ones of their group; the best of all groups are the results.
  void finish(StopReason reason = StopReason::kNone) {
    std::vector<Hypothesis> all;
    for (Group& group : groups_) {
      for (const Beam& beam : group.running) {
        if (group.done) break;
        Beam open = beam;
        if (reason != StopReason::kNone) open.reason = reason;
        add(group, open, std::max<std::int64_t>(1, length_of(beam) - prompt_length_));
      }
      all.insert(all.end(), group.finished.begin(), group.finished.end());
    }
    std::reverse(all.begin(), all.end());  // later ones first among equals
    std::vector<float> scores;
    for (const Hypothesis& one : all) scores.push_back(static_cast<float>(one.score));
    results_.clear();
    for (const std::size_t index : top(scores, static_cast<std::size_t>(config_.num_return_sequences))) {
      results_.push_back(all[index]);
    }
    for (Hypothesis& result : results_) {
      if (result.stopped == StopReason::kEndToken && !config_.eos_token_id.empty())
        result.tokens.push_back(config_.eos_token_id[0]);
    }
    done_ = true;
  }

  std::size_t size_;  // beams of a group
  std::vector<Group> groups_;
  std::vector<std::int64_t> chosen_;  // in this step, by the groups before
  std::vector<Hypothesis> results_;
  std::size_t streamed_ = 0;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<Search> make_group_beam_search(const GenerationConfig& config, const Prompt& prompt,
                                               const Callbacks& callbacks) {
  return std::make_unique<GroupBeamSearch>(config, prompt, callbacks);
}

}  // namespace weft::runtime
