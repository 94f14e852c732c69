// The one exception type of weft.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft {

enum class ErrorCode {
  kIo,               // a file or stream cannot be read or written
  kInvalidModel,     // the model breaks a rule of its format or of its operators
  kUnsupported,      // valid, but weft does not do it
  kInvalidArgument,  // the caller passed something wrong
  kBackend,          // a kernel library failed
  kInternal,         // a bug in weft
};

// "io", "invalid_model", ...
std::string_view to_string(ErrorCode code);

// Carries a code, a message and context frames from the innermost outwards, for instance
//   unsupported: Resize with mode "tf_crop_and_resize"
//     in node "/vision/Resize_1" (Resize)
//     while importing clip.onnx
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message);

  ErrorCode code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::vector<std::string>& frames() const noexcept { return frames_; }
  // Adds one line of context, outside those already there.
  void add_frame(std::string frame);
  // The whole block: code, message, one indented line per frame.
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  void render();

  ErrorCode code_;
  std::string message_;
  std::vector<std::string> frames_;
  std::string text_;
};

// Throws Error(code, fmt::format(format, args...)).
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// Runs body; an Error that leaves it carries frame() as one more line of context. What the standard library throws for
// impossible sizes and positions leaves it as an Error too.
template <class Frame, class Body>
decltype(auto) with_frame(Frame&& frame, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (Error& error) {
    error.add_frame(std::forward<Frame>(frame)());
    throw;
  } catch (const std::logic_error& impossible) {  // out_of_range, length_error
    Error error(ErrorCode::kInvalidModel, impossible.what());
    error.add_frame(std::forward<Frame>(frame)());
    throw error;
  } catch (const std::bad_alloc&) {
    Error error(ErrorCode::kInvalidArgument, "out of memory");
    error.add_frame(std::forward<Frame>(frame)());
    throw error;
  }
}

}  // namespace weft
