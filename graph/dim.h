// Symbolic dimensions.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/tensor.h"

namespace weft {

// Values of symbols.
using Bindings = std::map<std::string, std::int64_t, std::less<>>;

// An integer polynomial in canonical form over symbols ("B", "S") and over atoms floordiv(a, b),
// min(a, b), max(a, b) of other polynomials; mod(a, b) is a - b * floordiv(a, b). Equal polynomials compare equal;
// unequal ones may still have equal values. A value type: cheap to copy, immutable, safe to share between threads.
// Constant arithmetic that would overflow 64 bits throws Error kInvalidModel. Coefficients and terms
// are bounded (64 terms); an expression that grows past it throws kUnsupported.
class Dim {
 public:
  Dim() = default;  // 0
  Dim(std::int64_t value) : constant_(value) {}
  Dim(int value) : constant_(value) {}
  static Dim symbol(std::string_view name);

  bool is_constant() const { return !poly_; }
  // The value of a constant; Error kInternal otherwise.
  std::int64_t value() const;
  bool is(std::int64_t value) const { return !poly_ && constant_ == value; }
  // The name if this is one bare symbol, else nullopt.
  std::optional<std::string> symbol_name() const;

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  friend bool operator==(const Dim& a, const Dim& b);
  // A total order for canonical forms and containers, without numeric meaning.
  static std::strong_ordering compare(const Dim& a, const Dim& b);

  // Division rounding towards minus infinity, and its remainder; simplified when exact for every
  // value of the symbols. Error kInvalidModel when b is the constant 0.
  static Dim floor_div(const Dim& a, const Dim& b);
  static Dim mod(const Dim& a, const Dim& b);
  static Dim ceil_div(const Dim& a, const Dim& b);
  static Dim min(const Dim& a, const Dim& b);
  static Dim max(const Dim& a, const Dim& b);
  // a / b when b divides a as a polynomial, else nullopt.
  static std::optional<Dim> exact_div(const Dim& a, const Dim& b);

  // True when the value is >= 0 (> 0) whatever non-negative values the symbols take (a sufficient
  // test, not a complete one).
  bool never_negative() const;
  bool always_positive() const;

  // The value under bindings, nullopt if a symbol is missing.
  std::optional<std::int64_t> evaluate(const Bindings& bindings) const;
  Dim substitute(const std::map<std::string, Dim, std::less<>>& replacements) const;
  // Names of all symbols, sorted, without duplicates.
  std::vector<std::string> symbols() const;

  // "P + S", "2*B*S + 1", "floordiv(S, 2)", "max(P, 1)"; a symbol that is not an identifier
  // ([A-Za-z_][A-Za-z0-9_.]*) prints in double quotes. parse() reads back what to_string() wrote.
  std::string to_string() const;
  static Dim parse(std::string_view text);  // Error kInvalidArgument with the position
  // A symbol's name as to_string() writes it: bare or quoted.
  static std::string symbol_text(std::string_view name);

 private:
  struct Poly;
  explicit Dim(std::shared_ptr<const Poly> poly);

  std::int64_t constant_ = 0;
  std::shared_ptr<const Poly> poly_;  // null: the constant
};

using Shape = std::vector<Dim>;

// "[B, 12, P + S]"
std::string to_string(const Shape& shape);
Shape to_shape(std::span<const std::int64_t> extents);
// nullopt when a symbol has no value; Error kInvalidModel when an extent comes out negative.
std::optional<Extents> evaluate(const Shape& shape, const Bindings& bindings);
bool is_static(const Shape& shape);
// Product of the dims.
Dim element_count(const Shape& shape);

}  // namespace weft
