// Compiled once per instruction set, included by simd.cc only.
#if defined(WEFT_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_SIMD_INL_H
#undef WEFT_SIMD_INL_H
#else
#define WEFT_SIMD_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/highway.h"
#include "runtime/kernels/activation-inl.h"
#include "runtime/kernels/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::simd::HWY_NAMESPACE {

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

void Activate(Activation activation, float alpha, const float* x, float* y, std::size_t count) {
  ActivateRow(activation, alpha, x, y, count);
}

template <class Function>
HWY_INLINE void Map(const float* x, float* y, std::size_t count, const Function& function) {
  ForEachVector(count,
                [&](std::size_t i, std::size_t lanes) HWY_ATTR { Store(function(Load(x + i, lanes)), y + i, lanes); });
}

// The library's Exp is defined up to 104 and not for NaN.
HWY_INLINE V Exp(V x) {
  const F d;
  const V largest = hn::Set(d, 88.7228391f);  // beyond, the result is no finite float
  V y = hn::Exp(d, hn::Clamp(x, hn::Set(d, -104.0f), largest));
  y = hn::IfThenElse(hn::Gt(x, largest), hn::Inf(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

void ApplyUnary(Unary op, const float* x, float* y, std::size_t count) {
  const V one = hn::Set(F(), 1.0f);
  switch (op) {
    case Unary::kAbs: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Abs(v); });
    case Unary::kNeg: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Neg(v); });
    case Unary::kSqrt: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Sqrt(v); });
    case Unary::kReciprocal: return Map(x, y, count, [one](V v) HWY_ATTR { return hn::Div(one, v); });
    case Unary::kFloor: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Floor(v); });
    case Unary::kCeil: return Map(x, y, count, [](V v) HWY_ATTR { return hn::Ceil(v); });
    case Unary::kExp: return Map(x, y, count, [](V v) HWY_ATTR { return Exp(v); });
    case Unary::kErf: return Map(x, y, count, [](V v) HWY_ATTR { return Erf(v); });
  }
}

template <class Function>
HWY_INLINE void Combine(const float* a, bool a_advances, const float* b, bool b_advances, float* y, std::size_t count,
                        const Function& function) {
  const F d;
  if (a_advances && b_advances) {
    ForEachVector(count, [&](std::size_t i, std::size_t lanes)
                             HWY_ATTR { Store(function(Load(a + i, lanes), Load(b + i, lanes)), y + i, lanes); });
  } else if (b_advances) {
    const V left = hn::Set(d, *a);
    Map(b, y, count, [&](V right) HWY_ATTR { return function(left, right); });
  } else if (a_advances) {
    const V right = hn::Set(d, *b);
    Map(a, y, count, [&](V left) HWY_ATTR { return function(left, right); });
  } else {
    const V value = function(hn::Set(d, *a), hn::Set(d, *b));
    ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR { Store(value, y + i, lanes); });
  }
}

void ApplyBinary(Binary op, const float* a, bool a_advances, const float* b, bool b_advances, float* y,
                 std::size_t count) {
  const auto apply = [&](const auto& function) HWY_ATTR { Combine(a, a_advances, b, b_advances, y, count, function); };
  switch (op) {
    case Binary::kAdd: return apply([](V l, V r) HWY_ATTR { return hn::Add(l, r); });
    case Binary::kSub: return apply([](V l, V r) HWY_ATTR { return hn::Sub(l, r); });
    case Binary::kMul: return apply([](V l, V r) HWY_ATTR { return hn::Mul(l, r); });
    case Binary::kDiv: return apply([](V l, V r) HWY_ATTR { return hn::Div(l, r); });
  }
}

