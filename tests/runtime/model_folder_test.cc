// What loading makes of folders of decoders.
#include "runtime/generate/model_folder.h"

#include <gtest/gtest.h>

namespace weft::runtime {
namespace {

struct Kind {
  const char* name;
  std::size_t caches;
};

class CacheLayouts : public ::testing::TestWithParam<Kind> {};

// Keys and values of all layers, whatever the file's layout; none is handed in and out.
TEST_P(CacheLayouts, EveryCacheIsAState) {
  const auto folder = std::filesystem::path(WEFT_SOURCE_DIR) / "tests/generate/folders/kinds" / GetParam().name;
  const GenerationModel model = GenerationModel::load(folder);
  const Graph& graph = model.decoder_with_past->graph();
  EXPECT_EQ(graph.states().size(), GetParam().caches);
  EXPECT_EQ(graph.outputs().size(), 1u);
  for (const ValueId id : graph.inputs()) EXPECT_FALSE(is_past(graph.value(id).name)) << graph.value(id).name;
}

INSTANTIATE_TEST_SUITE_P(All, CacheLayouts,
                         ::testing::Values(Kind{"past", 4}, Kind{"past-stacked", 4}, Kind{"past-multi-query", 4},
                                           Kind{"past-time-first", 4}, Kind{"past-time-outermost", 4},
                                           Kind{"past-heads-in-rows", 4}, Kind{"past-buffer", 4},
                                           Kind{"past-buffer-elements", 4}, Kind{"genai", 2}, Kind{"half", 4}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::erase(name, '-');
                           return name;
                         });

// Keys and values of the encoder's states, and an encoder in the decoder's own file, are computed once a source.
TEST(DecoderSource, IsNoPartOfTheSteps) {
  for (const char* kind : {"one-file", "encoder-decoder-names-of-its-own", "features", "merged"}) {
    const auto folder = std::filesystem::path(WEFT_SOURCE_DIR) / "tests/generate/folders/kinds" / kind;
    const GenerationModel model = GenerationModel::load(folder);
    ASSERT_TRUE(model.decoder_source) << kind;
    for (const std::string_view name : {"input_ids", "encoder_hidden_states"}) {
      const bool of_tokens = name == "input_ids" && std::string_view(kind) != "one-file";
      EXPECT_EQ(find_input(model.decoder->graph(), name) != nullptr, of_tokens) << kind << " " << name;
    }
    EXPECT_EQ(model.decoder_source->graph().outputs().size(), 4u) << kind;  // keys and values of two layers
    // Steps that have caches keep them as states.
    if (model.decoder_with_past) EXPECT_EQ(model.decoder_with_past->graph().states().size(), 8u) << kind;
  }
}

}  // namespace
}  // namespace weft::runtime
