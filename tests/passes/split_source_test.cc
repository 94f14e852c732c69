#include "passes/split_source.h"

#include <gtest/gtest.h>

#include "graph/text.h"
#include "ops/op_def.h"
#include "tests/tensors.h"

namespace weft {
namespace {

using Values = std::map<std::string, Tensor>;

std::vector<Tensor> run(const Graph& graph, const Values& values) {
  std::vector<Tensor> inputs;
  for (const ValueId id : graph.inputs()) inputs.push_back(values.at(graph.value(id).name));
  return evaluate_graph(graph, inputs);
}

// A layer of a decoder: attention over what a Linear makes of the states, whose sum with a row of x is attended.
Graph decoder(std::string_view keys) {
  Graph graph = parse_graph(fmt::format(
      "graph \"g\"(%x: f32[B, S, 4], %states: f32[B, T, 4]) -> (\"y\" = %y) {{\n"
      "  const %w: f32[4, 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0, 8.0, 8.0, "
      "1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0, 2.0, 4.0, 6.0, 8.0, 1.0, 3.0, 5.0, 7.0]\n"
      "  const %widths: i64[2] = [4, 4]\n"
      "{}"
      "  %y: f32[B, S, 4] = Attention(%x, %k, %v) {{kv_num_heads = 2, q_num_heads = 2, scale = 0.01}}\n"
      "}}\n",
      keys));
  infer_graph(graph);
  return graph;
}

constexpr std::string_view kOfStates =
    "  %kv: f32[B, T, 8] = Linear(%states, %w)\n"
    "  %k: f32[B, T, 4], %v: f32[B, T, 4] = Split(%kv, %widths) {axis = -1}\n";

TEST(SplitSource, BothPartsGiveWhatTheWholeGives) {
  const Graph whole = decoder(kOfStates);
  Graph step = whole.clone();
  const auto source = split_source(step, {"states", "no such input"}, "source.");
  ASSERT_TRUE(source);
  verify(*source);
  verify(step);
  ASSERT_EQ(source->outputs().size(), 2u);
  ASSERT_EQ(step.inputs().size(), 3u);  // x, keys, values
  EXPECT_EQ(step.node_count(), 1u);
  for (const Output& output : source->outputs())
    EXPECT_EQ(to_string(source->value(output.value).type), "f32[B, 2, T, 2]");
  Values values = {{"x", random_floats({2, 3, 4}, 1)}, {"states", random_floats({2, 5, 4}, 2)}};
  const std::vector<Tensor> handed = run(*source, values);
  for (std::size_t i = 0; i < handed.size(); ++i) values[source->outputs()[i].name] = handed[i];
  const Tensor expected = run(whole, values)[0], actual = run(step, values)[0];
  ASSERT_EQ(expected.shape(), actual.shape());
  for (std::size_t i = 0; i < expected.data<float>().size(); ++i)
    EXPECT_EQ(expected.data<float>()[i], actual.data<float>()[i]);
}

TEST(SplitSource, WhatDependsOnTheStepStays) {
  Graph graph = decoder(
      "  const %axes: i64[1] = [1]\n"
      "  %mean: f32[B, 1, 4] = ReduceMean(%x, %axes) {keepdims = 1}\n"
      "  %mixed: f32[B, T, 4] = Add(%states, %mean)\n"
      "  %kv: f32[B, T, 8] = Linear(%mixed, %w)\n"
      "  %k: f32[B, T, 4], %v: f32[B, T, 4] = Split(%kv, %widths) {axis = -1}\n");
  const std::string before = print(graph, {});
  EXPECT_FALSE(split_source(graph, {"states"}, "source."));
  EXPECT_EQ(print(graph, {}), before);
}

TEST(SplitSource, WhatCostsNothingStays) {
  Graph graph = decoder(
      "  %k: f32[B, T, 4] = Neg(%states)\n"
      "  %v: f32[B, T, 4] = Relu(%states)\n");
  EXPECT_FALSE(split_source(graph, {"states"}, "source."));
}

// Rows that do not come first cannot be picked by row: what is before them is handed over.
TEST(SplitSource, RowsComeFirst) {
  Graph graph = decoder(
      "  %kv: f32[B, T, 8] = Linear(%states, %w)\n"
      "  %turned: f32[T, B, 8] = Transpose(%kv) {perm = [1, 0, 2]}\n"
      "  %kt: f32[T, B, 4], %vt: f32[T, B, 4] = Split(%turned, %widths) {axis = -1}\n"
      "  %ones: f32[T, B, 4] = Relu(%kt)\n"
      "  %back: f32[B, T, 4] = Transpose(%ones) {perm = [1, 0, 2]}\n"
      "  %more: f32[B, S, 4] = Attention(%x, %back, %back) {kv_num_heads = 2, q_num_heads = 2, scale = 0.01}\n"
      "  %k: f32[B, T, 4] = Transpose(%vt) {perm = [1, 0, 2]}\n"
      "  %v: f32[B, T, 4] = Neg(%k)\n");
  const auto source = split_source(graph, {"states"}, "source.");
  ASSERT_TRUE(source);
  for (const Output& output : source->outputs())
    EXPECT_TRUE((*source->value(output.value).type.shape)[0] == Dim::symbol("B"));
}

}  // namespace
}  // namespace weft
