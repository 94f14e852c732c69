// Which tokens sampling may take, and how likely they become.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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

// The numbers from 0 to count - 1 in an order of which only so much is sorted as somebody looks at.
template <class Before>
class Order {
 public:
  Order(std::size_t count, Before before) : order_(count), before_(std::move(before)) {
    std::iota(order_.begin(), order_.end(), 0);
  }
  std::size_t size() const { return order_.size(); }
  std::size_t operator[](std::size_t rank) {
    if (rank >= sorted_) sort_beyond(rank);
    return order_[rank];
  }

 private:
  void sort_beyond(std::size_t rank) {
    constexpr std::size_t kFirst = 128, kGrowth = 8;
    const auto at = [&](std::size_t i) { return order_.begin() + static_cast<std::ptrdiff_t>(i); };
    std::size_t end = std::max(kFirst, kGrowth * (rank + 1));
    end = end < order_.size() / 2 ? end : order_.size();
    if (end < order_.size()) std::nth_element(at(sorted_), at(end), order_.end(), before_);
    std::sort(at(sorted_), at(end), before_);
    sorted_ = end;
  }

  std::vector<std::size_t> order_;
  Before before_;
  std::size_t sorted_ = 0;
};

// The smallest set of likeliest tokens whose probabilities reach p.
class TopP final : public LogitsProcessor {
 public:
  TopP(double p, std::size_t keep) : p_(p), keep_(keep) {}
  void process(Tokens, std::span<float> scores) const override {
    const std::vector<double> probabilities = softmax(scores);
    // NaN is the likeliest; of equal scores the last is.
    Order order(scores.size(), [&](std::size_t a, std::size_t b) {
      const bool nan_a = std::isnan(scores[a]), nan_b = std::isnan(scores[b]);
      if (nan_a || nan_b) return nan_a && nan_b ? a > b : nan_a;
      return scores[a] != scores[b] ? scores[a] > scores[b] : a > b;
    });
    std::vector<std::pair<std::size_t, float>> kept;
    for (std::size_t rank = 0, count = kept_count(order, probabilities); rank < count; ++rank)
      kept.emplace_back(order[rank], scores[order[rank]]);
    std::fill(scores.begin(), scores.end(), kNever);
    for (const auto& [token, score] : kept) scores[token] = score;
  }

 private:
  // Tokens go, the least likely first, as long as those gone have 1 - p together. That sum is what the likelier ones
  // leave, which few of them tell, unless it is so near to 1 - p that rounding decides.
  template <class Before>
  std::size_t kept_count(Order<Before>& order, const std::vector<double>& probabilities) const {
    constexpr double kDoubt = 1e-9;
    const std::size_t least = std::min(keep_, order.size());
    double left = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
    if (std::isnan(left)) return least;
    std::size_t kept = 0;
    for (; kept < order.size(); left -= probabilities[order[kept++]]) {
      if (kept < least) continue;
      if (std::abs(left - (1 - p_)) < kDoubt) return kept_count_of_sorted(order, probabilities);
      if (left < 1 - p_) break;
    }
    return kept;
  }
  template <class Before>
  std::size_t kept_count_of_sorted(Order<Before>& order, const std::vector<double>& probabilities) const {
    double gone = 0;
    std::size_t kept = order.size();
    while (kept > keep_ && (gone += probabilities[order[kept - 1]]) <= 1 - p_) --kept;
    return kept;
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
    std::vector<double> distance;
    for (const double p : probabilities) distance.push_back(std::abs(-std::log(p) - entropy));
    Order order(scores.size(), [&](std::size_t a, std::size_t b) {
      return distance[a] != distance[b] ? distance[a] < distance[b] : a < b;
    });
    double total = 0;
    std::size_t last = 0;
    while (last < order.size() && (total += probabilities[order[last]]) < p_) ++last;
    const double limit = distance[order[std::min(last, order.size() - 1)]];
    std::vector<std::pair<std::size_t, float>> kept;  // the first, however far
    for (std::size_t rank = 0; rank < std::min(keep_, order.size()); ++rank)
      kept.emplace_back(order[rank], scores[order[rank]]);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      if (distance[i] > limit) scores[i] = kNever;
    }
    for (const auto& [token, score] : kept) scores[token] = score;
  }

 private:
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
