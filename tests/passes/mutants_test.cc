// The metamorphic test: exports rewritten at random, without changing what they compute, fuse as before and give the
// numbers of PyTorch.
//
// WEFT_MUTANTS: how many (a small sample by default); WEFT_MUTANTS_SEED; WEFT_MUTANTS_CORPUS: a folder of exports in
// ONNX's test format other than the fixtures; WEFT_MUTANTS_VERBOSE: what each mutant lost.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "importers/onnx/onnx.h"
#include "passes/pipeline.h"
#include "tests/passes/mutations.h"

namespace weft {
namespace {

std::string setting(const char* name, std::string fallback) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : std::move(fallback);
}

struct Export {
  std::string name;
  Graph graph;
  std::vector<Tensor> inputs, outputs;
  FusionCounts counts;
  int masks = 0;  // Attention operators with a mask tensor
};

int count_masks(const Graph& graph) {
  int masks = 0;
  for (const NodeId id : graph.nodes()) {
    const Node& node = graph.node(id);
    masks += node.op == "Attention" && node.inputs.size() > 3 && node.inputs[3].valid();
  }
  return masks;
}

std::vector<Tensor> read_tensors(const std::filesystem::path& folder, std::string_view kind) {
  std::vector<Tensor> tensors;
  for (int i = 0;; ++i) {
    std::ifstream file(folder / fmt::format("{}_{}.pb", kind, i), std::ios::binary);
    if (!file) return tensors;
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    tensors.push_back(read_tensor_proto(std::as_bytes(std::span(bytes))).tensor);
  }
}

std::vector<Export> read_exports() {
  std::vector<Export> exports;
  const std::filesystem::path corpus = setting("WEFT_MUTANTS_CORPUS", WEFT_SOURCE_DIR "/tests/exports/fixtures");
  std::vector<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(corpus)) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  for (const auto& folder : folders) {
    if (!std::filesystem::exists(folder / "model.onnx")) continue;
    Export one{folder.filename().string(),
               import_onnx(folder / "model.onnx"),
               read_tensors(folder / "test_data_set_0", "input"),
               read_tensors(folder / "test_data_set_0", "output"),
               {},
               0};
    Graph whole = one.graph.clone();
    optimize(whole);
    one.counts = count_fusions(whole);
    one.masks = count_masks(whole);
    if (one.counts.attention_fused > 0 && !one.outputs.empty()) exports.push_back(std::move(one));
  }
  return exports;
}

// Relative to the largest magnitude of each output.
double largest_difference(const std::vector<Tensor>& expected, const std::vector<Tensor>& actual) {
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].dtype() != DType::kF32) continue;
    if (expected[i].shape() != actual[i].shape()) return INFINITY;
    double largest = 1e-30, difference = 0;
    for (std::size_t k = 0; k < expected[i].data<float>().size(); ++k) {
      const double p = expected[i].data<float>()[k], q = actual[i].data<float>()[k];
      if (std::isnan(p) && std::isnan(q)) continue;
      largest = std::max(largest, std::abs(p));
      difference = std::max(difference, std::isnan(p - q) ? INFINITY : std::abs(p - q));
    }
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

TEST(Mutants, FuseAsBefore) {
  const int count = std::stoi(setting("WEFT_MUTANTS", "60"));
  const int seed = std::stoi(setting("WEFT_MUTANTS_SEED", "1"));
  const bool verbose = !setting("WEFT_MUTANTS_VERBOSE", "").empty();
  const std::vector<Export> exports = read_exports();
  ASSERT_FALSE(exports.empty());
  int sites = 0, kept = 0, unequal = 0;
  for (int i = 0; i < count; ++i) {
    const Export& original = exports[static_cast<std::size_t>(i) % exports.size()];
    Graph mutant = original.graph.clone();
    Mutator mutator(mutant, static_cast<std::uint32_t>(seed + i));
    mutator.run(1 + i % 12);
    verify(mutant);
    optimize(mutant);
    const FusionCounts now = count_fusions(mutant), &then = original.counts;
    const int masks = count_masks(mutant);
    sites += then.attention_fused + then.norms_fused + then.qkv_fused + then.attention_fused - original.masks;
    const int same = std::min(now.attention_fused, then.attention_fused) + std::min(now.norms_fused, then.norms_fused) +
                     std::min(now.qkv_fused, then.qkv_fused) +
                     std::min(now.attention_fused - masks, then.attention_fused - original.masks);
    kept += same;
    const double difference = largest_difference(original.outputs, evaluate_graph(mutant, original.inputs));
    unequal += !(difference <= 1e-4);
    EXPECT_LE(difference, 1e-4) << original.name << ", mutant " << i << ": " << mutator.made();
    const int lost =
        then.attention_fused + then.norms_fused + then.qkv_fused + then.attention_fused - original.masks - same;
    if (verbose && lost > 0) {
      std::cout << fmt::format("{} mutant {}: attention {}/{} norms {}/{} qkv {}/{} masks {}/{}: {}\n", original.name,
                               i, now.attention_fused, then.attention_fused, now.norms_fused, then.norms_fused,
                               now.qkv_fused, then.qkv_fused, masks, original.masks, mutator.made());
    }
  }
  std::cout << fmt::format("{} mutants of {} exports: {} of {} sites fused as before, {} unequal\n", count,
                           exports.size(), kept, sites, unequal);
  EXPECT_GE(kept, 0.99 * sites);
}

}  // namespace
}  // namespace weft
