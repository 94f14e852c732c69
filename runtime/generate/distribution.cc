#include "runtime/generate/distribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/kernels/score_simd.h"

namespace weft::runtime {

void log_softmax(std::span<float> x) { simd::log_softmax_row(x.data(), x.size()); }

std::vector<double> softmax(std::span<const float> x) {
  std::vector<double> result(x.size());
  const double total = simd::exp_row(x.data(), result.data(), x.size());
  for (double& value : result) value /= total;
  return result;
}

namespace {

// NaN counts as the largest, as in PyTorch.
bool better(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

}  // namespace

std::vector<std::size_t> top(std::span<const float> scores, std::size_t k) {
  k = std::min(k, scores.size());
  std::vector<std::size_t> best;  // sorted
  best.reserve(k + 1);
  if (k == 0) return best;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (best.size() == k) {
      const float limit = scores[best.back()];
      i = simd::find_larger(scores.data(), i, scores.size(), limit);
      if (i == scores.size() || std::isnan(limit)) break;
    }
    const auto at = std::upper_bound(best.begin(), best.end(), i,
                                     [&](std::size_t a, std::size_t b) { return better(scores[a], scores[b]); });
    best.insert(at, i);
    if (best.size() > k) best.pop_back();
  }
  return best;
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
