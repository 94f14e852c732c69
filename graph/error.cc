#include "graph/error.h"

namespace weft {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo: return "io";
    case ErrorCode::kInvalidModel: return "invalid_model";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kBackend: return "backend";
    case ErrorCode::kInternal: return "internal";
  }
  return "unknown";
}

Error::Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) { render(); }

void Error::add_frame(std::string frame) {
  if (!frames_.empty() && frames_.back() == frame) return;
  frames_.push_back(std::move(frame));
  render();
}

void Error::render() {
  text_ = fmt::format("{}: {}", to_string(code_), message_);
  for (const std::string& frame : frames_) text_ += "\n  " + frame;
}

}  // namespace weft
