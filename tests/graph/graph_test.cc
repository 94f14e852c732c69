#include "graph/graph.h"

#include <gtest/gtest.h>

#include <random>

#include "graph/text.h"

namespace weft {
namespace {

constexpr const char* kText = R"(graph "main"(%x: f32[B, S], %"odd name": i64[] = [3]) -> ("out" = %y, "again" = %y) {
  meta "producer" = "a \"test\""
  state "k": %past: f32[B, 4, P, 8] -> %present
  const %w: f32[2] = [1.5, -0.0]
  const %big: f32[17] = base64 "AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8="
  const %s: string[2] = ["a", "b\x0a"]
  %h: f32[B, S], _ = Some(%x, _, %w) {a = 1, b = 1.0, c = [1, 2], d = [1.0, inf], e = ints [], f = "t", g = type f16, h = tensor i64[2] = [1, 2], i = strings []}  # "/n/1" "/n/2" @ "m.py:3 in forward"
  %present: f32[B, 4, P + S, 8] = Other(%past, %big)
  %y: f32[*] = If(%h, %w) "then_branch" graph "t"(%c: f32[2]) -> ("r" = %c) {
  } "else_branch" graph "e"(%c: f32[2]) -> ("r" = %d) {
    %d: f32[2] = Neg(%c)
  }
}
)";

TEST(Text, PrintsWhatItParsed) {
  const Graph graph = parse_graph(kText);
  EXPECT_EQ(print(graph), kText);
  std::string difference;
  EXPECT_TRUE(equal(graph, parse_graph(print(graph)), &difference)) << difference;
}

TEST(Text, NanKeepsItsPayload) {
  Graph graph;
  Tensor nan = Tensor::of<std::uint32_t>({1}, {0x7fc12345u});
  const auto owner = std::make_shared<Tensor>(nan);
  const ValueId c = graph.add_constant(Tensor::share(DType::kF32, {1}, {owner, owner->bytes().data()}, 4), "n");
  graph.add_output("o", c);
  EXPECT_TRUE(equal(graph, parse_graph(print(graph))));
}

TEST(Text, ElidedConstantsAreRefused) {
  TextOptions options;
  options.elide_above = 4;
  EXPECT_THROW(parse_graph(print(parse_graph(kText), options)), Error);
}

TEST(Text, ErrorsSayWhere) {
  try {
    parse_graph("graph \"g\"(%x: f33[2]) -> () {\n}\n");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(error.message().find("1:"), std::string::npos);
  }
}

// Damaged text is an Error or another graph, never a crash.
TEST(Text, SurvivesMutations) {
  const std::string text = kText;
  std::mt19937 random(7);
  for (int i = 0; i < 4000; ++i) {
    std::string damaged = text;
    for (std::uint32_t k = random() % 3; k-- > 0;)
      damaged[random() % damaged.size()] = static_cast<char>(random() % 96 + 32);
    if (random() % 2) damaged.resize(random() % damaged.size());
    try {
      parse_graph(damaged);
    } catch (const Error&) {
    }
  }
}

TEST(Graph, TracksUsesAndOrder) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{Dim(2)}});
  const OutputSpec output{"", {DType::kF32, Shape{Dim(2)}}};
  const NodeId first = graph.add_node({"A", {x}, {}, {}, {}}, std::span(&output, 1));
  const NodeId last = graph.add_node({"C", {graph.node(first).outputs[0]}, {}, {}, {}}, std::span(&output, 1));
  graph.add_output("y", graph.node(last).outputs[0]);
  const NodeId middle = graph.add_node({"B", {graph.node(first).outputs[0]}, {}, {}, {}}, std::span(&output, 1), last);
  EXPECT_EQ(graph.nodes(), (std::vector<NodeId>{first, middle, last}));
  EXPECT_TRUE(graph.precedes(middle, last));
  EXPECT_EQ(graph.use_count(graph.node(first).outputs[0]), 2u);
  EXPECT_THROW(graph.erase_node(first), Error);
  graph.replace_uses(graph.node(last).outputs[0], graph.node(middle).outputs[0]);
  graph.erase_node(last);
  EXPECT_EQ(graph.outputs()[0].value, graph.node(middle).outputs[0]);
  EXPECT_NO_THROW(verify(graph));
}

TEST(Graph, ManyInsertionsAtOnePlaceKeepTheOrder) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{}});
  const OutputSpec output;
  NodeId anchor = graph.add_node({"Last", {x}, {}, {}, {}}, std::span(&output, 1));
  std::vector<NodeId> expected;
  for (int i = 0; i < 200; ++i)
    expected.push_back(graph.add_node({"N", {x}, {}, {}, {}}, std::span(&output, 1), anchor));
  expected.push_back(anchor);
  EXPECT_EQ(graph.nodes(), expected);
  for (std::size_t i = 1; i < expected.size(); ++i) EXPECT_TRUE(graph.precedes(expected[i - 1], expected[i]));
}

TEST(Verify, RefusesAUseBeforeTheDefinition) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{}});
  const OutputSpec output;
  const NodeId a = graph.add_node({"A", {x}, {}, {}, {}}, std::span(&output, 1));
  const NodeId b = graph.add_node({"B", {graph.node(a).outputs[0]}, {}, {}, {}}, std::span(&output, 1));
  graph.move_before(b, a);
  EXPECT_THROW(verify(graph), Error);
}

TEST(Graph, CloneIsEqualAndIndependent) {
  const Graph graph = parse_graph(kText);
  Graph copy = graph.clone();
  EXPECT_TRUE(equal(graph, copy));
  copy.rename_value(*copy.find_value("h"), "other");
  EXPECT_FALSE(equal(graph, copy));
}

}  // namespace
}  // namespace weft
