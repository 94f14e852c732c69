// weft generate
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/generate/attentions.h"
#include "runtime/generate/generator.h"
#include "tools/commands.h"
#include "tools/genai_config.h"
#include "tools/generation_options.h"
#include "tools/npz.h"
#include "tools/tokenizer.h"

namespace weft::tools {
namespace {

using nlohmann::json;
using runtime::Generation;
using runtime::GenerationConfig;
using runtime::Request;

// generation_config.json of the model's folder (where it says nothing, the token ids and positions of config.json, or
// genai_config.json), then --config, then single options.
GenerationConfig read_config(const GenerateOptions& options, const std::filesystem::path& folder,
                             runtime::ModelFiles& files) {
  GenerationConfig config;
  if (std::filesystem::exists(folder / "config.json")) {
    const json file = read_json(folder / "config.json");
    for (const char* name : {"eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"}) {
      if (file.contains(name)) set_generation_option(config, name, file[name]);
    }
    if (file.contains("max_position_embeddings") && file["max_position_embeddings"].is_number_integer())
      config.max_position_embeddings = file["max_position_embeddings"].get<std::int64_t>();
  }
  const std::filesystem::path genai = folder / "genai_config.json";
  if (std::filesystem::exists(genai) && std::filesystem::is_directory(options.model))
    files = read_genai_config(genai, config);
  if (std::filesystem::exists(folder / "generation_config.json"))
    read_generation_config(config, folder / "generation_config.json");
  if (!options.config.empty()) read_generation_config(config, options.config);
  for (const auto& [name, text] : options.settings) {
    json value = json::parse(text, nullptr, false);
    if (value.is_discarded()) value = text == "True" ? json(true) : text == "False" ? json(false) : json(text);
    std::erase(config.folder_defaults, name);
    set_generation_option(config, name, value);
  }
  return config;
}

std::vector<std::int64_t> ids_of(const json& line, const char* name) {
  const auto found = line.find(name);
  return found == line.end() ? std::vector<std::int64_t>() : found->get<std::vector<std::int64_t>>();
}

// {"input_ids": [...]} or {"inputs": "features.npz"}, the file being beside the prompts; with "decoder_input_ids" and
// "negative_prompt_ids" if wanted.
Request parse_prompt(const json& line, const std::filesystem::path& folder) {
  Request request;
  if (line.is_object() && line.contains("inputs")) {
    const std::filesystem::path features = line["inputs"].get<std::string>();
    request.encoder_inputs = read_npz((features.is_absolute() ? features : folder / features).string());
  } else {
    request.input_ids = line.at("input_ids").get<std::vector<std::int64_t>>();
  }
  request.decoder_input_ids = ids_of(line, "decoder_input_ids");
  request.negative_prompt_ids = ids_of(line, "negative_prompt_ids");
  return request;
}

std::vector<Request> read_prompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::kIo, "cannot open {}", path);
  std::vector<Request> prompts;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      prompts.push_back(parse_prompt(json::parse(line), std::filesystem::path(path).parent_path()));
    } catch (const json::exception&) {
      fail(ErrorCode::kInvalidArgument, "{}:{}: {{\"input_ids\": [...]}} or {{\"inputs\": \"FILE.npz\"}} wanted", path,
           number);
    }
  }
  return prompts;
}

json scores_of(const runtime::Hypothesis& result) {
  json scores = json::array(), log_probabilities = json::array(), alternatives = json::array();
  for (const runtime::TokenScore& token : result.token_scores) {
    scores.push_back(token.score);
    log_probabilities.push_back(token.log_probability);
    alternatives.push_back(token.alternatives);
  }
  return {{"scores", scores}, {"logprobs", log_probabilities}, {"top_logprobs", alternatives}};
}

