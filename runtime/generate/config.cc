#include "runtime/generate/config.h"

#include <algorithm>

#include "graph/error.h"

namespace weft::runtime {

void validate(const GenerationConfig& config) {
  const auto require = [](bool holds, std::string_view what) {
    if (!holds) fail(ErrorCode::kInvalidArgument, "generation: {}", what);
  };
  require(config.num_beams >= 1, "num_beams must be at least 1");
  require(config.num_return_sequences >= 1, "num_return_sequences must be at least 1");
  require(config.num_return_sequences <= config.num_beams || (config.do_sample && config.num_beams == 1),
          "num_return_sequences must not exceed num_beams, except when sampling without beams");
  require(config.temperature > 0, "temperature must be positive");
  require(config.top_k >= 0, "top_k must not be negative");
  require(config.top_p >= 0 && config.top_p <= 1, "top_p must be in [0, 1]");
  require(!config.min_p || (*config.min_p >= 0 && *config.min_p <= 1), "min_p must be in [0, 1]");
  require(config.typical_p > 0 && config.typical_p <= 1, "typical_p must be in (0, 1]");
  require(config.epsilon_cutoff >= 0 && config.epsilon_cutoff < 1, "epsilon_cutoff must be in [0, 1)");
  require(config.eta_cutoff >= 0 && config.eta_cutoff < 1, "eta_cutoff must be in [0, 1)");
  require(config.encoder_repetition_penalty > 0, "encoder_repetition_penalty must be positive");
  require(config.encoder_no_repeat_ngram_size >= 0, "encoder_no_repeat_ngram_size must not be negative");
  require(!config.max_new_tokens || *config.max_new_tokens > 0, "max_new_tokens must be positive");
  require(!config.max_length || *config.max_length > 0, "max_length must be positive");
  require(!config.max_time || *config.max_time >= 0, "max_time must not be negative");
  require(!config.prompt_lookup_num_tokens || *config.prompt_lookup_num_tokens > 0,
          "prompt_lookup_num_tokens must be positive");
  require(config.max_matching_ngram_size > 0, "max_matching_ngram_size must be positive");
  require(config.num_assistant_tokens > 0, "num_assistant_tokens must be positive");
  require(config.top_logprobs >= 0, "top_logprobs must not be negative");
  if (config.prompt_lookup_num_tokens) {
    require(config.num_beams == 1, "prompt_lookup_num_tokens does not go with num_beams");
    require(config.num_return_sequences == 1, "prompt_lookup_num_tokens does not go with num_return_sequences");
  }
  if (config.num_beam_groups == 1) return;
  require(config.num_beam_groups > 0 && config.num_beams % config.num_beam_groups == 0,
          "num_beams must be a multiple of num_beam_groups");
  require(config.diversity_penalty > 0, "num_beam_groups needs a positive diversity_penalty");
  require(!config.do_sample, "num_beam_groups does not go with do_sample");
  require(config.repetition_penalty > 0, "repetition_penalty must be positive");
  require(config.no_repeat_ngram_size >= 0, "no_repeat_ngram_size must not be negative");
}

std::vector<std::string> ignored_options(const GenerationConfig& config) {
  const GenerationConfig plain;
  std::vector<std::string> names;
  const auto note = [&](bool differs, const char* name) {
    if (differs) names.emplace_back(name);
  };
  if (!config.do_sample) {
    note(config.temperature != plain.temperature, "temperature");
    note(config.top_k != plain.top_k, "top_k");
    note(config.top_p != plain.top_p, "top_p");
    note(config.min_p.has_value(), "min_p");
    note(config.typical_p != plain.typical_p, "typical_p");
    note(config.epsilon_cutoff != 0, "epsilon_cutoff");
    note(config.eta_cutoff != 0, "eta_cutoff");
    note(config.seed != 0, "seed");
  }
  if (!config.prompt_lookup_num_tokens)
    note(config.max_matching_ngram_size != plain.max_matching_ngram_size, "max_matching_ngram_size");
  if (config.num_beam_groups == 1) note(config.diversity_penalty != 0, "diversity_penalty");
  if (config.max_new_tokens) note(config.max_length.has_value(), "max_length");
  if (config.min_new_tokens) note(config.min_length != 0, "min_length");
  if (config.eos_token_id.empty()) {
    note(config.min_length != 0, "min_length");
    note(config.min_new_tokens.has_value(), "min_new_tokens");
    note(config.exponential_decay_length_penalty.has_value(), "exponential_decay_length_penalty");
  }
  if (config.num_beams == 1) {
    note(config.length_penalty != plain.length_penalty, "length_penalty");
    note(config.early_stopping != plain.early_stopping, "early_stopping");
  }
  std::erase_if(names, [&](const std::string& name) {
    return std::find(config.folder_defaults.begin(), config.folder_defaults.end(), name) !=
           config.folder_defaults.end();
  });
  names.insert(names.end(), config.without_effect.begin(), config.without_effect.end());
  return names;
}

const std::vector<std::string>& generation_option_names() {
  static const std::vector<std::string> names = {"max_length",
                                                 "max_new_tokens",
                                                 "min_length",
                                                 "min_new_tokens",
                                                 "do_sample",
                                                 "seed",
                                                 "temperature",
                                                 "top_k",
                                                 "top_p",
                                                 "min_p",
                                                 "typical_p",
                                                 "epsilon_cutoff",
                                                 "eta_cutoff",
                                                 "num_beams",
                                                 "num_return_sequences",
                                                 "length_penalty",
                                                 "early_stopping",
                                                 "num_beam_groups",
                                                 "diversity_penalty",
                                                 "stop_strings",
                                                 "max_time",
                                                 "prompt_lookup_num_tokens",
                                                 "max_matching_ngram_size",
                                                 "num_assistant_tokens",
                                                 "guidance_scale",
                                                 "sequence_bias",
                                                 "encoder_repetition_penalty",
                                                 "repetition_penalty",
                                                 "no_repeat_ngram_size",
                                                 "encoder_no_repeat_ngram_size",
                                                 "bad_words_ids",
                                                 "remove_invalid_values",
                                                 "exponential_decay_length_penalty",
                                                 "suppress_tokens",
                                                 "begin_suppress_tokens",
                                                 "renormalize_logits",
                                                 "forced_bos_token_id",
                                                 "forced_eos_token_id",
                                                 "eos_token_id",
                                                 "pad_token_id",
                                                 "bos_token_id",
                                                 "decoder_start_token_id",
                                                 "output_scores",
                                                 "output_attentions",
                                                 "top_logprobs"};
  return names;
}

}  // namespace weft::runtime
