// Generating tokens with an exported decoder, or encoder and decoder.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/bind_inputs.h"
#include "runtime/cache.h"
#include "runtime/generate/callbacks.h"
#include "runtime/generate/config.h"
#include "runtime/generate/model_folder.h"
#include "runtime/generate/search.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

class Profile;  // runtime/profile.h

struct Request {
  std::vector<std::int64_t> input_ids;                 // the prompt, or the encoder's input
  TensorMap encoder_inputs = {};                       // what else the encoder takes (features), for one row
  std::vector<std::int64_t> decoder_input_ids = {};    // what an encoder-decoder model's output must begin with
  std::vector<std::int64_t> negative_prompt_ids = {};  // for guidance_scale; empty: the prompt's last token
};

struct Generation {
  std::vector<Hypothesis> sequences;  // num_return_sequences, best first; they begin with the prompt or decoder start
  std::vector<std::string> warnings;  // options that had no effect, and why
};

// One call at a time; not thread-safe. Generators share a GenerationModel.
class Generator {
 public:
  // assistant: a smaller model with the same tokens, for speculation. pool: null for one of its own.
  explicit Generator(const GenerationModel& model, std::shared_ptr<ThreadPool> pool = nullptr,
                     const GenerationModel* assistant = nullptr);
  ~Generator();
  Generator(Generator&&) noexcept;
  Generator& operator=(Generator&&) noexcept;

  // Records the runs of encoders and decoders, see Session::set_profile().
  void set_profile(Profile* profile);
  // What the caches of all its decoders (assistant and guidance too), alone or with those of others, may take; null: no
  // limit. A step that would take more is Error kInvalidArgument before it runs.
  void set_cache_budget(std::shared_ptr<CacheBudget> budget);
  // Of the decoder's caches, since this generator was made.
  CacheUsage cache_usage() const;
  // Is there a source beside the prompt: an encoder-decoder model?
  bool has_source() const;

  // Up to batch_size requests are decoded together; each has the result it has alone. Random numbers depend on the
  // request's number. Speculation decodes one by one. Error kInvalidArgument for an empty prompt or impossible options,
  // kUnsupported for what the model cannot do.
  std::vector<Generation> generate(std::span<const Request> requests, const GenerationConfig& config,
                                   const Callbacks& callbacks = {}, std::size_t batch_size = 8);
  Generation generate(const Request& request, const GenerationConfig& config, const Callbacks& callbacks = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::runtime
