// The language that fusions are written in: a pattern is an expression over handles.
//
//   const Pattern x = any("x"), bias = constant("bias");
//   const Scalar eps = scalar("epsilon");
//   const Pattern d = x - mean_last(x);
//   const Pattern norm = d / sqrt(mean_last(d * d) + eps);
//
// A handle that occurs twice stands for the same value both times. Operands of commutative operators
// match in either order, chains of associative ones ((a * b) * c) in any bracketing; the matcher
// backtracks over all of it. Handles are cheap to copy; a copy is the same handle.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace weft {

struct PatternNode;
class Match;

class Pattern {
 public:
  Pattern() = default;
  explicit Pattern(std::shared_ptr<PatternNode> node) : node_(std::move(node)) {}

  const PatternNode* node() const { return node_.get(); }
  explicit operator bool() const { return node_ != nullptr; }
  // No other handle refers to this node: nothing can ask what it stands for.
  bool is_only_handle() const { return node_.use_count() == 1; }

  // The value may have other users or be exported: it then stays. For operations cheap to repeat.
  Pattern shareable() const;
  // How reasons call this value.
  Pattern named(std::string_view name) const;
  // One more condition on the node that produces the value; failing it reads as `reason`.
  Pattern when(std::function<bool(const Graph&, const Node&)> test, std::string_view reason) const;
  // The node's attribute (its fallback when absent) must be this.
  Pattern with(std::string_view attribute, Attribute value) const;

 private:
  std::shared_ptr<PatternNode> node_;
};

// A number that the graph holds as a constant of one element.
class Scalar : public Pattern {
 public:
  using Pattern::Pattern;
};

enum class PatternKind { kAny, kConstant, kScalar, kOp, kEither, kScaled };

struct PatternNode {
  PatternKind kind = PatternKind::kAny;
  std::string name;               // of a capture, for reasons
  std::string op;                 // kOp
  std::vector<Pattern> operands;  // kOp: inputs; kEither: alternatives; kScaled: the one scaled
  bool open = false;              // kOp: further inputs may follow
  std::optional<double> number;   // kScalar: this number only
  Scalar factor;                  // kScaled
  bool is_shareable = false;
  struct Test {
    std::function<bool(const Graph&, const Node&)> test;
    std::string reason;
  };
  std::vector<Test> tests;
};

// --- Leaves ----------------------------------------------------------------------------------------

Pattern any(std::string_view name);
Pattern constant(std::string_view name);  // a constant tensor
// A constant of one element (every extent 1) of a numeric dtype, read as double.
Scalar scalar(std::string_view name);
// The same, of this value: within 1e-4 of it relatively (1e-2 where the dtype has 16 bits or fewer),
// exactly where it is 0.
Scalar number(double value);

// --- Structure -------------------------------------------------------------------------------------

// The first alternative that lets the whole pattern match. Match::has() of a handle used in only one
// of them tells which it was.
Pattern either(std::initializer_list<Pattern> alternatives);
// x, or x times or divided by constant numbers, in any number and on either side; `factor` is their
// product, 1 where there are none.
Pattern scaled(const Pattern& x, const Scalar& factor);
// An operator applied to exactly these inputs, or with open_op to at least these.
Pattern op(std::string_view name, std::vector<Pattern> inputs);
Pattern open_op(std::string_view name, std::vector<Pattern> inputs);

// --- Operators -------------------------------------------------------------------------------------

Pattern operator+(const Pattern& a, const Pattern& b);
Pattern operator-(const Pattern& a, const Pattern& b);
Pattern operator*(const Pattern& a, const Pattern& b);
Pattern operator/(const Pattern& a, const Pattern& b);
Pattern operator+(const Pattern& a, double b);
Pattern operator*(const Pattern& a, double b);
Pattern operator-(const Pattern& a);
inline Pattern sqrt(const Pattern& x) { return op("Sqrt", {x}); }
inline Pattern reciprocal(const Pattern& x) { return op("Reciprocal", {x}); }
inline Pattern erf(const Pattern& x) { return op("Erf", {x}); }
inline Pattern tanh(const Pattern& x) { return op("Tanh", {x}); }
inline Pattern sigmoid(const Pattern& x) { return op("Sigmoid", {x}); }
inline Pattern cast(const Pattern& x) { return op("Cast", {x}); }
inline Pattern matmul(const Pattern& a, const Pattern& b) { return op("MatMul", {a, b}); }
inline Pattern pow(const Pattern& x, const Pattern& y) { return op("Pow", {x, y}); }
inline Pattern where(const Pattern& condition, const Pattern& a, const Pattern& b) {
  return op("Where", {condition, a, b});
}
Pattern maybe_cast(const Pattern& x);
// A reduction (ReduceMean, ReduceMax, ...) over the last axis, which stays as 1.
Pattern reduced_last(std::string_view reduction, const Pattern& x);
inline Pattern mean_last(const Pattern& x) { return reduced_last("ReduceMean", x); }
// Softmax over the last axis.
Pattern softmax_last(const Pattern& x);
Pattern transpose(const Pattern& x, std::vector<std::int64_t> perm);
// The last two axes swapped, whatever the rank.
Pattern transpose_last_two(const Pattern& x);
Pattern reshape(const Pattern& x);
Pattern concat_last(std::vector<Pattern> parts);
// x where it is a number, 0 where it is not; shareable pieces none.
Pattern zero_where_nan(const Pattern& x);

}  // namespace weft
