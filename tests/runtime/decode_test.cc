// Decoding with a table as the model: what holds for every strategy, whatever the scores.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "graph/error.h"
#include "tests/runtime/table_model.h"

namespace weft::runtime {
namespace {

struct Named {
  const char* name;
  GenerationConfig config;
};

std::vector<Named> strategies() {
  std::vector<Named> list = {
      {"greedy", base()}, {"samples", base()}, {"beams", base()}, {"sampled beams", base()}, {"diverse beams", base()}};
  list[1].config.do_sample = true;
  list[1].config.num_return_sequences = 3;
  for (const std::size_t i : {2u, 3u, 4u}) {
    list[i].config.num_beams = 4;
    list[i].config.num_return_sequences = 2;
  }
  list[3].config.do_sample = true;
  list[4].config.num_beam_groups = 2;
  list[4].config.diversity_penalty = 1.0;
  return list;
}

const std::vector<Ids> kPrompts = {{1}, {2, 3}, {4, 5, 6, 1, 2}, {3, 3, 3}, {6, 5}};

TEST(Decode, ABatchIsItsPromptsAlone) {
  for (const auto& [name, config] : strategies()) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      Table model(7, seed);
      const auto together = decode(model, kPrompts, config);
      for (std::size_t i = 0; i < kPrompts.size(); ++i) {
        expect_same(together[i], decode(model, {kPrompts[i]}, config, {}, i)[0], name);
      }
    }
  }
}

// All sequences that end, by brute force.
void every(const Table& model, const Ids& tokens, double score, std::size_t prompt, const GenerationConfig& config,
           Hypothesis& best) {
  std::vector<float> scores = model.scores(tokens);
  log_softmax(scores);
  for (std::size_t t = 0; t < scores.size(); ++t) {
    Ids next = tokens;
    next.push_back(static_cast<std::int64_t>(t));
    const double total = score + static_cast<double>(scores[t]);
    const auto generated = static_cast<double>(next.size() - prompt);
    if (t != 0 && std::ssize(next) < max_sequence_length(config, static_cast<std::int64_t>(prompt))) {
      every(model, next, total, prompt, config, best);
    } else if (const double value = total / std::pow(generated, config.length_penalty); value > best.score) {
      best.tokens = next;
      best.score = value;
    }
  }
}

TEST(Decode, WideBeamsFindWhatExhaustiveSearchFinds) {
  for (const double penalty : {1.0, 0.0, 2.0, -0.5}) {
    for (std::uint64_t seed = 0; seed < 25; ++seed) {
      GenerationConfig config = base();
      config.max_new_tokens = 4;
      config.length_penalty = penalty;
      config.early_stopping = EarlyStopping::kNever;
      config.num_beams = 81;
      Table model(3, seed);
      Hypothesis best{{}, -1e30, StopReason::kNone, {}};
      every(model, {1, 2}, 0, 2, config, best);
      const auto found = decode(model, {{1, 2}}, config)[0][0];
      EXPECT_EQ(found.tokens, best.tokens) << penalty << " " << seed;
      EXPECT_NEAR(found.score, best.score, 1e-5);
    }
  }
}

TEST(Decode, OneBeamIsGreedy) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Table model(6, seed);
    const auto greedy = decode(model, {{1, 2}}, base())[0][0];
    GenerationConfig config = base();
    config.early_stopping = EarlyStopping::kTrue;
    std::vector<Decoding> batch(1);
    batch[0].source.prompt = {1, 2};
    batch[0].search = make_beam_search(config, {batch[0].source.prompt, {}, 0, 0}, {});
    decode_batch(model, nullptr, batch, {{}, {}});
    EXPECT_EQ(batch[0].search->results()[0].tokens, greedy.tokens) << seed;
  }
}

