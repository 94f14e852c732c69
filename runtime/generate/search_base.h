// What strategies share.
#pragma once

#include <span>
#include <vector>

#include "runtime/generate/logits_processor.h"
#include "runtime/generate/search.h"

namespace weft::runtime {

using Tokens = std::span<const std::int64_t>;

class SearchBase : public Search {
 protected:
  SearchBase(const GenerationConfig& config, const Prompt& prompt, const Callbacks& callbacks);
  void make_processors(const Prompt& prompt, const Callbacks& callbacks,
                       const std::vector<std::int64_t>* chosen = nullptr);

  // In place: the processed scores of row `row`, whose tokens so far are given. as_log_probabilities: processors see
  // those instead of logits, as they do in beam search.
  std::span<float> processed(const StepScores& scores, std::size_t row, Tokens tokens, bool as_log_probabilities);
  bool records() const { return config_.output_scores || config_.top_logprobs > 0; }
  // Of a token of the row that was processed `row`-th in this step.
  TokenScore record(std::size_t row, std::size_t token, double score) const;
  // Forgets what was recorded of the last step.
  void begin_step() { raw_.clear(); }

  GenerationConfig config_;
  std::int64_t prompt_length_;
  std::int64_t max_length_;
  std::uint32_t stream_;
  StopRule stop_;
  LogitsProcessors processors_;

 private:
  std::vector<std::vector<float>> raw_;  // log-probabilities before processors
};

// A sequence in the making.
struct Beam {
  std::vector<std::int64_t> tokens;
  float score = 0;
  bool finished = false;
  StopReason reason = StopReason::kNone;
  std::vector<TokenScore> token_scores;
};

struct Candidate {
  std::size_t parent = 0;
  std::int64_t token = 0;
  float score = 0;
  StopReason reason = StopReason::kNone;
  TokenScore record;
};

// The parent with the candidate's token.
Beam continued(const Beam& parent, const Candidate& candidate, bool records);

// How far all these sequences are the same.
std::size_t common_prefix(std::span<const std::vector<std::int64_t>* const> sequences);

}  // namespace weft::runtime
