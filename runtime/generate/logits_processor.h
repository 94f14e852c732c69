// Changing the scores of the next token, in Hugging Face's order and with its rules.
#pragma once

#include <functional>
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

// What processors know beside the configuration.
struct ProcessorContext {
  std::int64_t prompt_length = 0;                // tokens given (1 for encoder-decoder models)
  std::int64_t max_length = 0;                   // tokens at the end at most
  std::span<const std::int64_t> encoder_tokens;  // what encoder_* options look at
  // Tokens that may follow; empty: all.
  std::function<std::vector<std::int64_t>(std::span<const std::int64_t> tokens)> allowed_tokens;
  const std::vector<std::int64_t>* chosen = nullptr;  // what earlier groups of beams chose in this step
};

// What config asks for, those of sampling included.
LogitsProcessors make_logits_processors(const GenerationConfig& config, const ProcessorContext& context);

// Those that only sampling uses: temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff.
void add_logits_warpers(const GenerationConfig& config, LogitsProcessors& list);

void process(const LogitsProcessors& processors, std::span<const std::int64_t> tokens, std::span<float> scores);

}  // namespace weft::runtime
