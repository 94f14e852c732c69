// Text files of golden/: a graph, `---- passes: a,b`, and the graph that comes out; or `---- refuse RULE: reason`,
// where nothing may change and the rule's near miss has to give this reason. Both graphs are run on random inputs and
// compared.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "graph/text.h"
#include "importers/onnx/onnx.h"
#include "importers/onnx/schema.h"
#include "ops/op_def.h"
#include "passes/pipeline.h"

namespace weft {
namespace {

struct Golden {
  std::string name, before, passes, after, refused_rule, reason;
};

std::vector<Golden> read_golden() {
  std::vector<Golden> cases;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(WEFT_SOURCE_DIR "/tests/passes/golden"))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& path : files) {
    std::ifstream file(path);
    Golden current;
    int part = 0;
    const auto finish = [&] {
      if (part == 2) cases.push_back(current);
      current = {};
      part = 0;
    };
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("==== ")) {
        finish();
        current.name = path.stem().string() + ": " + line.substr(5);
        part = 1;
      } else if (line.starts_with("---- passes: ")) {
        current.passes = line.substr(13);
        part = 2;
      } else if (line.starts_with("---- refuse ")) {
        const std::size_t colon = line.find(": ");
        current.refused_rule = line.substr(12, colon - 12);
        current.reason = line.substr(colon + 2);
      } else if (part == 1) {
        current.before += line + "\n";
      } else if (part == 2) {
        current.after += line + "\n";
      }
    }
    finish();
  }
  return cases;
}

std::vector<Tensor> random_inputs(const Graph& graph) {
  const Bindings sizes = {{"B", 2}, {"S", 3}, {"T", 4}, {"P", 2}};
  std::mt19937 random(1);
  std::vector<Tensor> inputs;
  for (const ValueId id : graph.inputs()) {
    const TensorType& type = graph.value(id).type;
    Tensor tensor = Tensor::uninitialized(type.dtype, evaluate(*type.shape, sizes).value());
    if (type.dtype == DType::kF32) {
      for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(random()) / 2147483648.0f - 1;
    } else if (type.dtype == DType::kI64) {  // a padding mask
      for (std::int64_t& x : tensor.mutable_data<std::int64_t>()) x = random() % 2;
    } else {
      for (bool& x : tensor.mutable_data<bool>()) x = random() % 3 != 0;
    }
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

void expect_same_numbers(const Graph& a, const Graph& b) {
  const std::vector<Tensor> inputs = random_inputs(a);
  const std::vector<Tensor> x = evaluate_graph(a, inputs), y = evaluate_graph(b, inputs);
  ASSERT_EQ(x.size(), y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i].shape(), y[i].shape());
    for (std::size_t k = 0; k < x[i].data<float>().size(); ++k) {
      const float p = x[i].data<float>()[k], q = y[i].data<float>()[k];
      ASSERT_TRUE((std::isnan(p) && std::isnan(q)) || std::abs(p - q) <= 2e-5f) << p << " " << q;
    }
  }
}

