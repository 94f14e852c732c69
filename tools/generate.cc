// weft generate
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/bind_inputs.h"
#include "runtime/generate/generator.h"
#include "tools/commands.h"
#include "tools/tokenizer.h"

namespace weft::tools {
namespace {

using nlohmann::json;
using runtime::GenerationConfig;

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::kIo, "cannot open {}", path.string());
  json value = json::parse(file, nullptr, false);
  if (value.is_discarded()) fail(ErrorCode::kInvalidArgument, "{} is not JSON", path.string());
  return value;
}

std::vector<std::int64_t> as_list(const json& value) {
  if (value.is_array()) return value.get<std::vector<std::int64_t>>();
  return {value.get<std::int64_t>()};
}

// Sets one option; false when weft has none of this name. null means unset.
bool set_option(GenerationConfig& config, const std::string& name, const json& value) {
  const auto& names = runtime::generation_option_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) return false;
  if (value.is_null()) return true;
  if (name == "max_length")
    config.max_length = value.get<std::int64_t>();
  else if (name == "max_new_tokens")
    config.max_new_tokens = value.get<std::int64_t>();
  else if (name == "min_length")
    config.min_length = value.get<std::int64_t>();
  else if (name == "min_new_tokens")
    config.min_new_tokens = value.get<std::int64_t>();
  else if (name == "num_beams")
    config.num_beams = value.get<std::int64_t>();
  else if (name == "num_return_sequences")
    config.num_return_sequences = value.get<std::int64_t>();
  else if (name == "length_penalty")
    config.length_penalty = value.get<double>();
  else if (name == "early_stopping") {
    config.early_stopping = value.is_string()   ? runtime::EarlyStopping::kNever
                            : value.get<bool>() ? runtime::EarlyStopping::kTrue
                                                : runtime::EarlyStopping::kFalse;
  } else if (name == "repetition_penalty")
    config.repetition_penalty = value.get<double>();
  else if (name == "no_repeat_ngram_size")
    config.no_repeat_ngram_size = value.get<std::int64_t>();
  else if (name == "bad_words_ids")
    config.bad_words_ids = value.get<std::vector<std::vector<std::int64_t>>>();
  else if (name == "suppress_tokens")
    config.suppress_tokens = as_list(value);
  else if (name == "begin_suppress_tokens")
    config.begin_suppress_tokens = as_list(value);
  else if (name == "forced_bos_token_id")
    config.forced_bos_token_id = value.get<std::int64_t>();
  else if (name == "forced_eos_token_id")
    config.forced_eos_token_id = as_list(value);
  else if (name == "eos_token_id")
    config.eos_token_id = as_list(value);
  else if (name == "pad_token_id")
    config.pad_token_id = value.get<std::int64_t>();
  else if (name == "bos_token_id")
    config.bos_token_id = value.get<std::int64_t>();
  else if (name == "decoder_start_token_id")
    config.decoder_start_token_id = value.get<std::int64_t>();
  return true;
}

