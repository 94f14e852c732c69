// Compiled once per instruction set, included by elements.cc only. Plain loops, which compilers turn into vectors.
#if defined(WEFT_ELEMENTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_ELEMENTS_INL_H
#undef WEFT_ELEMENTS_INL_H
#else
#define WEFT_ELEMENTS_INL_H
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "hwy/highway.h"
#include "runtime/kernels/elements.h"

// What is written is never read later: where it overlaps an operand, it is that operand.
#undef WEFT_INDEPENDENT
#ifdef __clang__
#define WEFT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define WEFT_INDEPENDENT _Pragma("GCC ivdep")
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::elements::HWY_NAMESPACE {

// --- Functions ---------------------------------------------------------------------------------------------------

template <class T>
struct Unsigned {
  using type = std::make_unsigned_t<T>;
};
template <>
struct Unsigned<float> {
  using type = float;
};
template <class T>
using Wrapping = typename Unsigned<T>::type;

struct AddOf {
  template <class T>
  HWY_INLINE T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
  }
};
struct SubOf {
  template <class T>
  HWY_INLINE T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
  }
};
struct MulOf {
  template <class T>
  HWY_INLINE T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
  }
};
struct DivOf {
  HWY_INLINE float operator()(float a, float b) const { return a / b; }
};
// NaN wins.
struct MaxOf {
  template <class T>
  HWY_INLINE T operator()(T a, T b) const {
    return ((a != a) | (a > b)) ? a : b;
  }
};
struct MinOf {
  template <class T>
  HWY_INLINE T operator()(T a, T b) const {
    return ((a != a) | (a < b)) ? a : b;
  }
};
struct PreluOf {
  HWY_INLINE float operator()(float x, float slope) const { return x < 0 ? x * slope : x; }
};
struct Equal {
  template <class T>
  HWY_INLINE bool operator()(T a, T b) const {
    return a == b;
  }
};
struct Greater {
  template <class T>
  HWY_INLINE bool operator()(T a, T b) const {
    return a > b;
  }
};
struct GreaterOrEqual {
  template <class T>
  HWY_INLINE bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct Less {
  template <class T>
  HWY_INLINE bool operator()(T a, T b) const {
    return a < b;
  }
};
struct LessOrEqual {
  template <class T>
  HWY_INLINE bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct And {
  HWY_INLINE std::uint8_t operator()(std::uint8_t a, std::uint8_t b) const { return a & b; }
};
struct Or {
  HWY_INLINE std::uint8_t operator()(std::uint8_t a, std::uint8_t b) const { return a | b; }
};
struct Xor {
  HWY_INLINE std::uint8_t operator()(std::uint8_t a, std::uint8_t b) const { return a ^ b; }
};
struct Not {
  HWY_INLINE std::uint8_t operator()(std::uint8_t x) const { return x ^ 1; }
};
struct IsNaN {
  HWY_INLINE bool operator()(float x) const { return x != x; }
};
template <class To>
struct CastTo {
  template <class From>
  HWY_INLINE To operator()(From x) const {
    if constexpr (std::is_same_v<To, bool>) {
      return x != 0;
    } else {
      return static_cast<To>(x);
    }
  }
};

// Towards zero; what does not fit becomes the nearest that does, NaN zero.
template <class To>
struct TruncateTo {
  HWY_INLINE To operator()(float x) const {
    constexpr float kLeast = static_cast<float>(std::numeric_limits<To>::min());
    constexpr float kLargest = sizeof(To) == 8 ? 0x1.fffffep62f : 0x1.fffffep30f;  // below -kLeast
    const float inside = x < kLeast ? kLeast : x > kLargest ? kLargest : x;
    const To y = static_cast<To>(x != x ? 0.0f : inside);
    return x > kLargest ? std::numeric_limits<To>::max() : y;
  }
};

// --- Loops ---------------------------------------------------------------------------------------------------------

template <class T, class Out, class F>
void Map(const void* from, void* to, std::size_t count) {
  const T* x = static_cast<const T*>(from);
  Out* y = static_cast<Out*>(to);
  WEFT_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) y[i] = F()(x[i]);
}

template <class T, class Out, class F>
void Pair(const void* left, bool left_advances, const void* right, bool right_advances, void* to, std::size_t count) {
  const T* a = static_cast<const T*>(left);
  const T* b = static_cast<const T*>(right);
  Out* y = static_cast<Out*>(to);
  if (left_advances && right_advances) {
    WEFT_INDEPENDENT
    for (std::size_t i = 0; i < count; ++i) y[i] = F()(a[i], b[i]);
  } else if (left_advances) {
    const T value = *b;
    WEFT_INDEPENDENT
    for (std::size_t i = 0; i < count; ++i) y[i] = F()(a[i], value);
  } else if (right_advances) {
    const T value = *a;
    WEFT_INDEPENDENT
    for (std::size_t i = 0; i < count; ++i) y[i] = F()(value, b[i]);
  } else {
    std::fill_n(y, count, F()(*a, *b));
  }
}

template <class T, bool kA, bool kB>
HWY_INLINE void Choose(const std::uint8_t* condition, const T* a, const T* b, T* y, std::size_t count) {
  const T first = *a, second = *b;
  WEFT_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) {
    const T yes = kA ? a[i] : first, no = kB ? b[i] : second;
    y[i] = condition[i] != 0 ? yes : no;
  }
}

