#include "runtime/cache.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <random>
#include <thread>

#include "ops/builder.h"
#include "ops/cast.h"
#include "runtime/generate/decoder.h"
#include "runtime/session.h"
#include "tests/runtime/attention_block.h"

namespace weft::runtime {
namespace {

std::vector<float> floats(const Tensor& x) { return {x.data<float>().begin(), x.data<float>().end()}; }

TEST(Cache, RowsAreSharedUntilWritten) {
  for (const CacheLayout layout : {CacheLayout::kTokens, CacheLayout::kPanels}) {
    CacheState cache(1, 2, {.layout = layout});
    cache.reset(1);
    cache.append(Tensor::of<float>({1, 1, 1, 2}, {1, 2}));
    cache.reorder(std::vector<std::int64_t>{0, 0, 0});
    EXPECT_EQ(cache.blocks(0)[0], cache.blocks(2)[0]);
    EXPECT_EQ(cache.usage().bytes_copied, 0u);
    cache.append(Tensor::of<float>({3, 1, 1, 2}, {3, 4, 5, 6, 7, 8}));
    EXPECT_NE(cache.blocks(0)[0], cache.blocks(2)[0]);
    EXPECT_EQ(floats(cache.to_tensor()), (std::vector<float>{1, 2, 3, 4, 1, 2, 5, 6, 1, 2, 7, 8}));
    constexpr std::uint64_t kBlock = 2 * CacheState::kBlockTokens * sizeof(float);
    EXPECT_EQ(cache.usage().bytes_copied, 2 * kBlock);  // the last writer had the block to itself
    EXPECT_EQ(cache.usage().bytes_appended, 8u * sizeof(float));
    EXPECT_EQ(cache.usage().bytes, 3 * kBlock);
    cache.reset(1);
    EXPECT_EQ(cache.usage().bytes, 0u);
    EXPECT_EQ(cache.usage().peak_bytes, 3 * kBlock);
    EXPECT_THROW(cache.reorder(std::vector<std::int64_t>{3}), Error);
    EXPECT_THROW(cache.append(Tensor::zeros(DType::kF32, {2, 1, 1, 2})), Error);
    EXPECT_THROW(cache.assign(Tensor::zeros(DType::kF32, {1, 2, 1, 2})), Error);
  }
}

// A cache of plain tensors, row by row.
struct Plain {
  std::vector<std::vector<float>> rows;  // [length][H][D]
  std::int64_t heads, size;