void apply(GenerationConfig& config, const std::string& name, const json& value) {
  try {
    if (set_option(config, name, value)) return;
  } catch (const json::exception&) {
    fail(ErrorCode::kInvalidArgument, "option {} cannot be {}", name, value.dump());
  }
  const std::string near = runtime::closest(name, runtime::generation_option_names());
  fail(ErrorCode::kInvalidArgument, "there is no generation option \"{}\"{}", name,
       near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
}

// Files hold many settings (sampling among them) that do not concern these strategies; asking for
// sampling does.
void apply_file(GenerationConfig& config, const std::filesystem::path& path) {
  const json file = read_json(path);
  if (file.value("do_sample", false)) {
    fail(ErrorCode::kUnsupported, "{} asks for do_sample; weft generates greedily or by beam search", path.string());
  }
  for (const auto& [name, value] : file.items()) {
    const auto& names = runtime::generation_option_names();
    if (std::find(names.begin(), names.end(), name) != names.end()) apply(config, name, value);
  }
}

// generation_config.json of the model's folder (config.json's token ids where it has none), then --config,
// then single options.
GenerationConfig read_config(const GenerateOptions& options, const std::filesystem::path& folder) {
  GenerationConfig config;
  if (std::filesystem::exists(folder / "config.json")) {
    const json file = read_json(folder / "config.json");
    for (const char* name : {"eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"}) {
      if (file.contains(name)) apply(config, name, file[name]);
    }
  }
  if (std::filesystem::exists(folder / "generation_config.json")) apply_file(config, folder / "generation_config.json");
  if (!options.config.empty()) apply_file(config, options.config);
  for (const auto& [name, text] : options.settings) {
    json value = json::parse(text, nullptr, false);
    if (value.is_discarded()) value = text == "True" ? json(true) : text == "False" ? json(false) : json(text);
    apply(config, name, value);
  }
  return config;
}

std::vector<std::vector<std::int64_t>> read_prompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::kIo, "cannot open {}", path);
  std::vector<std::vector<std::int64_t>> prompts;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const json value = json::parse(line, nullptr, false);
    if (!value.is_object() || !value.contains("input_ids") || !value["input_ids"].is_array()) {
      fail(ErrorCode::kInvalidArgument, "{}:{}: {{\"input_ids\": [...]}} wanted", path, number);
    }
    prompts.push_back(value["input_ids"].get<std::vector<std::int64_t>>());
  }
  return prompts;
}

void print_result(const GenerateOptions& options, const GenerationConfig& config, const Tokenizer* tokenizer,
                  const std::vector<runtime::Hypothesis>& results) {
  if (options.json) {
    json line = {{"sequences", json::array()}, {"scores", json::array()}};
    for (const runtime::Hypothesis& result : results) {
      line["sequences"].push_back(result.tokens);
      if (config.num_beams > 1) line["scores"].push_back(result.score);
      if (tokenizer != nullptr) line["texts"].push_back(tokenizer->decode(result.tokens));
    }
    fmt::print("{}\n", line.dump());
    return;
  }
  for (const runtime::Hypothesis& result : results) {
    const std::string text =
        tokenizer != nullptr ? tokenizer->decode(result.tokens) : fmt::format("{}", fmt::join(result.tokens, " "));
    if (config.num_beams > 1 && results.size() > 1)
      fmt::print("{}\t{:.4f}\n", text, result.score);
    else
      fmt::print("{}\n", text);
  }
}

}  // namespace

int generate(const GenerateOptions& options) {
  const std::filesystem::path path(options.model);
  const std::filesystem::path folder = std::filesystem::is_directory(path) ? path : path.parent_path();
  const GenerationConfig config = read_config(options, folder);
  std::optional<Tokenizer> tokenizer;
  if (std::filesystem::exists(folder / "tokenizer.json") && !options.texts.empty()) {
    tokenizer = Tokenizer::load((folder / "tokenizer.json").string());
  }
  std::vector<std::vector<std::int64_t>> prompts;
  if (!options.ids_file.empty()) prompts = read_prompts(options.ids_file);
  for (const std::string& text : options.texts) {
    if (!tokenizer) fail(ErrorCode::kInvalidArgument, "--text needs a tokenizer.json beside the model");
    prompts.push_back(tokenizer->encode(text));
  }
  if (prompts.empty()) fail(ErrorCode::kInvalidArgument, "nothing to generate from: give --text or --ids-file");
  runtime::Generator generator(runtime::GenerationModel::load(path, parse_pass_list(options.passes)),
                               std::make_shared<runtime::ThreadPool>(options.threads));
  const auto start = std::chrono::steady_clock::now();
  std::size_t tokens = 0;
  for (int round = 0; round < options.repeat; ++round) {
    for (const auto& prompt : prompts) {
      const auto results = generator.generate(prompt, config, [&](std::int64_t) { ++tokens; });
      if (round == 0) print_result(options, config, tokenizer ? &*tokenizer : nullptr, results);
    }
  }
  if (options.timing) {
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    fmt::print("{} tokens in {:.3f} s: {:.0f} tokens per second\n", tokens, time.count(),
               static_cast<double>(tokens) / time.count());
  }
  return 0;
}

}  // namespace weft::tools