TEST(Decode, StreamedTokensAreTheResult) {
  for (const auto& [name, config] : strategies()) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      Table model(7, seed);
      std::map<std::pair<std::size_t, std::int64_t>, Ids> streamed;
      Callbacks callbacks;
      callbacks.on_token = [&](const StreamedToken& token) {
        streamed[{token.prompt, token.sequence}].push_back(token.token);
        return true;
      };
      const auto results = decode(model, kPrompts, config, callbacks);
      for (const auto& [key, tokens] : streamed) {
        Ids whole = kPrompts[key.first];
        whole.insert(whole.end(), tokens.begin(), tokens.end());
        EXPECT_EQ(whole, results[key.first][static_cast<std::size_t>(key.second)].tokens) << name << " " << seed;
      }
      const bool samples = config.do_sample && config.num_beams == 1;
      EXPECT_EQ(streamed.size(), kPrompts.size() * (samples ? 3 : 1)) << name;
    }
  }
}

TEST(Decode, WhatIsCancelledIsAPrefix) {
  for (const auto& [name, config] : strategies()) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      Table model(7, seed);
      const auto whole = decode(model, kPrompts, config);
      std::vector<Ids> streamed(kPrompts.size());
      Callbacks callbacks;
      callbacks.on_token = [&](const StreamedToken& token) {
        if (token.sequence == 0) streamed[token.prompt].push_back(token.token);
        return token.prompt != 2 || streamed[2].size() < 3;
      };
      const auto results = decode(model, kPrompts, config, callbacks);
      for (std::size_t i = 0; i < kPrompts.size(); ++i) {
        if (i != 2) {
          expect_same(results[i], whole[i], name);
          continue;
        }
        const Ids &ours = results[i][0].tokens, &all = whole[i][0].tokens;
        if (config.num_beams == 1) {
          ASSERT_LE(ours.size(), all.size());
          EXPECT_TRUE(std::equal(ours.begin(), ours.end(), all.begin())) << name;
        }
        Ids begun = kPrompts[i];
        begun.insert(begun.end(), streamed[i].begin(), streamed[i].end());
        ASSERT_LE(begun.size(), ours.size());
        EXPECT_TRUE(std::equal(begun.begin(), begun.end(), ours.begin())) << name;
      }
    }
  }
}

TEST(Decode, GuidanceMovesAwayFromTheUnconditional) {
  GenerationConfig config = base();
  config.guidance_scale = 2.5;
  config.max_new_tokens = 5;
  config.output_scores = true;
  Table model(6, 4), other(6, 4);
  std::vector<Decoding> batch;
  batch.push_back(decoding(0, {1, 2, 3}, config, {}));
  decode_batch(model, &other, batch, {{}, {}});
  const Hypothesis result = batch[0].search->results()[0];
  Ids tokens = {1, 2, 3}, unconditional = {3};
  for (std::size_t i = 3; i < result.tokens.size(); ++i) {
    std::vector<float> a = model.scores(tokens), b = model.scores(unconditional);
    log_softmax(a);
    log_softmax(b);
    for (std::size_t t = 0; t < a.size(); ++t) a[t] = 2.5f * (a[t] - b[t]) + b[t];
    const auto best = std::max_element(a.begin(), a.end());
    EXPECT_EQ(result.tokens[i], best - a.begin());
    EXPECT_NEAR(result.token_scores[i - 3].score, *best, 1e-5);
    tokens.push_back(result.tokens[i]);
    unconditional.push_back(result.tokens[i]);
  }
}

TEST(Decode, ScoresOfTokens) {
  for (auto [name, config] : strategies()) {
    config.output_scores = true;
    config.top_logprobs = 2;
    Table model(7, 3);
    const auto results = decode(model, {{1, 2}}, config)[0];
    for (const Hypothesis& result : results) {
      Ids tokens = {1, 2};
      double total = 0;
      for (const TokenScore& token : result.token_scores) {
        std::vector<float> row = model.scores(tokens);
        log_softmax(row);
        const auto next = static_cast<std::size_t>(result.tokens[tokens.size()]);
        EXPECT_FLOAT_EQ(static_cast<float>(token.log_probability), row[next]) << name;
        ASSERT_EQ(token.alternatives.size(), 2u);
        EXPECT_EQ(static_cast<std::size_t>(token.alternatives[0].first), top(row, 1)[0]) << name;
        total += token.score;
        tokens.push_back(result.tokens[tokens.size()]);
      }
      EXPECT_EQ(tokens, result.tokens) << name;
      if (config.num_beams > 1) {
        EXPECT_NEAR(total / static_cast<double>(result.token_scores.size()), result.score, 1e-5) << name;
      }
    }
  }
}

