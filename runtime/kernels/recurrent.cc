// LSTM, GRU and RNN of f32: one product for the inputs of all steps, then one for the state at each step. Hidden units
// go in blocks as wide as a panel, with all gates of a block side by side, so that a thread finishes its units alone.
// Coupled gates, peepholes, clipping and activations other than Sigmoid, Tanh and Relu stay with the reference.
#include <algorithm>
#include <array>
#include <optional>

#include "ops/op_def.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {
namespace {

enum Input : std::size_t { kX, kW, kR, kBias, kLengths, kInitialH, kInitialC, kPeepholes, kInputs };

// Below this many multiplications a step stays on one thread.
constexpr std::size_t kSerialWork = 128 * 1024;

enum class Cell : std::uint8_t { kLstm, kGru, kGruResetAfter, kRnn };

struct Layer {
  Cell cell = Cell::kLstm;
  std::size_t gates = 4;
  bool reverse = false, batch_first = false;
  std::vector<std::array<simd::Activation, 3>> activations;  // one set a direction
};

// W and R of all directions: for each direction and block of units a matrix [depth, gate, unit].
struct PackedWeights {
  std::size_t inputs = 0, hidden = 0, directions = 0, blocks = 0;
  std::vector<float> input, state;

  PackedWeights(const Layer& layer, const Tensor& w, const Tensor& r) {
    directions = static_cast<std::size_t>(w.extent(0));
    inputs = static_cast<std::size_t>(w.extent(2));
    hidden = static_cast<std::size_t>(r.extent(2));
    const std::size_t width = tile::panel_columns();
    blocks = (hidden + width - 1) / width;
    const auto pack = [&](const Tensor& weights, std::size_t depth) {
      std::vector<float> panels(directions * blocks * layer.gates * depth * width, 0.0f);
      for (std::size_t row = 0; row < directions * layer.gates * hidden; ++row) {
        const std::size_t unit = row % hidden, gate = row / hidden % layer.gates, d = row / hidden / layer.gates;
        float* to =
            panels.data() + (d * blocks + unit / width) * depth * layer.gates * width + gate * width + unit % width;
        const float* from = weights.data<float>().data() + row * depth;
        for (std::size_t k = 0; k < depth; ++k) to[k * layer.gates * width] = from[k];
      }
      return panels;
    };
    input = pack(w, inputs);
    state = pack(r, hidden);
  }
};

using Constants = std::array<std::optional<Tensor>, kInputs>;

class BoundRecurrent final : public BoundKernel {
 public:
  BoundRecurrent(const Layer& layer, const Constants& constants, std::shared_ptr<const PackedWeights> weights,
                 const BindContext& context)
      : layer_(layer), constants_(constants), weights_(std::move(weights)) {
    const Extents &x = context.inputs[kX], &w = context.inputs[kW], &r = context.inputs[kR];
    directions_ = static_cast<std::size_t>(w[0]);
    hidden_ = static_cast<std::size_t>(r[2]);
    const auto rows = static_cast<std::int64_t>(layer.gates * hidden_);
    if (w[1] != rows || w[2] != x[2] || r[1] != rows || r[0] != w[0] || directions_ != layer.activations.size()) {
      fail(ErrorCode::kInvalidModel, "{} with W {} and R {}", context.node->op, to_string(w), to_string(r));
    }
    time_ = static_cast<std::size_t>(x[layer.batch_first ? 1 : 0]);
    batch_ = static_cast<std::size_t>(x[layer.batch_first ? 0 : 1]);
    inputs_ = static_cast<std::size_t>(x[2]);
    const auto expect = [&](std::size_t i, const Extents& shape) {
      if (i < context.inputs.size() && has_input(*context.node, i) && context.inputs[i] != shape) {
        fail(ErrorCode::kInvalidModel, "{} with {} instead of {} as input {}", context.node->op,
             to_string(context.inputs[i]), to_string(shape), i);
      }
    };
    const std::int64_t b = static_cast<std::int64_t>(batch_), h = r[2];
    expect(kBias, {w[0], 2 * rows});
    expect(kLengths, {b});
    for (const std::size_t i : {kInitialH, kInitialC}) {
      expect(i, layer.batch_first ? Extents{b, w[0], h} : Extents{w[0], b, h});
    }
    width_ = tile::panel_columns();
    blocks_ = (hidden_ + width_ - 1) / width_;
    columns_ = directions_ * blocks_ * layer.gates * width_;
    const auto floats = [](std::size_t n) {
      return Tensor::uninitialized(DType::kF32, {static_cast<std::int64_t>(n)});
    };
    projected_ = floats(time_ * batch_ * columns_);
    gates_ = floats(batch_ * columns_ * 2);
    state_ = floats(directions_ * batch_ * hidden_ * 4);
  }

