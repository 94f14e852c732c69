#include "graph/dim.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace weft {
namespace {

std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) {
    fail(ErrorCode::kInvalidModel, "dimension arithmetic overflows: {} + {}", a, b);
  }
  return result;
}

std::int64_t checked_mul(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) {
    fail(ErrorCode::kInvalidModel, "dimension arithmetic overflows: {} * {}", a, b);
  }
  return result;
}

std::int64_t floor_quotient(std::int64_t a, std::int64_t b) {
  if (b == 0) fail(ErrorCode::kInvalidModel, "a dimension is divided by zero");
  if (b == -1) return checked_mul(a, -1);
  const std::int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

enum class AtomKind : std::uint8_t { kSymbol, kFloorDiv, kMin, kMax };

constexpr std::size_t kMaxTerms = 64;

}  // namespace

// A symbol, or a function of two polynomials that is none itself.
struct Atom {
  AtomKind kind = AtomKind::kSymbol;
  std::string name;
  Dim a, b;

  static std::strong_ordering compare(const Atom& x, const Atom& y) {
    if (const auto order = x.kind <=> y.kind; order != 0) return order;
    if (const int order = x.name.compare(y.name); order != 0) return order <=> 0;
    if (const auto order = Dim::compare(x.a, y.a); order != 0) return order;
    return Dim::compare(x.b, y.b);
  }
};
using AtomPtr = std::shared_ptr<const Atom>;
using Monomial = std::vector<AtomPtr>;  // sorted; a repeated atom is a power

namespace {

struct AtomLess {
  bool operator()(const AtomPtr& a, const AtomPtr& b) const { return a != b && Atom::compare(*a, *b) < 0; }
};

std::strong_ordering compare_monomials(const Monomial& a, const Monomial& b) {
  if (a.size() != b.size()) return b.size() <=> a.size();  // higher degree first, the constant last
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (const auto order = Atom::compare(*a[i], *b[i]); order != 0) return order;
  }
  return std::strong_ordering::equal;
}

struct MonomialLess {
  bool operator()(const Monomial& a, const Monomial& b) const { return compare_monomials(a, b) < 0; }
};

using Terms = std::map<Monomial, std::int64_t, MonomialLess>;

Monomial multiply(const Monomial& a, const Monomial& b) {
  Monomial result;
  std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(result), AtomLess{});
  return result;
}

void add_term(Terms& terms, const Monomial& monomial, std::int64_t coefficient) {
  if (coefficient == 0) return;
  const auto [place, added] = terms.emplace(monomial, coefficient);
  if (added) {
    if (terms.size() > kMaxTerms) {
      fail(ErrorCode::kUnsupported, "a symbolic dimension has more than {} terms", kMaxTerms);
    }
    return;
  }
  place->second = checked_add(place->second, coefficient);
  if (place->second == 0) terms.erase(place);
}

}  // namespace

struct Dim::Poly {
  Terms terms;

  static Terms of(const Dim& dim) {
    if (dim.poly_) return dim.poly_->terms;
    Terms terms;
    add_term(terms, {}, dim.constant_);
    return terms;
  }
  static Dim make(Terms terms) {
    if (terms.empty()) return Dim();
    if (terms.size() == 1 && terms.begin()->first.empty()) return Dim(terms.begin()->second);
    auto poly = std::make_shared<Poly>();
    poly->terms = std::move(terms);
    return Dim(std::shared_ptr<const Poly>(std::move(poly)));
  }
  static Dim of_atom(Atom atom) {
    Terms terms;
    terms.emplace(Monomial{std::make_shared<const Atom>(std::move(atom))}, 1);
    return make(std::move(terms));
  }
  // Is dim just min(operand, c) or max(operand, c)?
  static bool has_operand(const Dim& dim, AtomKind kind, const Dim& operand) {
    const Atom* atom = single_atom(dim);
    return atom != nullptr && atom->kind == kind && (atom->a == operand || atom->b == operand);
  }
  // May be multiplied a few times without an overflow.
  static bool is_small(const Dim& dim) {
    constexpr std::int64_t kSmall = 1 << 15;
    const Terms terms = of(dim);
    return std::all_of(terms.begin(), terms.end(),
                       [](const auto& term) { return term.second > -kSmall && term.second < kSmall; });
  }
  // What dim is at least, times a positive number, without floors that are taken off: floor(a / c) <= a / c.
  static Dim without_floors(const Dim& dim) {
    const auto is_taken_off = [](const auto& term) {
      const auto& [monomial, coefficient] = term;
      return coefficient < 0 && monomial.size() == 1 && monomial[0]->kind == AtomKind::kFloorDiv &&
             monomial[0]->b.is_constant() && monomial[0]->b.constant_ > 0;
    };
    Dim bound = dim;
    for (int step = 0; step < 4 && bound.poly_; ++step) {
      const Terms& terms = bound.poly_->terms;
      const auto floor = std::find_if(terms.begin(), terms.end(), is_taken_off);
      if (floor == terms.end()) break;
      const Atom& atom = *floor->first[0];
      if (!is_small(bound) || !is_small(atom.a) || !is_small(atom.b)) break;
      const Dim taken = Dim(floor->second);
      bound = (bound - taken * of_atom(atom)) * atom.b + taken * atom.a;
    }
    return bound;
  }
  // The only atom of a dim that is one atom, else null.
  static const Atom* single_atom(const Dim& dim) {
    if (!dim.poly_ || dim.poly_->terms.size() != 1) return nullptr;
    const auto& [monomial, coefficient] = *dim.poly_->terms.begin();
    return coefficient == 1 && monomial.size() == 1 ? monomial[0].get() : nullptr;
  }
};