class GoldenTest : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenTest, RewritesAsWritten) {
  const Golden& golden = GetParam();
  const Graph before = parse_graph(golden.before);
  Graph after = before.clone();
  infer_graph(after);
  const PassReport report = optimize(after, {.passes = parse_pass_list(golden.passes), .verify_rewrites = true});
  expect_same_numbers(before, after);
  TextOptions options;
  options.origins = false;
  if (!golden.refused_rule.empty()) {
    Graph untouched = before.clone();
    infer_graph(untouched);
    EXPECT_EQ(print(after, options), print(untouched, options));
    const auto rule = std::find_if(report.rules.begin(), report.rules.end(),
                                   [&](const RuleReport& r) { return r.name == golden.refused_rule; });
    ASSERT_NE(rule, report.rules.end());
    ASSERT_FALSE(rule->near_misses.empty());
    EXPECT_THAT(rule->near_misses.front().reason, ::testing::HasSubstr(golden.reason));
  } else {
    EXPECT_EQ(print(after, options), golden.after);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenTest, ::testing::ValuesIn(read_golden()), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

// Every export: nothing is left to fuse.
TEST(Fixtures, EverythingIsFused) {
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(WEFT_SOURCE_DIR "/tests/exports/fixtures")) {
    Graph graph = import_onnx(entry.path() / "model.onnx");
    optimize(graph, {.passes = default_passes(), .verify_rewrites = true});
    const FusionCounts counts = count_fusions(graph);
    EXPECT_EQ(counts.softmax_left, 0) << entry.path();
    EXPECT_EQ(counts.attention_cores, counts.attention_fused) << entry.path();
    EXPECT_EQ(counts.norms, counts.norms_fused) << entry.path();
    EXPECT_EQ(counts.qkv, counts.qkv_fused) << entry.path();
    seen += counts.attention_fused;
  }
  EXPECT_GT(seen, 50);
}

// Files of functions are for others: a call names what the function gives, and in its body stand operators that the
// operator set it declares has.
TEST(Fixtures, FunctionsOfOptimizedFilesAreWhole) {
  constexpr std::string_view kLater[] = {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter", "Swish"};
  for (const std::string_view name : {"gpt2-eager-torchscript-14", "llama-eager-dynamo-20"}) {
    Graph graph = import_onnx(std::filesystem::path(WEFT_SOURCE_DIR "/tests/exports/fixtures") / name / "model.onnx");
    optimize(graph, {.passes = default_passes()});
    const std::string file = export_onnx(graph);
    const onnx::ModelProto model = onnx::parse_model({reinterpret_cast<const std::byte*>(file.data()), file.size()});
    std::size_t skips = 0;
    for (const onnx::FunctionProto& function : model.functions) {
      for (const onnx::NodeProto& node : function.nodes) {
        EXPECT_EQ(std::ranges::find(kLater, node.op_type), std::end(kLater)) << function.name << ": " << node.op_type;
      }
      for (const onnx::NodeProto& node : model.graph->nodes) {
        if (node.op_type != function.name) continue;
        EXPECT_EQ(node.outputs.size(), function.outputs.size()) << function.name;
        skips += node.op_type.starts_with("Skip");
      }
    }
    EXPECT_GT(skips, 2u) << name;
  }
}

// Weights lie in files as they may.
TEST(FuseConvolution, ReadsMisalignedConstants) {
  const std::string text =
      "graph \"g\"(%x: f32[B, 1, S]) -> (\"y\" = %y) {\n"
      "  const %w: f32[2, 1, 1] = [1.0, 2.0]\n"
      "  const %b: f32[2] = [2.0, 3.0]\n"
      "  %c: f32[B, 2, S] = Conv(%x, %w, %b)\n"
      "  %y: f32[B, 2, S] = BatchNormalization(%c, %b, %b, %b, %b)\n"
      "}\n";
  const Graph before = parse_graph(text);
  Graph after = before.clone();
  infer_graph(after);
  for (const ValueId id : after.values()) {
    std::optional<Tensor>& tensor = after.value(id).tensor;
    if (!tensor) continue;
    const std::size_t size = tensor->byte_size();
    const std::shared_ptr<std::byte> bytes(new std::byte[size + 1], std::default_delete<std::byte[]>());
    std::memcpy(bytes.get() + 1, tensor->bytes().data(), size);
    tensor = Tensor::share(tensor->dtype(), tensor->shape(), {bytes, bytes.get() + 1}, size);
  }
  optimize(after, {.passes = {"fuse-convolution"}});
  EXPECT_EQ(after.node_count(), 1u);
  expect_same_numbers(before, after);
}

TEST(Pipeline, NamesAreChecked) {
  EXPECT_THROW(parse_pass_list("fuse-attentoin"), Error);
  EXPECT_TRUE(parse_pass_list("none").empty());
  EXPECT_EQ(parse_pass_list("fold-shapes,dead-code").size(), 2u);
}

}  // namespace
}  // namespace weft