  void append(const Tensor& added) {
    const auto steps = added.extent(2);
    for (std::size_t b = 0; b < rows.size(); ++b) {
      for (std::int64_t t = 0; t < steps; ++t) {
        for (std::int64_t h = 0; h < heads; ++h) {
          const float* from =
              added.data<float>().data() + ((static_cast<std::int64_t>(b) * heads + h) * steps + t) * size;
          rows[b].insert(rows[b].end(), from, from + size);
        }
      }
    }
  }
  bool equals(const Tensor& x) const {
    const std::int64_t length = x.extent(2);
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const std::int64_t e = i % size, t = i / size % length, h = i / size / length % heads,
                         b = i / size / length / heads;
      const auto& row = rows[static_cast<std::size_t>(b)];
      if (row[static_cast<std::size_t>((t * heads + h) * size + e)] != x.data<float>()[static_cast<std::size_t>(i)])
        return false;
    }
    return x.extent(0) == static_cast<std::int64_t>(rows.size());
  }
};

// Appends, picks, steps back and copies in any order, against plain tensors.
TEST(Cache, AnySequenceOfOperationsKeepsItsContents) {
  ThreadPool pool(2);
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::int64_t n) { return static_cast<std::int64_t>(random() % static_cast<unsigned>(n)); };
    const std::int64_t heads = 1 + below(3), size = 1 + below(9);
    const CacheLayout layout = seed % 2 == 0 ? CacheLayout::kTokens : CacheLayout::kPanels;
    const DType dtype = std::array{DType::kF32, DType::kF16, DType::kBF16}[seed % 3];
    CacheState cache(heads, size, {layout, CacheState::kUnbounded, dtype});
    cache.reset(2);
    Plain plain{std::vector<std::vector<float>>(2), heads, size};
    std::vector<std::pair<CacheState, Plain>> copies;
    for (int step = 0; step < 40; ++step) {
      switch (below(4)) {
        case 0: {
          std::vector<std::int64_t> parents(static_cast<std::size_t>(1 + below(4)));
          for (std::int64_t& parent : parents) parent = below(cache.batch());
          cache.reorder(parents);
          std::vector<std::vector<float>> next;
          for (const std::int64_t parent : parents) next.push_back(plain.rows[static_cast<std::size_t>(parent)]);
          plain.rows = next;
          break;
        }
        case 1: {
          const std::int64_t length = std::max<std::int64_t>(cache.length() - below(20), 0);
          cache.truncate(length);
          for (auto& row : plain.rows) row.resize(static_cast<std::size_t>(length * heads * size));
          break;
        }
        case 2: copies.emplace_back(cache, plain); break;
        default: {
          const Tensor added = random_floats({cache.batch(), heads, below(3) == 0 ? below(40) : 1, size}, random());
          const Tensor rounded = cast(added, dtype);
          const std::uint64_t before = cache.usage().bytes, growth = cache.growth(added.extent(2));
          cache.append(below(2) == 0 ? added : rounded, &pool);
          ASSERT_EQ(cache.usage().bytes, before + growth) << "seed " << seed << " step " << step;
          plain.append(cast(rounded, DType::kF32));
        }
      }
      ASSERT_EQ(cache.to_tensor().dtype(), dtype);
      ASSERT_TRUE(plain.equals(cast(cache.to_tensor(), DType::kF32))) << "seed " << seed << " step " << step;
    }
    for (auto& [copy, expected] : copies)
      ASSERT_TRUE(expected.equals(cast(copy.to_tensor(), DType::kF32))) << "seed " << seed;
  }
}

TEST(Cache, DropsWhatIsBeforeItsWindow) {
  CacheState cache(1, 1, {.window = 10});
  cache.reset(2);
  Plain plain{std::vector<std::vector<float>>(2), 1, 1};
  std::uint64_t most = 0;
  for (std::uint32_t step = 0; step < 300; ++step) {
    const Tensor added = random_floats({2, 1, 1, 1}, step);
    cache.append(added);
    plain.append(added);
    most = std::max(most, cache.usage().bytes);
  }
  EXPECT_EQ(cache.length(), 300);
  EXPECT_LE(cache.first_token(), 290);
  EXPECT_LE(most, 2u * 6 * 16 * sizeof(float));
  for (std::size_t b = 0; b < 2; ++b) {
    for (auto t = static_cast<std::size_t>(cache.first_token()); t < 300; ++t) {
      EXPECT_EQ(cache.to_tensor().data<float>()[b * 300 + t], plain.rows[b][t]);
    }
  }
  cache.truncate(280);  // a few rejected tokens
  EXPECT_THROW(cache.truncate(100), Error);
}

// --- Attention over caches -------------------------------------------------------------------------

Tensor row_of(const Tensor& x, std::int64_t row) {
  Extents shape = x.shape();
  const auto count = x.size() / shape[0];
  shape[0] = 1;
  return Tensor::of<float>(
      shape, x.data<float>().subspan(static_cast<std::size_t>(row * count), static_cast<std::size_t>(count)));
}

