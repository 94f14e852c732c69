// Guesses by lookup and by a smaller model: the tokens without them, from fewer runs.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/runtime/table_model.h"

namespace weft::runtime {
namespace {

Hypothesis speculated(Table& model, Drafter& drafter, const Ids& prompt, const GenerationConfig& config,
                      std::size_t number = 0) {
  Decoding one = decoding(number, prompt, config, {});
  decode_speculatively(model, one, drafter, {{}, {}});
  return one.search->results()[0];
}

TEST(Speculation, TokensAreThoseWithoutIt) {
  for (const bool sampled : {false, true}) {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      GenerationConfig config = base();
      config.max_new_tokens = 25;
      config.do_sample = sampled;
      config.seed = seed;
      config.prompt_lookup_num_tokens = 1 + static_cast<std::int64_t>(seed % 5);
      config.num_assistant_tokens = 1 + static_cast<std::int64_t>(seed % 4);
      Table model(5, seed, 1 + seed % 3), other(5, seed % 2 == 0 ? seed : seed + 1, 1);
      const Ids prompt = {1, 2, 3, 1, 2, 4};
      const auto plain = decode(model, {prompt}, config, {}, 3)[0][0];
      const auto lookup = make_prompt_lookup(config, std::ssize(prompt));
      expect_same({speculated(model, *lookup, prompt, config, 3)}, {plain}, "lookup");
      const auto assistant = make_assistant(config, other, {prompt, {}, {}}, 3);
      expect_same({speculated(model, *assistant, prompt, config, 3)}, {plain}, "assistant");
    }
  }
}

TEST(Speculation, RunsTheModelLessOften) {
  GenerationConfig config = base();
  config.eos_token_id = {};
  config.max_new_tokens = 60;
  config.prompt_lookup_num_tokens = 8;
  Table model(5, 1, 1);  // goes round in circles
  const auto lookup = make_prompt_lookup(config, 1);
  EXPECT_EQ(speculated(model, *lookup, {1}, config).tokens.size(), 61u);
  EXPECT_LT(model.runs, 20);
  Table same(5, 1, 1), target(5, 1, 1);
  config.prompt_lookup_num_tokens.reset();
  const auto assistant = make_assistant(config, same, {{1}, {}, {}}, 0);
  speculated(target, *assistant, {1}, config);
  EXPECT_LT(target.runs, 10);
}

// Pairs of tokens sampled with speculation against their exact distribution: chi-squared with 15 degrees of freedom
// stays below its 99.99 % quantile.
TEST(Speculation, LeavesTheDistributionAsItIs) {
  constexpr int kDraws = 8000;
  GenerationConfig config = base();
  config.eos_token_id = {};
  config.do_sample = true;
  config.top_k = 0;
  config.max_new_tokens = 2;
  config.prompt_lookup_num_tokens = 2;
  Table model(4, 5);
  const Ids prompt = {1, 2, 1, 3, 1};
  std::map<std::pair<std::int64_t, std::int64_t>, double> counts;
  for (int i = 0; i < kDraws; ++i) {
    config.seed = static_cast<std::uint64_t>(i);
    const auto lookup = make_prompt_lookup(config, std::ssize(prompt));
    const Ids tokens = speculated(model, *lookup, prompt, config).tokens;
    ++counts[{tokens[5], tokens[6]}];
  }
  double chi_squared = 0;
  const std::vector<double> first = softmax(model.scores(prompt));
  for (std::int64_t a = 0; a < 4; ++a) {
    Ids continued = prompt;
    continued.push_back(a);
    const std::vector<double> second = softmax(model.scores(continued));
    for (std::int64_t b = 0; b < 4; ++b) {
      const double expected = kDraws * first[static_cast<std::size_t>(a)] * second[static_cast<std::size_t>(b)];
      chi_squared += std::pow(counts[std::pair(a, b)] - expected, 2) / expected;
    }
  }
  EXPECT_LT(chi_squared, 44.3);
}

}  // namespace
}  // namespace weft::runtime
