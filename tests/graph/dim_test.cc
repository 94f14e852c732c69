#include "graph/dim.h"

#include <gtest/gtest.h>

#include <random>

namespace weft {
namespace {

const Dim B = Dim::symbol("B"), S = Dim::symbol("S"), P = Dim::symbol("P");

TEST(Dim, EqualPolynomialsCompareEqual) {
  EXPECT_EQ(P + S, S + P);
  EXPECT_EQ((B + Dim(1)) * (B - Dim(1)), B * B - Dim(1));
  EXPECT_EQ(B * S - S * B, Dim(0));
  EXPECT_FALSE(B == S);
}

TEST(Dim, DivisionIsExactWhereItCanBe) {
  EXPECT_EQ(*Dim::exact_div(B * S * Dim(768), B * S), Dim(768));
  EXPECT_EQ(*Dim::exact_div(B * S + B, S + Dim(1)), B);
  EXPECT_FALSE(Dim::exact_div(B, S));
  EXPECT_EQ(Dim::floor_div(S * Dim(4) + Dim(3), Dim(4)), S);
  EXPECT_EQ(Dim::floor_div(Dim::floor_div(S, Dim(2)), Dim(3)), Dim::floor_div(S, Dim(6)));
  EXPECT_EQ(Dim::floor_div(Dim(-7), Dim(2)), Dim(-4));
  EXPECT_THROW(Dim::floor_div(S, Dim(0)), Error);
}

TEST(Dim, MinAndMaxDecideAndAbsorb) {
  EXPECT_EQ(Dim::max(S, Dim(0)), S);
  EXPECT_EQ(Dim::min(P, P + S), P);
  EXPECT_EQ(Dim::max(S, Dim::min(S, Dim(64))), S);
  EXPECT_EQ(Dim::min(S, Dim::max(S, B)), S);
}

TEST(Dim, OverflowIsAnError) {
  const Dim large(std::int64_t{1} << 62);
  EXPECT_THROW(large * Dim(4), Error);
  EXPECT_THROW(large + large, Error);
}

TEST(Dim, PrintsAndParses) {
  for (const char* text : {"0", "-3", "P + S", "2*B*S + 1", "floordiv(S, 2)", "max(3, P)", "-P + S", "\"a b\" + 1"}) {
    EXPECT_EQ(Dim::parse(text).to_string(), text);
  }
  for (const char* text : {"", "+", "B S", "floordiv(B)", "sin(B, S)", "((", "9999999999999999999", "\"open"}) {
    EXPECT_THROW(Dim::parse(text), Error) << text;
  }
}

TEST(Dim, EvaluationNeedsEverySymbol) {
  EXPECT_EQ((P + S).evaluate({{"P", 3}, {"S", 4}}), 7);
  EXPECT_EQ((P + S).evaluate({{"P", 3}}), std::nullopt);
  EXPECT_EQ((P + S).substitute({{"P", Dim(0)}}), S);
}

// Random expressions: the symbolic value under bindings is the value of the same arithmetic on numbers.
class RandomExpression {
 public:
  explicit RandomExpression(std::uint32_t seed) : random_(seed) {}

  struct Both {
    Dim dim;
    std::int64_t value;
  };

  Both make(int depth) {
    if (depth == 0 || random_() % 4 == 0) {
      if (random_() % 2) {
        const auto value = static_cast<std::int64_t>(random_() % 9) - 2;
        return {Dim(value), value};
      }
      const std::size_t which = random_() % 3;
      return {std::array{B, S, P}[which], kValues[which]};
    }
    const Both a = make(depth - 1), b = make(depth - 1);
    switch (random_() % 6) {
      case 0: return {a.dim + b.dim, a.value + b.value};
      case 1: return {a.dim - b.dim, a.value - b.value};
      case 2: return {a.dim * b.dim, a.value * b.value};
      case 3: return {Dim::min(a.dim, b.dim), std::min(a.value, b.value)};
      case 4: return {Dim::max(a.dim, b.dim), std::max(a.value, b.value)};
      default: {
        const auto divisor = static_cast<std::int64_t>(random_() % 5) + 1;
        const std::int64_t quotient = a.value / divisor - (a.value % divisor < 0);
        return {Dim::floor_div(a.dim, Dim(divisor)), quotient};
      }
    }
  }
  static constexpr std::int64_t kValues[] = {7, 1, 0};
  std::mt19937 random_;
};

TEST(Dim, FloorsThatAreTakenOffAreAtMostTheirQuotient) {
  const Dim s = Dim::symbol("S"), up = Dim::ceil_div(s, Dim(4));
  EXPECT_TRUE(up.never_negative());
  EXPECT_TRUE((up * Dim(4) - s).never_negative());
  EXPECT_TRUE((s - Dim::floor_div(s, Dim(3)) - Dim::floor_div(s, Dim(2))).never_negative());
  EXPECT_FALSE((s - Dim::floor_div(s * Dim(5), Dim(4))).never_negative());
  EXPECT_FALSE((Dim::floor_div(s, Dim(4)) * Dim(4) - s).never_negative());
  EXPECT_FALSE(up.always_positive());
}

TEST(Dim, RandomExpressionsEvaluateAndRoundTrip) {
  const Bindings bindings = {{"B", 7}, {"S", 1}, {"P", 0}};
  RandomExpression random(1);
  for (int i = 0; i < 3000; ++i) {
    const auto [dim, value] = random.make(3);
    ASSERT_EQ(dim.evaluate(bindings), value) << dim.to_string();
    ASSERT_EQ(Dim::parse(dim.to_string()), dim) << dim.to_string();
    if (dim.never_negative()) {
      ASSERT_GE(value, 0) << dim.to_string();
    }
  }
}

}  // namespace
}  // namespace weft
