// What the blocks of caches may take.
#include <gtest/gtest.h>

#include "runtime/generate/decoder.h"
#include "tests/runtime/attention_block.h"

namespace weft::runtime {
namespace {

TEST(CacheBudget, ARunThatNeedsMoreFailsBeforeItChangesAnything) {
  const auto model = with_states(-1);
  const auto budget = std::make_shared<CacheBudget>(2 * 2 * 4 * kBlockOfHead);  // four blocks of keys, four of values
  Session session(model, std::make_shared<ThreadPool>(1)), free(model, std::make_shared<ThreadPool>(1));
  session.set_cache_budget(budget);
  const auto step = [](Session& s, std::int64_t rows, std::int64_t tokens, std::uint32_t seed) {
    return s.run({{"x", random_floats({rows, tokens, 8}, seed)}})[0];
  };
  for (Session* s : {&session, &free}) {
    s->reset_states(1);
    step(*s, 1, 31, 1);
  }
  EXPECT_EQ(budget->used(), budget->limit());
  EXPECT_TRUE(step(session, 1, 1, 2).identical(step(free, 1, 1, 2)));  // the last of the block
  const Tensor before = session.state("past.key");
  for (const std::int64_t tokens : {1, 8, 5000}) {
    try {
      step(session, 1, tokens, 3);
      ADD_FAILURE() << tokens;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(error.message().find("the limit is 4096"), std::string::npos) << error.message();
    }
  }
  EXPECT_TRUE(session.state("past.key").identical(before));
  EXPECT_EQ(budget->used(), budget->limit());
  // More is allowed, and nothing was lost.
  session.set_cache_budget(std::make_shared<CacheBudget>(2 * 2 * 5 * kBlockOfHead));
  EXPECT_EQ(budget->used(), 0u);
  EXPECT_TRUE(step(session, 1, 1, 3).identical(step(free, 1, 1, 3)));
}

TEST(CacheBudget, CountsSharedBlocksOnce) {
  const auto model = with_states(-1);
  const auto budget = std::make_shared<CacheBudget>(2 * 2 * (2 + 3) * kBlockOfHead);
  Session session(model, std::make_shared<ThreadPool>(1));
  session.set_cache_budget(budget);
  session.reset_states(1);
  session.run({{"x", random_floats({1, 20, 8}, 1)}});
  session.reorder_states(std::vector<std::int64_t>{0, 0, 0});
  session.run({{"x", random_floats({3, 1, 8}, 2)}});  // two copies of the last block
  EXPECT_EQ(budget->used(), budget->limit());
  Session fork = session.fork();
  EXPECT_EQ(budget->used(), budget->limit());
  EXPECT_THROW(fork.run({{"x", random_floats({3, 1, 8}, 3)}}), Error);
  fork.reset_states(1);
  EXPECT_NO_THROW(session.run({{"x", random_floats({3, 1, 8}, 3)}}));
  EXPECT_THROW(session.set_state("past.key", random_floats({3, 2, 1, 8}, 1)), Error);
  EXPECT_EQ(session.state("past.key").extent(2), 22);
}

}  // namespace
}  // namespace weft::runtime
