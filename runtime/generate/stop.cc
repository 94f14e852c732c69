#include "runtime/generate/stop.h"

#include <algorithm>

#include "graph/error.h"

namespace weft::runtime {

std::string_view to_string(StopReason reason) {
  switch (reason) {
    case StopReason::kNone: return "";
    case StopReason::kEndToken: return "eos";
    case StopReason::kLength: return "length";
    case StopReason::kStopString: return "stop_string";
    case StopReason::kCallback: return "callback";
    case StopReason::kTime: return "time";
    case StopReason::kCancelled: return "cancelled";
  }
  return "";
}

StopRule::StopRule(const GenerationConfig& config, std::int64_t max_length, const Callbacks& callbacks,
                   std::size_t prompt)
    : end_tokens_(config.eos_token_id),
      strings_(config.stop_strings),
      max_length_(max_length),
      decode_(callbacks.decode) {
  if (callbacks.stop) stop_ = [stop = callbacks.stop, prompt](auto tokens) { return stop(prompt, tokens); };
  if (!strings_.empty() && !decode_) {
    fail(ErrorCode::kInvalidArgument, "stop_strings need the text of tokens: a tokenizer, or Callbacks::decode");
  }
  for (const std::string& text : strings_) longest_ = std::max(longest_, text.size());
}

bool StopRule::is_end_token(std::int64_t token) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end();
}

StopReason StopRule::check(std::span<const std::int64_t> tokens) const {
  if (is_end_token(tokens.back())) return StopReason::kEndToken;
  if (!strings_.empty() && ends_with_stop_string(tokens)) return StopReason::kStopString;
  if (stop_ && stop_(tokens)) return StopReason::kCallback;
  return static_cast<std::int64_t>(tokens.size()) >= max_length_ ? StopReason::kLength : StopReason::kNone;
}

// A match that the last token completes, though it may go on after it.
bool StopRule::ends_with_stop_string(std::span<const std::int64_t> tokens) const {
  constexpr std::size_t kSilent = 16;  // tokens among them that may have no text
  const auto window = tokens.last(std::min(tokens.size(), longest_ + kSilent));
  const std::string text = decode_(window);
  const std::size_t before = decode_(window.first(window.size() - 1)).size();
  return std::any_of(strings_.begin(), strings_.end(), [&](const std::string& wanted) {
    const std::size_t from = before + 1 > wanted.size() ? before + 1 - wanted.size() : 0;
    return !wanted.empty() && text.find(wanted, from) != std::string::npos;
  });
}

}  // namespace weft::runtime
