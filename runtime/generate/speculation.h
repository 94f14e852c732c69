// Guessing the next tokens, so that one run of the model can check several.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/generate/config.h"
#include "runtime/generate/token_model.h"

namespace weft::runtime {

// The search picks its tokens from the model's scores as ever; a guess only decides how many it can pick before the
// model runs again. So the tokens, sampled ones too, are those without speculation.
class Drafter {
 public:
  Drafter() = default;
  Drafter(const Drafter&) = delete;
  Drafter& operator=(const Drafter&) = delete;
  virtual ~Drafter() = default;
  // Tokens that may follow; none is an answer too.
  virtual std::vector<std::int64_t> propose(std::span<const std::int64_t> sequence) = 0;
};

// What followed the last tokens when they occurred before. Of an encoder-decoder model's source nothing is taken.
std::unique_ptr<Drafter> make_prompt_lookup(const GenerationConfig& config, std::int64_t prompt_length);

// What a smaller model with the same tokens would pick, with the same random numbers. `assistant` outlives the drafter.
std::unique_ptr<Drafter> make_assistant(const GenerationConfig& config, TokenModel& assistant, Source source,
                                        std::uint32_t stream);

}  // namespace weft::runtime
