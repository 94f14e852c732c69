// Generating tokens with an exported decoder, or encoder and decoder.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/bind_inputs.h"
#include "runtime/generate/config.h"
#include "runtime/generate/search.h"
#include "runtime/session.h"

namespace weft::runtime {

// The files of one model, compiled; shared by generators.
struct GenerationModel {
  std::shared_ptr<const Model> encoder;            // null for decoder-only models
  std::shared_ptr<const Model> decoder;            // first step; null: decoder_with_past with nothing past
  std::shared_ptr<const Model> decoder_with_past;  // null: the whole sequence is run at each step

  // path: an .onnx file, or a folder with model.onnx (or decoder_model.onnx, decoder_with_past_model.onnx, or
  // decoder_model_merged.onnx, whose two branches become two decoders), for encoder-decoder models beside
  // encoder_model.onnx. Error kIo, and those of importing.
  static GenerationModel load(const std::filesystem::path& path,
                              const std::vector<std::string>& passes = default_passes());
};

// One request at a time; not thread-safe.
class Generator {
 public:
  // Called after each step with the newest token of the best row so far.
  using OnToken = std::function<void(std::int64_t token)>;

  explicit Generator(GenerationModel model, std::shared_ptr<ThreadPool> pool = nullptr);
  ~Generator();
  Generator(Generator&&) noexcept;

  struct Request {
    std::vector<std::int64_t> input_ids;  // the prompt, or the encoder's input
    TensorMap encoder_inputs;             // what else the encoder takes (features instead of input_ids), for one row
    std::uint32_t stream = 0;             // of random numbers: the prompt's number
  };

  // Sequences start with the prompt, or with decoder_start_token_id. Error kInvalidArgument for an empty prompt or
  // impossible options.
  std::vector<Hypothesis> generate(const Request& request, const GenerationConfig& config,
                                   const OnToken& on_token = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::runtime
