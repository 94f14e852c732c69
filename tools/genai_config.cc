#include "tools/genai_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "graph/error.h"
#include "tools/generation_options.h"

namespace weft::tools {
namespace {

using nlohmann::json;
using runtime::GenerationConfig;
using runtime::ModelFiles;

// A name in the file -> what it is called here; %d counts layers.
struct Role {
  const char* key;
  const char* role;
  bool required;  // a file that does not have it is another
};

constexpr std::array kDecoderInputs = {Role{"input_ids", "input_ids", true},
                                       Role{"attention_mask", "attention_mask", false},
                                       Role{"position_ids", "position_ids", false},
                                       Role{"encoder_hidden_states", "encoder_hidden_states", false},
                                       Role{"encoder_attention_mask", "encoder_attention_mask", false},
                                       Role{"past_names", "past_key_values.%d", true},
                                       Role{"past_key_names", "past_key_values.%d.key", true},
                                       Role{"past_value_names", "past_key_values.%d.value", true},
                                       Role{"cross_past_key_names", "past_key_values.%d.encoder.key", true},
                                       Role{"cross_past_value_names", "past_key_values.%d.encoder.value", true}};
constexpr std::array kDecoderOutputs = {Role{"logits", "logits", true}, Role{"present_names", "present.%d", true},
                                        Role{"present_key_names", "present.%d.key", true},
                                        Role{"present_value_names", "present.%d.value", true}};
constexpr std::array kEncoderInputs = {Role{"input_ids", "input_ids", false},
                                       Role{"attention_mask", "attention_mask", false}};
constexpr std::array kEncoderOutputs = {Role{"encoder_outputs", "encoder_hidden_states", false},
                                        Role{"hidden_states", "encoder_hidden_states", false},
                                        Role{"encoder_hidden_states", "encoder_hidden_states", false},
                                        Role{"cross_present_key_names", "present.%d.encoder.key", false},
                                        Role{"cross_present_value_names", "present.%d.encoder.value", false}};

const json& section(const json& parent, const char* name) {
  static const json kNone = json::object();
  const auto found = parent.find(name);
  if (found == parent.end() || found->is_null()) return kNone;
  if (!found->is_object()) fail(ErrorCode::kInvalidArgument, "\"{}\" is no object: {}", name, found->dump());
  return *found;
}

std::int64_t integer(const json& parent, const char* name, std::int64_t otherwise) {
  const auto found = parent.find(name);
  if (found == parent.end() || found->is_null()) return otherwise;
  if (!found->is_number_integer()) fail(ErrorCode::kInvalidArgument, "\"{}\" is no integer: {}", name, found->dump());
  return found->get<std::int64_t>();
}

std::string text(const json& parent, const char* name) {
  const auto found = parent.find(name);
  if (found == parent.end() || found->is_null()) return {};
  if (!found->is_string()) fail(ErrorCode::kInvalidArgument, "\"{}\" is no text: {}", name, found->dump());
  return found->get<std::string>();
}

std::string numbered(std::string pattern, std::int64_t number) {
  const std::size_t at = pattern.find("%d");
  return at == std::string::npos ? pattern : pattern.replace(at, 2, std::to_string(number));
}

constexpr std::int64_t kMostLayers = 10000;

// The names of one side of a file. required: gets those that must be there; may be null.
template <std::size_t N>
void read_names(const json& part, const char* side, const std::array<Role, N>& roles, ModelFiles& files,
                std::vector<std::string>* required) {
  for (const auto& [key, role, must] : roles) {
    const std::string name = text(section(part, side), key);
    if (name.empty()) continue;
    std::int64_t count = 1;
    if (name.find("%d") != std::string::npos) {
      count = integer(part, "num_hidden_layers", 0);
      if (count <= 0 || count > kMostLayers) {
        fail(ErrorCode::kInvalidArgument, "\"{}\" is \"{}\", and num_hidden_layers does not say how many", key, name);
      }
    }
    for (std::int64_t i = 0; i < count; ++i) {
      files.names[numbered(name, i)] = numbered(role, i);
      if (required != nullptr && must) required->push_back(numbered(name, i));
    }
  }
}

std::string filename(const json& part, const std::string& where, const std::filesystem::path& folder) {
  const std::string name = text(part, "filename");
  if (name.empty()) fail(ErrorCode::kInvalidArgument, "{} has no \"filename\"", where);
  const std::filesystem::path inside = std::filesystem::path(name).lexically_normal();
  if (inside.is_absolute() || *inside.begin() == "..")
    fail(ErrorCode::kInvalidArgument, "{}: the file {} is not in the folder", where, name);
  if (!std::filesystem::exists(folder / name)) fail(ErrorCode::kIo, "{}: there is no file {}", where, name);
  return name;
}

ModelFiles read_files(const json& model, const std::filesystem::path& folder) {
  const json& decoder = section(model, "decoder");
  if (decoder.empty()) fail(ErrorCode::kInvalidArgument, "\"model\" has no \"decoder\"");
  for (const char* part : {"vision", "speech", "embedding", "joiner", "vad"}) {
    if (!section(model, part).empty()) fail(ErrorCode::kUnsupported, "a model with a part \"{}\"", part);
  }
  if (decoder.contains("pipeline")) fail(ErrorCode::kUnsupported, "a decoder that is a pipeline of several files");
  ModelFiles files;
  files.decoder = filename(decoder, "\"decoder\"", folder);
  read_names(decoder, "inputs", kDecoderInputs, files, &files.decoder_io);
  read_names(decoder, "outputs", kDecoderOutputs, files, &files.decoder_io);
  if (const json& encoder = section(model, "encoder"); !encoder.empty()) {
    files.encoder = filename(encoder, "\"encoder\"", folder);
    read_names(encoder, "inputs", kEncoderInputs, files, nullptr);
    read_names(encoder, "outputs", kEncoderOutputs, files, nullptr);
  }
  return files;
}

void read_search(const json& search, std::int64_t context_length, GenerationConfig& config) {
  // How genai computes, not what.
  constexpr std::array kOthers = {"past_present_share_buffer", "batch_size", "chunk_size"};
  for (const auto& [name, value] : search.items()) {
    if (std::ranges::find(kOthers, name) != kOthers.end()) continue;
    if (name == "random_seed") {
      if (const std::int64_t seed = integer(search, "random_seed", -1); seed >= 0)
        set_generation_option(config, "seed", value);
    } else if (name == "max_length" && value == 0) {
      continue;
    } else if (name == "top_p" && value == 0) {
      continue;  // genai: not asked for
    } else {
      set_generation_option(config, name, value);
      config.folder_defaults.push_back(name);
    }
  }
  if (!config.max_length && context_length > 0) {
    config.max_length = context_length;
    config.folder_defaults.emplace_back("max_length");
  }
}

}  // namespace

ModelFiles read_genai_config(const std::filesystem::path& path, GenerationConfig& config) {
  return with_frame(
      [&] { return "in " + path.string(); },
      [&] {
        const json file = read_json(path);
        if (!file.is_object()) fail(ErrorCode::kInvalidArgument, "it is no object");
        const json& model = section(file, "model");
        if (model.empty()) fail(ErrorCode::kInvalidArgument, "it has no \"model\"");
        ModelFiles files = read_files(model, path.parent_path());
        for (const char* id : {"eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"}) {
          if (model.contains(id)) set_generation_option(config, id, model[id]);
        }
        const std::int64_t context_length = integer(model, "context_length", 0);
        if (context_length > 0) config.max_position_embeddings = context_length;
        read_search(section(file, "search"), context_length, config);
        return files;
      });
}

void check_genai_model(const std::filesystem::path& path, const runtime::GenerationModel& model) {
  const json file = read_json(path);
  const json& decoder = section(section(file, "model"), "decoder");
  const std::int64_t heads = integer(decoder, "num_key_value_heads", 0), size = integer(decoder, "head_size", 0);
  if (!model.decoder_with_past) return;
  const Graph& graph = model.decoder_with_past->graph();
  for (const State& state : graph.states()) {
    const auto& shape = graph.value(state.current).type.shape;
    if (!shape || shape->size() != 4 || !(*shape)[1].is_constant() || !(*shape)[3].is_constant()) continue;
    if ((heads == 0 || (*shape)[1].is(heads)) && (size == 0 || (*shape)[3].is(size))) continue;
    fail(ErrorCode::kInvalidArgument, "{} says {} key heads of {}, the cache \"{}\" has {} of {}", path.string(), heads,
         size, state.name, (*shape)[1].value(), (*shape)[3].value());
  }
}

}  // namespace weft::tools