template <class T>
void Select(const void* choices, bool varies, const void* left, bool a_advances, const void* right, bool b_advances,
            void* to, std::size_t count) {
  const auto* condition = static_cast<const std::uint8_t*>(choices);
  const T* a = static_cast<const T*>(left);
  const T* b = static_cast<const T*>(right);
  T* y = static_cast<T*>(to);
  if (!varies) {
    const bool first = *condition != 0;
    const T* from = first ? a : b;
    if (!(first ? a_advances : b_advances)) {
      std::fill_n(y, count, *from);
    } else if (from != y) {
      std::memcpy(y, from, count * sizeof(T));
    }
  } else if (a_advances) {
    b_advances ? Choose<T, true, true>(condition, a, b, y, count) : Choose<T, true, false>(condition, a, b, y, count);
  } else {
    b_advances ? Choose<T, false, true>(condition, a, b, y, count) : Choose<T, false, false>(condition, a, b, y, count);
  }
}

// --- Tables ----------------------------------------------------------------------------------------------------------

template <class F>
PairRow Numbers(DType dtype) {
  switch (dtype) {
    case DType::kF32: return Pair<float, float, F>;
    case DType::kI32: return Pair<std::int32_t, std::int32_t, F>;
    case DType::kI64: return Pair<std::int64_t, std::int64_t, F>;
    default: return nullptr;
  }
}

template <class F>
PairRow Comparison(DType dtype) {
  switch (dtype) {
    case DType::kF32: return Pair<float, bool, F>;
    case DType::kI32: return Pair<std::int32_t, bool, F>;
    case DType::kI64: return Pair<std::int64_t, bool, F>;
    default: return nullptr;
  }
}

PairRow FindPair(std::string_view op, DType dtype) {
  if (op == "Add") return Numbers<AddOf>(dtype);
  if (op == "Sub") return Numbers<SubOf>(dtype);
  if (op == "Mul") return Numbers<MulOf>(dtype);
  if (op == "Max") return Numbers<MaxOf>(dtype);
  if (op == "Min") return Numbers<MinOf>(dtype);
  if (op == "Div" && dtype == DType::kF32) return Pair<float, float, DivOf>;
  if (op == "PRelu" && dtype == DType::kF32) return Pair<float, float, PreluOf>;
  if (op == "Equal" && dtype == DType::kBool) return Pair<std::uint8_t, bool, Equal>;
  if (op == "Equal") return Comparison<Equal>(dtype);
  if (op == "Greater") return Comparison<Greater>(dtype);
  if (op == "GreaterOrEqual") return Comparison<GreaterOrEqual>(dtype);
  if (op == "Less") return Comparison<Less>(dtype);
  if (op == "LessOrEqual") return Comparison<LessOrEqual>(dtype);
  if (dtype != DType::kBool) return nullptr;
  if (op == "And") return Pair<std::uint8_t, std::uint8_t, And>;
  if (op == "Or") return Pair<std::uint8_t, std::uint8_t, Or>;
  if (op == "Xor") return Pair<std::uint8_t, std::uint8_t, Xor>;
  return nullptr;
}

MapRow FindMap(std::string_view op, DType dtype) {
  if (op == "Not" && dtype == DType::kBool) return Map<std::uint8_t, std::uint8_t, Not>;
  if (op == "IsNaN" && dtype == DType::kF32) return Map<float, bool, IsNaN>;
  return nullptr;
}

template <class From>
MapRow CastFrom(DType to) {
  switch (to) {
    case DType::kBool: return Map<From, bool, CastTo<bool>>;
    case DType::kF32: return Map<From, float, CastTo<float>>;
    case DType::kI32: return Map<From, std::int32_t, CastTo<std::int32_t>>;
    case DType::kI64: return Map<From, std::int64_t, CastTo<std::int64_t>>;
    default: return nullptr;
  }
}

MapRow CastFloats(DType to) {
  switch (to) {
    case DType::kBool: return Map<float, bool, CastTo<bool>>;
    case DType::kI32: return Map<float, std::int32_t, TruncateTo<std::int32_t>>;
    case DType::kI64: return Map<float, std::int64_t, TruncateTo<std::int64_t>>;
    default: return nullptr;
  }
}

MapRow FindCast(DType from, DType to) {
  switch (from) {
    case DType::kF32: return CastFloats(to);
    case DType::kBool:
    case DType::kU8: return CastFrom<std::uint8_t>(to);
    case DType::kI32: return CastFrom<std::int32_t>(to);
    case DType::kI64: return CastFrom<std::int64_t>(to);
    default: return nullptr;
  }
}

SelectRow FindSelect(std::size_t size) {
  switch (size) {
    case 1: return Select<std::uint8_t>;
    case 2: return Select<std::uint16_t>;
    case 4: return Select<std::uint32_t>;
    case 8: return Select<std::uint64_t>;
    default: return nullptr;
  }
}

}  // namespace weft::runtime::elements::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
