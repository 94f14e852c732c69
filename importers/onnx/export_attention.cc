#include "importers/onnx/export_attention.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "importers/onnx/export_target.h"
#include "ops/attention.h"

namespace weft::onnx {
namespace {

constexpr std::size_t kSinks = 6;

Node copy_of(const Node& node) { return {node.op, node.inputs, node.outputs, node.attributes, {}, node.origin}; }

struct Call {
  std::string op;
  std::vector<ValueId> inputs;
  Attributes attributes;
  Shape output;
};

// [B, H, L, D] -> [B, L, H * D]
Expr merge_heads(Builder& b, Expr x) {
  return b.reshape(b.transpose(x, {0, 2, 1, 3}), std::vector<std::int64_t>{0, 0, -1});
}

ValueId add_call(Graph& graph, NodeId before, Call call, const Node& origin, DType dtype) {
  NodeSpec spec{std::move(call.op), std::move(call.inputs), std::move(call.attributes), {}, origin.origin};
  while (!spec.inputs.empty() && !spec.inputs.back().valid()) spec.inputs.pop_back();
  const OutputSpec output{"", {dtype, std::move(call.output)}};
  return graph.node(graph.add_node(std::move(spec), {&output, 1}, before)).outputs[0];
}

// Runtimes want masks as long as queries and keys where weft lets them broadcast. (Leading axes they let broadcast
// too.)
Expr spread(Builder& b, Expr mask, Expr q, Expr k) {
  const std::int64_t rank = b.rank(mask);
  if (rank >= 2 && !b.dim(mask, -1).is(1) && !b.dim(mask, -2).is(1)) return mask;
  if (rank >= 2 && b.dim(mask, -1) == b.dim(k, 2) && b.dim(mask, -2) == b.dim(q, 2)) return mask;
  std::vector<ValueId> extents;
  if (rank > 2) extents.push_back(b.ints(std::vector<std::int64_t>(static_cast<std::size_t>(rank - 2), 1)));
  extents.push_back(b.extent_of(q, 2));
  extents.push_back(b.extent_of(k, 2));
  return b.make("Expand", {mask.id(), b.concat(extents, 0).id()});
}

// The result takes the place and the name of the node's.
void replace(Graph& graph, NodeId node, ValueId by) {
  const ValueId old = graph.node(node).outputs[0];
  const std::string name = graph.value(old).name;
  if (graph.value(by).type.shape) graph.value(by).type = graph.value(old).type;
  graph.replace_uses(old, by);
  graph.erase_node(node);
  graph.rename_value(by, name);
}

Attributes scale_of(Expansion& e) {
  Attributes attributes;
  if (e.attributes().has("scale")) attributes["scale"] = e.number("scale");
  return attributes;
}

// Rows without any key are zeros in the standard operator; weft's own word for it goes along.
void keep_empty_rows(Expansion& e, Attributes& attributes) {
  attributes["weft.zero_masked_rows"] = e.integer("zero_masked_rows");
}

}  // namespace

Expr BiasCache::bias_of(Expansion& e, const Node& attention, Expr q, Expr k) {
  std::string key = fmt::format("{} {} {} {}", to_string(e.dtype(q)), e.dim(q, 2).to_string(), e.dim(k, 2).to_string(),
                                e.dim(q, 1).to_string());
  for (std::size_t i = 3; i < kSinks; ++i) key += fmt::format(" {}", e.has(i) ? attention.inputs[i].index : 0);
  for (const std::string_view name :
       {"is_causal", "left_window_size", "right_window_size", "chunk_size", "fill_per_condition"})
    key += fmt::format(" {}", e.integer(name));
  key += fmt::format(" {} {}", e.attributes().text("query_position"), e.number("masked_fill"));
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second.valid() ? e.wrap(found->second) : Expr();
  const Expr bias = attention_bias(e, q, k);
  known_[key] = bias.id();
  return bias;
}

Expr BiasCache::with_floor(Builder& b, Expr mask) {
  const auto found = floored_.find(mask.id());
  if (found != floored_.end()) return b.wrap(found->second);
  const float floor = std::nextafter(std::numeric_limits<float>::lowest(), 0.0f);
  const Expr result = b.make("Max", {mask.id(), b.scalar(DType::kF32, static_cast<double>(floor)).id()});
  floored_[mask.id()] = result.id();
  return result;
}

bool spell_standard_attention(Graph& graph, NodeId id, BiasCache& biases) {
  const Node node = copy_of(graph.node(id));
  Expansion e(graph, get_op("Attention"), node, node.inputs, id);
  if (e.has(kSinks)) return false;
  Expr q = e.input(0), k = e.input(1), v = e.input(2);
  const std::int64_t heads = e.integer("q_num_heads"), key_heads = e.integer("kv_num_heads");
  const bool flat = e.rank(q) == 3;
  Call call{std::string(kStandardAttention), {}, scale_of(e), e.shape(node.outputs[0])};
  keep_empty_rows(e, call.attributes);
  if (const double cap = e.number("softcap"); cap != 0) call.attributes["softcap"] = cap;
  const bool same_rank = e.rank(q) == e.rank(k) && e.rank(q) == e.rank(v);
  // Only this order of positions is the operator's own.
  const bool plain_causal = e.integer("is_causal") != 0 && e.attributes().text("query_position") == "start" &&
                            e.integer("left_window_size") < 0 && e.integer("right_window_size") < 0 &&
                            e.integer("chunk_size") == 0 && !e.has(4) && !e.has(5) &&
                            std::isinf(e.number("masked_fill"));
  Expr bias;
  if (plain_causal) {
    call.attributes["is_causal"] = std::int64_t{1};
    bias = e.has(3) ? e.input(3) : Expr();
  } else {
    bias = biases.bias_of(e, node, split_heads(e, q, heads), split_heads(e, k, key_heads));
    const bool only_mask = e.has(3) && bias && e.dtype(e.input(3)) == DType::kBool && !e.has(4) && !e.has(5) &&
                           e.integer("is_causal") == 0 && e.integer("left_window_size") < 0 &&
                           e.integer("right_window_size") < 0 && e.integer("chunk_size") == 0;
    if (only_mask) bias = e.input(3);
  }
  if (same_rank && flat) {
    call.attributes["q_num_heads"] = heads;
    call.attributes["kv_num_heads"] = key_heads;
  } else {
    q = split_heads(e, q, heads);
    k = split_heads(e, k, key_heads);
    v = split_heads(e, v, key_heads);
    call.output = {e.dim(q, 0), e.dim(q, 1), e.dim(q, 2), e.dim(v, 3)};
  }
  if (bias && e.dtype(bias) == DType::kF32 && e.integer("zero_masked_rows") == 0) {
    bias = biases.with_floor(e, bias);
    call.attributes["weft.mask_has_floor"] = std::int64_t{1};
  }
  if (bias) bias = spread(e, bias, split_heads(e, q, heads), split_heads(e, k, key_heads));
  call.inputs = {q, k, v, bias.id()};
  Expr y = e.wrap(add_call(graph, id, std::move(call), node, e.dtype(q)));
  if (flat && !same_rank) y = merge_heads(e, y);
  replace(graph, id, y);
  return true;
}

bool spell_multi_head_attention(Graph& graph, NodeId id, BiasCache& biases) {
  const Node node = copy_of(graph.node(id));
  Expansion e(graph, get_op("Attention"), node, node.inputs, id);
  if (e.has(kSinks) || e.number("softcap") != 0 || e.integer("zero_masked_rows") != 0) return false;
  if (e.dtype(e.input(0)) != DType::kF32) return false;
  const Expr q = e.input(0), k = e.input(1), v = e.input(2);
  const Expr split_q = split_heads(e, q, e.integer("q_num_heads"));
  const Expr split_k = split_heads(e, k, e.integer("kv_num_heads")),
             split_v = split_heads(e, v, e.integer("kv_num_heads"));
  const Dim heads = e.dim(split_q, 1);
  if (!heads.is_constant()) return false;
  // Grouped heads would have to be repeated for it; the standard operator's kernel reads them as they are.
  if (heads_per_key(e, q, k) != 1) return false;
  // Its keys and values of four axes have one size.
  if (!(e.dim(split_k, 3) == e.dim(split_v, 3))) return false;
  const bool flat = e.rank(q) == 3;
  Expr bias = biases.bias_of(e, node, split_q, split_k);
  if (bias) {  // [1 or B, 1 or H, S, T]
    const std::int64_t rank = e.rank(bias);
    std::vector<std::int64_t> added(static_cast<std::size_t>(4 - rank));
    std::iota(added.begin(), added.end(), 0);
    if (!added.empty()) bias = e.unsqueeze(bias, added);
    bias = spread(e, bias, split_q, split_k);
  }
  Call call{"com.microsoft::MultiHeadAttention", {}, scale_of(e), e.shape(node.outputs[0])};
  call.attributes["num_heads"] = heads.value();
  const Expr query = flat ? q : merge_heads(e, q);
  const bool as_projected = e.rank(k) == 3 && e.rank(v) == 3;
  const Expr key = as_projected ? k : split_k;
  const Expr value = as_projected ? v : split_v;
  call.inputs = {query, key, value, {}, {}, bias.id()};
  call.output = {e.dim(query, 0), e.dim(query, 1), heads * e.dim(split_v, 3)};
  Expr y = e.wrap(add_call(graph, id, std::move(call), node, e.dtype(q)));
  if (!flat) y = e.transpose(e.reshape(y, std::vector<std::int64_t>{0, 0, heads.value(), -1}), {0, 2, 1, 3});
  replace(graph, id, y);
  return true;
}

}  // namespace weft::onnx
