// The files of a generative model: which there are, and which of their inputs are caches.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/generate/model_io.h"
#include "runtime/model.h"

namespace weft::runtime {

// What the caller knows of a model's files.
struct ModelFiles {
  std::filesystem::path encoder, decoder;  // within the folder; no decoder: told by what the files take and give
  IoNames names;                           // settle what cannot be told
  std::vector<std::string> decoder_io;     // names that the decoder must have
};

// The files of one model, compiled; shared by generators.
struct GenerationModel {
  std::shared_ptr<const Model> encoder;            // null for decoder-only models
  std::shared_ptr<const Model> decoder;            // first step; null: decoder_with_past with nothing past
  std::shared_ptr<const Model> decoder_with_past;  // null: the whole sequence is run at each step

  // What each decoder takes of its source alone (keys and values of the encoder's states, an encoder in the same file):
  // run once a source, its outputs are inputs or states of every step. Null where there is nothing.
  std::shared_ptr<const Model> decoder_source, decoder_with_past_source;

  // path: an .onnx file, or a folder with model.onnx (or decoder_model.onnx, decoder_with_past_model.onnx, or
  // decoder_model_merged.onnx, whose two branches become two decoders), for encoder-decoder models beside
  // encoder_model.onnx; there or in its folder "onnx". Files of other names are told apart by what they take and give.
  // What their inputs and outputs are is told as model_io.h says, or by `files`. An encoder may give caches
  // (present.N.encoder.key) that the decoder takes. Error kIo, kUnsupported when something could be either or is
  // missing, kInvalidArgument when the decoder has not what `files` says, and those of importing.
  static GenerationModel load(const std::filesystem::path& path,
                              const std::vector<std::string>& passes = default_passes());
  // options: of every file; states and outputs are filled in.
  static GenerationModel load(const std::filesystem::path& path, const CompileOptions& options,
                              const ModelFiles& files = {});
  // To look inside, see attentions.h: canonical passes alone, whatever options say; attention weights are outputs of
  // encoder and decoder. There is no decoder_with_past beside a decoder.
  static GenerationModel load_with_attentions(const std::filesystem::path& path, const CompileOptions& options,
                                              const ModelFiles& files = {});
};

// --- Names of inputs and outputs ----------------------------------------------------------------------

// "past_key_values.0.key" -> "present.0.key", "past_key_self_0" -> "present_key_self_0", "past_0" -> "present_0".
std::string present_name(const std::string& past);
bool is_past(std::string_view name);
// A cache of the encoder's keys or values, which does not grow.
bool is_cross(std::string_view name);

// Which axes of a cache are the batch's and time's: of the extents that are not constants the first and the last.
struct CacheAxes {
  std::size_t batch = 0;
  std::size_t time = 2;
};
CacheAxes cache_axes(const Value& cache);

std::optional<std::size_t> output_index(const Graph& graph, std::string_view name);
const Value* find_input(const Graph& graph, std::string_view name);

}  // namespace weft::runtime
