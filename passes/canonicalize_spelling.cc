// Synonyms: one of several operators, or forms, that say the same number.
#include <cmath>

#include "passes/node_util.h"
#include "passes/passes.h"

namespace weft {
namespace {

bool is_float_value(Match& m, const Pattern& x) { return is_float(m.dtype(x)) || m.refuse("not a float"); }

// x^2 as x * x, x^0.5 as Sqrt, x^-0.5 and Reciprocal as quotients.
std::vector<Rule> power_rules() {
  std::vector<Rule> rules;
  {
    const Pattern x = any("x");
    const Pattern power = pow(x, number(2));
    rules.push_back({"square", power, [=](Match& m) { return is_float_value(m, x); },
                     [=](Builder& b, const Match& m) { return b.wrap(m[x]) * b.wrap(m[x]); }});
  }
  {
    const Pattern x = any("x");
    rules.push_back({"square-root", pow(x, number(0.5)), [=](Match& m) { return is_float_value(m, x); },
                     [=](Builder& b, const Match& m) { return b.sqrt(b.wrap(m[x])); }});
  }
  {
    const Pattern x = any("x");
    rules.push_back({"reciprocal", reciprocal(x), {}, [=](Builder& b, const Match& m) { return 1.0 / b.wrap(m[x]); }});
  }
  {
    const Pattern x = any("x");
    rules.push_back({"inverse-root", pow(x, number(-0.5)), [=](Match& m) { return is_float_value(m, x); },
                     [=](Builder& b, const Match& m) { return 1.0 / b.sqrt(b.wrap(m[x])); }});
  }
  return rules;
}

// Sums and differences of negated terms, conditions turned round, factors moved behind a Transpose.
std::vector<Rule> sign_rules() {
  std::vector<Rule> rules;
  {
    const Pattern x = any("x"), y = any("y");
    rules.push_back(
        {"difference", x + -y, {}, [=](Builder& b, const Match& m) { return b.wrap(m[x]) - b.wrap(m[y]); }});
  }
  {
    const Pattern x = any("x"), y = any("y");
    rules.push_back({"sum", x - -y, {}, [=](Builder& b, const Match& m) { return b.wrap(m[x]) + b.wrap(m[y]); }});
  }
  {
    const Pattern x = any("x");
    const Scalar minus = number(-1);
    const Pattern product = x * minus;
    rules.push_back(
        {"negative", product,
         [=](Match& m) { return same_type(m.graph(), m[x], m[product]) || m.refuse("the number adds axes"); },
         [=](Builder& b, const Match& m) { return -b.wrap(m[x]); }});
  }
  {
    const Pattern condition = any("condition"), x = any("x"), y = any("y");
    rules.push_back(
        {"turned-condition", where(op("Not", {condition}).shareable(), x, y), {}, [=](Builder& b, const Match& m) {
           return b.where(b.wrap(m[condition]), b.wrap(m[y]), b.wrap(m[x]));
         }});
  }
  {
    const Pattern x = any("x");
    const Scalar s = scalar("factor");
    const Pattern quotient = x / s, root = op("Transpose", {either({x * s, quotient})});
    rules.push_back({"scale-after-transpose", root,
                     [=](Match& m) {
                       const Shape* shape = shape_of(m.graph(), m[s]);
                       return (shape != nullptr && shape->empty()) || m.refuse("the factor has axes");
                     },
                     [=](Builder& b, const Match& m) {
                       const Graph& g = b.graph();
                       const Attributes perm = g.node(g.value(m[root]).producer).attributes;
                       const Expr turned = b.make("Transpose", {m[x]}, perm), factor = b.wrap(m[s]);
                       return m.has(quotient) ? turned / factor : turned * factor;
                     }});
  }
  return rules;
}

// Conditions under each other that put the same number in as one condition.
Rule filled_twice(bool outer_keeps, bool inner_keeps) {
  const Pattern outer = any("condition"), inner = any("inner condition"), x = any("x");
  const Scalar fill = scalar("fill"), inner_fill = scalar("fill");
  const auto filled = [](const Pattern& condition, const Pattern& kept, const Scalar& low, bool keeps) {
    return keeps ? where(condition, kept, low) : where(condition, low, kept);
  };
  const Pattern root = filled(outer, filled(inner, x, inner_fill, inner_keeps), fill, outer_keeps);
  return {"filled-twice", root,
          [=](Match& m) {
            if (m.number(fill) != m.number(inner_fill)) return m.refuse("another number is put in");
            return same_type(m.graph(), m[fill], m[inner_fill]) || m.refuse("the numbers have other axes");
          },
          [=](Builder& b, const Match& m) {
            const auto keeping = [&](const Pattern& condition, bool keeps) {
              const Expr given = b.wrap(m[condition]);
              return keeps ? given : b.unary("Not", given);
            };
            const Expr low = b.wrap(m[fill]);
            if (!outer_keeps && !inner_keeps) return b.where(b.make("Or", {m[outer], m[inner]}), low, b.wrap(m[x]));
            const Expr both = b.make("And", {keeping(outer, outer_keeps).id(), keeping(inner, inner_keeps).id()});
            return b.where(both, b.wrap(m[x]), low);
          }};
}

// x + zeros made for the sum, as addmm and its like leave behind.
Rule added_zeros() {
  const Pattern x = any("x");
  const Pattern zeros = op("ConstantOfShape", {any("shape")})
                            .shareable()
                            .when(
                                [](const Graph& graph, const Node& node) {
                                  const DType dtype = graph.value(node.outputs[0]).type.dtype;
                                  if (!is_float(dtype)) return false;
                                  const auto* value = std::get_if<Tensor>(&node.attributes.at("value"));
                                  return value != nullptr && value->size() == 1 && value->dtype() == DType::kF32 &&
                                         value->data<float>()[0] == 0;
                                },
                                "not zeros");
  const Pattern root = x + zeros;
  return {"added-zeros", root,
          [=](Match& m) { return same_type(m.graph(), m[x], m[root]) || m.refuse("the zeros add axes"); },
          [=](Builder& b, const Match& m) { return b.wrap(m[x]); }};
}

// exp(x - max(x)) divided by its sum.
Rule softmax_written_out() {
  const Pattern x = any("x");
  const Pattern power = op("Exp", {x - reduced_last("ReduceMax", x)});
  const Pattern sum = reduced_last("ReduceSum", power);
  return {"softmax", either({power / sum, power * (number(1) / sum)}), [=](Match& m) { return is_float_value(m, x); },
          [=](Builder& b, const Match& m) { return b.softmax(b.wrap(m[x]), -1); }};
}

// Softmax before axes in front of its own are merged or split.
Rule softmax_first() {
  const Pattern x = any("x");
  const Pattern inner = reshape(x);
  const Pattern root = softmax_last(inner);
  return {"softmax-before-reshape", root,
          [=](Match& m) {
            const Shape *from = shape_of(m.graph(), m[x]), *to = shape_of(m.graph(), m[inner]);
            const bool same_rows = from != nullptr && to != nullptr && !from->empty() && !to->empty() &&
                                   from->back() == to->back() && is_float(m.dtype(x));
            return same_rows || m.refuse("rows of the softmax are not those of its input");
          },
          [=](Builder& b, const Match& m) {
            const Node& spread = m.node(inner);
            const ValueId shape = spread.inputs[1];
            const Attributes attributes = spread.attributes;
            return b.make("Reshape", {b.softmax(b.wrap(m[x]), -1).id(), shape}, Attributes(attributes));
          }};
}

// The number of elements that a reduction folds into one; nullopt unless known.
std::optional<double> folded(const Graph& graph, const Node& reduction) {
  const Shape* shape = shape_of(graph, reduction.inputs[0]);
  if (shape == nullptr || reduction.inputs.size() < 2 || !reduction.inputs[1].valid()) return std::nullopt;
  const auto axes = known_integers(graph, reduction.inputs[1]);
  if (!axes || axes->empty()) return std::nullopt;
  double count = 1;
  for (const std::int64_t given : *axes) {
    const std::int64_t axis = absolute_axis(graph, reduction.inputs[0], given);
    if (axis < 0 || !(*shape)[static_cast<std::size_t>(axis)].is_constant()) return std::nullopt;
    count *= static_cast<double>((*shape)[static_cast<std::size_t>(axis)].value());
  }
  return count;
}

// Sums divided by how many as means; 1 / (1 + exp(-x)) as Sigmoid.
std::vector<Rule> function_rules() {
  std::vector<Rule> rules;
  {
    const Pattern x = any("x");
    const Scalar factor = scalar("factor");
    const Pattern sum = open_op("ReduceSum", {x});
    rules.push_back({"mean", either({sum * factor, sum / factor}),
                     [=](Match& m) {
                       const Node& reduction = m.node(sum);
                       const auto count = folded(m.graph(), reduction);
                       if (!count || *count == 0 || !is_float(m.dtype(x))) return m.refuse("how many is not known");
                       const double wanted = m.node(sum).outputs[0].valid() ? *count : 0;
                       const double given = m.number(factor);
                       const bool quotient = std::abs(given - wanted) <= 1e-6 * wanted;
                       const bool product = std::abs(given * wanted - 1) <= 1e-6;
                       const bool divides = m.graph().node(m.graph().value(m[sum]).uses.front().node).op == "Div";
                       return (divides ? quotient : product) || m.refuse("the factor is not that of a mean");
                     },
                     [=](Builder& b, const Match& m) {
                       const Node& reduction = m.node(sum);
                       const std::vector<ValueId> inputs = reduction.inputs;
                       return b.make("ReduceMean", inputs, Attributes(reduction.attributes));
                     }});
  }
  {
    const Pattern x = any("x"), y = any("y");
    const Pattern denominator = op("Exp", {-x}) + number(1);
    rules.push_back({"sigmoid", y / denominator, [=](Match& m) { return is_float_value(m, x); },
                     [=](Builder& b, const Match& m) {
                       const Expr gate = b.sigmoid(b.wrap(m[x]));
                       return known_number(b.graph(), m[y]) == 1.0 && b.rank(m[y]) == 0 ? gate : b.wrap(m[y]) * gate;
                     }});
  }
  return rules;
}

}  // namespace

int canonicalize_spelling(Graph& graph, PassContext& context) {
  int changed = run_rules(graph, power_rules(), context);
  changed += run_rules(graph, sign_rules(), context);
  changed += run_rules(graph,
                       {filled_twice(true, true), filled_twice(true, false), filled_twice(false, true),
                        filled_twice(false, false), added_zeros(), softmax_written_out(), softmax_first()},
                       context);
  return changed + run_rules(graph, function_rules(), context);
}

}  // namespace weft
