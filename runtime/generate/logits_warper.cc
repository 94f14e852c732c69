// Which tokens sampling may take, and how likely they become.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "runtime/generate/distribution.h"
#include "runtime/generate/logits_processor.h"

namespace weft::runtime {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
using Tokens = std::span<const std::int64_t>;

// The k-th largest score.
float kth_largest(std::span<const float> scores, std::size_t k) {
  std::vector<float> sorted(scores.begin(), scores.end());
  k = std::clamp<std::size_t>(k, 1, sorted.size());
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(k - 1), sorted.end(), std::greater<>());
  return sorted[k - 1];
}

class Temperature final : public LogitsProcessor {
 public:
  explicit Temperature(double temperature) : temperature_(static_cast<float>(temperature)) {}
  void process(Tokens, std::span<float> scores) const override {
    for (float& score : scores) score /= temperature_;
  }

 private:
  float temperature_;
};

class TopK final : public LogitsProcessor {
 public:
  explicit TopK(std::size_t k) : k_(k) {}
  void process(Tokens, std::span<float> scores) const override {
    const float limit = kth_largest(scores, k_);
    for (float& score : scores) {
      if (score < limit) score = kNever;
    }
  }

 private:
  std::size_t k_;
};

// The fewest of the first elements, in the order of `before`, that have `target` of all masses together: their number,
// and they come to the front. nullopt where rounding might decide.
template <class T, class Before, class Mass>
std::optional<std::size_t> first_reaching(std::span<T> elements, const Before& before, const Mass& mass,
                                          double target) {
  constexpr double kDoubt = 1e-9;
  std::size_t low = 0, high = elements.size();  // so many have less, so many have enough
  double of_low = 0;
  if (std::abs(target) < kDoubt) return std::nullopt;
  if (target < 0) return 0;
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    const auto some = elements.subspan(low, high - low);
    std::nth_element(some.begin(), some.begin() + static_cast<std::ptrdiff_t>(middle - low), some.end(), before);
    double sum = of_low;
    for (const T& element : some.first(middle - low)) sum += mass(element);
    if (std::abs(sum - target) < kDoubt) return std::nullopt;
    if (sum < target) {
      low = middle;
      of_low = sum;
    } else {
      high = middle;
    }
  }
  const bool certain = low + 1 < elements.size() || of_low + mass(elements[low]) > target + kDoubt;
  return certain ? std::optional(high) : std::nullopt;
}

// The smallest set of likeliest tokens whose probabilities reach p.
class TopP final : public LogitsProcessor {
 public:
  TopP(double p, std::size_t keep) : p_(p), keep_(keep) {}
  void process(Tokens, std::span<float> scores) const override {
    const std::vector<double> probabilities = softmax(scores);
    std::vector<std::uint64_t> tokens(scores.size());
    for (std::size_t i = 0; i < scores.size(); ++i) tokens[i] = std::uint64_t{rank_of(scores[i])} << 32 | i;
    const std::size_t count = bring_to_front(tokens, probabilities);
    std::vector<float> kept;
    for (const std::uint64_t token : std::span(tokens).first(count)) kept.push_back(scores[index_of(token)]);
    std::fill(scores.begin(), scores.end(), kNever);
    for (std::size_t i = 0; i < count; ++i) scores[index_of(tokens[i])] = kept[i];
  }

 private:
  static std::size_t index_of(std::uint64_t token) { return token & 0xffffffffu; }
  // Integers in the order of scores; NaN is the largest.
  static std::uint32_t rank_of(float score) {
    if (std::isnan(score)) return ~std::uint32_t{0};
    const auto bits = std::bit_cast<std::uint32_t>(score + 0.0f);  // of -0 as of 0
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  }

  // Tokens go, the least likely first (of equal ones the first), as long as those gone have at most 1 - p together.
  std::size_t bring_to_front(std::vector<std::uint64_t>& tokens, const std::vector<double>& probabilities) const {
    const auto mass = [&](std::uint64_t token) { return probabilities[index_of(token)]; };
    const std::size_t least = std::min(keep_, tokens.size());
    const double all = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
    std::optional<std::size_t> count = 0;
    if (!std::isnan(all)) count = first_reaching(std::span(tokens), std::greater<>(), mass, all - (1 - p_));
    if (!count) {
      std::sort(tokens.begin(), tokens.end(), std::greater<>());
      double gone = 0;
      count = tokens.size();
      while (*count > least && (gone += mass(tokens[*count - 1])) <= 1 - p_) --*count;
    }
    if (*count >= least) return *count;
    std::nth_element(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(least - 1), tokens.end(),
                     std::greater<>());
    return least;
  }

  double p_;
  std::size_t keep_;
};