// Beams that share a prompt, part and share again have, byte for byte, what each would have alone.
TEST(CachedAttention, BeamsGiveWhatRowsAloneGive) {
  const auto model = with_states(-1);
  for (const std::int64_t prompt : {5, 32, 600}) {
    std::mt19937 random(static_cast<std::uint32_t>(prompt));
    Session beams(model, std::make_shared<ThreadPool>(2));
    beams.reset_states(1);
    const Tensor start = random_floats({1, prompt, 8}, 7);
    beams.run({{"x", start}});
    std::vector<std::vector<Tensor>> histories = {{}};
    Tensor y;
    for (std::uint32_t step = 0; step < 24; ++step) {
      std::vector<std::int64_t> parents(step == 10 ? 3 : 5);
      for (std::int64_t& parent : parents) parent = static_cast<std::int64_t>(random() % histories.size());
      beams.reorder_states(parents);
      std::vector<std::vector<Tensor>> next;
      for (const std::int64_t parent : parents) next.push_back(histories[static_cast<std::size_t>(parent)]);
      histories = next;
      const std::int64_t tokens = step % 7 == 6 ? 3 : 1;
      const Tensor x = random_floats({static_cast<std::int64_t>(parents.size()), tokens, 8}, 100 + step);
      y = beams.run({{"x", x}})[0];
      for (std::size_t r = 0; r < histories.size(); ++r)
        histories[r].push_back(row_of(x, static_cast<std::int64_t>(r)));
    }
    for (std::size_t r = 0; r < histories.size(); ++r) {
      Session alone(model, std::make_shared<ThreadPool>(1));
      alone.reset_states(1);
      alone.run({{"x", start}});
      Tensor last;
      for (const Tensor& x : histories[r]) last = alone.run({{"x", x}})[0];
      EXPECT_TRUE(last.identical(row_of(y, static_cast<std::int64_t>(r)))) << prompt << " row " << r;
    }
  }
}

TEST(CachedAttention, WindowsGiveTheSameWithoutWhatTheyDropped) {
  const auto model = with_states(20);
  Session cached(model, std::make_shared<ThreadPool>(2));
  CompileOptions options;
  options.passes = {};
  Session plain(Model::compile(attention_block(20), options), std::make_shared<ThreadPool>(1));
  cached.reset_states(2);
  Tensor k = Tensor::zeros(DType::kF32, {2, 2, 0, 8}), v = k;
  for (std::uint32_t step = 0; step < 150; ++step) {
    const Tensor x = random_floats({2, step == 0 ? 30 : (step == 50 ? 40 : 1), 8}, step);
    const std::vector<Tensor> expected = plain.run({{"x", x}, {"past.key", k}, {"past.value", v}});
    ASSERT_TRUE(cached.run({{"x", x}})[0].identical(expected[0])) << step;
    k = expected[1];
    v = expected[2];
  }
  EXPECT_EQ(cached.state("past.key").data<float>()[0], 0.0f);  // dropped
}

// --- Caches that stay ------------------------------------------------------------------------------

// Attention of x over keys and values that do not change. present: what comes out as "present.key" and "present.value".
enum class Present { kNone, kPast, kPlaceholder };

Graph cross_attention(Present present, bool read_elsewhere = false) {
  Graph graph;
  const Dim T = Dim::symbol("T");
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, Dim(4), S, Dim(8)}});
  const ValueId mask = graph.add_input("mask", {DType::kF32, Shape{B, Dim(1), Dim(1), T}});
  Builder b(graph);
  std::vector<ValueId> inputs = {x};
  for (const char* name : {"key", "value"}) {
    const ValueId past = graph.add_input(std::string("past.") + name, {DType::kF32, Shape{B, Dim(2), T, Dim(8)}});
    inputs.push_back(past);
    if (present == Present::kPast) graph.add_output(std::string("present.") + name, past);
    if (present == Present::kPlaceholder) {
      graph.add_output(std::string("present.") + name, b.constant(Tensor::zeros(DType::kF32, {0, 2, 1, 8})).id());
    }
    if (read_elsewhere) graph.add_output(std::string("sum.") + name, b.make("ReduceSum", {past}));
  }
  inputs.push_back(mask);
  graph.add_output("y", b.make("Attention", inputs));
  return graph;
}

std::shared_ptr<const Model> with_cross_states(Graph graph) {
  CompileOptions options;
  options.states = {{"past.key", "present.key"}, {"past.value", "present.value"}};
  options.passes = {};
  return Model::compile(std::move(graph), options);
}

