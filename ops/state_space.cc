// Recurrences in the place of attention: LinearAttention and the short convolution before it (ONNX 27).
#include <cmath>

#include "ops/builder.h"
#include "ops/cast.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

// --- LinearAttention --------------------------------------------------------------------------------------------

// S[t] = e^g S[t-1] + beta k (v - e^g S[t-1]' k)', o[t] = scale S[t]' q, without the terms the rule leaves out.
struct Rule {
  bool gated = false, delta = false;
  explicit Rule(const std::string& name) {
    if (name != "linear" && name != "gated" && name != "delta" && name != "gated_delta") {
      fail(ErrorCode::kInvalidModel, "LinearAttention has no update_rule \"{}\"", name);
    }
    gated = name.starts_with("gated");
    delta = name.ends_with("delta");
  }
};

struct Heads {
  std::int64_t query, key;
  Heads(const AttributeReader& attributes)
      : query(attributes.integer("q_num_heads")), key(attributes.integer("kv_num_heads")) {
    if (query <= 0 || key <= 0 || (query % key != 0 && key % query != 0)) {
      fail(ErrorCode::kInvalidModel, "LinearAttention with {} query and {} key heads", query, key);
    }
  }
};

void infer_linear_attention(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  if (context.output_count() > 1) context.set_dtype(1, context.has(3) ? context.dtype(3) : context.dtype(0));
  const Heads heads(context.attributes());
  const Shape& q = context.shape(0);
  const Shape& k = context.shape(1);
  const Shape& v = context.shape(2);
  if (q.size() != 3 || k.size() != 3 || v.size() != 3)
    fail(ErrorCode::kInvalidModel, "LinearAttention of rank {}", q.size());
  const Dim size = Dim::floor_div(v[2], Dim(heads.key));
  context.set_shape(0, {q[0], q[1], size * Dim(std::max(heads.query, heads.key))});
  if (context.output_count() > 1) {
    context.set_shape(1, {q[0], Dim(heads.key), Dim::floor_div(k[2], Dim(heads.key)), size});
  }
}

void linear_attention_kernel(KernelContext& context) {
  const AttributeReader& attributes = context.attributes();
  const Heads heads(attributes);
  const Rule rule(attributes.text("update_rule"));
  const Tensor q = cast(context.input(0), DType::kF32), k = cast(context.input(1), DType::kF32);
  const Tensor v = cast(context.input(2), DType::kF32);
  if (q.rank() != 3 || k.rank() != 3 || v.rank() != 3) {
    fail(ErrorCode::kInvalidModel, "LinearAttention of {}, {} and {}", to_string(q.shape()), to_string(k.shape()),
         to_string(v.shape()));
  }
  const std::int64_t batch = q.extent(0), length = q.extent(1);
  const std::int64_t key_size = k.extent(2) / heads.key, value_size = v.extent(2) / heads.key;
  const auto bad = [&](bool condition, std::string_view what) {
    if (condition) fail(ErrorCode::kInvalidModel, "LinearAttention: {} does not fit the heads", what);
  };
  bad(k.extent(2) % heads.key != 0 || k.extent(0) != batch || k.extent(1) != length, "key");
  bad(v.extent(2) % heads.key != 0 || v.extent(0) != batch || v.extent(1) != length, "value");
  bad(q.extent(2) != heads.query * key_size, "query");
  Tensor state = Tensor::zeros(DType::kF32, {batch, heads.key, key_size, value_size});
  if (context.has(3)) {
    bad(context.input(3).shape() != state.shape(), "past_state");
    state = cast(context.input(3), DType::kF32).clone();
  }
  const Tensor decay = context.has(4) ? cast(context.input(4), DType::kF32) : Tensor();
  const Tensor beta = context.has(5) ? cast(context.input(5), DType::kF32) : Tensor();
  bad(rule.gated != context.has(4) && rule.gated, "decay");
  const auto per_token = [&](const Tensor& t) {
    return t.rank() == 3 && t.extent(0) == batch && t.extent(1) == length;
  };
  bad(context.has(4) && !per_token(decay), "decay");
  bad(context.has(5) && !per_token(beta), "beta");
  const std::int64_t decays = context.has(4) ? decay.extent(2) : 0, betas = context.has(5) ? beta.extent(2) : 0;
  bad(context.has(4) && decays != heads.key && decays != heads.key * key_size, "decay");
  bad(context.has(5) && betas != heads.key && betas != 1, "beta");
  double scale = attributes.number("scale");
  if (scale == 0) scale = 1 / std::sqrt(static_cast<double>(key_size));
  const std::int64_t outputs = std::max(heads.query, heads.key), per_key = outputs / heads.key;
  const std::int64_t per_query = outputs / heads.query;
  Tensor y = Tensor::zeros(DType::kF32, {batch, length, outputs * value_size});
  std::vector<float> read(static_cast<std::size_t>(value_size));
  for (std::int64_t row = 0; row < batch * heads.key; ++row) {
    const std::int64_t b = row / heads.key, h = row % heads.key;
    float* s = state.mutable_data<float>().data() + row * key_size * value_size;
    for (std::int64_t t = 0; t < length; ++t) {
      const std::int64_t token = b * length + t;
      const float* key = k.data<float>().data() + (token * heads.key + h) * key_size;
      const float* value = v.data<float>().data() + (token * heads.key + h) * value_size;
      for (std::int64_t i = 0; rule.gated && i < key_size; ++i) {
        const std::int64_t at = decays == heads.key ? token * decays + h : token * decays + h * key_size + i;
        const float kept = std::exp(decay.data<float>()[static_cast<std::size_t>(at)]);
        for (std::int64_t j = 0; j < value_size; ++j) s[i * value_size + j] *= kept;
      }
      std::copy(value, value + value_size, read.begin());
      if (rule.delta) {
        for (std::int64_t i = 0; i < key_size; ++i) {
          for (std::int64_t j = 0; j < value_size; ++j) {
            read[static_cast<std::size_t>(j)] -= s[i * value_size + j] * key[i];
          }
        }
        const std::size_t at = static_cast<std::size_t>(betas == 1 ? token : token * heads.key + h);
        const float rate = context.has(5) ? beta.data<float>()[at] : 1.0f;
        for (float& x : read) x *= rate;
      }
      for (std::int64_t i = 0; i < key_size; ++i) {
        for (std::int64_t j = 0; j < value_size; ++j) {
          s[i * value_size + j] += key[i] * read[static_cast<std::size_t>(j)];
        }
      }
      for (std::int64_t g = 0; g < per_key; ++g) {
        const std::int64_t head = h * per_key + g;
        const float* query = q.data<float>().data() + (token * heads.query + head / per_query) * key_size;
        float* out = y.mutable_data<float>().data() + (token * outputs + head) * value_size;
        for (std::int64_t i = 0; i < key_size; ++i) {
          const float weight = static_cast<float>(scale) * query[i];
          for (std::int64_t j = 0; j < value_size; ++j) out[j] += weight * s[i * value_size + j];
        }
      }
    }
  }
  context.set_output(0, cast(y, context.input(0).dtype()));
  const DType state_type = context.has(3) ? context.input(3).dtype() : context.input(0).dtype();
  if (context.wants(1)) context.set_output(1, cast(state, state_type));
}