  void run(const RunContext& context) override {
    if (batch_ == 0 || hidden_ == 0) return;
    if (weights_ == nullptr) weights_own_.emplace(layer_, given(context, kW), given(context, kR));
    read_lengths(context);
    project(context);
    const std::size_t size = directions_ * batch_ * hidden_;
    h_ = state_.mutable_data<float>().data();
    next_ = h_ + size;
    c_ = h_ + 2 * size;
    gated_ = h_ + 3 * size;
    load_state(context, kInitialH, h_);
    load_state(context, kInitialC, c_);
    float* y = output(context, 0);
    if (y != nullptr) std::fill_n(y, time_ * size, 0.0f);
    const bool serial = batch_ * hidden_ * hidden_ * layer_.gates * directions_ < kSerialWork;
    const auto each_block = [&](auto body) {
      const auto task = [&](std::size_t i) { body(i / blocks_, i % blocks_); };
      if (!serial) return context.pool->parallel_for(directions_ * blocks_, task);
      for (std::size_t i = 0; i < directions_ * blocks_; ++i) task(i);
    };
    for (std::size_t n = 0; n < time_; ++n) {
      if (layer_.cell == Cell::kGru) each_block([&](std::size_t d, std::size_t block) { reset(n, d, block); });
      each_block([&](std::size_t d, std::size_t block) { step(n, d, block); });
      std::swap(h_, next_);
      if (y != nullptr) store_step(n, y);
    }
    if (float* last = output(context, 1)) store_state(h_, last);
    if (float* last = output(context, 2)) store_state(c_, last);
  }

 private:
  const PackedWeights& weights() const { return weights_ != nullptr ? *weights_ : *weights_own_; }

  const Tensor& given(const RunContext& context, std::size_t i) const {
    return constants_[i] ? *constants_[i] : *context.inputs[i];
  }
  bool has(const RunContext& context, std::size_t i) const {
    return constants_[i] || (i < context.inputs.size() && context.inputs[i] != nullptr);
  }
  static float* output(const RunContext& context, std::size_t i) {
    return i < context.outputs.size() && context.outputs[i] != nullptr ? context.out<float>(i) : nullptr;
  }

  void read_lengths(const RunContext& context) {
    lengths_.assign(batch_, time_);
    if (!has(context, kLengths)) return;
    const std::vector<std::int64_t> lengths = given(context, kLengths).to_ints();
    for (std::size_t b = 0; b < batch_; ++b) {
      if (lengths[b] < 0 || lengths[b] > static_cast<std::int64_t>(time_)) {
        fail(ErrorCode::kInvalidArgument, "a sequence of {} in {} steps", lengths[b], time_);
      }
      lengths_[b] = static_cast<std::size_t>(lengths[b]);
    }
  }

  // W x + biases for all steps. Of a GRU that resets after the product, the last gate's recurrent bias stays out.
  void project(const RunContext& context) {
    const std::size_t rows = time_ * batch_;
    constexpr std::size_t kRows = 48;
    const std::size_t groups = directions_ * blocks_, group = layer_.gates * width_;
    std::vector<float> bias(columns_, 0.0f);
    recurrent_bias_.assign(layer_.cell == Cell::kGruResetAfter ? directions_ * blocks_ * width_ : 0, 0.0f);
    if (has(context, kBias)) read_bias(given(context, kBias).data<float>().data(), bias);
    float* to = projected_.mutable_data<float>().data();
    const float* x = context.in<float>(kX);
    context.pool->parallel_for((rows + kRows - 1) / kRows, [&](std::size_t task) {
      const std::size_t first = task * kRows, count = std::min(kRows, rows - first);
      for (std::size_t r = first; r < first + count; ++r) std::copy(bias.begin(), bias.end(), to + r * columns_);
      for (std::size_t g = 0; g < groups; ++g) {
        tile::multiply(tile::Product{x + first * inputs_, inputs_, count, inputs_,
                                     weights().input.data() + g * group * inputs_, group, width_,
                                     to + first * columns_ + g * group, columns_, group, true});
      }
    });
  }

