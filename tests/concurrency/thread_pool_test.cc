#include "runtime/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "graph/error.h"

namespace weft::runtime {
namespace {

TEST(ThreadPool, DoesEachItemOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const std::size_t count : {0, 1, 2, 4, 7, 1000}) {
      std::vector<std::atomic<int>> done(count);
      pool.parallel_for(count, [&](std::size_t i) { ++done[i]; });
      for (const auto& times : done) EXPECT_EQ(times, 1);
      if (count == 4) pool.rest();
    }
  }
}

TEST(ThreadPool, ManyShortRegions) {
  ThreadPool pool(3);
  std::vector<long> sums(64, 0);
  for (int round = 0; round < 3000; ++round) {
    pool.parallel_for(sums.size(), [&](std::size_t i) { sums[i] += round; });
    if (round % 500 == 0) pool.rest();
  }
  for (const long sum : sums) EXPECT_EQ(sum, 3000L * 2999 / 2);
}

TEST(ThreadPool, ThreadsTakeWhatOthersHaveNotBegun) {
  ThreadPool pool(2);
  // The first item of one part waits for all the others, which only another thread can do.
  std::atomic<int> done = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  pool.parallel_for(8, [&](std::size_t i) {
    if (i == 0) {
      while (done < 7 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    }
    ++done;
  });
  EXPECT_LT(std::chrono::steady_clock::now(), deadline);
}

TEST(ThreadPool, RethrowsTheFirstError) {
  ThreadPool pool(4);
  std::vector<int> done(100, 0);
  pool.parallel_for(100, [&](std::size_t i) { done[i] = 1; });
  EXPECT_EQ(std::count(done.begin(), done.end(), 1), 100);
  try {
    pool.parallel_for(100, [&](std::size_t i) {
      if (i % 10 == 7) fail(ErrorCode::kInternal, "at {}", i);
    });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "at 7");
  }
}

TEST(ThreadPool, AnErrorLeavesThePoolUsable) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(pool.parallel_for(50, [](std::size_t i) { fail(ErrorCode::kInternal, "{}", i); }), Error);
    std::atomic<int> done = 0;
    pool.parallel_for(50, [&](std::size_t) { ++done; });
    EXPECT_EQ(done, 50);
  }
}

TEST(ThreadPool, PoolsSideBySideShareTheCpus) {
  // Each pool alone may use both its threads; while as many pools as CPUs are at work each keeps to the caller's.
  const int cpus = available_cpus();
  std::vector<std::unique_ptr<ThreadPool>> others;
  for (int i = 0; i < cpus; ++i) {
    others.push_back(std::make_unique<ThreadPool>(2));
    others.back()->parallel_for(2, [](std::size_t) {});  // its burst lasts until it rests
  }
  ThreadPool pool(2);
  std::vector<std::thread::id> ids(100);
  pool.parallel_for(ids.size(), [&](std::size_t i) { ids[i] = std::this_thread::get_id(); });
  for (const std::thread::id id : ids) EXPECT_EQ(id, std::this_thread::get_id());
  for (const auto& other : others) other->rest();
}

}  // namespace
}  // namespace weft::runtime
