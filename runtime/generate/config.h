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

  // Sampling. Drawn by a counter-based generator from seed (which is weft's own), the prompt's number and the step: the
  // same on every machine, whatever is decoded beside it.
  bool do_sample = false;
  std::uint64_t seed = 0;
  double temperature = 1.0;
  std::int64_t top_k = 50;
  double top_p = 1.0;
  std::optional<double> min_p;
  double typical_p = 1.0;
  double epsilon_cutoff = 0.0;
  double eta_cutoff = 0.0;

  // Beam search.
  std::int64_t num_beams = 1;
  std::int64_t num_return_sequences = 1;
  double length_penalty = 1.0;
  EarlyStopping early_stopping = EarlyStopping::kFalse;

  // Logits processors.
  struct SequenceBias {
    std::vector<std::int64_t> tokens;
    double bias = 0;
  };
  std::vector<SequenceBias> sequence_bias;
  double encoder_repetition_penalty = 1.0;  // of tokens of the source (decoder-only: of the prompt)
  double repetition_penalty = 1.0;
  std::int64_t no_repeat_ngram_size = 0;
  std::int64_t encoder_no_repeat_ngram_size = 0;
  bool remove_invalid_values = false;
  struct LengthDecay {
    std::int64_t start = 0;  // tokens generated
    double factor = 1;
  };
  std::optional<LengthDecay> exponential_decay_length_penalty;
  bool renormalize_logits = false;
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

// Options set to something that this strategy does not look at: "top_k" without do_sample, say.
std::vector<std::string> ignored_options(const GenerationConfig& config);

// Names of all options, as in generation_config.json.
const std::vector<std::string>& generation_option_names();

}  // namespace weft::runtime
