// LSTM, GRU and RNN (ONNX 14).
#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

using Function = double (*)(double, double, double);

struct Activation {
  std::string_view name;
  Function function;
  double alpha, beta;  // defaults
};
const Activation kActivations[] = {
    {"Sigmoid", [](double x, double, double) { return 1 / (1 + std::exp(-x)); }, 0, 0},
    {"Tanh", [](double x, double, double) { return std::tanh(x); }, 0, 0},
    {"Relu", [](double x, double, double) { return std::max(0.0, x); }, 0, 0},
    {"Affine", [](double x, double a, double b) { return a * x + b; }, 1, 0},
    {"LeakyRelu", [](double x, double a, double) { return x < 0 ? a * x : x; }, 0.01, 0},
    {"ThresholdedRelu", [](double x, double a, double) { return x > a ? x : 0; }, 1, 0},
    {"ScaledTanh", [](double x, double a, double b) { return a * std::tanh(b * x); }, 1, 1},
    {"HardSigmoid", [](double x, double a, double b) { return std::clamp(a * x + b, 0.0, 1.0); }, 0.2, 0.5},
    {"Elu", [](double x, double a, double) { return x < 0 ? a * std::expm1(x) : x; }, 1, 0},
    {"Softsign", [](double x, double, double) { return x / (1 + std::abs(x)); }, 0, 0},
    {"Softplus", [](double x, double, double) { return std::log1p(std::exp(x)); }, 0, 0},
};

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

struct Gate {
  Function function = nullptr;
  double alpha = 0, beta = 0;
  double operator()(double x) const { return function(x, alpha, beta); }
};

std::vector<Gate> gates_of(const AttributeReader& attributes, std::size_t directions,
                           std::vector<std::string_view> defaults) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < directions; ++i) names.insert(names.end(), defaults.begin(), defaults.end());
  if (attributes.has("activations")) names = attributes.texts("activations");
  if (names.size() != directions * defaults.size()) {
    fail(ErrorCode::kInvalidModel, "{} activations given, {} wanted", names.size(), directions * defaults.size());
  }
  const std::vector<double> none;
  const auto& alphas = attributes.has("activation_alpha") ? attributes.numbers("activation_alpha") : none;
  const auto& betas = attributes.has("activation_beta") ? attributes.numbers("activation_beta") : none;
  std::vector<Gate> gates;
  std::size_t alpha = 0, beta = 0;
  for (const std::string& name : names) {
    Gate gate;
    for (const Activation& known : kActivations) {
      if (!same_name(known.name, name)) continue;
      gate = {known.function, known.alpha, known.beta};
      const bool takes_alpha = known.alpha != 0 || known.beta != 0;
      if (takes_alpha && alpha < alphas.size()) gate.alpha = alphas[alpha++];
      if (known.beta != 0 && beta < betas.size()) gate.beta = betas[beta++];
    }
    if (gate.function == nullptr) fail(ErrorCode::kUnsupported, "activation \"{}\"", name);
    gates.push_back(gate);
  }
  return gates;
}

// Everything of one node in f64: X [T, B, I], W [dirs, G*H, I], R [dirs, G*H, H], B [dirs, 2*G*H].
struct Problem {
  Tensor x, w, r, bias, initial_h, initial_c, peepholes;
  std::vector<std::int64_t> lengths;
  std::int64_t time, batch, inputs, hidden, directions;
  bool reverse, batch_first;
  double clip;
  std::vector<Gate> gates;

