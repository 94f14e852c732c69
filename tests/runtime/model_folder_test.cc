// What loading makes of folders of decoders.
#include "runtime/generate/model_folder.h"

#include <gtest/gtest.h>

namespace weft::runtime {
namespace {

class CacheLayouts : public ::testing::TestWithParam<const char*> {};

// Keys and values of both layers, whatever the file's layout; none is handed in and out.
TEST_P(CacheLayouts, EveryCacheIsAState) {
  const auto folder = std::filesystem::path(WEFT_SOURCE_DIR) / "tests/generate/folders/kinds" / GetParam();
  const GenerationModel model = GenerationModel::load(folder);
  const Graph& graph = model.decoder_with_past->graph();
  EXPECT_EQ(graph.states().size(), 4u);
  EXPECT_EQ(graph.outputs().size(), 1u);
  for (const ValueId id : graph.inputs()) EXPECT_FALSE(is_past(graph.value(id).name)) << graph.value(id).name;
}

INSTANTIATE_TEST_SUITE_P(All, CacheLayouts,
                         ::testing::Values("past", "past-stacked", "past-multi-query", "past-time-first",
                                           "past-time-outermost", "past-heads-in-rows"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace weft::runtime
