// What a caller of generate() may look at and decide while it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace weft::runtime {

// One token of the result that will not change any more.
struct StreamedToken {
  std::size_t prompt = 0;     // number of the request
  std::int64_t sequence = 0;  // of the request: which sample; 0 for greedy and beam search
  std::int64_t token = 0;
};

// All called on the thread that called generate(), between runs of the model. None may call the generator.
struct Callbacks {
  // Each token in order: greedy and sampling at once, beam search as soon as all beams agree on it. The tokens of a
  // sequence are those of the result after the prompt. false: cancel this request; its result is what there is so far.
  std::function<bool(const StreamedToken& token)> on_token;
  // After each run of the model, when the next tokens of all its rows are chosen.
  std::function<void()> on_step;
  // true: the sequence (prompt included) ends here.
  std::function<bool(std::size_t prompt, std::span<const std::int64_t> tokens)> stop;
  // The only tokens that may follow (prefix_allowed_tokens_fn). Error kInvalidArgument if there are none.
  std::function<std::vector<std::int64_t>(std::size_t prompt, std::span<const std::int64_t> tokens)> allowed_tokens;
  // The text of tokens; GenerationConfig::stop_strings needs it.
  std::function<std::string(std::span<const std::int64_t> tokens)> decode;
};

}  // namespace weft::runtime