  Problem(const KernelContext& context, std::int64_t gate_count, std::vector<std::string_view> activations) {
    const AttributeReader& attributes = context.attributes();
    const auto wide = [&](std::size_t i) { return context.has(i) ? cast(context.input(i), DType::kF64) : Tensor(); };
    batch_first = attributes.integer("layout") != 0;
    x = wide(0);
    if (x.rank() == 3 && batch_first) x = swapped(x);
    w = wide(1);
    r = wide(2);
    bias = wide(3);
    initial_h = wide(5);
    initial_c = wide(6);
    peepholes = wide(7);
    if (x.rank() != 3 || r.rank() != 3) fail(ErrorCode::kInvalidModel, "{} of wrong ranks", context.node().op);
    time = x.extent(0);
    batch = x.extent(1);
    inputs = x.extent(2);
    hidden = r.extent(2);
    directions = attributes.text("direction") == "bidirectional" ? 2 : 1;
    const std::int64_t rows = gate_count * hidden;
    expect(context, 1, w, {directions, rows, inputs});
    expect(context, 2, r, {directions, rows, hidden});
    expect(context, 3, bias, {directions, 2 * rows});
    const Extents state = batch_first ? Extents{batch, directions, hidden} : Extents{directions, batch, hidden};
    expect(context, 5, initial_h, state);
    expect(context, 6, initial_c, state);
    expect(context, 7, peepholes, {directions, 3 * hidden});
    if (batch_first && context.has(5)) initial_h = swapped(initial_h);
    if (batch_first && context.has(6)) initial_c = swapped(initial_c);
    reverse = attributes.text("direction") == "reverse";
    lengths.assign(static_cast<std::size_t>(batch), time);
    if (context.has(4)) lengths = context.input(4).to_ints();
    if (static_cast<std::int64_t>(lengths.size()) != batch) {
      fail(ErrorCode::kInvalidModel, "{} sequence_lens for a batch of {}", lengths.size(), batch);
    }
    for (const std::int64_t length : lengths) {
      if (length < 0 || length > time) fail(ErrorCode::kInvalidArgument, "a sequence of {} among {}", length, time);
    }
    clip = attributes.has("clip") ? attributes.number("clip") : 0;
    gates = gates_of(attributes, static_cast<std::size_t>(directions), std::move(activations));
  }

  static void expect(const KernelContext& context, std::size_t input, const Tensor& given, const Extents& wanted) {
    if (!context.has(input) || given.shape() == wanted) return;
    fail(ErrorCode::kInvalidModel, "{} with {} of {}, not {}", context.node().op,
         get_op(context.node().op).inputs[input].name, to_string(given.shape()), to_string(wanted));
  }

  static Tensor swapped(const Tensor& t) {
    Tensor result = Tensor::uninitialized(DType::kF64, {t.extent(1), t.extent(0), t.extent(2)});
    for (std::int64_t a = 0; a < t.extent(0); ++a) {
      for (std::int64_t b = 0; b < t.extent(1); ++b) {
        const auto from = t.data<double>().subspan(static_cast<std::size_t>((a * t.extent(1) + b) * t.extent(2)),
                                                   static_cast<std::size_t>(t.extent(2)));
        std::copy(from.begin(), from.end(),
                  result.mutable_data<double>().begin() + (b * t.extent(0) + a) * t.extent(2));
      }
    }
    return result;
  }

  double clipped(double v) const { return clip > 0 ? std::clamp(v, -clip, clip) : v; }

  // sum over inputs of W x_t + Wb for gate row `row`.
  double from_input(std::int64_t d, std::int64_t row, const double* xt, std::int64_t rows) const {
    double total = bias.size() > 0 ? bias.data<double>()[static_cast<std::size_t>(d * 2 * rows + row)] : 0;
    const double* weights = w.data<double>().data() + (d * rows + row) * inputs;
    for (std::int64_t i = 0; i < inputs; ++i) total += weights[i] * xt[i];
    return total;
  }
  double recurrent_bias(std::int64_t d, std::int64_t row, std::int64_t rows) const {
    return bias.size() > 0 ? bias.data<double>()[static_cast<std::size_t>(d * 2 * rows + rows + row)] : 0;
  }
  double from_state(std::int64_t d, std::int64_t row, const double* h, std::int64_t rows) const {
    double total = 0;
    const double* weights = r.data<double>().data() + (d * rows + row) * hidden;
    for (std::int64_t i = 0; i < hidden; ++i) total += weights[i] * h[i];
    return total;
  }
};

struct Outputs {
  Tensor y, h, c;
};