// --- CausalConvWithState ----------------------------------------------------------------------------------------

// A depthwise convolution over past and input; the state is the last k - 1 columns of both.
void decompose_causal_conv(Expansion& e) {
  const Expr x = e.input(0), weight = e.input(1);
  const Dim& channels = e.shape(weight).at(0);
  const Dim& taps = e.shape(weight).back();
  if (e.rank(x) != 3 || !channels.is_constant() || !taps.is_constant()) {
    fail(ErrorCode::kUnsupported, "CausalConvWithState of {} by {}", to_string(e.shape(x)), to_string(e.shape(weight)));
  }
  Expr past;
  if (e.has(3)) {
    past = e.input(3);
  } else {
    const Expr shape = e.shape_of(x);
    const ValueId wanted[] = {e.slice(shape, 0, 0, 2).id(), e.ints({taps.value() - 1}).id()};
    past = e.make("Expand", {e.scalar_like(x, 0.0).id(), e.concat(wanted, 0).id()});
  }
  const ValueId parts[] = {past.id(), x.id()};
  const Expr all = e.concat(parts, 2);
  Expr y =
      e.make("Conv", {all.id(), weight.id(), e.has(2) ? e.input(2).id() : ValueId()}, {{"group", channels.value()}});
  const std::string& activation = e.attributes().text("activation");
  if (activation == "silu" || activation == "swish") {
    y = y * e.sigmoid(y);
  } else if (activation != "none" && !activation.empty()) {
    fail(ErrorCode::kInvalidModel, "CausalConvWithState has no activation \"{}\"", activation);
  }
  e.set_output(0, y);
  if (e.output_count() > 1) {
    const Expr length = e.extent_of(all, 2);
    const Expr start = length - e.ints({taps.value() - 1});
    e.set_output(1, e.make("Slice", {all.id(), start.id(), length.id(), e.ints({2}).id()}));
  }
}

void infer_causal_conv(InferContext& context) {
  context.set_dtype(0, context.dtype(0));
  if (context.output_count() > 1) context.set_dtype(1, context.dtype(0));
  if (context.rank(0) != 3 || context.rank(1) < 2) {
    fail(ErrorCode::kInvalidModel, "CausalConvWithState of {} by {}", to_string(context.shape(0)),
         to_string(context.shape(1)));
  }
  context.set_shape(0, context.shape(0));
  if (context.output_count() > 1) {
    context.set_shape(1, {context.shape(0).at(0), context.shape(0).at(1), context.shape(1).back() - Dim(1)});
  }
}

}  // namespace

std::span<const OpDef> state_space_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "LinearAttention",
       .inputs = {{"query"},
                  {"key"},
                  {"value"},
                  {"past_state", Arity::kOptional},
                  {"decay", Arity::kOptional},
                  {"beta", Arity::kOptional}},
       .outputs = {{"output"}, {"present_state", Arity::kOptional}},
       .attributes = {{"q_num_heads", AttributeKind::kInt, true},
                      {"kv_num_heads", AttributeKind::kInt, true},
                      {"scale", AttributeKind::kFloat, false, Attribute(0.0)},
                      {"update_rule", AttributeKind::kString, false, Attribute(std::string("gated_delta"))}},
       .infer = infer_linear_attention,
       .reference = linear_attention_kernel},
      {.name = "CausalConvWithState",
       .inputs = {{"input"}, {"weight"}, {"bias", Arity::kOptional}, {"past_state", Arity::kOptional}},
       .outputs = {{"output"}, {"present_state", Arity::kOptional}},
       .attributes = {{"activation", AttributeKind::kString, false, Attribute(std::string("none"))}},
       .infer = infer_causal_conv,
       .decompose = decompose_causal_conv},
  };
  return ops;
}

}  // namespace weft
