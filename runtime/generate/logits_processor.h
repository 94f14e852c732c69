// Changing the scores of the next token, in Hugging Face's order and with its rules.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/generate/config.h"

namespace weft::runtime {

// One row: the tokens so far (prompt or decoder start included) and the scores of the V next tokens.
class LogitsProcessor {
 public:
  LogitsProcessor() = default;
  LogitsProcessor(const LogitsProcessor&) = delete;
  LogitsProcessor& operator=(const LogitsProcessor&) = delete;
  virtual ~LogitsProcessor() = default;
  virtual void process(std::span<const std::int64_t> tokens, std::span<float> scores) const = 0;
};
using LogitsProcessors = std::vector<std::unique_ptr<LogitsProcessor>>;

// What config asks for, those of sampling included. prompt_length: tokens given (1 for encoder-decoder models);
// max_length: tokens at the end at most; encoder_tokens: what encoder_* options look at.
LogitsProcessors make_logits_processors(const GenerationConfig& config, std::int64_t prompt_length,
                                        std::int64_t max_length, std::span<const std::int64_t> encoder_tokens = {});

// Those that only sampling uses: temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff.
void add_logits_warpers(const GenerationConfig& config, LogitsProcessors& list);

void process(const LogitsProcessors& processors, std::span<const std::int64_t> tokens, std::span<float> scores);

}  // namespace weft::runtime