void SoftmaxRow(const float* x, float* y, std::size_t count) {
  const F d;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V highest = lowest;
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V value = Load(x + i, lanes);
    if (lanes < hn::Lanes(d)) value = hn::IfThenElse(hn::FirstN(d, lanes), value, lowest);
    highest = hn::Max(highest, value);
  });
  const V shift = hn::Set(d, hn::ReduceMax(d, highest));
  V total = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V weight = Exp(hn::Sub(Load(x + i, lanes), shift));  // NaN of -inf - -inf and inf - inf
    Store(weight, y + i, lanes);
    total = hn::Add(total, lanes < hn::Lanes(d) ? hn::IfThenElseZero(hn::FirstN(d, lanes), weight) : weight);
  });
  const V scale = hn::Set(d, 1.0f / hn::ReduceSum(d, total));
  Map(y, y, count, [&](V weight) HWY_ATTR { return hn::Mul(weight, scale); });
}

HWY_INLINE float Sum(const float* x, std::size_t count) {
  V total = hn::Zero(F());
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR { total = hn::Add(total, Load(x + i, lanes)); });
  return hn::ReduceSum(F(), total);
}

void LayerNormRow(const float* x, const float* scale, const float* bias, float epsilon, float* y, std::size_t count) {
  const F d;
  const float mean = Sum(x, count) / static_cast<float>(count);
  const V m = hn::Set(d, mean);
  V squares = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V centred = hn::Sub(Load(x + i, lanes), m);
    if (lanes < hn::Lanes(d)) centred = hn::IfThenElseZero(hn::FirstN(d, lanes), centred);
    squares = hn::MulAdd(centred, centred, squares);
  });
  const float variance = hn::ReduceSum(d, squares) / static_cast<float>(count);
  const V inverse = hn::Set(d, 1.0f / std::sqrt(variance + epsilon));
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    V value = hn::Mul(hn::Mul(hn::Sub(Load(x + i, lanes), m), inverse), Load(scale + i, lanes));
    if (bias != nullptr) value = hn::Add(value, Load(bias + i, lanes));
    Store(value, y + i, lanes);
  });
}

void RmsNormRow(const float* x, const float* scale, float epsilon, float* y, std::size_t count) {
  const F d;
  V squares = hn::Zero(d);
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V value = Load(x + i, lanes);
    squares = hn::MulAdd(value, value, squares);
  });
  const float mean = hn::ReduceSum(d, squares) / static_cast<float>(count);
  const V inverse = hn::Set(d, 1.0f / std::sqrt(mean + epsilon));
  ForEachVector(count, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    Store(hn::Mul(hn::Mul(Load(x + i, lanes), inverse), Load(scale + i, lanes)), y + i, lanes);
  });
}

void RotateRow(const float* x, const float* cos, const float* sin, bool interleaved, float* y, std::size_t count) {
  if (interleaved) {
    for (std::size_t i = 0; i + 1 < count; i += 2) {
      const float a = x[i];
      const float b = x[i + 1];
      y[i] = a * cos[i] + -b * sin[i];
      y[i + 1] = b * cos[i + 1] + a * sin[i + 1];
    }
    return;
  }
  const std::size_t half = count / 2;
  ForEachVector(half, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
    const V a = Load(x + i, lanes);
    const V b = Load(x + half + i, lanes);
    const V low = hn::Sub(hn::Mul(a, Load(cos + i, lanes)), hn::Mul(b, Load(sin + i, lanes)));
    const V high = hn::Add(hn::Mul(b, Load(cos + half + i, lanes)), hn::Mul(a, Load(sin + half + i, lanes)));
    Store(low, y + i, lanes);
    Store(high, y + half + i, lanes);
  });
}

// --- Attention -------------------------------------------------------------------------------------

constexpr std::size_t kKeys = AttentionRows::kKeyBlock;

// packed[d][t] = k[t][d] for one block of keys, so that scores are products with a broadcast query.
HWY_INLINE void PackKeys(const AttentionRows& a, std::size_t first, std::size_t count, float* packed) {
  for (std::size_t t = 0; t < count; ++t) {
    const float* key = a.k + (first + t) * a.k_stride;
    for (std::size_t i = 0; i < a.size; ++i) packed[i * kKeys + t] = key[i];
  }
}

