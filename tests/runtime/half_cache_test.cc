// Caches of f16 and bf16: the bytes that f32 caches of rounded keys and values give, in half the memory.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/runtime/attention_block.h"

namespace weft::runtime {
namespace {

// window, query heads (two heads of keys), threads
using Settings = std::tuple<DType, std::int64_t, std::int64_t, int>;

class HalfCache : public ::testing::TestWithParam<Settings> {};

TEST_P(HalfCache, GivesTheBytesOfRoundedKeysAndValues) {
  const auto [dtype, window, heads, threads] = GetParam();
  Session wide(with_states(attention_block(window, heads, dtype)), std::make_shared<ThreadPool>(1));
  Session half(with_states(attention_block(window, heads), dtype), std::make_shared<ThreadPool>(threads));
  std::uint32_t seed = 1;
  const auto run = [&](std::int64_t batch, std::int64_t tokens) {
    const Tensor x = random_floats({batch, tokens, 8}, seed++);
    ASSERT_TRUE(half.run({{"x", x}})[0].identical(wide.run({{"x", x}})[0])) << batch << " x " << tokens;
    EXPECT_EQ(2 * half.cache_usage().bytes, wide.cache_usage().bytes);
  };
  const auto both = [&](const auto& change) {
    change(half);
    change(wide);
  };
  for (const std::int64_t prompt : {1, 7, 150, 300}) {
    both([](Session& session) { session.reset_states(1); });
    run(1, prompt);
    for (int i = 0; i < 20; ++i) run(1, 1);
    both([](Session& session) { session.reorder_states(std::vector<std::int64_t>{0, 0, 0}); });
    for (int i = 0; i < 9; ++i) run(3, 1);
    both([](Session& session) { session.reorder_states(std::vector<std::int64_t>{2, 0, 2, 1, 1, 0, 0}); });
    for (int i = 0; i < 9; ++i) run(7, 1);
    run(7, 0);
    run(7, 5);  // guesses, two of them right
    both([&](Session& session) {
      const std::int64_t length = session.state("past.key").extent(2) - 3;
      session.truncate_state("past.key", length);
      session.truncate_state("past.value", length);
    });
    run(7, 1);
    both([](Session& session) { session.reorder_states(std::vector<std::int64_t>{4}); });
    run(1, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(All, HalfCache,
                         ::testing::Combine(::testing::Values(DType::kF16, DType::kBF16), ::testing::Values(-1, 20),
                                            ::testing::Values(2, 4), ::testing::Values(1, 3)));

// How far rounding takes the result, of its largest magnitude: f16 has 11 bits, bf16 8.
TEST(HalfCaches, AreAsNearAsTheirBits) {
  for (const auto& [dtype, tolerance] : {std::pair{DType::kF16, 1e-3}, std::pair{DType::kBF16, 8e-3}}) {
    Session wide(with_states(attention_block(-1)), std::make_shared<ThreadPool>(1));
    Session half(with_states(attention_block(-1), dtype), std::make_shared<ThreadPool>(1));
    for (Session* session : {&wide, &half}) session->reset_states(2);
    for (std::uint32_t i = 0; i < 40; ++i) {
      const Tensor x = random_floats({2, i == 0 ? 64 : 1, 8}, i);
      const double off = largest_difference(half.run({{"x", x}})[0], wide.run({{"x", x}})[0]);
      EXPECT_LE(off, tolerance);
      EXPECT_GT(off, tolerance / 100);  // it is rounded
    }
  }
}

// Keys and values that another model computed in f32, or this one's own, and what is kept for another process.
TEST(HalfCaches, AreSetReadSavedAndLimited) {
  const auto path = std::filesystem::temp_directory_path() / ("weft-halves-" + std::to_string(::getpid()) + ".kv");
  const auto model = with_states(attention_block(-1), DType::kBF16);
  Session session(model, std::make_shared<ThreadPool>(1));
  session.reset_states(2);
  session.set_state("past.key", random_floats({2, 2, 37, 8}, 1));
  session.set_state("past.value", random_floats({2, 2, 37, 8}, 2));
  const Tensor keys = session.state("past.key");
  EXPECT_EQ(keys.dtype(), DType::kBF16);
  session.set_state("past.key", keys);
  EXPECT_TRUE(session.state("past.key").identical(keys));
  EXPECT_THROW(session.set_state("past.key", Tensor::zeros(DType::kF16, {2, 2, 37, 8})), Error);
  session.save_states(path);
  Session later(model, std::make_shared<ThreadPool>(1));
  later.load_states(path);
  const Tensor x = random_floats({2, 1, 8}, 3);
  EXPECT_TRUE(later.run({{"x", x}})[0].identical(session.run({{"x", x}})[0]));
  for (const DType other : {DType::kF32, DType::kF16}) {
    Session another(with_states(attention_block(-1), other), std::make_shared<ThreadPool>(1));
    EXPECT_THROW(another.load_states(path), Error);
  }
  std::filesystem::remove(path);
  later.set_cache_budget(std::make_shared<CacheBudget>(later.cache_usage().bytes + 4 * 2 * kBlockOfHead / 2 - 1));
  EXPECT_NO_THROW(later.run({{"x", random_floats({2, 2, 8}, 4)}}));
  EXPECT_THROW(later.run({{"x", random_floats({2, 1, 8}, 5)}}), Error);  // blocks of both rows, keys and values
  EXPECT_THROW(with_states(attention_block(-1), DType::kI8), Error);
}

}  // namespace
}  // namespace weft::runtime