Dim::Dim(std::shared_ptr<const Poly> poly) : poly_(std::move(poly)) {}

Dim Dim::symbol(std::string_view name) { return Poly::of_atom({AtomKind::kSymbol, std::string(name), {}, {}}); }

std::int64_t Dim::value() const {
  if (poly_) fail(ErrorCode::kInternal, "dimension {} is not a constant", to_string());
  return constant_;
}

std::optional<std::string> Dim::symbol_name() const {
  const Atom* atom = Poly::single_atom(*this);
  if (atom == nullptr || atom->kind != AtomKind::kSymbol) return std::nullopt;
  return atom->name;
}

Dim operator+(const Dim& a, const Dim& b) {
  if (!a.poly_ && !b.poly_) return checked_add(a.constant_, b.constant_);
  Terms terms = Dim::Poly::of(a);
  for (const auto& [monomial, coefficient] : Dim::Poly::of(b)) {
    add_term(terms, monomial, coefficient);
  }
  return Dim::Poly::make(std::move(terms));
}

Dim operator-(const Dim& a, const Dim& b) { return a + b * Dim(-1); }

Dim operator*(const Dim& a, const Dim& b) {
  if (!a.poly_ && !b.poly_) return checked_mul(a.constant_, b.constant_);
  Terms terms;
  const Terms right = Dim::Poly::of(b);
  for (const auto& [left_monomial, left] : Dim::Poly::of(a)) {
    for (const auto& [monomial, coefficient] : right) {
      add_term(terms, multiply(left_monomial, monomial), checked_mul(left, coefficient));
    }
  }
  return Dim::Poly::make(std::move(terms));
}

std::strong_ordering Dim::compare(const Dim& a, const Dim& b) {
  if (a.is_constant() != b.is_constant()) return b.is_constant() <=> a.is_constant();
  if (a.is_constant()) return a.constant_ <=> b.constant_;
  if (a.poly_ == b.poly_) return std::strong_ordering::equal;
  const Terms& x = a.poly_->terms;
  const Terms& y = b.poly_->terms;
  auto i = x.begin();
  auto j = y.begin();
  for (; i != x.end() && j != y.end(); ++i, ++j) {
    if (const auto order = compare_monomials(i->first, j->first); order != 0) return order;
    if (i->second != j->second) return i->second <=> j->second;
  }
  return x.size() <=> y.size();
}

bool operator==(const Dim& a, const Dim& b) { return Dim::compare(a, b) == 0; }

std::optional<Dim> Dim::exact_div(const Dim& a, const Dim& b) {
  if (b.is(0)) return std::nullopt;
  if (b.is(1)) return a;
  Terms rest = Poly::of(a);
  const Terms divisor = Poly::of(b);
  const auto& [lead, lead_coefficient] = *divisor.begin();
  Terms quotient;
  while (!rest.empty()) {
    const auto [monomial, coefficient] = *rest.begin();
    if (coefficient % lead_coefficient != 0 ||
        !std::includes(monomial.begin(), monomial.end(), lead.begin(), lead.end(), AtomLess{})) {
      return std::nullopt;
    }
    Monomial factor;
    std::set_difference(monomial.begin(), monomial.end(), lead.begin(), lead.end(), std::back_inserter(factor),
                        AtomLess{});
    const std::int64_t scale = coefficient / lead_coefficient;
    add_term(quotient, factor, scale);
    for (const auto& [other, other_coefficient] : divisor) {
      add_term(rest, multiply(factor, other), checked_mul(-scale, other_coefficient));
    }
  }
  return Poly::make(std::move(quotient));
}

