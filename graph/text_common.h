// What printing and parsing of the text form share. Internal to graph/.
#pragma once

#include <string>
#include <string_view>

namespace weft {

// Characters of names that stand bare: %h.0/ln_1.
inline bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '/';
}

inline constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace weft