TEST(Decode, GroupsOfBeamsDisagree) {
  GenerationConfig config = base();
  config.num_beams = config.num_beam_groups = config.num_return_sequences = 3;
  config.diversity_penalty = 100.0;
  Table model(7, 3);
  std::set<std::int64_t> first;
  const auto results = decode(model, {{1, 2}}, config);
  for (const Hypothesis& result : results[0]) first.insert(result.tokens[2]);
  EXPECT_EQ(first.size(), 3u);
}

TEST(Decode, OnlyAllowedTokens) {
  for (const auto& [name, config] : strategies()) {
    Callbacks callbacks;
    callbacks.allowed_tokens = [](std::size_t, std::span<const std::int64_t> tokens) -> Ids {
      return tokens.back() == 2 ? Ids{3, 5} : Ids{2, 0};
    };
    Table model(7, 9);
    const Ids tokens = decode(model, {{1, 2}}, config, callbacks)[0][0].tokens;
    for (std::size_t i = 2; i < tokens.size(); ++i) {
      const bool allowed = tokens[i - 1] == 2 ? tokens[i] == 3 || tokens[i] == 5 : tokens[i] == 2 || tokens[i] == 0;
      EXPECT_TRUE(allowed) << name;
    }
    callbacks.allowed_tokens = [](std::size_t, std::span<const std::int64_t>) -> Ids { return {}; };
    EXPECT_THROW(decode(model, {{1, 2}}, config, callbacks), Error);
  }
}

TEST(Decode, SequencesEndForTheReasonGiven) {
  Table model(7, 2);
  GenerationConfig config = base();
  config.eos_token_id = {};
  Callbacks callbacks;
  callbacks.decode = [](std::span<const std::int64_t> tokens) {
    std::string text;
    for (const std::int64_t token : tokens) text += static_cast<char>('a' + token);
    return text;
  };
  const Ids whole = decode(model, {{1, 2}}, config)[0][0].tokens;
  EXPECT_EQ(whole.size(), 11u);
  config.stop_strings = {callbacks.decode(std::span(whole).subspan(3, 2))};
  const auto stopped = decode(model, {{1, 2}}, config, callbacks)[0][0];
  EXPECT_EQ(stopped.stopped, StopReason::kStopString);
  EXPECT_LE(stopped.tokens.size(), 5u);
  EXPECT_THROW(decode(model, {{1, 2}}, config), Error) << "stop_strings without the text of tokens";
  config.stop_strings.clear();
  callbacks.stop = [](std::size_t, std::span<const std::int64_t> tokens) { return tokens.size() == 6; };
  EXPECT_EQ(decode(model, {{1, 2}}, config, callbacks)[0][0].stopped, StopReason::kCallback);
  EXPECT_EQ(decode(model, {{1, 2}}, config, callbacks)[0][0].tokens.size(), 6u);
  for (const auto& [name, strategy] : strategies()) {
    std::vector<Decoding> batch;
    batch.push_back(decoding(0, {1, 2}, strategy, {}));
    decode_batch(model, nullptr, batch, {{}, std::chrono::steady_clock::time_point::min()});
    const Hypothesis late = batch[0].search->results()[0];
    EXPECT_EQ(late.tokens.size(), 3u) << name;
    EXPECT_TRUE(late.stopped == StopReason::kTime || late.stopped == StopReason::kEndToken) << name;
  }
}

TEST(Decode, OptionsThatLeaveNoTokenAreAnError) {
  GenerationConfig config = base();
  config.suppress_tokens = {0, 1, 2, 3, 4, 5, 6};
  Table model(7, 2);
  EXPECT_THROW(decode(model, {{1, 2}}, config), Error);
}

}  // namespace
}  // namespace weft::runtime
