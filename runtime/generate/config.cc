#include "runtime/generate/config.h"

#include "graph/error.h"

namespace weft::runtime {

void validate(const GenerationConfig& config) {
  const auto require = [](bool holds, std::string_view what) {
    if (!holds) fail(ErrorCode::kInvalidArgument, "generation: {}", what);
  };
  require(config.num_beams >= 1, "num_beams must be at least 1");
  require(config.num_return_sequences >= 1, "num_return_sequences must be at least 1");
  require(config.num_return_sequences <= config.num_beams,
          "num_return_sequences must not exceed num_beams (sampling is not available)");
  require(!config.max_new_tokens || *config.max_new_tokens > 0, "max_new_tokens must be positive");
  require(config.max_length > 0, "max_length must be positive");
  require(config.repetition_penalty > 0, "repetition_penalty must be positive");
  require(config.no_repeat_ngram_size >= 0, "no_repeat_ngram_size must not be negative");
}

const std::vector<std::string>& generation_option_names() {
  static const std::vector<std::string> names = {"max_length",
                                                 "max_new_tokens",
                                                 "min_length",
                                                 "min_new_tokens",
                                                 "num_beams",
                                                 "num_return_sequences",
                                                 "length_penalty",
                                                 "early_stopping",
                                                 "repetition_penalty",
                                                 "no_repeat_ngram_size",
                                                 "bad_words_ids",
                                                 "suppress_tokens",
                                                 "begin_suppress_tokens",
                                                 "forced_bos_token_id",
                                                 "forced_eos_token_id",
                                                 "eos_token_id",
                                                 "pad_token_id",
                                                 "bos_token_id",
                                                 "decoder_start_token_id"};
  return names;
}

}  // namespace weft::runtime