Dim Dim::floor_div(const Dim& a, const Dim& b) {
  if (!a.poly_ && !b.poly_) return floor_quotient(a.constant_, b.constant_);
  if (b.is(0)) fail(ErrorCode::kInvalidModel, "dimension {} is divided by zero", a.to_string());
  if (std::optional<Dim> exact = exact_div(a, b)) return *exact;
  if (!b.is_constant() || b.constant_ < 0) {
    return Poly::of_atom({AtomKind::kFloorDiv, "", a, b});
  }
  // floor((c q + r) / c) = q + floor(r / c), coefficient by coefficient with 0 <= r < c.
  Terms whole;
  Terms rest;
  for (const auto& [monomial, coefficient] : Poly::of(a)) {
    const std::int64_t quotient = floor_quotient(coefficient, b.constant_);
    add_term(whole, monomial, quotient);
    add_term(rest, monomial, coefficient - quotient * b.constant_);
  }
  const Dim remainder = Poly::make(std::move(rest));
  const Dim quotient = Poly::make(std::move(whole));
  if (remainder.is_constant()) return quotient;
  if (const Atom* inner = Poly::single_atom(remainder);
      inner != nullptr && inner->kind == AtomKind::kFloorDiv && inner->b.is_constant() && inner->b.constant_ > 0) {
    return quotient + floor_div(inner->a, inner->b * b);
  }
  return quotient + Poly::of_atom({AtomKind::kFloorDiv, "", remainder, b});
}

Dim Dim::mod(const Dim& a, const Dim& b) { return a - b * floor_div(a, b); }

Dim Dim::ceil_div(const Dim& a, const Dim& b) { return Dim(-1) * floor_div(a * Dim(-1), b); }

Dim Dim::min(const Dim& a, const Dim& b) {
  if ((b - a).never_negative()) return a;
  if ((a - b).never_negative()) return b;
  if (Poly::has_operand(b, AtomKind::kMax, a)) return a;  // min(a, max(a, c))
  if (Poly::has_operand(a, AtomKind::kMax, b)) return b;
  if (Poly::has_operand(b, AtomKind::kMin, a)) return b;  // min(a, min(a, c))
  if (Poly::has_operand(a, AtomKind::kMin, b)) return a;
  const bool ordered = compare(a, b) < 0;
  return Poly::of_atom({AtomKind::kMin, "", ordered ? a : b, ordered ? b : a});
}

Dim Dim::max(const Dim& a, const Dim& b) {
  if ((b - a).never_negative()) return b;
  if ((a - b).never_negative()) return a;
  if (Poly::has_operand(b, AtomKind::kMin, a)) return a;  // max(a, min(a, c))
  if (Poly::has_operand(a, AtomKind::kMin, b)) return b;
  if (Poly::has_operand(b, AtomKind::kMax, a)) return b;  // max(a, max(a, c))
  if (Poly::has_operand(a, AtomKind::kMax, b)) return a;
  const bool ordered = compare(a, b) < 0;
  return Poly::of_atom({AtomKind::kMax, "", ordered ? a : b, ordered ? b : a});
}

bool Dim::never_negative() const {
  if (!poly_) return constant_ >= 0;
  const auto atom_is = [](const AtomPtr& atom) {
    switch (atom->kind) {
      case AtomKind::kSymbol: return true;
      case AtomKind::kFloorDiv: return atom->a.never_negative() && atom->b.never_negative();
      case AtomKind::kMin: return atom->a.never_negative() && atom->b.never_negative();
      case AtomKind::kMax: return atom->a.never_negative() || atom->b.never_negative();
    }
    return false;
  };
  const Dim bound = Poly::without_floors(*this);
  const Terms terms = Poly::of(bound);
  return std::all_of(terms.begin(), terms.end(), [&](const auto& term) {
    return term.second >= 0 && std::all_of(term.first.begin(), term.first.end(), atom_is);
  });
}

bool Dim::always_positive() const { return (*this - Dim(1)).never_negative(); }

