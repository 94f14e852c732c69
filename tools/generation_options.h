// Generation options as JSON: generation_config.json and the options of the command.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/generate/config.h"

namespace weft::tools {

// Sets one option from its value in generation_config.json; null leaves it as it is. Error kInvalidArgument for a value
// of the wrong kind, and for a name that is none, with the nearest one; kUnsupported for what weft does not do.
void set_generation_option(runtime::GenerationConfig& config, const std::string& name, const nlohmann::json& value);

// A whole generation_config.json.
void read_generation_config(runtime::GenerationConfig& config, const std::filesystem::path& path);

nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace weft::tools
