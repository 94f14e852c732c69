// When a sequence ends.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/generate/callbacks.h"
#include "runtime/generate/config.h"

namespace weft::runtime {

enum class StopReason : std::uint8_t { kNone, kEndToken, kLength, kStopString, kCallback, kTime, kCancelled };

// "eos", "length", "stop_string", "callback", "time", "cancelled"; "" for kNone.
std::string_view to_string(StopReason reason);

class StopRule {
 public:
  // max_length: tokens of a whole sequence. Error kInvalidArgument for stop_strings without Callbacks::decode.
  StopRule(const GenerationConfig& config, std::int64_t max_length, const Callbacks& callbacks, std::size_t prompt);

  // Does the sequence end with its last token?
  StopReason check(std::span<const std::int64_t> tokens) const;
  bool is_end_token(std::int64_t token) const;

 private:
  bool ends_with_stop_string(std::span<const std::int64_t> tokens) const;

  std::vector<std::int64_t> end_tokens_;
  std::vector<std::string> strings_;
  std::size_t longest_ = 0;
  std::int64_t max_length_;
  std::function<bool(std::span<const std::int64_t>)> stop_;
  std::function<std::string(std::span<const std::int64_t>)> decode_;
};

}  // namespace weft::runtime
