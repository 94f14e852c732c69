// genai_config.json: what onnxruntime-genai says of a folder.
#pragma once

#include <filesystem>

#include "runtime/generate/config.h"
#include "runtime/generate/model_folder.h"

namespace weft::tools {

// Files, names of inputs and outputs, token ids, context length and search options, which become config's defaults.
// path: of the file. Error kInvalidArgument where something is missing or has the wrong type, kUnsupported for models
// of other parts than an encoder and a decoder of tokens; the path is a frame.
runtime::ModelFiles read_genai_config(const std::filesystem::path& path, runtime::GenerationConfig& config);

// Error kInvalidArgument when the decoder's caches are not of the heads and sizes that the file says.
void check_genai_model(const std::filesystem::path& path, const runtime::GenerationModel& model);

}  // namespace weft::tools
