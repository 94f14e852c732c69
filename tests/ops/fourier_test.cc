#include "ops/fourier.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

namespace weft {
namespace {

using Line = std::vector<std::complex<double>>;

Line by_definition(const Line& x, bool inverse) {
  const auto length = static_cast<double>(x.size());
  Line y(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) {
    for (std::size_t n = 0; n < x.size(); ++n) {
      const double turns = static_cast<double>(n * k % x.size()) / length;
      y[k] += x[n] * std::polar(1.0, (inverse ? 2 : -2) * std::numbers::pi * turns);
    }
  }
  return y;
}

TEST(FourierTransform, OfAnyLengthIsItsDefinition) {
  std::mt19937 random(1);
  // Small factors, one large prime, both, a square of a large prime, two large primes.
  for (const std::size_t length : {1u, 2u, 3u, 8u, 30u, 31u, 37u, 74u, 360u, 997u, 1369u, 37u * 41u, 2u * 3u * 101u}) {
    for (const bool inverse : {false, true}) {
      SCOPED_TRACE(testing::Message() << "length " << length << " inverse " << inverse);
      Line x(length);
      for (auto& value : x)
        value = {static_cast<double>(random() % 2000) / 1000 - 1, static_cast<double>(random() % 2000) / 1000 - 1};
      const Line expected = by_definition(x, inverse);
      FourierTransform(static_cast<std::int64_t>(length), inverse)(x);
      for (std::size_t k = 0; k < length; ++k)
        EXPECT_LE(std::abs(x[k] - expected[k]), 1e-11 * static_cast<double>(length));
    }
  }
}

}  // namespace
}  // namespace weft
