// How to generate: the options of Hugging Face's GenerationConfig that weft knows, with its defaults.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft::runtime {

enum class EarlyStopping : std::uint8_t { kFalse, kTrue, kNever };

struct GenerationConfig {
  // Length. max_new_tokens wins over max_length (which counts the prompt of decoder-only models and the decoder start
  // token of encoder-decoder ones). Neither: 20 new tokens, but no more positions than the model has.
  std::optional<std::int64_t> max_length;
  std::optional<std::int64_t> max_new_tokens;
  std::optional<std::int64_t> max_position_embeddings;  // of config.json
  std::int64_t min_length = 0;
  std::optional<std::int64_t> min_new_tokens;
  // What ends a sequence beside eos_token_id: a text that it contains (needs Callbacks::decode), seconds since the
  // call.
  std::vector<std::string> stop_strings;
  std::optional<double> max_time;

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
  // Diverse beam search (Vijayakumar et al. 2016): groups one after the other, tokens that groups before have just
  // chosen cost diversity_penalty each.
  std::int64_t num_beam_groups = 1;
  double diversity_penalty = 0.0;

  // Speculation: several tokens are guessed and checked in one run. Tokens stay those without it. Guessed from what
  // followed the last max_matching_ngram_size tokens before (prompt_lookup_num_tokens of them), or by an assistant
  // model.
  std::optional<std::int64_t> prompt_lookup_num_tokens;
  std::int64_t max_matching_ngram_size = 2;
  std::int64_t num_assistant_tokens = 20;

  // Logits processors.
  struct SequenceBias {
    std::vector<std::int64_t> tokens;
    double bias = 0;
  };
  // Classifier-free guidance: scale * (scores - unconditional ones) + unconditional ones, of
  // Request::negative_prompt_ids.
  std::optional<double> guidance_scale;
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

  // Options that the model's folder sets for every use: they may have no effect without a warning.
  std::vector<std::string> folder_defaults;
  // Options that were accepted, and say what weft does not do or does otherwise, without an effect on tokens.
  std::vector<std::string> without_effect;

  // What is reported of every token generated: its scores, and (weft's own) so many likeliest tokens beside it.
  bool output_scores = false;
  bool output_attentions = false;  // by AttentionReader, after generating; generate() does not look at it
  std::int64_t top_logprobs = 0;
};

// Error kInvalidArgument naming the option that makes no sense.
void validate(const GenerationConfig& config);

// Options set to something that this strategy does not look at: "top_k" without do_sample, say.
std::vector<std::string> ignored_options(const GenerationConfig& config);

// Names of all options, as in generation_config.json.
const std::vector<std::string>& generation_option_names();

}  // namespace weft::runtime