// Removes tokens less likely than a limit, but never the `keep` likeliest.
void remove_below(std::span<float> scores, const std::vector<double>& probabilities, double limit, std::size_t keep) {
  const float kept = kth_largest(scores, keep);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (probabilities[i] < limit && scores[i] < kept) scores[i] = kNever;
  }
}

class MinP final : public LogitsProcessor {
 public:
  MinP(double p, std::size_t keep) : p_(p), keep_(keep) {}
  void process(Tokens, std::span<float> scores) const override {
    const std::vector<double> probabilities = softmax(scores);
    const double limit = p_ * *std::max_element(probabilities.begin(), probabilities.end());
    remove_below(scores, probabilities, limit, keep_);
  }

 private:
  double p_;
  std::size_t keep_;
};

// Tokens whose information is nearest to the expected one, up to a probability of p together.
class Typical final : public LogitsProcessor {
 public:
  Typical(double p, std::size_t keep) : p_(p), keep_(keep) {}
  void process(Tokens, std::span<float> scores) const override {
    const std::vector<double> probabilities = softmax(scores);
    double entropy = 0;
    for (const double p : probabilities) entropy -= p > 0 ? p * std::log(p) : 0;
    std::vector<std::pair<double, std::uint32_t>> order(scores.size());
    for (std::size_t i = 0; i < order.size(); ++i)
      order[i] = {std::abs(-std::log(probabilities[i]) - entropy), static_cast<std::uint32_t>(i)};
    if (std::isnan(entropy)) return;
    const double limit = limit_of(order, probabilities);
    const auto least = order.begin() + static_cast<std::ptrdiff_t>(std::min(keep_, order.size()));
    std::nth_element(order.begin(), least, order.end());
    for (auto token = least; token != order.end(); ++token) {
      if (token->first > limit) scores[token->second] = kNever;
    }
  }

 private:
  // The distance at which the nearest tokens have p together.
  double limit_of(std::vector<std::pair<double, std::uint32_t>>& order,
                  const std::vector<double>& probabilities) const {
    const auto mass = [&](const auto& token) { return probabilities[token.second]; };
    if (const auto count = first_reaching(std::span(order), std::less<>(), mass, p_))
      return std::max_element(order.begin(),
                              order.begin() + static_cast<std::ptrdiff_t>(std::max<std::size_t>(*count, 1)))
          ->first;
    std::sort(order.begin(), order.end());
    double total = 0;
    std::size_t last = 0;
    while (last < order.size() && (total += mass(order[last])) < p_) ++last;
    return order[std::min(last, order.size() - 1)].first;
  }

  double p_;
  std::size_t keep_;
};

class EpsilonCutoff final : public LogitsProcessor {
 public:
  EpsilonCutoff(double epsilon, std::size_t keep) : epsilon_(epsilon), keep_(keep) {}
  void process(Tokens, std::span<float> scores) const override {
    remove_below(scores, softmax(scores), epsilon_, keep_);
  }

 private:
  double epsilon_;
  std::size_t keep_;
};

// The limit falls with the entropy: min(epsilon, sqrt(epsilon) exp(-entropy)).
class EtaCutoff final : public LogitsProcessor {
 public:
  EtaCutoff(double epsilon, std::size_t keep) : epsilon_(epsilon), keep_(keep) {}
  void process(Tokens, std::span<float> scores) const override {
    const std::vector<double> probabilities = softmax(scores);
    double entropy = 0;
    for (const double p : probabilities) entropy -= p > 0 ? p * std::log(p) : 0;
    remove_below(scores, probabilities, std::min(epsilon_, std::sqrt(epsilon_) * std::exp(-entropy)), keep_);
  }

 private:
  double epsilon_;
  std::size_t keep_;
};

}  // namespace

void add_logits_warpers(const GenerationConfig& config, LogitsProcessors& list) {
  // Beams must not run out of candidates that are no end tokens.
  const std::size_t keep = config.num_beams > 1 ? config.eos_token_id.size() + 1 : 1;
  if (config.temperature != 1.0) list.push_back(std::make_unique<Temperature>(config.temperature));
  if (config.top_k > 0) list.push_back(std::make_unique<TopK>(std::max(static_cast<std::size_t>(config.top_k), keep)));
  if (config.top_p < 1.0) list.push_back(std::make_unique<TopP>(config.top_p, keep));
  if (config.min_p) list.push_back(std::make_unique<MinP>(*config.min_p, keep));
  if (config.typical_p < 1.0) list.push_back(std::make_unique<Typical>(config.typical_p, keep));
  if (config.epsilon_cutoff > 0) list.push_back(std::make_unique<EpsilonCutoff>(config.epsilon_cutoff, keep));
  if (config.eta_cutoff > 0) list.push_back(std::make_unique<EtaCutoff>(config.eta_cutoff, keep));
}

}  // namespace weft::runtime
