#include "runtime/generate/distribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace weft::runtime {

void log_softmax(std::span<float> x) {
  const float top = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (const float value : x) total += std::exp(static_cast<double>(value - top));
  const auto shift = static_cast<float>(std::log(total));
  for (float& value : x) value = value - top - shift;
}

std::vector<double> softmax(std::span<const float> x) {
  const float top = *std::max_element(x.begin(), x.end());
  std::vector<double> result;
  result.reserve(x.size());
  double total = 0;
  for (const float value : x) {
    result.push_back(std::exp(static_cast<double>(value) - static_cast<double>(top)));
    total += result.back();
  }
  for (double& value : result) value /= total;
  return result;
}

std::vector<std::size_t> top(std::span<const float> scores, std::size_t k) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  k = std::min(k, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
      [&](std::size_t a, std::size_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
  order.resize(k);
  return order;
}

std::array<std::uint32_t, 4> philox(std::uint64_t key, std::array<std::uint32_t, 4> c) {
  constexpr std::uint64_t kFirst = 0xd2511f53, kSecond = 0xcd9e8d57;
  constexpr std::uint32_t kWeyl[] = {0x9e3779b9, 0xbb67ae85};
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = kFirst * c[0], b = kSecond * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += kWeyl[0];
    k1 += kWeyl[1];
  }
  return c;
}

double uniform(std::uint64_t seed, std::uint32_t stream, std::uint32_t row, std::uint32_t step, std::uint32_t index) {
  const auto words = philox(seed, {index, step, row, stream});
  const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 32 | words[1]) >> 12;
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

std::size_t draw(std::span<const double> probabilities, double u) {
  const double target = u * std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  double passed = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] <= 0) continue;
    passed += probabilities[i];
    last = i;
    if (passed > target) break;
  }
  return last;
}

}  // namespace weft::runtime
