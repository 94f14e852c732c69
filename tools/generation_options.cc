#include "tools/generation_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "graph/error.h"
#include "runtime/bind_inputs.h"

namespace weft::tools {
namespace {

using nlohmann::json;
using runtime::GenerationConfig;

std::vector<std::int64_t> as_list(const json& value) {
  if (value.is_array()) return value.get<std::vector<std::int64_t>>();
  return {value.get<std::int64_t>()};
}

runtime::EarlyStopping as_early_stopping(const json& value) {
  if (value.is_string() && value.get<std::string>() == "never") return runtime::EarlyStopping::kNever;
  return value.get<bool>() ? runtime::EarlyStopping::kTrue : runtime::EarlyStopping::kFalse;
}

// [[[tokens], bias], ...]
std::vector<GenerationConfig::SequenceBias> as_biases(const json& value) {
  std::vector<GenerationConfig::SequenceBias> biases;
  for (const json& entry : value) {
    biases.push_back({entry.at(0).get<std::vector<std::int64_t>>(), entry.at(1).get<double>()});
  }
  return biases;
}

struct Setter {
  std::string_view name;
  void (*set)(GenerationConfig& config, const json& value);
};

template <auto kMember>
void plain(GenerationConfig& config, const json& value) {
  auto& member = config.*kMember;
  if constexpr (requires { member.value(); }) {
    member = value.get<typename std::remove_reference_t<decltype(member)>::value_type>();
  } else {
    member = value.get<std::remove_reference_t<decltype(member)>>();
  }
}

template <auto kMember>
void list(GenerationConfig& config, const json& value) {
  config.*kMember = as_list(value);
}

using C = GenerationConfig;
constexpr Setter kSetters[] = {
    {"max_length", plain<&C::max_length>},
    {"max_new_tokens", plain<&C::max_new_tokens>},
    {"min_length", plain<&C::min_length>},
    {"min_new_tokens", plain<&C::min_new_tokens>},
    {"do_sample", plain<&C::do_sample>},
    {"seed", plain<&C::seed>},
    {"temperature", plain<&C::temperature>},
    {"top_k", plain<&C::top_k>},
    {"top_p", plain<&C::top_p>},
    {"min_p", plain<&C::min_p>},
    {"typical_p", plain<&C::typical_p>},
    {"epsilon_cutoff", plain<&C::epsilon_cutoff>},
    {"eta_cutoff", plain<&C::eta_cutoff>},
    {"num_beams", plain<&C::num_beams>},
    {"num_return_sequences", plain<&C::num_return_sequences>},
    {"length_penalty", plain<&C::length_penalty>},
    {"early_stopping", [](C& c, const json& v) { c.early_stopping = as_early_stopping(v); }},
    {"num_beam_groups", plain<&C::num_beam_groups>},
    {"diversity_penalty", plain<&C::diversity_penalty>},
    {"stop_strings",
     [](C& c, const json& v) {
       c.stop_strings = v.is_string() ? std::vector{v.get<std::string>()} : v.get<std::vector<std::string>>();
     }},
    {"max_time", plain<&C::max_time>},
    {"prompt_lookup_num_tokens", plain<&C::prompt_lookup_num_tokens>},
    {"max_matching_ngram_size", plain<&C::max_matching_ngram_size>},
    {"num_assistant_tokens", plain<&C::num_assistant_tokens>},
    {"guidance_scale", plain<&C::guidance_scale>},
    {"sequence_bias", [](C& c, const json& v) { c.sequence_bias = as_biases(v); }},
    {"encoder_repetition_penalty", plain<&C::encoder_repetition_penalty>},
    {"repetition_penalty", plain<&C::repetition_penalty>},
    {"no_repeat_ngram_size", plain<&C::no_repeat_ngram_size>},
    {"encoder_no_repeat_ngram_size", plain<&C::encoder_no_repeat_ngram_size>},
    {"bad_words_ids", plain<&C::bad_words_ids>},
    {"remove_invalid_values", plain<&C::remove_invalid_values>},
    {"exponential_decay_length_penalty",
     [](C& c, const json& v) {
       c.exponential_decay_length_penalty = {v.at(0).get<std::int64_t>(), v.at(1).get<double>()};
     }},
    {"renormalize_logits", plain<&C::renormalize_logits>},
    {"suppress_tokens", list<&C::suppress_tokens>},
    {"begin_suppress_tokens", list<&C::begin_suppress_tokens>},
    {"forced_bos_token_id", plain<&C::forced_bos_token_id>},
    {"forced_eos_token_id", list<&C::forced_eos_token_id>},
    {"eos_token_id", list<&C::eos_token_id>},
    {"pad_token_id", plain<&C::pad_token_id>},
    {"bos_token_id", plain<&C::bos_token_id>},
    {"decoder_start_token_id", plain<&C::decoder_start_token_id>},
    {"output_scores", plain<&C::output_scores>},
    {"output_attentions", plain<&C::output_attentions>},
    {"top_logprobs", plain<&C::top_logprobs>},
};

// Fields of generation_config.json without an effect on tokens: what else to return, and how to compute. Set to
// anything but this they are listed in the result's warnings; null: they only describe the model or the file.
struct WithoutEffect {
  std::string_view name;
  const char* silent;
};
constexpr WithoutEffect kWithoutEffect[] = {{"transformers_version", nullptr},
                                            {"_from_model_config", nullptr},
                                            {"return_dict_in_generate", nullptr},
                                            {"is_assistant", nullptr},
                                            {"use_cache", "true"},
                                            {"cache_implementation", "\"dynamic\""},
                                            {"cache_config", "null"},
                                            {"output_logits", "false"},
                                            {"output_hidden_states", "false"},
                                            {"low_memory", "false"},
                                            {"disable_compile", "false"},
                                            {"compile_config", "null"},
                                            {"prefill_chunk_size", "null"},
                                            {"num_assistant_tokens_schedule", "\"constant\""},
                                            {"assistant_confidence_threshold", "0.4"},  // transformers' default
                                            {"assistant_early_exit", "null"},
                                            {"assistant_lookbehind", "10"},
                                            {"target_lookbehind", "10"},
                                            {"continuous_batching_config", "null"},
                                            // of Whisper's own generate()
                                            {"alignment_heads", nullptr},
                                            {"is_multilingual", nullptr},
                                            {"lang_to_id", nullptr},
                                            {"task_to_id", nullptr},
                                            {"max_initial_timestamp_index", nullptr},
                                            {"no_timestamps_token_id", nullptr},
                                            {"prev_sot_token_id", nullptr},
                                            {"return_timestamps", "false"},
                                            {"language", "null"},
                                            {"task", "null"}};

// Fields that would change the tokens, and the values at which they do not.
struct Unsupported {
  std::string_view name;
  const char* harmless;
};
constexpr Unsupported kUnsupported[] = {{"penalty_alpha", "0.0"},    {"constraints", "null"},
                                        {"force_words_ids", "null"}, {"dola_layers", "null"},
                                        {"token_healing", "false"},  {"watermarking_config", "null"},
                                        {"top_h", "null"},           {"forced_decoder_ids", "null"}};

}  // namespace

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::kIo, "cannot open {}", path.string());
  json value = json::parse(file, nullptr, false);
  if (value.is_discarded()) fail(ErrorCode::kInvalidArgument, "{} is not JSON", path.string());
  return value;
}

