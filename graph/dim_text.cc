// Reading dimensions, and writing their symbols.
#include <cctype>

#include "graph/dim.h"

namespace weft {
namespace {

bool starts_identifier(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool continues_identifier(char c) {
  return starts_identifier(c) || std::isdigit(static_cast<unsigned char>(c)) || c == '.';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Dim parse() {
    Dim result = sum();
    skip_spaces();
    if (at_ != text_.size()) error("an operator");
    return result;
  }

 private:
  static constexpr int kMaxDepth = 100;

  [[noreturn]] void error(std::string_view wanted) const {
    fail(ErrorCode::kInvalidArgument, "dimension \"{}\": {} wanted at position {}", text_, wanted, at_);
  }
  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool accept(char c) {
    skip_spaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  Dim sum() {
    Dim total = product();
    for (;;) {
      if (accept('+')) {
        total = total + product();
      } else if (accept('-')) {
        total = total - product();
      } else {
        return total;
      }
    }
  }
  Dim product() {
    Dim total = factor();
    while (accept('*')) total = total * factor();
    return total;
  }
  Dim factor() {
    if (++depth_ > kMaxDepth) error("less nesting");
    Dim result;
    skip_spaces();
    if (accept('-')) {
      result = factor() * Dim(-1);
    } else if (accept('(')) {
      result = sum();
      if (!accept(')')) error("\")\"");
    } else if (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
      result = number();
    } else if (at_ < text_.size() && text_[at_] == '"') {
      result = Dim::symbol(quoted());
    } else if (at_ < text_.size() && starts_identifier(text_[at_])) {
      result = name_or_call();
    } else {
      error("a number, a symbol or \"(\"");
    }
    --depth_;
    return result;
  }
  Dim number() {
    std::int64_t value = 0;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
      if (__builtin_mul_overflow(value, std::int64_t{10}, &value) ||
          __builtin_add_overflow(value, text_[at_] - '0', &value)) {
        error("a number below 2^63");
      }
      ++at_;
    }
    return value;
  }
  std::string quoted() {
    std::string name;
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\' && ++at_ == text_.size()) break;
      name += text_[at_];
    }
    if (at_ >= text_.size()) error("a closing quote");
    ++at_;
    return name;
  }
  Dim name_or_call() {
    const std::size_t start = at_;
    while (at_ < text_.size() && continues_identifier(text_[at_])) ++at_;
    const std::string_view name = text_.substr(start, at_ - start);
    if (!accept('(')) return Dim::symbol(name);
    const Dim a = sum();
    if (!accept(',')) error("\",\"");
    const Dim b = sum();
    if (!accept(')')) error("\")\"");
    if (name == "floordiv") return Dim::floor_div(a, b);
    if (name == "mod") return Dim::mod(a, b);
    if (name == "min") return Dim::min(a, b);
    if (name == "max") return Dim::max(a, b);
    at_ = start;
    error("floordiv, mod, min or max");
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::string Dim::symbol_text(std::string_view name) {
  bool plain = !name.empty() && starts_identifier(name[0]);
  for (const char c : name) plain = plain && continues_identifier(c);
  if (plain) return std::string(name);
  std::string text = "\"";
  for (const char c : name) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + "\"";
}

Dim Dim::parse(std::string_view text) { return Parser(text).parse(); }

}  // namespace weft