json to_json(const Generation& generation, const GenerationConfig& config, const Tokenizer* tokenizer) {
  json line = {{"sequences", json::array()}, {"scores", json::array()}, {"stopped", json::array()}};
  for (const runtime::Hypothesis& result : generation.sequences) {
    line["sequences"].push_back(result.tokens);
    line["stopped"].push_back(to_string(result.stopped));
    if (config.num_beams > 1) line["scores"].push_back(result.score);
    if (!result.token_scores.empty()) line["tokens"].push_back(scores_of(result));
    if (tokenizer != nullptr) line["texts"].push_back(tokenizer->decode(result.tokens));
  }
  return line;
}

// f32 [A, B, C] as lists.
json nested(const Tensor& x) {
  const float* data = x.data<float>().data();
  json outer = json::array();
  for (std::int64_t a = 0; a < x.extent(0); ++a) {
    json middle = json::array();
    for (std::int64_t b = 0; b < x.extent(1); ++b, data += x.extent(2)) {
      middle.push_back(std::vector<float>(data, data + x.extent(2)));
    }
    outer.push_back(std::move(middle));
  }
  return outer;
}

void print_result(const GenerateOptions& options, const GenerationConfig& config, const Tokenizer* tokenizer,
                  const Generation& generation, const json& attentions) {
  if (options.json) {
    json line = to_json(generation, config, tokenizer);
    if (!attentions.is_null()) line["attentions"] = attentions;
    fmt::print("{}\n", line.dump());
    return;
  }
  for (const runtime::Hypothesis& result : generation.sequences) {
    const std::string text =
        tokenizer != nullptr ? tokenizer->decode(result.tokens) : fmt::format("{}", fmt::join(result.tokens, " "));
    if (config.num_beams > 1 && generation.sequences.size() > 1)
      fmt::print("{}\t{:.4f}\n", text, result.score);
    else
      fmt::print("{}\n", text);
  }
}

std::vector<Request> all_prompts(const GenerateOptions& options, const Tokenizer* tokenizer) {
  std::vector<Request> prompts;
  if (!options.ids_file.empty()) prompts = read_prompts(options.ids_file);
  for (const std::string& text : options.texts) {
    if (tokenizer == nullptr) fail(ErrorCode::kInvalidArgument, "--text needs a tokenizer.json beside the model");
    prompts.push_back({tokenizer->encode(text)});
  }
  if (prompts.empty()) fail(ErrorCode::kInvalidArgument, "nothing to generate from: give --text or --ids-file");
  return prompts;
}

// One line a token: number of the prompt, of its sequence, token, text.
void print_token(const runtime::StreamedToken& token, const Tokenizer* tokenizer) {
  fmt::print("{} {} {}{}\n", token.prompt, token.sequence, token.token,
             tokenizer != nullptr ? " " + tokenizer->decode({token.token}) : "");
  std::fflush(stdout);
}

std::size_t new_tokens(const std::vector<Generation>& generations, const std::vector<Request>& prompts,
                       bool has_source) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < generations.size(); ++i) {
    for (const auto& s : generations[i].sequences) {
      count += s.tokens.size() - (has_source ? 1 : prompts[i].input_ids.size());
    }
  }
  return count;
}

void parse_io(const std::vector<std::string>& settings, runtime::IoNames& names) {
  for (const std::string& setting : settings) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos) fail(ErrorCode::kInvalidArgument, "--io {}: NAME=ROLE wanted", setting);
    names[setting.substr(0, equals)] = setting.substr(equals + 1);
  }
}

// Of each sequence kind -> layers [H][S][T].
json attentions_of(runtime::AttentionReader& reader, const Request& request, const Generation& generation) {
  json result = json::array();
  for (const runtime::Hypothesis& sequence : generation.sequences) {
    json kinds = json::object();
    for (const auto& [kind, layers] : reader.read(request, sequence.tokens)) {
      for (const Tensor& layer : layers) kinds[kind].push_back(nested(layer));
    }
    result.push_back(std::move(kinds));
  }
  return result;
}