  void read_bias(const float* given, std::vector<float>& bias) {
    const std::size_t rows = layer_.gates * hidden_;
    for (std::size_t d = 0; d < directions_; ++d) {
      for (std::size_t gate = 0; gate < layer_.gates; ++gate) {
        const bool apart = layer_.cell == Cell::kGruResetAfter && gate == 2;
        for (std::size_t j = 0; j < hidden_; ++j) {
          const float* from = given + d * 2 * rows + gate * hidden_ + j;
          bias[((d * blocks_ + j / width_) * layer_.gates + gate) * width_ + j % width_] =
              from[0] + (apart ? 0.0f : from[rows]);
          if (apart) recurrent_bias_[d * blocks_ * width_ + j] = from[rows];
        }
      }
    }
  }

  // The step that row b takes as its n-th, or none.
  std::optional<std::size_t> time_of(std::size_t n, std::size_t d, std::size_t b) const {
    if (n >= lengths_[b]) return std::nullopt;
    return layer_.reverse || d == 1 ? lengths_[b] - 1 - n : n;
  }

  // Gates [first, end) of one block for all rows: projected inputs plus R times `state`.
  void add_state(std::size_t n, std::size_t d, std::size_t block, std::size_t first, std::size_t end,
                 const float* state, bool with_inputs, float* gates) const {
    const std::size_t width = layer_.gates * width_, at = (d * blocks_ + block) * width;
    const float* projected = projected_.data<float>().data();
    for (std::size_t b = 0; b < batch_; ++b) {
      float* to = gates + b * width;
      const auto t = time_of(n, d, b);
      if (!t || !with_inputs) {
        std::fill(to + first * width_, to + end * width_, 0.0f);
        continue;
      }
      const std::size_t row = layer_.batch_first ? b * time_ + *t : *t * batch_ + b;
      const float* from = projected + row * columns_ + at;
      std::copy(from + first * width_, from + end * width_, to + first * width_);
    }
    tile::multiply(tile::Product{state + d * batch_ * hidden_, hidden_, batch_, hidden_,
                                 weights().state.data() + at * hidden_ + first * width_, width, width_,
                                 gates + first * width_, width, (end - first) * width_, true});
  }

  float* gates_of(std::size_t d, std::size_t block) {
    return gates_.mutable_data<float>().data() + (d * blocks_ + block) * layer_.gates * width_ * batch_ * 2;
  }

  // Of a GRU: the reset gate times the state, which the product of the last gate takes.
  void reset(std::size_t n, std::size_t d, std::size_t block) {
    float* gates = gates_of(d, block);
    add_state(n, d, block, 0, 2, h_, true, gates);
    const std::size_t count = std::min(width_, hidden_ - block * width_);
    for (std::size_t b = 0; b < batch_; ++b) {
      float* r = gates + b * layer_.gates * width_ + width_;
      simd::activate(layer_.activations[d][0], 1.0f, r, r, count);
      const std::size_t at = (d * batch_ + b) * hidden_ + block * width_;
      for (std::size_t j = 0; j < count; ++j) gated_[at + j] = r[j] * h_[at + j];
    }
  }