std::optional<std::int64_t> Dim::evaluate(const Bindings& bindings) const {
  if (!poly_) return constant_;
  const auto atom_value = [&](const Atom& atom) -> std::optional<std::int64_t> {
    if (atom.kind == AtomKind::kSymbol) {
      const auto found = bindings.find(atom.name);
      if (found == bindings.end()) return std::nullopt;
      return found->second;
    }
    const auto a = atom.a.evaluate(bindings);
    const auto b = atom.b.evaluate(bindings);
    if (!a || !b) return std::nullopt;
    if (atom.kind == AtomKind::kFloorDiv) return floor_quotient(*a, *b);
    return atom.kind == AtomKind::kMin ? std::min(*a, *b) : std::max(*a, *b);
  };
  std::int64_t total = 0;
  for (const auto& [monomial, coefficient] : poly_->terms) {
    std::int64_t product = coefficient;
    for (const AtomPtr& atom : monomial) {
      const auto value = atom_value(*atom);
      if (!value) return std::nullopt;
      product = checked_mul(product, *value);
    }
    total = checked_add(total, product);
  }
  return total;
}

Dim Dim::substitute(const std::map<std::string, Dim, std::less<>>& replacements) const {
  if (!poly_) return *this;
  Dim total;
  for (const auto& [monomial, coefficient] : poly_->terms) {
    Dim product(coefficient);
    for (const AtomPtr& atom : monomial) {
      Dim value;
      if (atom->kind == AtomKind::kSymbol) {
        const auto found = replacements.find(atom->name);
        value = found == replacements.end() ? symbol(atom->name) : found->second;
      } else {
        const Dim a = atom->a.substitute(replacements);
        const Dim b = atom->b.substitute(replacements);
        value = atom->kind == AtomKind::kFloorDiv ? floor_div(a, b)
                : atom->kind == AtomKind::kMin    ? min(a, b)
                                                  : max(a, b);
      }
      product = product * value;
    }
    total = total + product;
  }
  return total;
}

std::vector<std::string> Dim::symbols() const {
  std::set<std::string> names;
  const auto collect = [&](const auto& self, const Dim& dim) -> void {
    if (!dim.poly_) return;
    for (const auto& [monomial, coefficient] : dim.poly_->terms) {
      for (const AtomPtr& atom : monomial) {
        if (atom->kind == AtomKind::kSymbol) names.insert(atom->name);
        self(self, atom->a);
        self(self, atom->b);
      }
    }
  };
  collect(collect, *this);
  return {names.begin(), names.end()};
}

std::string Dim::to_string() const {
  if (!poly_) return std::to_string(constant_);
  const auto atom_text = [](const Atom& atom) -> std::string {
    switch (atom.kind) {
      case AtomKind::kSymbol: return symbol_text(atom.name);
      case AtomKind::kFloorDiv: return fmt::format("floordiv({}, {})", atom.a.to_string(), atom.b.to_string());
      case AtomKind::kMin: return fmt::format("min({}, {})", atom.a.to_string(), atom.b.to_string());
      case AtomKind::kMax: return fmt::format("max({}, {})", atom.a.to_string(), atom.b.to_string());
    }
    return {};
  };
  std::string text;
  for (const auto& [monomial, coefficient] : poly_->terms) {
    const bool negative = coefficient < 0;
    const std::uint64_t magnitude =
        negative ? 0 - static_cast<std::uint64_t>(coefficient) : static_cast<std::uint64_t>(coefficient);
    if (text.empty()) {
      if (negative) text += "-";
    } else {
      text += negative ? " - " : " + ";
    }
    std::vector<std::string> factors;
    if (magnitude != 1 || monomial.empty()) factors.push_back(std::to_string(magnitude));
    for (const AtomPtr& atom : monomial) factors.push_back(atom_text(*atom));
    text += fmt::format("{}", fmt::join(factors, "*"));
  }
  return text;
}

// --- Shapes ----------------------------------------------------------------------------------------

std::string to_string(const Shape& shape) {
  std::vector<std::string> parts;
  parts.reserve(shape.size());
  for (const Dim& dim : shape) parts.push_back(dim.to_string());
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

Shape to_shape(std::span<const std::int64_t> extents) { return {extents.begin(), extents.end()}; }

std::optional<Extents> evaluate(const Shape& shape, const Bindings& bindings) {
  Extents result;
  result.reserve(shape.size());
  for (const Dim& dim : shape) {
    const std::optional<std::int64_t> extent = dim.evaluate(bindings);
    if (!extent) return std::nullopt;
    if (*extent < 0) {
      fail(ErrorCode::kInvalidModel, "dimension {} comes out as {}", dim.to_string(), *extent);
    }
    result.push_back(*extent);
  }
  return result;
}

bool is_static(const Shape& shape) {
  return std::all_of(shape.begin(), shape.end(), [](const Dim& dim) { return dim.is_constant(); });
}

Dim element_count(const Shape& shape) {
  Dim product(1);
  for (const Dim& dim : shape) product = product * dim;
  return product;
}

}  // namespace weft
