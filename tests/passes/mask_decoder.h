// One Attention with a mask, and what absorb-masks leaves of it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/builder.h"
#include "passes/pipeline.h"

namespace weft {

constexpr double kLowest = -3.4028234663852886e38;
inline const Dim B = Dim::symbol("B"), S = Dim::symbol("S"), P = Dim::symbol("P");

// softmax(q k^T + mask) v with a past of P keys; attention_mask [B, P + S] is there for masks to use.
struct Decoder {
  Graph graph;
  Builder b{graph};
  Dim keys = P + S;
  Expr q = input("q", DType::kF32, {B, Dim(2), S, Dim(4)}), k = input("k", DType::kF32, {B, Dim(2), keys, Dim(4)}),
       v = input("v", DType::kF32, {B, Dim(2), keys, Dim(3)});
  Expr attention_mask = input("attention_mask", DType::kI64, {B, keys});

  Expr input(std::string_view name, DType dtype, Shape shape) {
    return b.wrap(graph.add_input(std::string(name), {dtype, std::move(shape)}));
  }
  Expr count(Expr from, Expr to) {
    return b.make("Range", {from.id(), to.id(), b.constant(Tensor::scalar<std::int64_t>(1)).id()});
  }
  Expr length(Expr x) { return b.squeeze(b.extent_of(x, 2), {0}); }
  Expr key_positions() { return count(b.constant(Tensor::scalar<std::int64_t>(0)), length(k)); }   // [T]
  Expr query_positions() { return b.unsqueeze(count(length(k) - length(q), length(k)), {1}); }     // [S, 1]
  Expr causal() { return b.make("LessOrEqual", {key_positions().id(), query_positions().id()}); }  // [S, T]
  Expr after(std::int64_t window) {                                                                // [S, T]
    return b.make("Greater", {key_positions().id(), (query_positions() - static_cast<double>(window)).id()});
  }
  Expr kept() { return b.unsqueeze(b.cast(attention_mask, DType::kBool), {1, 2}); }  // [B, 1, 1, T]
  Expr both(Expr x, Expr y) { return b.make("And", {x.id(), y.id()}); }
  Expr fill(Expr allowed, double low = kLowest) {
    return b.where(allowed, b.scalar(DType::kF32, 0.0), b.scalar(DType::kF32, low));
  }
  void attend(Expr mask) { graph.add_output("y", b.make("Attention", {q, k, v, mask}, {{"scale", 0.5}})); }
};

inline std::vector<Tensor> inputs_of(const Graph& graph, const Bindings& sizes) {
  std::mt19937 random(7);
  std::vector<Tensor> inputs;
  for (const ValueId id : graph.inputs()) {
    const TensorType& type = graph.value(id).type;
    Tensor tensor = Tensor::uninitialized(type.dtype, *evaluate(*type.shape, sizes));
    if (type.dtype == DType::kF32) {
      for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(random()) / 2147483648.0f - 1;
    } else {
      for (std::int64_t& x : tensor.mutable_data<std::int64_t>()) x = random() % 4 != 0;
    }
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

// What is left of the mask and the attributes, after the numbers have been compared on several sizes.
struct Absorbed {
  Attributes attributes;
  bool has_mask = false, has_padding = false, has_slopes = false;
  std::string reason;

  std::int64_t integer(std::string_view name) const {
    const auto found = attributes.find(name);
    return found == attributes.end() ? -1 : std::get<std::int64_t>(found->second);
  }
};

inline Absorbed absorb(const Graph& before, const std::vector<Bindings>& sizes = {{{"B", 2}, {"S", 3}, {"P", 2}},
                                                                                  {{"B", 3}, {"S", 1}, {"P", 9}},
                                                                                  {{"B", 1}, {"S", 5}, {"P", 0}}}) {
  Graph after = before.clone();
  PassOptions options;
  options.passes = {"absorb-masks"};
  options.verify_rewrites = true;
  const PassReport report = optimize(after, options);
  for (const Bindings& size : sizes) {
    const std::vector<Tensor> inputs = inputs_of(before, size);
    const Tensor x = evaluate_graph(before, inputs)[0], y = evaluate_graph(after, inputs)[0];
    for (std::size_t i = 0; i < x.data<float>().size(); ++i) {
      const float p = x.data<float>()[i], q = y.data<float>()[i];
      EXPECT_TRUE((std::isnan(p) && std::isnan(q)) || std::abs(p - q) <= 1e-5f) << p << " " << q << " at " << i;
    }
  }
  Absorbed result;
  for (const RuleReport& rule : report.rules) {
    if (!rule.near_misses.empty()) result.reason = rule.near_misses.front().reason;
  }
  for (const NodeId id : after.nodes()) {
    const Node& node = after.node(id);
    if (node.op != "Attention") continue;
    result.attributes = node.attributes;
    result.has_mask = node.inputs.size() > 3 && node.inputs[3].valid();
    result.has_padding = node.inputs.size() > 4 && node.inputs[4].valid();
    result.has_slopes = node.inputs.size() > 5 && node.inputs[5].valid();
  }
  return result;
}

}  // namespace weft