  void step(std::size_t n, std::size_t d, std::size_t block) {
    float* gates = gates_of(d, block);
    const std::size_t width = layer_.gates * width_;
    float* inner = gates + width * batch_;  // of a GRU that resets after the product
    switch (layer_.cell) {
      case Cell::kLstm:
      case Cell::kRnn: add_state(n, d, block, 0, layer_.gates, h_, true, gates); break;
      case Cell::kGru: add_state(n, d, block, 2, 3, gated_, true, gates); break;
      case Cell::kGruResetAfter:
        add_state(n, d, block, 0, 2, h_, true, gates);
        add_state(n, d, block, 2, 3, h_, false, inner);
        break;
    }
    const std::size_t count = std::min(width_, hidden_ - block * width_);
    for (std::size_t b = 0; b < batch_; ++b) {
      const std::size_t at = (d * batch_ + b) * hidden_ + block * width_;
      const auto t = time_of(n, d, b);
      if (!t) {
        std::copy_n(h_ + at, count, next_ + at);
        continue;
      }
      float* row = gates + b * width;
      if (layer_.cell == Cell::kGruResetAfter) {
        const std::size_t from = (layer_.batch_first ? b * time_ + *t : *t * batch_ + b) * columns_;
        const float* projected = projected_.data<float>().data() + from + (d * blocks_ + block) * width + 2 * width_;
        std::copy_n(projected, count, row + 2 * width_);
      }
      update(d, block, count, row, inner + b * width + 2 * width_, at);
    }
  }

  // One row of one block: `gates` before their activations.
  void update(std::size_t d, std::size_t block, std::size_t count, float* gates, const float* inner, std::size_t at) {
    const auto& [f, g, h] = layer_.activations[d];
    float* next = next_ + at;
    const float* before = h_ + at;
    float* last = gates + (layer_.gates - 1) * width_;
    switch (layer_.cell) {
      case Cell::kRnn: simd::activate(f, 1.0f, gates, next, count); return;
      case Cell::kLstm: {
        simd::activate(f, 1.0f, gates, gates, 2 * width_ + count);  // i, o, f
        simd::activate(g, 1.0f, last, last, count);
        float* c = c_ + at;
        for (std::size_t j = 0; j < count; ++j) c[j] = gates[2 * width_ + j] * c[j] + gates[j] * last[j];
        simd::activate(h, 1.0f, c, last, count);
        for (std::size_t j = 0; j < count; ++j) next[j] = gates[width_ + j] * last[j];
        return;
      }
      case Cell::kGruResetAfter: {
        simd::activate(f, 1.0f, gates + width_, gates + width_, count);
        const float* bias = recurrent_bias_.data() + (d * blocks_ + block) * width_;
        for (std::size_t j = 0; j < count; ++j) last[j] += gates[width_ + j] * (inner[j] + bias[j]);
        break;
      }
      case Cell::kGru: break;
    }
    simd::activate(f, 1.0f, gates, gates, count);
    simd::activate(g, 1.0f, last, last, count);
    for (std::size_t j = 0; j < count; ++j) next[j] = (1 - gates[j]) * last[j] + gates[j] * before[j];
  }

  // States are [direction, row, unit] here, [row, direction, unit] outside when the batch comes first.
  template <class Body>
  void for_each_state(const Body& body) const {
    for (std::size_t d = 0; d < directions_; ++d) {
      for (std::size_t b = 0; b < batch_; ++b) {
        const std::size_t outside = layer_.batch_first ? b * directions_ + d : d * batch_ + b;
        body((d * batch_ + b) * hidden_, outside * hidden_);
      }
    }
  }
  void load_state(const RunContext& context, std::size_t input, float* state) const {
    const float* from = has(context, input) ? given(context, input).data<float>().data() : nullptr;
    for_each_state([&](std::size_t inside, std::size_t outside) {
      if (from == nullptr) {
        std::fill_n(state + inside, hidden_, 0.0f);
      } else {
        std::copy_n(from + outside, hidden_, state + inside);
      }
    });
  }
  void store_state(const float* state, float* to) const {
    for_each_state(
        [&](std::size_t inside, std::size_t outside) { std::copy_n(state + inside, hidden_, to + outside); });
  }
  void store_step(std::size_t n, float* y) const {
    for (std::size_t d = 0; d < directions_; ++d) {
      for (std::size_t b = 0; b < batch_; ++b) {
        const auto t = time_of(n, d, b);
        if (!t) continue;
        const std::size_t at =
            layer_.batch_first ? (b * time_ + *t) * directions_ + d : (*t * directions_ + d) * batch_ + b;
        std::copy_n(h_ + (d * batch_ + b) * hidden_, hidden_, y + at * hidden_);
      }
    }
  }

