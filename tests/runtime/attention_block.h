// A layer's attention over caches that are states.
#pragma once

#include "ops/builder.h"
#include "runtime/cache.h"
#include "runtime/session.h"
#include "tests/tensors.h"

namespace weft::runtime {

inline const Dim B = Dim::symbol("B"), S = Dim::symbol("S"), P = Dim::symbol("P");

// x: [B, S, 8]; query heads over two key heads of 8. rounded: keys and values have been of this type.
inline Graph attention_block(std::int64_t window, std::int64_t query_heads = 4, DType rounded = DType::kF32) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, S, Dim(8)}});
  const ValueId past_k = graph.add_input("past.key", {DType::kF32, Shape{B, Dim(2), P, Dim(8)}});
  const ValueId past_v = graph.add_input("past.value", {DType::kF32, Shape{B, Dim(2), P, Dim(8)}});
  Builder b(graph);
  const auto project = [&](std::uint32_t seed, std::int64_t heads) {
    const Expr y = b.make("MatMul", {x, b.constant(random_floats({8, heads * 8}, seed)).id()});
    return b.transpose(b.reshape(y, std::vector<std::int64_t>{0, 0, heads, 8}), {0, 2, 1, 3});
  };
  const auto kept = [&](std::uint32_t seed) {
    const Expr y = project(seed, 2);
    return rounded == DType::kF32 ? y : b.cast(b.cast(y, rounded), DType::kF32);
  };
  const ValueId ks[] = {past_k, kept(1).id()};
  const ValueId vs[] = {past_v, kept(2).id()};
  const Expr k = b.concat(ks, 2), v = b.concat(vs, 2);
  Attributes attributes = {{"is_causal", std::int64_t{1}}, {"query_position", std::string("end")}};
  if (window >= 0) attributes["left_window_size"] = window;
  graph.add_output("y", b.make("Attention", {project(3, query_heads).id(), k.id(), v.id()}, std::move(attributes)));
  graph.add_output("present.key", k);
  graph.add_output("present.value", v);
  return graph;
}

inline std::shared_ptr<const Model> with_states(Graph graph, DType cache_dtype = DType::kF32) {
  CompileOptions options;
  options.states = {{"past.key", "present.key"}, {"past.value", "present.value"}};
  options.passes = {};
  options.cache_dtype = cache_dtype;
  return Model::compile(std::move(graph), options);
}
inline std::shared_ptr<const Model> with_states(std::int64_t window) { return with_states(attention_block(window)); }

inline constexpr std::uint64_t kBlockOfHead =
    CacheState::kBlockTokens * 8 * sizeof(float);  // of a head of attention_block()

}  // namespace weft::runtime
