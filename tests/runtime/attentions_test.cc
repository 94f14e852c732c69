// Attention weights: which models have them.
#include "runtime/generate/attentions.h"

#include <gtest/gtest.h>

#include "ops/builder.h"
#include "tests/tensors.h"

namespace weft::runtime {
namespace {

constexpr std::int64_t kVocabulary = 11, kWidth = 8, kHeads = 2;
const Dim B = Dim::symbol("B"), S = Dim::symbol("S");

// A decoder of as many layers; true: attention is written out, false: it is one operator.
GenerationModel decoder(const std::vector<bool>& written_out) {
  Graph graph;
  const ValueId ids = graph.add_input("input_ids", {DType::kI64, Shape{B, S}});
  Builder b(graph);
  Expr x = b.make("Gather", {b.constant(random_floats({kVocabulary, kWidth}, 1)).id(), ids});
  for (const bool softmax : written_out) {
    const Expr heads =
        b.transpose(b.reshape(x, std::vector<std::int64_t>{0, 0, kHeads, kWidth / kHeads}), {0, 2, 1, 3});
    Expr y = heads;
    if (softmax) {
      const Expr scores = b.make("MatMul", {heads.id(), b.transpose(heads, {0, 1, 3, 2}).id()});
      y = b.make("MatMul", {b.make("Softmax", {scores.id()}, {{"axis", std::int64_t{-1}}}).id(), heads.id()});
    } else {
      y = b.make("Attention", {heads.id(), heads.id(), heads.id()});
    }
    x = b.reshape(b.transpose(y, {0, 2, 1, 3}), std::vector<std::int64_t>{0, 0, kWidth});
  }
  graph.add_output("logits", b.make("MatMul", {x.id(), b.constant(random_floats({kWidth, kVocabulary}, 2)).id()}));
  expose_attentions(graph);
  CompileOptions options;
  options.passes = canonical_passes();
  GenerationModel model;
  model.decoder = Model::compile(std::move(graph), options);
  return model;
}

TEST(AttentionWeights, ComeLayerByLayer) {
  AttentionReader reader(decoder({true, true}), std::make_shared<ThreadPool>(1));
  const std::vector<std::int64_t> tokens = {1, 4, 2};
  const Attentions read = reader.read({{1, 4}}, tokens);
  ASSERT_EQ(read.size(), 1u);
  ASSERT_EQ(read.at("attentions").size(), 2u);
  EXPECT_EQ(read.at("attentions")[1].shape(), (Extents{kHeads, 3, 3}));
}

TEST(AttentionWeights, OfSomeLayersAreAnError) {
  const std::pair<std::vector<bool>, const char*> cases[] = {{{false, false}, "2 of its 2"},
                                                             {{true, false, true}, "1 of its 3"}};
  for (const auto& [layers, text] : cases) {
    try {
      AttentionReader reader(decoder(layers), std::make_shared<ThreadPool>(1));
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
    }
  }
}

}  // namespace
}  // namespace weft::runtime
