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
                                           Kind{"past-buffer-elements", 4}, Kind{"genai", 2}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace weft::runtime
