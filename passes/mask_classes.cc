#include "passes/mask_classes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace weft {
namespace {

constexpr double kLeastFill = -1000;  // a mask that adds less than this only prefers some keys
constexpr std::int64_t kMostDirect = 24;

// A number of the class: as it is, or a threshold of the graph plus something.
struct Extent {
  std::int64_t offset = -1;
  std::ptrdiff_t threshold = -1;  // index into MaskSample::thresholds, -1: none

  std::int64_t in(const MaskSample& sample) const {
    return threshold < 0 ? offset : sample.thresholds[static_cast<std::size_t>(threshold)].small + offset;
  }
  std::int64_t in_graph(const MaskSample& sample) const {
    return threshold < 0 ? offset : sample.thresholds[static_cast<std::size_t>(threshold)].value + offset;
  }
};

struct Hypothesis {
  bool queries_at_end = false, is_causal = false;
  std::optional<Extent> left, right, chunk;
  PaddingTest padding = PaddingTest::kNone;
  bool fill_per_condition = false;
};

bool is_kept_by(PaddingTest test, double value) {
  switch (test) {
    case PaddingTest::kNone: return true;
    case PaddingTest::kNotZero: return value != 0;
    case PaddingTest::kOne: return value == 1;
    case PaddingTest::kPositive: return value > 0;
    case PaddingTest::kZero: return value == 0;
  }
  return true;
}

class Fitter {
 public:
  explicit Fitter(const MaskSamples& samples) : samples_(samples) {}

  std::optional<MaskClass> fit(std::string& reason) {
    if (!read_fill(reason)) return std::nullopt;
    for (const bool zero_keeps : {false, true}) {
      zero_keeps_ = zero_keeps;
      if (const auto found = fit_positions()) return found;
      if (!samples_.source.valid()) break;
    }
    reason = "what it computes is no window of positions and no padding";
    return std::nullopt;
  }

 private:
  std::optional<MaskClass> fit_positions() const {
    for (const Hypothesis& positions : position_hypotheses()) {
      if (!fits_positions(positions)) continue;
      for (const PaddingTest padding :
           {PaddingTest::kNone, PaddingTest::kNotZero, PaddingTest::kOne, PaddingTest::kPositive, PaddingTest::kZero}) {
        if (padding != PaddingTest::kNone && !samples_.source.valid()) break;
        for (const bool per_condition : {false, true}) {
          Hypothesis whole = positions;
          whole.padding = padding;
          whole.fill_per_condition = per_condition;
          if (fits(whole)) return to_class(whole);
        }
      }
    }
    return std::nullopt;
  }

  // Every key may be attended, whichever of 0 and 1 says so.
  bool is_unpadded(const MaskSample& sample) const {
    const double kept = zero_keeps_ ? 0 : 1;
    return std::all_of(sample.padding.begin(), sample.padding.end(), [&](double x) { return x == kept; });
  }

  // Kept keys have 0 (or true); the others all the same number.
  bool read_fill(std::string& reason) {
    kept_ = samples_.is_bool ? 1 : 0;
    fill_ = samples_.is_bool ? 0 : -std::numeric_limits<double>::infinity();
    bool any = false;
    for (const MaskSample& sample : samples_.samples) {
      for (const double value : sample.values) {
        if (value == kept_) continue;
        if (std::isnan(value) || (!samples_.is_bool && !(value <= kLeastFill))) {
          reason = fmt::format("it holds {:.6g}, which neither keeps nor excludes a key", value);
          return false;
        }
        fill_ = any ? std::max(fill_, value) : value;
        any = true;
      }
    }
    if (!any) fill_ = 0;
    return true;
  }

  // Of one sample without padding: the least and largest distance t - p kept, and whether keys beyond are excluded.
  struct Band {
    std::int64_t least = std::numeric_limits<std::int64_t>::max(), most = std::numeric_limits<std::int64_t>::min();
    bool bounded_below = false, bounded_above = false;
  };

  Band band_of(const MaskSample& sample, bool at_end) const {
    Band band;
    const auto each = [&](auto&& visit) {
      for (std::int64_t s = 0; s < sample.queries; ++s) {
        for (std::int64_t t = 0; t < sample.keys; ++t) {
          visit(t - (at_end ? s + sample.keys - sample.queries : s),
                sample.values[static_cast<std::size_t>(s * sample.keys + t)] == kept_);
        }
      }
    };
    each([&](std::int64_t distance, bool kept) {
      if (!kept) return;
      band.least = std::min(band.least, distance);
      band.most = std::max(band.most, distance);
    });
    each([&](std::int64_t distance, bool kept) {
      if (kept) return;
      band.bounded_below = band.bounded_below || distance < band.least;
      band.bounded_above = band.bounded_above || distance > band.most;
    });
    return band;
  }

