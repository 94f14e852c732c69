// States in a file: what was saved, of the same model, or an error.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "tests/runtime/attention_block.h"

namespace weft::runtime {
namespace {

struct SavedStates : ::testing::Test {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("weft-states-" + std::to_string(::getpid()) + ".kv");
  std::shared_ptr<const Model> model = with_states(20);
  Session session{model, std::make_shared<ThreadPool>(1)};

  SavedStates() {
    session.reset_states(1);
    session.run({{"x", random_floats({1, 150, 8}, 1)}});
    session.reorder_states(std::vector<std::int64_t>{0, 0});
    session.run({{"x", random_floats({2, 1, 8}, 2)}});
    session.save_states(path);
  }
  ~SavedStates() override { std::filesystem::remove(path); }

  std::string contents() const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void replace(const std::string& bytes) const {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
};

TEST_F(SavedStates, GiveWhatAnUninterruptedRunGives) {
  Session later(model, std::make_shared<ThreadPool>(1));
  later.load_states(path);
  EXPECT_EQ(later.cache_usage().bytes, session.cache_usage().bytes);  // what rows shared they share
  EXPECT_TRUE(later.state("past.key").identical(session.state("past.key")));
  for (std::uint32_t i = 0; i < 90; ++i) {
    const Tensor x = random_floats({2, 1, 8}, 10 + i);
    ASSERT_TRUE(later.run({{"x", x}})[0].identical(session.run({{"x", x}})[0])) << i;
  }
}

TEST_F(SavedStates, KeepToTheBudget) {
  Session later(model, std::make_shared<ThreadPool>(1));
  const std::uint64_t bytes = session.cache_usage().bytes;
  later.set_cache_budget(std::make_shared<CacheBudget>(bytes - 1));
  EXPECT_THROW(later.load_states(path), Error);
  EXPECT_EQ(later.cache_usage().bytes, 0u);
  later.set_cache_budget(std::make_shared<CacheBudget>(bytes));
  EXPECT_NO_THROW(later.load_states(path));
}

TEST_F(SavedStates, AreOfOneModel) {
  Graph graph = attention_block(20);
  for (const ValueId id : graph.values()) {  // one more step of training
    Value& value = graph.value(id);
    if (value.kind != ValueKind::kConstant || value.tensor->dtype() != DType::kF32) continue;
    value.tensor = value.tensor->clone();
    for (float& x : value.tensor->mutable_data<float>()) x *= 1.001f;
  }
  CompileOptions options;
  options.states = {{"past.key", "present.key"}, {"past.value", "present.value"}};
  options.passes = {};
  Session other(Model::compile(std::move(graph), options), std::make_shared<ThreadPool>(1));
  EXPECT_THROW(other.load_states(path), Error);
  Session wider(with_states(21), std::make_shared<ThreadPool>(1));
  EXPECT_THROW(wider.load_states(path), Error);
  Session same(with_states(20), std::make_shared<ThreadPool>(1));
  EXPECT_NO_THROW(same.load_states(path));
}

// Whatever is wrong with the file, the session keeps the states it has.
TEST_F(SavedStates, DamagedFilesAreErrors) {
  const std::string whole = contents();
  const Tensor before = session.state("past.key");
  for (std::size_t length = 0; length < whole.size(); length += length < 400 ? 1 : 997) {
    replace(whole.substr(0, length));
    EXPECT_THROW(session.load_states(path), Error) << length;
  }
  std::mt19937 random(1);
  for (std::size_t i = 0; i < 1500; ++i) {
    std::string damaged = whole;
    const std::size_t at = i < 500 ? i % whole.size() : random() % whole.size();
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
    replace(damaged);
    EXPECT_THROW(session.load_states(path), Error) << at;
  }
  replace(whole + "more");
  EXPECT_THROW(session.load_states(path), Error);
  std::filesystem::remove(path);
  EXPECT_THROW(session.load_states(path), Error);
  EXPECT_THROW(session.save_states(path / "nowhere"), Error);
  EXPECT_TRUE(session.state("past.key").identical(before));
}

}  // namespace
}  // namespace weft::runtime