// Sources of different lengths in a batch, padded and masked, and then beams of each: as given as inputs, byte for byte
// in rows of one prompt alone; and nothing is copied.
TEST(CachedAttention, CachesThatStayAreSharedByBeams) {
  for (const Present present : {Present::kNone, Present::kPast, Present::kPlaceholder}) {
    for (const std::int64_t length : {1, 21, 600}) {
      Session cached(with_cross_states(cross_attention(present)), std::make_shared<ThreadPool>(2));
      ASSERT_EQ(cached.model().graph().states().size(), 2u);
      CompileOptions options;
      options.passes = {};
      Session plain(Model::compile(cross_attention(Present::kNone), options), std::make_shared<ThreadPool>(1));
      const Tensor k = random_floats({2, 2, length, 8}, 1), v = random_floats({2, 2, length, 8}, 2);
      Tensor mask = Tensor::zeros(DType::kF32, {2, 1, 1, length});
      for (std::int64_t t = (length + 1) / 2; t < length; ++t) {
        mask.mutable_data<float>()[static_cast<std::size_t>(length + t)] = -std::numeric_limits<float>::infinity();
      }
      cached.reset_states(2);
      cached.set_state("past.key", k);
      cached.set_state("past.value", v);
      const std::uint64_t before = cached.cache_usage().bytes, copied = cached.cache_usage().bytes_copied;
      std::vector<std::int64_t> sources = {0, 1};
      for (std::uint32_t step = 0; step < 6; ++step) {
        const std::vector<std::int64_t> parents =
            step == 0 ? std::vector<std::int64_t>{0, 0, 0, 1, 1, 1} : std::vector<std::int64_t>{2, 0, 1, 3, 3, 5};
        cached.reorder_states(parents);
        std::vector<std::int64_t> next;
        for (const std::int64_t parent : parents) next.push_back(sources[static_cast<std::size_t>(parent)]);
        sources = next;
        const Tensor x = random_floats({6, 4, 1, 8}, 10 + step);
        const Tensor own_mask = select_rows(mask, 0, sources);
        const std::vector<Tensor> results = cached.run({{"x", x}, {"mask", own_mask}});
        ASSERT_EQ(results.size(), 1u);
        for (std::int64_t r = 0; r < 6; ++r) {
          const std::int64_t source = sources[static_cast<std::size_t>(r)];
          const Tensor alone = plain.run({{"x", row_of(x, r)},
                                          {"mask", row_of(mask, source)},
                                          {"past.key", row_of(k, source)},
                                          {"past.value", row_of(v, source)}})[0];
          EXPECT_TRUE(row_of(results[0], r).identical(alone)) << length << " step " << step << " row " << r;
        }
      }
      EXPECT_EQ(cached.cache_usage().bytes, before);
      EXPECT_EQ(cached.cache_usage().bytes_copied, copied);
      EXPECT_TRUE(cached.state("past.key").identical(select_rows(k, 0, sources)));
    }
  }
}

// Somebody else would need it as a tensor at every step.
TEST(CachedAttention, CachesThatOthersReadStayInputs) {
  EXPECT_TRUE(with_cross_states(cross_attention(Present::kNone, true))->graph().states().empty());
}

// --- Keeping a prompt ------------------------------------------------------------------------------

TEST(CachedAttention, ForksThatPartGiveWhatSeparateRunsGive) {
  const auto model = with_states(-1);
  Session first(model, std::make_shared<ThreadPool>(1));
  first.reset_states(1);
  const Tensor prompt = random_floats({1, 37, 8}, 1);
  first.run({{"x", prompt}});
  Session second = first.fork(std::make_shared<ThreadPool>(1));
  EXPECT_EQ(first.cache_usage().bytes_copied, 0u);
  EXPECT_EQ(first.cache_usage().bytes, second.cache_usage().bytes);
  std::vector<Tensor> last(2);
  // At the same time: blocks that both have are copied by who writes.
  std::thread other([&] {
    for (std::uint32_t i = 0; i < 30; ++i) last[1] = second.run({{"x", random_floats({1, 1, 8}, 100 + i)}})[0];
  });
  for (std::uint32_t i = 0; i < 30; ++i) last[0] = first.run({{"x", random_floats({1, 1, 8}, 200 + i)}})[0];
  other.join();
  for (const std::uint32_t seed : {200u, 100u}) {
    Session alone(model, std::make_shared<ThreadPool>(1));
    alone.reset_states(1);
    alone.run({{"x", prompt}});
    Tensor y;
    for (std::uint32_t i = 0; i < 30; ++i) y = alone.run({{"x", random_floats({1, 1, 8}, seed + i)}})[0];
    EXPECT_TRUE(y.identical(last[seed == 100])) << seed;
  }
}

}  // namespace
}  // namespace weft::runtime
