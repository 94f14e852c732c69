#include "runtime/generate/search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "graph/error.h"
#include "runtime/generate/distribution.h"
#include "runtime/generate/logits_processor.h"

namespace weft::runtime {
namespace {

// The model is a table: scores of the next token by the last one.
using Table = std::vector<std::vector<float>>;

std::vector<Hypothesis> search(const Table& table, const GenerationConfig& config, std::vector<std::int64_t> prompt) {
  const auto strategy = make_search(config, {prompt, {}, 0, 0});
  std::vector<std::vector<std::int64_t>> rows(static_cast<std::size_t>(strategy->rows()), prompt);
  while (!strategy->done()) {
    std::vector<float> logits;
    for (const auto& row : rows) {
      const auto& next = table[static_cast<std::size_t>(row.back())];
      logits.insert(logits.end(), next.begin(), next.end());
    }
    std::vector<std::vector<std::int64_t>> continued;
    for (const Pick& pick : strategy->step({logits, static_cast<std::int64_t>(table.size()), {}, false})) {
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

// The tokens that transformers' warpers keep of the same scores.
TEST(LogitsWarpers, KeepWhatTransformersKeeps) {
  struct Case {
    void (*set)(GenerationConfig&);
    std::vector<std::size_t> kept;
  };
  const Case cases[] = {
      {[](GenerationConfig& c) { c.top_k = 3; }, {0, 4, 8}},
      {[](GenerationConfig& c) { c.top_p = 0.6; }, {0, 4, 8}},
      {[](GenerationConfig& c) { c.top_p = 0.95; }, {0, 1, 3, 4, 7, 8, 10, 11}},
      {[](GenerationConfig& c) { c.min_p = 0.2; }, {0, 1, 4, 8, 11}},
      {[](GenerationConfig& c) { c.typical_p = 0.5; }, {0, 1, 8, 11}},
      {[](GenerationConfig& c) { c.typical_p = 0.9; }, {0, 1, 4, 7, 8, 11}},
      {[](GenerationConfig& c) { c.epsilon_cutoff = 0.05; }, {0, 1, 4, 8, 11}},
      {[](GenerationConfig& c) { c.epsilon_cutoff = 0.9; }, {4}},
      {[](GenerationConfig& c) { c.eta_cutoff = 0.1; }, {0, 1, 4, 8, 11}},
      {[](GenerationConfig& c) { c.eta_cutoff = 0.6; }, {4, 8}},
  };
  const std::vector<float> scores = {2.0f, 1.5f, -0.3f, 0.7f, 3.1f, -2.2f, 0.0f, 1.1f, 2.6f, -1.4f, 0.4f, 1.9f};
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    GenerationConfig config;
    config.do_sample = true;
    config.top_k = 0;
    cases[i].set(config);
    std::vector<float> result = scores;
    process(make_logits_processors(config, {1, 20, {}, {}, nullptr}), std::vector<std::int64_t>{0}, result);
    std::vector<std::size_t> kept;
    for (std::size_t k = 0; k < result.size(); ++k) {
      if (!std::isinf(result[k])) kept.push_back(k);
    }
    EXPECT_EQ(kept, cases[i].kept) << i;
  }
}

// As defined: the least likely tokens go while they have at most 1 - p together.
std::vector<float> top_p_of_sorted(std::vector<float> scores, double p, std::size_t keep) {
  const std::vector<double> probabilities = softmax(scores);
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
  double total = 0;
  for (std::size_t i = 0; i + keep < order.size(); ++i) {
    total += probabilities[order[i]];
    if (total > 1 - p) break;
    scores[order[i]] = -std::numeric_limits<float>::infinity();
  }
  return scores;
}

TEST(LogitsWarpers, TopPKeepsWhatSortingEverythingKeeps) {
  std::mt19937 random(5);
  for (const std::size_t count : {1u, 2u, 7u, 300u, 3000u, 20000u}) {
    for (const float spread : {0.0f, 0.3f, 3.0f, 12.0f}) {
      std::vector<float> scores(count);
      for (float& x : scores)  // many are equal
        x = static_cast<float>(random() % 1000) / 1000 * spread;
      if (count > 2) scores[1] = -std::numeric_limits<float>::infinity();
      for (const double p : {1e-9, 0.25, 0.5, 0.9, 0.999, 1 - 1e-12}) {
        for (const int beams : {1, 3}) {
          GenerationConfig config;
          config.do_sample = true;
          config.num_beams = beams;
          config.eos_token_id = {0, 1};
          config.top_k = 0;
          config.top_p = p;
          std::vector<float> result = scores;
          process(make_logits_processors(config, {1, 20, {}, {}, nullptr}), std::vector<std::int64_t>{0}, result);
          EXPECT_EQ(result, top_p_of_sorted(scores, p, beams > 1 ? 3 : 1)) << count << " " << spread << " " << p;
        }
      }
    }
  }
  GenerationConfig config;
  config.do_sample = true;
  config.top_k = 0;
  config.top_p = 0.5;
  std::vector<float> unknown = {1, std::numeric_limits<float>::quiet_NaN(), 3, 2};
  process(make_logits_processors(config, {1, 20, {}, {}, nullptr}), std::vector<std::int64_t>{0}, unknown);
  EXPECT_TRUE(std::isnan(unknown[1]));
  EXPECT_EQ(std::ranges::count(unknown, -std::numeric_limits<float>::infinity()), 3);
}

// --- Scores as probabilities -------------------------------------------------------------------------

std::vector<float> spread_scores(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> x(count);
  for (float& value : x) value = static_cast<float>(random() % 4000) * 0.02f - 40.0f;  // with ties
  return x;
}

TEST(Distribution, IsThatOfItsDefinition) {
  for (const std::size_t count : {1u, 2u, 7u, 16u, 33u, 5001u, 50257u}) {
    std::vector<float> x = spread_scores(count, static_cast<std::uint32_t>(count));
    if (count > 2) x[count / 2] = -INFINITY;
    double total = 0;
    for (const float value : x) total += std::exp(static_cast<double>(value));
    const std::vector<double> probabilities = softmax(x);
    std::vector<float> logarithms = x;
    log_softmax(logarithms);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_NEAR(probabilities[i], std::exp(static_cast<double>(x[i])) / total, 1e-14);
      if (std::isinf(x[i]))
        EXPECT_EQ(logarithms[i], -INFINITY);
      else
        EXPECT_NEAR(static_cast<double>(logarithms[i]), static_cast<double>(x[i]) - std::log(total), 1e-5);
    }
  }
}

TEST(Distribution, OfWhatIsNoNumberIsNone) {
  for (const std::size_t count : {1u, 5u, 40u}) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> x(count, std::isinf(bad) && bad < 0 ? bad : 0.5f);
      x[count / 2] = bad;
      std::vector<float> logarithms = x;
      log_softmax(logarithms);
      for (const float value : logarithms) EXPECT_TRUE(std::isnan(value));
      for (const double p : softmax(x)) EXPECT_TRUE(std::isnan(p));
    }
  }
}

TEST(Distribution, TopIsASortedBeginning) {
  for (const std::size_t count : {0u, 1u, 6u, 70u, 5001u}) {
    for (const bool nan : {false, true}) {
      std::vector<float> x = spread_scores(count, 3);
      if (nan && count > 3) x[3] = x[count - 1] = NAN;
      std::vector<std::size_t> order(count);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return x[a] > x[b] || (std::isnan(x[a]) && !std::isnan(x[b]));
      });
      for (const std::size_t k : {0u, 1u, 2u, 12u, 100u}) {
        const std::vector<std::size_t> expected(order.begin(),
                                                order.begin() + static_cast<std::ptrdiff_t>(std::min(k, count)));
        EXPECT_EQ(top(x, k), expected) << count << " " << k;
      }
    }
  }
}