  // A number seen in one sample may be itself or stand for a threshold.
  static std::vector<Extent> explanations(const MaskSample& sample, std::int64_t seen) {
    std::vector<Extent> result = {{seen, -1}};
    for (std::size_t i = 0; i < sample.thresholds.size(); ++i) {
      const std::int64_t offset = seen - sample.thresholds[i].small;
      if (std::abs(offset) <= 2) result.push_back({offset, static_cast<std::ptrdiff_t>(i)});
    }
    return result;
  }

  std::vector<Hypothesis> position_hypotheses() const {
    std::vector<Hypothesis> result = {{}};
    for (const bool at_end : {false, true}) {
      std::vector<std::optional<Extent>> lefts = {std::nullopt}, rights = {std::nullopt};
      bool causal = false;
      std::int64_t longest = 0;
      const MaskSample* longest_sample = nullptr;
      for (const MaskSample& sample : samples_.samples) {
        if (!is_unpadded(sample)) continue;
        const Band band = band_of(sample, at_end);
        if (band.bounded_above && band.most == 0) causal = true;
        const auto add = [&](std::vector<std::optional<Extent>>& to, std::int64_t seen) {
          if (seen < 0 || to.size() > 8) return;
          for (const Extent& extent : explanations(sample, seen)) to.emplace_back(extent);
        };
        if (band.bounded_above && band.most > 0) add(rights, band.most);
        if (band.bounded_below) add(lefts, -band.least);
        if (sample.keys > longest) {
          longest = sample.keys;
          longest_sample = &sample;
        }
      }
      for (const bool is_causal : {false, true}) {
        if (is_causal && !causal) continue;
        for (const auto& left : lefts) {
          for (const auto& right : rights) result.push_back({at_end, is_causal, left, right, std::nullopt});
        }
        if (longest_sample == nullptr) continue;
        for (const Extent& chunk : chunks(*longest_sample)) {
          result.push_back({at_end, is_causal, std::nullopt, std::nullopt, chunk});
        }
      }
    }
    return result;
  }

  static std::vector<Extent> chunks(const MaskSample& sample) {
    std::vector<Extent> result;
    for (std::int64_t size = 1; size <= std::min(sample.keys - 1, kMostDirect); ++size) result.push_back({size, -1});
    for (std::size_t i = 0; i < sample.thresholds.size(); ++i) result.push_back({0, static_cast<std::ptrdiff_t>(i)});
    return result;
  }

  static bool is_kept_by_position(const Hypothesis& h, const MaskSample& sample, std::int64_t s, std::int64_t t) {
    const std::int64_t p = h.queries_at_end ? s + sample.keys - sample.queries : s;
    if (h.is_causal && t > p) return false;
    if (h.left && t < p - h.left->in(sample)) return false;
    if (h.right && t > p + h.right->in(sample)) return false;
    if (h.chunk) {
      const std::int64_t size = h.chunk->in(sample);
      if (size <= 0) return false;
      const auto chunk = [&](std::int64_t x) { return x >= 0 ? x / size : -((size - 1 - x) / size); };
      if (chunk(t) != chunk(p)) return false;
    }
    return true;
  }

  double expected(const Hypothesis& h, bool by_position, bool by_padding) const {
    if (by_position && by_padding) return kept_;
    if (samples_.is_bool) return 0;
    // Masks are added in their own precision: two of the lowest number are -inf.
    const bool twice = h.fill_per_condition && !by_position && !by_padding;
    return twice ? static_cast<double>(static_cast<float>(fill_) + static_cast<float>(fill_)) : fill_;
  }

  bool fits_sample(const Hypothesis& h, const MaskSample& sample) const {
    for (std::int64_t s = 0; s < sample.queries; ++s) {
      for (std::int64_t t = 0; t < sample.keys; ++t) {
        const bool by_padding =
            sample.padding.empty() || is_kept_by(h.padding, sample.padding[static_cast<std::size_t>(t)]);
        if (sample.values[static_cast<std::size_t>(s * sample.keys + t)] !=
            expected(h, is_kept_by_position(h, sample, s, t), by_padding)) {
          return false;
        }
      }
    }
    return true;
  }

