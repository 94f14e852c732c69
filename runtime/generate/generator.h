// Generating tokens with an exported decoder, or encoder and decoder.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/bind_inputs.h"
#include "runtime/generate/config.h"
#include "runtime/generate/model_folder.h"
#include "runtime/generate/search.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

class Profile;  // runtime/profile.h

// One request at a time; not thread-safe.
class Generator {
 public:
  // Called after each step with the newest token of the best row so far.
  using OnToken = std::function<void(std::int64_t token)>;

  explicit Generator(GenerationModel model, std::shared_ptr<ThreadPool> pool = nullptr);
  ~Generator();
  Generator(Generator&&) noexcept;

  // Records the runs of encoder and decoders, see Session::set_profile().
  void set_profile(Profile* profile);

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