TEST(Random, PhiloxGivesThePublishedWords) {
  const std::array<std::uint32_t, 4> zeros = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  EXPECT_EQ(philox(0, {0, 0, 0, 0}), zeros);
  const std::array<std::uint32_t, 4> ones = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  EXPECT_EQ(philox(~std::uint64_t{0}, {~0u, ~0u, ~0u, ~0u}), ones);
}

// Frequencies of one step against the exact distribution: chi-squared with 4 degrees of freedom stays below its 99.99 %
// quantile; the same seed gives the same tokens, whatever else is drawn.
TEST(Sampling, FollowsTheDistributionAndItsSeed) {
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f, 0.5f};
  const std::vector<double> exact = softmax(logits);
  constexpr int kDraws = 20000;
  std::vector<double> counts(logits.size(), 0);
  GenerationConfig config;
  config.do_sample = true;
  config.max_new_tokens = 1;
  config.num_return_sequences = kDraws;
  config.seed = 7;
  const std::vector<std::int64_t> prompt = {1};
  const auto tokens = [&](std::uint32_t stream) {
    const auto search = make_search(config, {prompt, {}, stream, 0});
    std::vector<float> rows;
    for (int i = 0; i < kDraws; ++i) rows.insert(rows.end(), logits.begin(), logits.end());
    search->step({rows, static_cast<std::int64_t>(logits.size()), {}, false});
    EXPECT_TRUE(search->done());
    std::vector<std::int64_t> drawn;
    for (const Hypothesis& hypothesis : search->results()) drawn.push_back(hypothesis.tokens.back());
    return drawn;
  };
  const auto drawn = tokens(0);
  for (const std::int64_t token : drawn) ++counts[static_cast<std::size_t>(token)];
  double chi_squared = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = exact[i] * kDraws;
    chi_squared += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_squared, 23.5);
  EXPECT_EQ(tokens(0), drawn);
  EXPECT_NE(tokens(1), drawn);
}

}  // namespace
}  // namespace weft::runtime