// scores[r][t] for kRows query rows over one packed block.
template <std::size_t kRows>
HWY_INLINE void Scores(const AttentionRows& a, std::size_t row, std::size_t count, const float* packed, float* scores) {
  const F d;
  const V scale = hn::Set(d, a.scale);
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t t = 0; t < count; t += lanes) {
    V sum[kRows];
    for (std::size_t r = 0; r < kRows; ++r) sum[r] = hn::Zero(d);
    for (std::size_t i = 0; i < a.size; ++i) {
      const V key = hn::LoadU(d, packed + i * kKeys + t);
      for (std::size_t r = 0; r < kRows; ++r) {
        sum[r] = hn::MulAdd(hn::Set(d, a.q[(row + r) * a.q_stride + i]), key, sum[r]);
      }
    }
    for (std::size_t r = 0; r < kRows; ++r) {
      hn::StoreU(hn::Mul(sum[r], scale), d, scores + (row + r) * kKeys + t);
    }
  }
}

// Few query rows: packing would cost more than it saves, so dot products key by key.
HWY_INLINE void ScoresDirect(const AttentionRows& a, std::size_t first, std::size_t count, float* scores) {
  const F d;
  for (std::size_t r = 0; r < a.rows; ++r) {
    const float* q = a.q + r * a.q_stride;
    for (std::size_t t = 0; t < count; ++t) {
      const float* key = a.k + (first + t) * a.k_stride;
      V sum = hn::Zero(d);
      ForEachVector(a.size, [&](std::size_t i, std::size_t lanes)
                                HWY_ATTR { sum = hn::MulAdd(Load(q + i, lanes), Load(key + i, lanes), sum); });
      scores[r * kKeys + t] = hn::ReduceSum(d, sum) * a.scale;
    }
  }
}

HWY_INLINE void ApplySoftcap(const AttentionRows& a, std::size_t count, float* scores) {
  const F d;
  const V cap = hn::Set(d, a.softcap), inverse = hn::Set(d, 1.0f / a.softcap);
  for (std::size_t r = 0; r < a.rows; ++r) {
    float* row = scores + r * kKeys;
    ForEachVector(count, [&](std::size_t t, std::size_t lanes) HWY_ATTR {
      Store(hn::Mul(Tanh(hn::Mul(Load(row + t, lanes), inverse)), cap), row + t, lanes);
    });
  }
}

HWY_INLINE void ApplyMask(const AttentionRows& a, std::size_t first, std::size_t count, float* scores) {
  if (a.softcap > 0) ApplySoftcap(a, count, scores);
  constexpr float kExcluded = -std::numeric_limits<float>::infinity();
  for (std::size_t r = 0; r < a.rows; ++r) {
    float* row = scores + r * kKeys;
    const std::size_t base = r * a.mask_row_stride + first * a.mask_key_stride;
    if (a.mask != nullptr) {
      for (std::size_t t = 0; t < count; ++t) row[t] += a.mask[base + t * a.mask_key_stride];
    } else if (a.mask_bits != nullptr) {
      for (std::size_t t = 0; t < count; ++t) {
        if (a.mask_bits[base + t * a.mask_key_stride] == 0) row[t] = kExcluded;
      }
    }
    if (a.causal_from >= 0) {
      const std::size_t last = static_cast<std::size_t>(a.causal_from) + r;
      for (std::size_t t = 0; t < count; ++t) {
        if (first + t > last) row[t] = kExcluded;
      }
    }
  }
}

// Folds a block of scores into the running maximum and sum of a row; scores become exp(score - max).
// Returns what earlier results have to be multiplied by.
HWY_INLINE float Exponentiate(float* scores, std::size_t count, float& maximum, float& sum) {
  const F d;
  const float lowest = -std::numeric_limits<float>::infinity();
  V highest = hn::Set(d, lowest);
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t t = count; t % lanes != 0; ++t) scores[t] = lowest;
  for (std::size_t t = 0; t < count; t += lanes) {
    highest = hn::Max(highest, hn::LoadU(d, scores + t));
  }
  const float before = maximum;
  maximum = std::max(before, hn::ReduceMax(d, highest));
  // With nothing but -inf so far any finite reference does: exp(-inf) is 0.
  const float reference = maximum == lowest ? 0.0f : maximum;
  const V shift = hn::Set(d, reference);
  const V excluded = hn::Set(d, lowest);
  V total = hn::Zero(d);
  for (std::size_t t = 0; t < count; t += lanes) {
    const V score = hn::LoadU(d, scores + t);
    // NaN passes through, as in Softmax; the library's Exp is not defined for it.
    V weight = hn::Exp(d, hn::Sub(score, shift));
    weight = hn::IfThenZeroElse(hn::Eq(score, excluded), weight);
    weight = hn::IfThenElse(hn::IsNaN(score), score, weight);
    hn::StoreU(weight, d, scores + t);
    total = hn::Add(total, weight);
  }
  const float correction = before == lowest ? 0.0f : std::exp(before - reference);
  sum = sum * correction + hn::ReduceSum(d, total);
  return correction;
}

