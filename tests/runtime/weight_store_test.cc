// Models that share weights by contents.
#include "runtime/weight_store.h"

#include <gtest/gtest.h>

#include "graph/text.h"
#include "ops/op_def.h"
#include "runtime/session.h"

namespace weft::runtime {
namespace {

// x W, or gelu(x W) in another graph with other names: the same matrix.
Graph product(std::string_view name, const Tensor& weight, bool with_tanh) {
  Graph graph{std::string(name)};
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{Dim::symbol("B"), Dim(64)}});
  const ValueId w = graph.add_constant(weight, std::string(name) + "_weight");
  OutputSpec output{"y", {DType::kF32, std::nullopt}};
  const NodeId made = graph.add_node({"MatMul", {x, w}, {}, {}, {}}, {&output, 1});
  ValueId y = graph.node(made).outputs[0];
  infer_node(graph, made);
  if (with_tanh) {
    output.name = "z";
    const NodeId bent = graph.add_node({"Tanh", {y}, {}, {}, {}}, {&output, 1});
    infer_node(graph, bent);
    y = graph.node(bent).outputs[0];
  }
  graph.add_output("out", y);
  return graph;
}

Tensor matrix(float seed) {
  Tensor tensor = Tensor::uninitialized(DType::kF32, {64, 96});
  float x = seed;
  for (float& value : tensor.mutable_data<float>())
    value = (x = x * 1.7f - static_cast<float>(static_cast<int>(x * 1.7f))) - 0.5f;
  return tensor;
}

Tensor run(const std::shared_ptr<const Model>& model) {
  Tensor x = Tensor::uninitialized(DType::kF32, {2, 64});
  for (std::size_t i = 0; i < 128; ++i) x.mutable_data<float>()[i] = static_cast<float>(i % 7) - 3;
  return Session(model).run({{"x", x}})[0];
}

TEST(WeightStore, PacksEqualWeightsOnce) {
  CompileOptions shared;
  shared.weights = std::make_shared<WeightStore>();
  const auto first = Model::compile(product("a", matrix(0.3f), false), shared);
  EXPECT_EQ(shared.weights->shared_bytes(), 0u);
  const auto second = Model::compile(product("b", matrix(0.3f), true), shared);
  EXPECT_GE(shared.weights->shared_bytes(), 64u * 96 * 4);
  const std::size_t before = shared.weights->shared_bytes();
  const auto other = Model::compile(product("c", matrix(0.4f), false), shared);
  EXPECT_EQ(shared.weights->shared_bytes(), before);
  shared.weights.reset();  // models keep what they use
  EXPECT_TRUE(run(first).identical(run(Model::compile(product("a", matrix(0.3f), false)))));
  EXPECT_TRUE(run(second).identical(run(Model::compile(product("b", matrix(0.3f), true)))));
  EXPECT_FALSE(run(first).identical(run(other)));
}

TEST(WeightStore, KeysSeeEveryByte) {
  const auto key = [](const Tensor& tensor) {
    ContentKey result("x");
    result.add(tensor);
    return result;
  };
  const Tensor base = matrix(0.3f);
  for (const std::size_t at : {0u, 1u, 4097u, 6143u}) {
    Tensor changed = matrix(0.3f);
    changed.mutable_data<float>()[at] += 1e-6f;
    EXPECT_NE(key(base), key(changed)) << at;
  }
  EXPECT_EQ(key(base), key(matrix(0.3f)));
  EXPECT_NE(key(base),
            key(Tensor::of<float>({96, 64}, std::vector<float>(base.data<float>().begin(), base.data<float>().end()))));
  EXPECT_NE(ContentKey("a"), ContentKey("b"));
}

}  // namespace
}  // namespace weft::runtime
