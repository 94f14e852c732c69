// Hugging Face's tokenizer.json, as far as character-level models need it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace weft::tools {

// normalizer: Lowercase (of ASCII), Strip, or a Sequence of them; pre_tokenizer: Split into single characters;
// model: WordLevel; post_processor: TemplateProcessing of one sequence; decoder: Fuse. Anything else
// is Error kUnsupported naming it: a tokenizer that weft only half reads would give wrong tokens.
class Tokenizer {
 public:
  static Tokenizer load(const std::string& path);

  std::vector<std::int64_t> encode(std::string_view text) const;
  std::string decode(const std::vector<std::int64_t>& ids, bool skip_special_tokens = true) const;

 private:
  bool lowercase_ = false;
  bool strip_ = false;
  std::map<std::string, std::int64_t, std::less<>> vocabulary_;
  std::map<std::int64_t, std::string> pieces_;
  std::map<std::int64_t, bool> special_;
  std::int64_t unknown_ = -1;
  std::vector<std::int64_t> before_, after_;  // special tokens around the text
};

}  // namespace weft::tools