// Runs every direction and row; step(direction, x_t, h, c) updates h and c in place.
template <class Step>
Outputs run(const Problem& p, const Step& step) {
  Outputs out{Tensor::zeros(DType::kF64, {p.time, p.directions, p.batch, p.hidden}),
              Tensor::zeros(DType::kF64, {p.directions, p.batch, p.hidden}),
              Tensor::zeros(DType::kF64, {p.directions, p.batch, p.hidden})};
  const auto size = static_cast<std::size_t>(p.hidden);
  for (std::int64_t d = 0; d < p.directions; ++d) {
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const auto row = static_cast<std::size_t>((d * p.batch + b) * p.hidden);
      std::vector<double> h(size, 0), c(size, 0);
      if (p.initial_h.size() > 0)
        std::copy_n(p.initial_h.data<double>().begin() + static_cast<std::ptrdiff_t>(row), size, h.begin());
      if (p.initial_c.size() > 0)
        std::copy_n(p.initial_c.data<double>().begin() + static_cast<std::ptrdiff_t>(row), size, c.begin());
      const std::int64_t length = p.lengths[static_cast<std::size_t>(b)];
      const bool backwards = p.reverse || d == 1;
      for (std::int64_t n = 0; n < length; ++n) {
        const std::int64_t t = backwards ? length - 1 - n : n;
        step(d, p.x.data<double>().data() + (t * p.batch + b) * p.inputs, h, c);
        std::copy(h.begin(), h.end(),
                  out.y.mutable_data<double>().begin() + ((t * p.directions + d) * p.batch + b) * p.hidden);
      }
      std::copy(h.begin(), h.end(), out.h.mutable_data<double>().begin() + static_cast<std::ptrdiff_t>(row));
      std::copy(c.begin(), c.end(), out.c.mutable_data<double>().begin() + static_cast<std::ptrdiff_t>(row));
    }
  }
  return out;
}

// [T, dirs, B, H] -> [B, T, dirs, H] for batch-first layouts.
Tensor batch_major(const Tensor& y) {
  Tensor result = Tensor::uninitialized(DType::kF64, {y.extent(2), y.extent(0), y.extent(1), y.extent(3)});
  double* to = result.mutable_data<double>().data();
  for (std::int64_t b = 0; b < y.extent(2); ++b) {
    for (std::int64_t td = 0; td < y.extent(0) * y.extent(1); ++td) {
      const double* from = y.data<double>().data() + (td * y.extent(2) + b) * y.extent(3);
      to = std::copy(from, from + y.extent(3), to);
    }
  }
  return result;
}

void set_outputs(KernelContext& context, const Problem& p, Outputs out) {
  const DType dtype = context.input(0).dtype();
  context.set_output(0, cast(p.batch_first ? batch_major(out.y) : out.y, dtype));
  context.set_output(1, cast(p.batch_first ? Problem::swapped(out.h) : out.h, dtype));
  context.set_output(2, cast(p.batch_first ? Problem::swapped(out.c) : out.c, dtype));
}

// Gates i, o, f, c.
void lstm_kernel(KernelContext& context) {
  const Problem p(context, 4, {"Sigmoid", "Tanh", "Tanh"});
  const bool couple = context.integer("input_forget") != 0;
  const std::int64_t rows = 4 * p.hidden;
  set_outputs(context, p, run(p, [&](std::int64_t d, const double* x, std::vector<double>& h, std::vector<double>& c) {
                const Gate* f = &p.gates[static_cast<std::size_t>(d) * 3];
                const std::vector<double> before = h;
                for (std::int64_t j = 0; j < p.hidden; ++j) {
                  const auto at = static_cast<std::size_t>(j);
                  const auto sum = [&](std::int64_t gate) {
                    const std::int64_t row = gate * p.hidden + j;
                    return p.from_input(d, row, x, rows) + p.from_state(d, row, before.data(), rows) +
                           p.recurrent_bias(d, row, rows);
                  };
                  const auto peep = [&](std::int64_t gate) {
                    return p.peepholes.size() > 0
                               ? p.peepholes.data<double>()[static_cast<std::size_t>((d * 3 + gate) * p.hidden + j)]
                               : 0;
                  };
                  const double input = f[0](p.clipped(sum(0) + peep(0) * c[at]));
                  const double forget = couple ? 1 - input : f[0](p.clipped(sum(2) + peep(2) * c[at]));
                  const double cell = forget * c[at] + input * f[1](p.clipped(sum(3)));
                  const double output = f[0](p.clipped(sum(1) + peep(1) * cell));
                  c[at] = cell;
                  h[at] = output * f[2](p.clipped(cell));
                }
              }));
}

