#include "tools/tokenizer.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "graph/error.h"

namespace weft::tools {
namespace {

using nlohmann::json;

[[noreturn]] void unsupported(std::string_view part, const json& value) {
  fail(ErrorCode::kUnsupported, "tokenizer.json: {} of type {}", part, value.value("type", "?"));
}

// Splits UTF-8 into characters; a stray byte is a character of its own.
std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> result;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    length = std::min(length, text.size() - i);
    result.push_back(text.substr(i, length));
    i += length;
  }
  return result;
}

}  // namespace

Tokenizer Tokenizer::load(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::kIo, "cannot open {}", path);
  const json root = json::parse(file, nullptr, false);
  if (root.is_discarded()) fail(ErrorCode::kInvalidArgument, "{} is not JSON", path);
  Tokenizer tokenizer;
  return with_frame([&] { return "in " + path; },
                    [&] {
                      const auto add_normalizer = [&](const json& normalizer) {
                        const std::string type = normalizer.value("type", "");
                        if (type == "Lowercase")
                          tokenizer.lowercase_ = true;
                        else if (type == "Strip")
                          tokenizer.strip_ = true;
                        else
                          unsupported("normalizer", normalizer);
                      };
                      if (const json& normalizer = root.at("normalizer"); !normalizer.is_null()) {
                        if (normalizer.value("type", "") == "Sequence") {
                          for (const json& part : normalizer.at("normalizers")) add_normalizer(part);
                        } else {
                          add_normalizer(normalizer);
                        }
                      }
                      const json& split = root.at("pre_tokenizer");
                      const std::string pattern =
                          split.is_object() && split.contains("pattern") ? split["pattern"].value("Regex", "") : "";
                      if (!split.is_object() || split.value("type", "") != "Split" ||
                          (pattern != "." && pattern != "[\\s\\S]" && pattern != "(?s).")) {
                        unsupported("pre_tokenizer", split.is_object() ? split : json::object());
                      }
                      const json& model = root.at("model");
                      if (model.value("type", "") != "WordLevel") unsupported("model", model);
                      for (const auto& [piece, id] : model.at("vocab").items()) {
                        tokenizer.vocabulary_[piece] = id.get<std::int64_t>();
                        tokenizer.pieces_[id.get<std::int64_t>()] = piece;
                      }
                      const auto unknown = tokenizer.vocabulary_.find(model.value("unk_token", ""));
                      if (unknown != tokenizer.vocabulary_.end()) tokenizer.unknown_ = unknown->second;
                      for (const json& added : root.value("added_tokens", json::array())) {
                        tokenizer.pieces_[added.at("id").get<std::int64_t>()] = added.at("content").get<std::string>();
                        if (added.value("special", false))
                          tokenizer.special_[added.at("id").get<std::int64_t>()] = true;
                      }
                      if (const json& post = root.at("post_processor"); !post.is_null()) {
                        if (post.value("type", "") != "TemplateProcessing") unsupported("post_processor", post);
                        bool seen = false;
                        for (const json& item : post.at("single")) {
                          if (item.contains("Sequence")) {
                            seen = true;
                            continue;
                          }
                          const std::string name = item.at("SpecialToken").at("id").get<std::string>();
                          for (const json& id : post.at("special_tokens").at(name).at("ids")) {
                            (seen ? tokenizer.after_ : tokenizer.before_).push_back(id.get<std::int64_t>());
                          }
                        }
                      }
                      return tokenizer;
                    });
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
  std::string normal(text);
  if (lowercase_) {
    for (char& c : normal) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  if (strip_) {
    const std::size_t first = std::min(normal.find_first_not_of(" \t\r\n"), normal.size());
    normal = normal.substr(first, normal.find_last_not_of(" \t\r\n") + 1 - first);
  }
  std::vector<std::int64_t> ids = before_;
  for (const std::string_view character : characters(normal)) {
    const auto found = vocabulary_.find(character);
    if (found != vocabulary_.end())
      ids.push_back(found->second);
    else if (unknown_ >= 0)
      ids.push_back(unknown_);
    else
      fail(ErrorCode::kInvalidArgument, "the tokenizer has no token for \"{}\"", character);
  }
  ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

std::string Tokenizer::decode(const std::vector<std::int64_t>& ids, bool skip_special_tokens) const {
  std::string text;
  for (const std::int64_t id : ids) {
    const auto piece = pieces_.find(id);
    if (piece != pieces_.end() && !(skip_special_tokens && special_.contains(id))) text += piece->second;
  }
  return text;
}

}  // namespace weft::tools
