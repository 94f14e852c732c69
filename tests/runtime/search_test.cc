#include "runtime/generate/search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graph/error.h"

namespace weft::runtime {
namespace {

// The model is a table: scores of the next token by the last one.
using Table = std::vector<std::vector<float>>;

std::vector<Hypothesis> search(const Table& table, const GenerationConfig& config, std::vector<std::int64_t> prompt) {
  const auto strategy = make_search(config, prompt);
  std::vector<std::vector<std::int64_t>> rows(static_cast<std::size_t>(strategy->rows()), prompt);
  while (!strategy->done()) {
    std::vector<float> logits;
    for (const auto& row : rows) {
      const auto& next = table[static_cast<std::size_t>(row.back())];
      logits.insert(logits.end(), next.begin(), next.end());
    }
    std::vector<std::vector<std::int64_t>> continued;
    for (const Pick& pick : strategy->step(logits, static_cast<std::int64_t>(table.size()))) {
      continued.push_back(rows[static_cast<std::size_t>(pick.parent)]);
      continued.back().push_back(pick.token);
    }
    rows = continued;
  }
  return strategy->results();
}

// From 1 the best next token is 2, but the best two steps go through 3. Token 0 ends.
const Table kTable = {{0, 0, 0, 0}, {-9, -9, 1.0f, 0.9f}, {0.1f, 0, 0, 0}, {5, -5, -5, -5}};

GenerationConfig config_with(std::int64_t beams) {
  GenerationConfig config;
  config.num_beams = beams;
  config.eos_token_id = {0};
  config.max_new_tokens = 4;
  return config;
}

TEST(Search, GreedyTakesTheBestNextToken) {
  EXPECT_EQ(search(kTable, config_with(1), {1})[0].tokens, (std::vector<std::int64_t>{1, 2, 0}));
}

TEST(Search, BeamsFindTheBestSequence) {
  GenerationConfig config = config_with(3);
  config.num_return_sequences = 2;
  const auto results = search(kTable, config, {1});
  EXPECT_EQ(results[0].tokens, (std::vector<std::int64_t>{1, 3, 0}));
  EXPECT_EQ(results.size(), 2u);
  EXPECT_GT(results[0].score, results[1].score);
}

TEST(Search, LengthLimitsHold) {
  GenerationConfig config = config_with(1);
  config.min_new_tokens = 3;
  EXPECT_EQ(search(kTable, config, {1})[0].tokens.size(), 5u);
  config = config_with(2);
  config.eos_token_id = {};
  EXPECT_EQ(search(kTable, config, {1})[0].tokens.size(), 5u);
  config.max_new_tokens.reset();
  config.max_length = 3;
  EXPECT_EQ(search(kTable, config, {1})[0].tokens.size(), 3u);
}

TEST(Search, ProcessorsChangeScores) {
  GenerationConfig config = config_with(1);
  config.suppress_tokens = {2};
  EXPECT_EQ(search(kTable, config, {1})[0].tokens, (std::vector<std::int64_t>{1, 3, 0}));
  config = config_with(1);
  config.forced_eos_token_id = {3};
  config.max_new_tokens = 1;
  EXPECT_EQ(search(kTable, config, {1})[0].tokens, (std::vector<std::int64_t>{1, 3}));
  const Table loop = {{0, 0, 0}, {0, 0, 5}, {0, 5, 0}};
  config = config_with(1);
  config.no_repeat_ngram_size = 2;
  EXPECT_EQ(search(loop, config, {1})[0].tokens, (std::vector<std::int64_t>{1, 2, 1, 0}));
  config = config_with(1);
  config.repetition_penalty = 100;
  EXPECT_EQ(search({{0, 0, 0}, {0.1f, 0, 5}, {0.2f, 5, 0}}, config, {1})[0].tokens,
            (std::vector<std::int64_t>{1, 2, 0}));
}

TEST(Search, ImpossibleOptionsAreErrors) {
  GenerationConfig config;
  config.num_return_sequences = 2;
  EXPECT_THROW(validate(config), Error);
  config = {};
  config.num_beams = 0;
  EXPECT_THROW(validate(config), Error);
}

}  // namespace
}  // namespace weft::runtime