// "PROMPT.SEQUENCE.attentions.LAYER" for each result.
void write_attentions(const std::string& path, runtime::AttentionReader& reader, const std::vector<Request>& prompts,
                      const std::vector<Generation>& results) {
  std::map<std::string, Tensor, std::less<>> arrays;
  for (std::size_t i = 0; i < results.size(); ++i) {
    for (std::size_t k = 0; k < results[i].sequences.size(); ++k) {
      for (const auto& [kind, layers] : reader.read(prompts[i], results[i].sequences[k].tokens)) {
        for (std::size_t layer = 0; layer < layers.size(); ++layer) {
          arrays[fmt::format("{}.{}.{}.{}", i, k, kind, layer)] = layers[layer];
        }
      }
    }
  }
  write_npz(path, arrays);
}

}  // namespace

int generate(const GenerateOptions& options) {
  const std::filesystem::path path(options.model);
  const std::filesystem::path folder = std::filesystem::is_directory(path) ? path : path.parent_path();
  runtime::ModelFiles files;
  const GenerationConfig config = read_config(options, folder, files);
  parse_io(options.io, files.names);
  std::optional<Tokenizer> read;
  if (std::filesystem::exists(folder / "tokenizer.json") && (!options.texts.empty() || !config.stop_strings.empty()))
    read = Tokenizer::load((folder / "tokenizer.json").string());
  const Tokenizer* tokenizer = read ? &*read : nullptr;
  const std::vector<Request> prompts = all_prompts(options, tokenizer);
  runtime::CompileOptions compile;
  compile.passes = parse_pass_list(options.passes);
  compile.packed_folder = options.packed;
  compile.max_memory = options.max_memory;
  if (const auto dtype = parse_dtype(options.cache_dtype)) compile.cache_dtype = *dtype;
  const runtime::GenerationModel model = runtime::GenerationModel::load(path, compile, files);
  if (!files.decoder.empty()) check_genai_model(folder / "genai_config.json", model);
  runtime::GenerationModel assistant;
  if (!options.assistant.empty()) assistant = runtime::GenerationModel::load(options.assistant, compile);
  const auto pool = std::make_shared<runtime::ThreadPool>(options.threads);
  // Before anything is generated: a model that has no weights to show says so at once.
  std::optional<runtime::AttentionReader> reader;
  const bool print_attentions = config.output_attentions && options.json;
  if (!options.attentions.empty() || print_attentions)
    reader.emplace(runtime::GenerationModel::load_with_attentions(path, compile, files), pool);
  runtime::Generator generator(model, pool, options.assistant.empty() ? nullptr : &assistant);
  if (const std::size_t limit = options.max_cache != 0 ? options.max_cache : options.max_memory; limit != 0)
    generator.set_cache_budget(std::make_shared<runtime::CacheBudget>(limit));
  runtime::Callbacks callbacks;
  if (tokenizer != nullptr) {
    callbacks.decode = [tokenizer](auto tokens) { return tokenizer->decode({tokens.begin(), tokens.end()}, false); };
  }
  if (options.stream) {
    callbacks.on_token = [tokenizer](const runtime::StreamedToken& token) {
      print_token(token, tokenizer);
      return true;
    };
  }
  const auto start = std::chrono::steady_clock::now();
  std::size_t tokens = 0;
  for (int round = 0; round < options.repeat; ++round) {
    const auto results = generator.generate(prompts, config, callbacks, static_cast<std::size_t>(options.batch_size));
    tokens += new_tokens(results, prompts, generator.has_source());
    if (round > 0) continue;
    if (!options.attentions.empty()) write_attentions(options.attentions, *reader, prompts, results);
    for (const std::string& warning : results[0].warnings) fmt::print(stderr, "weft: warning: {}\n", warning);
    if (config.output_attentions && !reader)
      fmt::print(stderr, "weft: warning: output_attentions has no effect without --json or --attentions FILE\n");
    for (std::size_t i = 0; i < results.size(); ++i) {
      const json attentions = print_attentions ? attentions_of(*reader, prompts[i], results[i]) : json();
      print_result(options, config, tokenizer, results[i], attentions);
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