void set_generation_option(GenerationConfig& config, const std::string& name, const json& value) {
  std::erase(config.without_effect, name);
  for (const WithoutEffect& entry : kWithoutEffect) {
    if (entry.name != name) continue;
    const bool silent = value.is_null() || entry.silent == nullptr || value == json::parse(entry.silent);
    if (!silent) config.without_effect.push_back(name);
    return;
  }
  for (const Unsupported& entry : kUnsupported) {
    if (entry.name != name) continue;
    if (value.is_null() || value == json::parse(entry.harmless)) return;
    fail(ErrorCode::kUnsupported, "generation option {} = {}", name, value.dump());
  }
  for (const Setter& setter : kSetters) {
    if (setter.name != name) continue;
    if (value.is_null()) return;
    try {
      return setter.set(config, value);
    } catch (const json::exception&) {
      fail(ErrorCode::kInvalidArgument, "option {} cannot be {}", name, value.dump());
    }
  }
  const std::string near = runtime::closest(name, runtime::generation_option_names());
  fail(ErrorCode::kInvalidArgument, "there is no generation option \"{}\"{}", name,
       near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
}

void read_generation_config(GenerationConfig& config, const std::filesystem::path& path) {
  with_frame([&] { return "in " + path.string(); },
             [&] {
               const json file = read_json(path);
               for (const auto& [name, value] : file.items()) set_generation_option(config, name, value);
             });
}

}  // namespace weft::tools