// Gates z, r, h.
void gru_kernel(KernelContext& context) {
  const Problem p(context, 3, {"Sigmoid", "Tanh"});
  const bool linear_before_reset = context.integer("linear_before_reset") != 0;
  const std::int64_t rows = 3 * p.hidden;
  set_outputs(context, p, run(p, [&](std::int64_t d, const double* x, std::vector<double>& h, std::vector<double>&) {
                const Gate* f = &p.gates[static_cast<std::size_t>(d) * 2];
                const std::vector<double> before = h;
                std::vector<double> reset(before.size()), gated(before.size());
                for (std::size_t j = 0; j < reset.size(); ++j) {
                  const std::int64_t row = p.hidden + static_cast<std::int64_t>(j);
                  reset[j] = f[0](p.clipped(p.from_input(d, row, x, rows) + p.from_state(d, row, before.data(), rows) +
                                            p.recurrent_bias(d, row, rows)));
                  gated[j] = reset[j] * before[j];
                }
                for (std::int64_t j = 0; j < p.hidden; ++j) {
                  const auto at = static_cast<std::size_t>(j);
                  const double update =
                      f[0](p.clipped(p.from_input(d, j, x, rows) + p.from_state(d, j, before.data(), rows) +
                                     p.recurrent_bias(d, j, rows)));
                  const std::int64_t row = 2 * p.hidden + j;
                  double inner = p.from_input(d, row, x, rows);
                  if (linear_before_reset) {
                    inner += reset[at] * (p.from_state(d, row, before.data(), rows) + p.recurrent_bias(d, row, rows));
                  } else {
                    inner += p.from_state(d, row, gated.data(), rows) + p.recurrent_bias(d, row, rows);
                  }
                  h[at] = (1 - update) * f[1](p.clipped(inner)) + update * before[at];
                }
              }));
}

void rnn_kernel(KernelContext& context) {
  const Problem p(context, 1, {"Tanh"});
  set_outputs(context, p, run(p, [&](std::int64_t d, const double* x, std::vector<double>& h, std::vector<double>&) {
                const std::vector<double> before = h;
                for (std::int64_t j = 0; j < p.hidden; ++j) {
                  h[static_cast<std::size_t>(j)] = p.gates[static_cast<std::size_t>(d)](
                      p.clipped(p.from_input(d, j, x, p.hidden) + p.from_state(d, j, before.data(), p.hidden) +
                                p.recurrent_bias(d, j, p.hidden)));
                }
              }));
}

// What is known of the weights fits: W [D, rows, I], R [D, rows, H], B [D, 2 * rows].
void check_weights(const InferContext& context) {
  const auto extent = [&](std::size_t input, std::size_t axis) -> std::optional<std::int64_t> {
    const Shape& shape = context.shape(input);
    if (axis >= shape.size() || !shape[axis].is_constant()) return std::nullopt;
    return shape[axis].value();
  };
  const auto differ = [](std::optional<std::int64_t> a, std::optional<std::int64_t> b) { return a && b && *a != *b; };
  const std::int64_t gates = context.attributes().has("input_forget")          ? 4
                             : context.attributes().has("linear_before_reset") ? 3
                                                                               : 1;
  const auto rows = extent(2, 1), hidden = extent(2, 2);
  const std::int64_t directions = context.attributes().text("direction") == "bidirectional" ? 2 : 1;
  bool fits = context.rank(1) == 3 && !differ(extent(1, 0), directions) && !differ(extent(2, 0), directions) &&
              !differ(extent(1, 1), rows) && !differ(extent(1, 2), extent(0, 2));
  fits = fits && !(rows && hidden && (*rows % gates != 0 || *rows / gates != *hidden));
  if (fits && context.has(3) && context.has_shape(3)) {
    fits = context.rank(3) == 2 && !differ(extent(3, 0), directions) &&
           !(rows && extent(3, 1) && (*extent(3, 1) % 2 != 0 || *extent(3, 1) / 2 != *rows));
  }
  if (fits) return;
  fail(ErrorCode::kInvalidModel, "a recurrent layer of {} with W {} and R {} in {} directions",
       to_string(context.shape(0)), to_string(context.shape(1)), to_string(context.shape(2)), directions);
}

