// How to generate: the options of Hugging Face's GenerationConfig that weft knows, with its defaults.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft::runtime {

enum class EarlyStopping : std::uint8_t { kFalse, kTrue, kNever };

struct GenerationConfig {
  // Length. max_new_tokens wins over max_length (which counts the prompt of decoder-only models and the
  // decoder start token of encoder-decoder ones).
  std::int64_t max_length = 20;
  std::optional<std::int64_t> max_new_tokens;
  std::int64_t min_length = 0;
  std::optional<std::int64_t> min_new_tokens;

  // Beam search.
  std::int64_t num_beams = 1;
  std::int64_t num_return_sequences = 1;
  double length_penalty = 1.0;
  EarlyStopping early_stopping = EarlyStopping::kFalse;

  // Logits processors.
  double repetition_penalty = 1.0;
  std::int64_t no_repeat_ngram_size = 0;
  std::vector<std::vector<std::int64_t>> bad_words_ids;
  std::vector<std::int64_t> suppress_tokens;
  std::vector<std::int64_t> begin_suppress_tokens;
  std::optional<std::int64_t> forced_bos_token_id;
  std::vector<std::int64_t> forced_eos_token_id;

  // Tokens.
  std::vector<std::int64_t> eos_token_id;
  std::optional<std::int64_t> pad_token_id;
  std::optional<std::int64_t> bos_token_id;
  std::optional<std::int64_t> decoder_start_token_id;
};

// Error kInvalidArgument naming the option that makes no sense.
void validate(const GenerationConfig& config);

// Names of all options, as in generation_config.json.
const std::vector<std::string>& generation_option_names();

}  // namespace weft::runtime
