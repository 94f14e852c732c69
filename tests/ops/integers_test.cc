// Integers beyond 2^53 are exact, and what wraps around does so without undefined behaviour.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "ops/builder.h"
#include "ops/cast.h"
#include "tests/ops/one_operator.h"

namespace weft {
namespace {

using ::testing::ElementsAre;

constexpr std::int64_t kLarge = (std::int64_t{1} << 53) + 1;  // as f64 it is 2^53
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max(),
                       kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::uint64_t kMostUnsigned = std::numeric_limits<std::uint64_t>::max();

template <class T>
Tensor vector_of(std::vector<T> values) {
  return Tensor::vector<T>(std::span<const T>(values));
}
Tensor longs(std::vector<std::int64_t> values) { return vector_of<std::int64_t>(std::move(values)); }
Tensor unsigned_longs(std::vector<std::uint64_t> values) { return vector_of<std::uint64_t>(std::move(values)); }

template <class T>
std::vector<T> values_of(const Tensor& tensor) {
  return {tensor.data<T>().begin(), tensor.data<T>().end()};
}

TEST(Integers, AreOrderedExactly) {
  const Tensor x = longs({kLarge - 1, kLarge, kLarge - 1, kLeast, kLeast + 1});
  EXPECT_THAT(values_of<std::int64_t>(run("ArgMax", {x})[0]), ElementsAre(1));
  EXPECT_THAT(values_of<std::int64_t>(run("ArgMin", {x})[0]), ElementsAre(3));
  const auto top = run("TopK", {x, longs({3})}, {}, 2);
  EXPECT_THAT(values_of<std::int64_t>(top[0]), ElementsAre(kLarge, kLarge - 1, kLarge - 1));
  EXPECT_THAT(values_of<std::int64_t>(top[1]), ElementsAre(1, 0, 2));
  const Tensor u = unsigned_longs({kMostUnsigned - 1, kMostUnsigned, 0});
  EXPECT_THAT(values_of<std::int64_t>(run("ArgMax", {u})[0]), ElementsAre(1));
  const auto least = run("TopK", {u, longs({2})}, {{"largest", std::int64_t{0}}}, 2);
  EXPECT_THAT(values_of<std::uint64_t>(least[0]), ElementsAre(0u, kMostUnsigned - 1));
}

TEST(Integers, AreComparedAndSelectedExactly) {
  const Tensor a = longs({kLarge, kLarge, kMost}), b = longs({kLarge - 1, kLarge, kMost - 1});
  EXPECT_THAT(values_of<bool>(run("Greater", {a, b})[0]), ElementsAre(true, false, true));
  EXPECT_THAT(values_of<bool>(run("Equal", {a, b})[0]), ElementsAre(false, true, false));
  EXPECT_THAT(values_of<std::int64_t>(run("Max", {b, a})[0]), ElementsAre(kLarge, kLarge, kMost));
  EXPECT_THAT(values_of<std::int64_t>(run("Min", {a, b})[0]), ElementsAre(kLarge - 1, kLarge, kMost - 1));
  EXPECT_THAT(values_of<std::int64_t>(run("Where", {Tensor::of<bool>({3}, {true, false, true}), a, b})[0]),
              ElementsAre(kLarge, kLarge, kMost));
  const auto bound = [](std::int64_t x) { return Tensor::scalar<std::int64_t>(x); };
  EXPECT_THAT(values_of<std::int64_t>(
                  run("Clip", {longs({kLarge + 1, kLarge - 2, kMost, kLeast}), bound(kLarge), bound(kMost - 1)})[0]),
              ElementsAre(kLarge + 1, kLarge, kMost - 1, kLarge));
  EXPECT_THAT(values_of<std::int64_t>(run("Mod", {longs({kLarge, -kLarge}), longs({2, 2})})[0]), ElementsAre(1, 1));
  EXPECT_THAT(values_of<std::uint64_t>(run("Mod", {unsigned_longs({7}), unsigned_longs({kMostUnsigned})})[0]),
              ElementsAre(7u));
}

TEST(Integers, AreReducedExactlyAndWrapAround) {
  const Tensor x = longs({kLarge, kLarge - 1, 3});
  EXPECT_THAT(values_of<std::int64_t>(run("ReduceMax", {x})[0]), ElementsAre(kLarge));
  EXPECT_THAT(values_of<std::int64_t>(run("ReduceMin", {longs({kLarge, kLarge + 1})})[0]), ElementsAre(kLarge));
  EXPECT_THAT(values_of<std::int64_t>(run("ReduceSum", {x})[0]), ElementsAre(2 * kLarge + 2));
  EXPECT_THAT(values_of<std::int64_t>(run("ReduceSum", {longs({kMost, 1})})[0]), ElementsAre(kLeast));
  EXPECT_THAT(values_of<std::int64_t>(run("ReduceL1", {longs({-kLarge, 2})})[0]), ElementsAre(kLarge + 2));
  EXPECT_THAT(values_of<std::int64_t>(run("ReduceSumSquare", {longs({94906267})})[0]),
              ElementsAre(94906267LL * 94906267));
  EXPECT_THAT(values_of<std::int64_t>(run("ReduceMean", {longs({kLarge, kLarge})})[0]), ElementsAre(kLarge));
  EXPECT_THAT(values_of<std::int32_t>(run("ReduceSum", {vector_of<std::int32_t>({INT32_MAX, 1})})[0]),
              ElementsAre(INT32_MIN));
  EXPECT_THAT(values_of<std::uint64_t>(run("ReduceMax", {unsigned_longs({kMostUnsigned, 1})})[0]),
              ElementsAre(kMostUnsigned));
  // Nothing has the least value as its maximum.
  const Tensor nothing = Tensor::zeros(DType::kI32, {0});
  EXPECT_THAT(values_of<std::int32_t>(run("ReduceMax", {nothing})[0]), ElementsAre(INT32_MIN));
  EXPECT_THAT(values_of<std::int32_t>(run("ReduceMin", {nothing})[0]), ElementsAre(INT32_MAX));
  EXPECT_THAT(values_of<std::int64_t>(run("CumSum", {longs({kLarge, 1, kMost}), Tensor::scalar<std::int64_t>(0)})[0]),
              ElementsAre(kLarge, kLarge + 1, kLeast + kLarge));
  EXPECT_THAT(values_of<std::int64_t>(run("Sum", {longs({kLarge}), longs({1}), longs({1})})[0]),
              ElementsAre(kLarge + 2));
}

TEST(Integers, RangesAndPowersAreExact) {
  const auto range = [](std::int64_t start, std::int64_t limit, std::int64_t delta) {
    const auto scalar = [](std::int64_t x) { return Tensor::scalar<std::int64_t>(x); };
    return values_of<std::int64_t>(run("Range", {scalar(start), scalar(limit), scalar(delta)})[0]);
  };
  EXPECT_THAT(range(kLarge, kLarge + 2, 1), ElementsAre(kLarge, kLarge + 1));
  EXPECT_THAT(range(kMost - 1, kMost, 5), ElementsAre(kMost - 1));
  EXPECT_THAT(range(kLeast + 1, kLeast, -1), ElementsAre(kLeast + 1));
  EXPECT_THAT(range(3, 3, 1), ElementsAre());
  EXPECT_THAT(range(0, 10, -1), ElementsAre());
  EXPECT_THAT(range(0, 10, 4), ElementsAre(0, 4, 8));
  EXPECT_THAT(values_of<std::int64_t>(run("Pow", {longs({3, 2, -1, 2, 0}), longs({39, 63, 3, 64, 0})})[0]),
              ElementsAre(4052555153018976267, kLeast, -1, 0, 1));
  EXPECT_THAT(values_of<std::int32_t>(run("Pow", {vector_of<std::int32_t>({10, 0}), vector_of<float>({99, -1})})[0]),
              ElementsAre(INT32_MIN, INT32_MIN));
}

TEST(Integers, ScatteringWrapsAround) {
  const auto scattered = [](const std::string& reduction) {
    return values_of<std::int64_t>(
        run("ScatterElements", {longs({kMost, 5}), longs({0}), longs({kMost})}, {{"reduction", reduction}})[0]);
  };
  EXPECT_THAT(scattered("add"), ElementsAre(-2, 5));
  EXPECT_THAT(scattered("mul"), ElementsAre(1, 5));
}

}  // namespace
}  // namespace weft