  Layer layer_;
  const Constants& constants_;
  std::shared_ptr<const PackedWeights> weights_;  // null: they come with the run
  std::optional<PackedWeights> weights_own_;
  std::size_t time_ = 0, batch_ = 0, inputs_ = 0, hidden_ = 0, directions_ = 1, width_ = 1, blocks_ = 0, columns_ = 0;
  std::vector<std::size_t> lengths_;
  std::vector<float> recurrent_bias_;
  Tensor projected_, gates_, state_;
  float *h_ = nullptr, *next_ = nullptr, *c_ = nullptr, *gated_ = nullptr;
};

class RecurrentKernel final : public Kernel {
 public:
  RecurrentKernel(Layer layer, Constants constants) : layer_(std::move(layer)), constants_(std::move(constants)) {
    if (constants_[kW] && constants_[kR]) {
      weights_ = std::make_shared<PackedWeights>(layer_, *constants_[kW], *constants_[kR]);
      constants_[kW].reset();
      constants_[kR].reset();
    }
  }
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundRecurrent>(layer_, constants_, weights_, context);
  }
  bool packs_constant(std::size_t input) const override { return weights_ != nullptr && input != kX; }

 private:
  Layer layer_;
  Constants constants_;
  std::shared_ptr<const PackedWeights> weights_;
};

std::optional<simd::Activation> find_activation(std::string_view name) {
  constexpr std::pair<std::string_view, simd::Activation> kKnown[] = {
      {"Sigmoid", simd::Activation::kSigmoid}, {"Tanh", simd::Activation::kTanh}, {"Relu", simd::Activation::kRelu}};
  for (const auto& [known, activation] : kKnown) {
    if (known == name) return activation;
  }
  return std::nullopt;
}

std::optional<Layer> layer_of(const Node& node, std::size_t directions) {
  const AttributeReader attributes(get_op(node.op), node.attributes);
  if (attributes.has("clip") && attributes.number("clip") > 0) return std::nullopt;
  Layer layer;
  std::vector<std::string> names;
  if (node.op == "LSTM") {
    if (attributes.integer("input_forget") != 0) return std::nullopt;
    names = {"Sigmoid", "Tanh", "Tanh"};
  } else if (node.op == "GRU") {
    layer.cell = attributes.integer("linear_before_reset") != 0 ? Cell::kGruResetAfter : Cell::kGru;
    layer.gates = 3;
    names = {"Sigmoid", "Tanh"};
  } else {
    layer.cell = Cell::kRnn;
    layer.gates = 1;
    names = {"Tanh"};
  }
  const std::size_t each = names.size();
  for (std::size_t i = 0; directions == 2 && i < each; ++i) names.push_back(std::string(names[i]));
  if (attributes.has("activations")) names = attributes.texts("activations");
  if (names.size() != directions * each) return std::nullopt;
  for (std::size_t d = 0; d < directions; ++d) {
    auto& set = layer.activations.emplace_back();
    for (std::size_t i = 0; i < each; ++i) {
      const auto activation = find_activation(names[d * each + i]);
      if (!activation) return std::nullopt;
      set[i] = *activation;
    }
  }
  layer.reverse = attributes.text("direction") == "reverse";
  layer.batch_first = attributes.integer("layout") != 0;
  return layer;
}

}  // namespace

std::unique_ptr<Kernel> make_recurrent_kernel(const Graph& graph, const Node& node) {
  if (node.op != "LSTM" && node.op != "GRU" && node.op != "RNN") return nullptr;
  Constants constants;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!has_input(node, i)) continue;
    if (i == kPeepholes || (i != kLengths && !input_is(graph, node, i, DType::kF32))) return nullptr;
    if (const Tensor* constant = constant_input(graph, node, i)) constants[i] = constant->aligned();
  }
  constants[kX].reset();
  for (const std::size_t i : {kX, kW, kR}) {
    const TensorType& type = graph.value(node.inputs[i]).type;
    if (!type.shape || type.shape->size() != 3) return nullptr;
  }
  const Dim& directions = (*graph.value(node.inputs[kW]).type.shape)[0];
  if (!directions.is_constant() || directions.value() < 1 || directions.value() > 2) return nullptr;
  auto layer = layer_of(node, static_cast<std::size_t>(directions.value()));
  if (!layer) return nullptr;
  return std::make_unique<RecurrentKernel>(std::move(*layer), std::move(constants));
}

}  // namespace weft::runtime