void infer_recurrent(InferContext& context) {
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_dtype(i, context.dtype(0));
  const Shape& x = context.shape(0);
  const Shape& r = context.shape(2);
  if (x.size() != 3 || r.size() != 3) fail(ErrorCode::kInvalidModel, "a recurrent layer of {}", to_string(x));
  const std::string& direction = context.attributes().text("direction");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional") {
    fail(ErrorCode::kInvalidModel, "a recurrent layer in direction \"{}\"", direction);
  }
  if (context.attributes().has("hidden_size") && r[2].is_constant() && !r[2].is(context.integer("hidden_size"))) {
    fail(ErrorCode::kInvalidModel, "a recurrent layer of hidden_size {} with R {}", context.integer("hidden_size"),
         to_string(r));
  }
  if (context.has_shape(1)) check_weights(context);
  const Dim& directions = r[0];
  const Dim& hidden = r[2];
  const bool batch_first = context.integer("layout") != 0;
  if (batch_first) {
    context.set_shape(0, {x[0], x[1], directions, hidden});
    for (std::size_t i = 1; i < 3; ++i) context.set_shape(i, {x[0], directions, hidden});
  } else {
    context.set_shape(0, {x[0], directions, x[1], hidden});
    for (std::size_t i = 1; i < 3; ++i) context.set_shape(i, {directions, x[1], hidden});
  }
}

OpDef recurrent(std::string_view name, bool cell, std::vector<AttributeDef> extra, void (*reference)(KernelContext&)) {
  OpDef def{.name = name,
            .inputs = {{"X"},
                       {"W"},
                       {"R"},
                       {"B", Arity::kOptional},
                       {"sequence_lens", Arity::kOptional},
                       {"initial_h", Arity::kOptional}},
            .outputs = {{"Y", Arity::kOptional}, {"Y_h", Arity::kOptional}},
            .attributes = {{"activations", AttributeKind::kStrings},
                           {"activation_alpha", AttributeKind::kFloats},
                           {"activation_beta", AttributeKind::kFloats},
                           {"clip", AttributeKind::kFloat},
                           {"direction", AttributeKind::kString, false, Attribute(std::string("forward"))},
                           {"hidden_size", AttributeKind::kInt},
                           {"layout", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
            .infer = infer_recurrent,
            .reference = reference};
  if (cell) {
    def.inputs.push_back({"initial_c", Arity::kOptional});
    def.inputs.push_back({"P", Arity::kOptional});
    def.outputs.push_back({"Y_c", Arity::kOptional});
  }
  def.attributes.insert(def.attributes.end(), extra.begin(), extra.end());
  return def;
}

}  // namespace

std::span<const OpDef> recurrent_ops() {
  static const std::vector<OpDef> ops = {
      recurrent("LSTM", true, {{"input_forget", AttributeKind::kInt, false, Attribute(std::int64_t{0})}}, lstm_kernel),
      recurrent("GRU", false, {{"linear_before_reset", AttributeKind::kInt, false, Attribute(std::int64_t{0})}},
                gru_kernel),
      recurrent("RNN", false, {}, rnn_kernel),
  };
  return ops;
}

}  // namespace weft