  bool fits_positions(const Hypothesis& h) const {
    return std::all_of(samples_.samples.begin(), samples_.samples.end(),
                       [&](const MaskSample& sample) { return !is_unpadded(sample) || fits_sample(h, sample); });
  }
  bool fits(const Hypothesis& h) const {
    return std::all_of(samples_.samples.begin(), samples_.samples.end(),
                       [&](const MaskSample& sample) { return fits_sample(h, sample); });
  }

  MaskClass to_class(const Hypothesis& h) const {
    const MaskSample& any = samples_.samples.front();
    MaskClass result;
    result.queries_at_end = h.queries_at_end;
    result.is_causal = h.is_causal;
    if (h.left) result.left_window = h.left->in_graph(any);
    if (h.right) result.right_window = h.right->in_graph(any);
    if (h.chunk) result.chunk = h.chunk->in_graph(any);
    result.padding = h.padding;
    result.fill = samples_.is_bool && fill_ == 0 ? -std::numeric_limits<double>::infinity() : fill_;
    result.fill_per_condition = h.fill_per_condition;
    return result;
  }

  const MaskSamples& samples_;
  double kept_ = 0, fill_ = 0;
  bool zero_keeps_ = false;
};

// --- Slopes ----------------------------------------------------------------------------------------

double at(const MaskSample& sample, std::int64_t s, std::int64_t t) {
  return sample.values[static_cast<std::size_t>(s * sample.keys + t)];
}

// The step from one key to the next: next to a zero exact, else from the first to the last.
std::optional<double> slope_of(const MaskSamples& samples, std::int64_t head) {
  std::optional<double> widest;
  std::int64_t most = 1;
  for (const MaskSample& sample : samples.samples) {
    if (sample.head != head || sample.queries == 0) continue;
    for (std::int64_t t = 0; t + 1 < sample.keys; ++t) {
      const double here = at(sample, 0, t), next = at(sample, 0, t + 1);
      if (here == 0 || next == 0) return next - here;
    }
    if (sample.keys <= most) continue;
    most = sample.keys;
    widest = (at(sample, 0, most - 1) - at(sample, 0, 0)) / static_cast<double>(most - 1);
  }
  return widest;
}

bool has_slope(const MaskSample& sample, double slope) {
  constexpr double kPrecision = 4e-7;  // of f32 that were rounded once or twice
  for (std::int64_t s = 0; s < sample.queries; ++s) {
    const double first = at(sample, s, 0), last = at(sample, s, sample.keys - 1);
    const double allowed = kPrecision * std::max(std::abs(first), std::abs(last));
    for (std::int64_t t = 0; t < sample.keys; ++t) {
      if (!(std::abs(at(sample, s, t) - (first + slope * static_cast<double>(t))) <= allowed)) return false;
    }
  }
  return true;
}

std::optional<MaskClass> fit_slopes(const MaskSamples& samples, std::string& reason) {
  reason = "it differs between heads, and by more than a slope";
  if (samples.is_bool || samples.is_rounded) return std::nullopt;
  MaskClass result;
  for (std::int64_t head = 0; head < samples.heads; ++head) {
    const auto slope = slope_of(samples, head);
    if (!slope || !std::isfinite(*slope)) return std::nullopt;
    result.slopes.push_back(*slope);
  }
  const bool fits = std::all_of(samples.samples.begin(), samples.samples.end(), [&](const MaskSample& sample) {
    return has_slope(sample, result.slopes[static_cast<std::size_t>(sample.head)]);
  });
  return fits ? std::optional(result) : std::nullopt;
}

}  // namespace

std::optional<MaskClass> classify_mask(const MaskSamples& samples, std::string& reason) {
  if (samples.heads > 1) return fit_slopes(samples, reason);
  const auto found = Fitter(samples).fit(reason);
  if (found || !samples.source_is_integer) return found;
  // Integers that masks are made of by arithmetic, (1 - m) * fill above all, are ones and zeros.
  MaskSamples flags = samples;
  std::erase_if(flags.samples, [](const MaskSample& sample) {
    return std::any_of(sample.padding.begin(), sample.padding.end(), [](double x) { return x != 0 && x != 1; });
  });
  std::string why;
  return Fitter(flags).fit(why);
}

}  // namespace weft
