// weft generate
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/generate/generator.h"
#include "tools/commands.h"
#include "tools/generation_options.h"
#include "tools/npz.h"
#include "tools/tokenizer.h"

namespace weft::tools {
namespace {

using nlohmann::json;
using runtime::GenerationConfig;
using Request = runtime::Generator::Request;

// generation_config.json of the model's folder (config.json's token ids where it has none), then --config,
// then single options.
GenerationConfig read_config(const GenerateOptions& options, const std::filesystem::path& folder) {
  GenerationConfig config;
  if (std::filesystem::exists(folder / "config.json")) {
    const json file = read_json(folder / "config.json");
    for (const char* name : {"eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"}) {
      if (file.contains(name)) set_generation_option(config, name, file[name]);
    }
  }
  if (std::filesystem::exists(folder / "generation_config.json"))
    read_generation_config(config, folder / "generation_config.json");
  if (!options.config.empty()) read_generation_config(config, options.config);
  for (const auto& [name, text] : options.settings) {
    json value = json::parse(text, nullptr, false);
    if (value.is_discarded()) value = text == "True" ? json(true) : text == "False" ? json(false) : json(text);
    set_generation_option(config, name, value);
  }
  return config;
}

// {"input_ids": [...]} or {"inputs": "features.npz"}, the file being beside the prompts.
std::vector<Request> read_prompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::kIo, "cannot open {}", path);
  std::vector<Request> prompts;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const json value = json::parse(line, nullptr, false);
    Request request;
    if (value.is_object() && value.contains("input_ids") && value["input_ids"].is_array()) {
      request.input_ids = value["input_ids"].get<std::vector<std::int64_t>>();
    } else if (value.is_object() && value.contains("inputs") && value["inputs"].is_string()) {
      const std::filesystem::path features = value["inputs"].get<std::string>();
      const std::filesystem::path base = std::filesystem::path(path).parent_path();
      request.encoder_inputs = read_npz((features.is_absolute() ? features : base / features).string());
    } else {
      fail(ErrorCode::kInvalidArgument, "{}:{}: {{\"input_ids\": [...]}} or {{\"inputs\": \"FILE.npz\"}} wanted", path,
           number);
    }
    prompts.push_back(std::move(request));
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
  std::vector<Request> prompts;
  if (!options.ids_file.empty()) prompts = read_prompts(options.ids_file);
  for (const std::string& text : options.texts) {
    if (!tokenizer) fail(ErrorCode::kInvalidArgument, "--text needs a tokenizer.json beside the model");
    prompts.push_back({tokenizer->encode(text), {}, 0});
  }
  if (prompts.empty()) fail(ErrorCode::kInvalidArgument, "nothing to generate from: give --text or --ids-file");
  for (const std::string& name : runtime::ignored_options(config)) {
    fmt::print(stderr, "weft: warning: {} has no effect with these options\n", name);
  }
  runtime::CompileOptions compile;
  compile.passes = parse_pass_list(options.passes);
  compile.packed_folder = options.packed;
  runtime::Generator generator(runtime::GenerationModel::load(path, compile),
                               std::make_shared<runtime::ThreadPool>(options.threads));
  const auto start = std::chrono::steady_clock::now();
  std::size_t tokens = 0;
  for (int round = 0; round < options.repeat; ++round) {
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].stream = static_cast<std::uint32_t>(i);
      const auto results = generator.generate(prompts[i], config, [&](std::int64_t) { ++tokens; });
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
