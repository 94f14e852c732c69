// GELU in its spellings, SiLU and QuickGELU.
#include <cmath>

#include "passes/passes.h"

namespace weft {
namespace {

// x * 0.5 * (1 + inner), in any grouping.
Pattern half_of(const Pattern& x, const Pattern& inner) {
  const Pattern gate = inner + number(1);
  const Scalar half = number(0.5);
  return either({(x * gate) * half, (x * half) * gate, x * (gate * half)});
}

bool is_close(double value, double wanted) { return std::abs(value - wanted) <= 1e-4 * std::abs(wanted); }

Rule gelu() {
  const Pattern x = any("x");
  const Scalar factor = scalar("factor");
  return {"fuse-gelu", half_of(x, erf(scaled(x, factor))),
          [=](Match& m) {
            return is_close(m.number(factor), std::sqrt(0.5)) ||
                   m.refuse(fmt::format("erf of {:.6g} x, not of x / sqrt(2)", m.number(factor)));
          },
          [=](Builder& b, const Match& m) { return b.make("Gelu", {m[x]}); }};
}

Rule gelu_tanh() {
  const Pattern x = any("x");
  const Scalar factor = scalar("factor");
  const Pattern cube = either({pow(x, number(3)), (x * x) * x});
  const Pattern polynomial = x + cube * number(0.044715);
  return {"fuse-gelu-tanh", half_of(x, tanh(scaled(polynomial, factor))),
          [=](Match& m) {
            return is_close(m.number(factor), std::sqrt(2 / M_PI)) ||
                   m.refuse(fmt::format("tanh of {:.6g} times the polynomial, not of sqrt(2 / pi)", m.number(factor)));
          },
          [=](Builder& b, const Match& m) { return b.make("Gelu", {m[x]}, {{"approximate", std::string("tanh")}}); }};
}

Rule swish() {
  const Pattern x = any("x");
  const Scalar alpha = scalar("alpha");
  return {"fuse-swish", x * sigmoid(scaled(x, alpha)), {}, [=](Builder& b, const Match& m) {
            return b.make("Swish", {m[x]}, {{"alpha", m.number(alpha)}});
          }};
}

}  // namespace

int fuse_activation(Graph& graph, PassContext& context) {
  return run_rules(graph, {gelu(), gelu_tanh(), swish()}, context);
}

}  // namespace weft
