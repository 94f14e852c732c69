// A table as the model: its scores depend on the last tokens and on nothing else.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/generate/decode_loop.h"
#include "runtime/generate/distribution.h"
#include "runtime/generate/strategies.h"

namespace weft::runtime {

using Ids = std::vector<std::int64_t>;

// Scores that depend on the last `memory` tokens and on nothing else, spread over some units.
class Table final : public TokenModel {
 public:
  explicit Table(std::int64_t vocabulary, std::uint64_t seed, std::size_t memory = 100)
      : vocabulary_(vocabulary), seed_(seed), memory_(memory) {}

  std::vector<float> scores(const Ids& tokens) const {
    std::uint64_t hash = seed_;
    const std::size_t first = tokens.size() - std::min(tokens.size(), memory_);
    for (std::size_t i = first; i < tokens.size(); ++i) {
      hash = (hash ^ static_cast<std::uint64_t>(tokens[i] + 1)) * 0x100000001b3;
    }
    std::vector<float> result;
    for (std::int64_t t = 0; t < vocabulary_; ++t) {
      result.push_back(static_cast<float>(4 * uniform(hash, 1, 2, 3, static_cast<std::uint32_t>(t))));
    }
    return result;
  }

  Logits start(std::span<const Source> sources) override {
    rows_.clear();
    for (const Source& source : sources) rows_.push_back(source.prompt);
    return all();
  }
  Logits step(std::span<const std::int64_t> parents, std::span<const std::int64_t> tokens) override {
    std::vector<Ids> next;
    for (std::size_t r = 0; r < parents.size(); ++r) {
      next.push_back(rows_.at(static_cast<std::size_t>(parents[r])));
      next.back().push_back(tokens[r]);
    }
    rows_ = std::move(next);
    return all();
  }
  Logits extend(std::span<const std::int64_t> tokens) override {
    ++runs;
    Logits result{std::ssize(tokens), vocabulary_, {}};
    for (const std::int64_t token : tokens) {
      rows_.at(0).push_back(token);
      const std::vector<float> row = scores(rows_[0]);
      result.values.insert(result.values.end(), row.begin(), row.end());
    }
    return result;
  }
  void truncate(std::int64_t length) override {
    ASSERT_LE(static_cast<std::size_t>(length), rows_.at(0).size());
    rows_[0].resize(static_cast<std::size_t>(length));
  }
  bool together(const Source&, const Source&) override { return true; }

  int runs = 0;

 private:
  Logits all() {
    ++runs;
    Logits result{std::ssize(rows_), vocabulary_, {}};
    for (const Ids& row : rows_) {
      const std::vector<float> one = scores(row);
      result.values.insert(result.values.end(), one.begin(), one.end());
    }
    return result;
  }

  std::int64_t vocabulary_;
  std::uint64_t seed_;
  std::size_t memory_;
  std::vector<Ids> rows_;
};

inline Decoding decoding(std::size_t number, const Ids& prompt, const GenerationConfig& config,
                         const Callbacks& callbacks) {
  Decoding result;
  result.number = number;
  result.source.prompt = prompt;
  result.unconditional.prompt = {prompt.back()};
  result.search = make_search(config, {prompt, prompt, static_cast<std::uint32_t>(number), number}, callbacks);
  return result;
}

inline std::vector<std::vector<Hypothesis>> decode(TokenModel& model, const std::vector<Ids>& prompts,
                                                   const GenerationConfig& config, const Callbacks& callbacks = {},
                                                   std::size_t first_number = 0) {
  std::vector<Decoding> batch;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    batch.push_back(decoding(first_number + i, prompts[i], config, callbacks));
  }
  decode_batch(model, nullptr, batch, {callbacks, {}});
  std::vector<std::vector<Hypothesis>> results;
  for (const Decoding& one : batch) results.push_back(one.search->results());
  return results;
}

inline GenerationConfig base() {
  GenerationConfig config;
  config.eos_token_id = {0};
  config.pad_token_id = 0;
  config.max_new_tokens = 9;
  return config;
}

inline void expect_same(const std::vector<Hypothesis>& a, const std::vector<Hypothesis>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].tokens, b[i].tokens) << what;
    EXPECT_EQ(a[i].score, b[i].score) << what;
    EXPECT_EQ(a[i].stopped, b[i].stopped) << what;
  }
}

}  // namespace weft::runtime