// out[r] = out[r] * correction[r] + weights[r] * v for kRows rows.
template <std::size_t kRows>
HWY_INLINE void Accumulate(const AttentionRows& a, std::size_t row, std::size_t first, std::size_t count,
                           const float* weights, const float* correction, bool fresh) {
  const F d;
  ForEachVector(a.value_size, [&](std::size_t e, std::size_t lanes) HWY_ATTR {
    V sum[kRows];
    for (std::size_t r = 0; r < kRows; ++r) {
      sum[r] = fresh ? hn::Zero(d)
                     : hn::Mul(Load(a.out + (row + r) * a.out_stride + e, lanes), hn::Set(d, correction[row + r]));
    }
    for (std::size_t t = 0; t < count; ++t) {
      const V value = Load(a.v + (first + t) * a.v_stride + e, lanes);
      for (std::size_t r = 0; r < kRows; ++r) {
        sum[r] = hn::MulAdd(hn::Set(d, weights[(row + r) * kKeys + t]), value, sum[r]);
      }
    }
    for (std::size_t r = 0; r < kRows; ++r) {
      Store(sum[r], a.out + (row + r) * a.out_stride + e, lanes);
    }
  });
}

void Attend(const AttentionRows& a) {
  constexpr std::size_t kRows = AttentionRows::kQueryRows;
  const F d;
  float* packed = a.scratch;
  float* scores = a.scratch + a.size * kKeys;
  float maximum[kRows];
  float sum[kRows];
  float correction[kRows];
  std::fill(maximum, maximum + kRows, -std::numeric_limits<float>::infinity());
  std::fill(sum, sum + kRows, 0.0f);
  for (std::size_t first = 0; first < a.keys; first += kKeys) {
    const std::size_t count = std::min(kKeys, a.keys - first);
    if (a.rows < 4) {
      ScoresDirect(a, first, count, scores);
    } else {
      PackKeys(a, first, count, packed);
      std::size_t row = 0;
      for (; row + 4 <= a.rows; row += 4) Scores<4>(a, row, count, packed, scores);
      for (; row < a.rows; ++row) Scores<1>(a, row, count, packed, scores);
    }
    ApplyMask(a, first, count, scores);
    for (std::size_t r = 0; r < a.rows; ++r) {
      correction[r] = Exponentiate(scores + r * kKeys, count, maximum[r], sum[r]);
    }
    std::size_t row = 0;
    for (; row + 4 <= a.rows; row += 4) {
      Accumulate<4>(a, row, first, count, scores, correction, first == 0);
    }
    for (; row < a.rows; ++row) {
      Accumulate<1>(a, row, first, count, scores, correction, first == 0);
    }
  }
  for (std::size_t r = 0; r < a.rows; ++r) {
    float* out = a.out + r * a.out_stride;
    if (sum[r] == 0.0f) {  // nothing to attend
      std::fill(out, out + a.value_size, a.zero_masked_rows ? 0.0f : std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    if (a.zero_masked_rows && std::isnan(sum[r])) {
      std::fill(out, out + a.value_size, 0.0f);
      continue;
    }
    const V inverse = hn::Set(d, 1.0f / sum[r]);
    ForEachVector(a.value_size, [&](std::size_t e, std::size_t lanes)
                                    HWY_ATTR { Store(hn::Mul(Load(out + e, lanes), inverse), out + e, lanes); });
  }
}

}  // namespace weft::runtime::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
