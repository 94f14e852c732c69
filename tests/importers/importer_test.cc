#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "importers/onnx/onnx.h"
#include "importers/onnx/wire.h"
#include "ops/builder.h"
#include "ops/op_def.h"

namespace weft {
namespace {

using onnx::Writer;
using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// --- Models written by hand ------------------------------------------------------------------------

Writer node(std::string_view op, std::vector<std::string_view> inputs, std::vector<std::string_view> outputs,
            std::vector<Writer> attributes = {}, std::string_view domain = {}) {
  Writer w;
  for (const auto input : inputs) w.text(1, input);
  for (const auto output : outputs) w.text(2, output);
  w.text(3, std::string(op) + "_1").text(4, op);
  for (const Writer& attribute : attributes) w.message(5, attribute);
  if (!domain.empty()) w.text(7, domain);
  return w;
}

Writer value(std::string_view name, std::int64_t dtype, std::vector<std::int64_t> dims) {
  Writer shape, tensor, type, info;
  for (const std::int64_t dim : dims) {
    Writer one;
    one.integer(1, dim);
    shape.message(1, one);
  }
  tensor.integer(1, dtype).message(2, shape);
  type.message(1, tensor);
  info.text(1, name).message(2, type);
  return info;
}

Writer value(std::string_view name, std::vector<std::string_view> dims) {
  Writer shape, tensor, type, info;
  for (const std::string_view dim : dims) {
    Writer one;
    one.text(2, dim);
    shape.message(1, one);
  }
  tensor.integer(1, 1).message(2, shape);
  type.message(1, tensor);
  info.text(1, name).message(2, type);
  return info;
}

Writer int_attribute(std::string_view name, std::int64_t number) {
  Writer w;
  w.text(1, name).integer(3, number).integer(20, 2);
  return w;
}

struct Model {
  Writer graph;
  std::int64_t opset = 17, ir = 8;
  std::vector<Writer> functions;

  std::string data() const {
    Writer import, model;
    import.text(1, "").integer(2, opset);
    model.integer(1, ir).message(7, graph).message(8, import);
    for (const Writer& function : functions) model.message(25, function);
    return model.data();
  }
};

Model one_node(const Writer& made) {
  Model model;
  model.graph.message(1, made).text(2, "g").message(11, value("x", 1, {2, 3})).message(12, value("y", 1, {2, 3}));
  return model;
}

std::string error_of(const std::string& data, const std::filesystem::path& folder = {}) {
  try {
    import_onnx(bytes_of(data), folder);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Import, ReadsASmallModel) {
  const Graph graph = import_onnx(bytes_of(one_node(node("Relu", {"x"}, {"y"})).data()));
  EXPECT_EQ(graph.node_count(), 1u);
  EXPECT_EQ(to_string(graph.value(graph.outputs()[0].value).type), "f32[2, 3]");
}

TEST(Import, LowersOldVersionsToOneForm) {
  Model model = one_node(node("Softmax", {"x"}, {"y"}, {int_attribute("axis", 0)}));
  model.opset = 11;
  const Graph graph = import_onnx(bytes_of(model.data()));
  const Tensor x = Tensor::zeros(DType::kF32, {2, 3});
  // Before opset 13 axis 0 normalizes over everything.
  EXPECT_FLOAT_EQ(evaluate_graph(graph, std::vector{x})[0].data<float>()[0], 1.0f / 6);
  model.opset = 13;
  EXPECT_FLOAT_EQ(evaluate_graph(import_onnx(bytes_of(model.data())), std::vector{x})[0].data<float>()[0], 0.5f);
}

// TorchScript exports of selective state spaces hold such a permutation.
TEST(Import, CountsAxesOfTransposeFromTheEnd) {
  Writer perm;
  perm.text(1, "perm").integer(20, 7);
  for (const std::int64_t axis : {0, -2, -1, 1}) perm.integer(8, static_cast<std::uint64_t>(axis));
  Model model;
  model.graph.message(1, node("Transpose", {"x"}, {"y"}, {perm}));
  model.graph.message(11, value("x", 1, {2, 3, 4, 5})).message(12, value("y", 1, {2, 4, 5, 3}));
  const Graph graph = import_onnx(bytes_of(model.data()), {});
  EXPECT_EQ(to_string(graph.value(graph.outputs()[0].value).type), "f32[2, 4, 5, 3]");
}

TEST(Import, ReportsAllUnsupportedOperatorsTogether) {
  Model model = one_node(node("Relu", {"x"}, {"a"}));
  model.graph.message(1, node("Strange", {"a"}, {"b"}))
      .message(1, node("Strange", {"b"}, {"c"}))
      .message(1, node("Odd", {"c"}, {"y"}, {}, "com.x"));
  const std::string error = error_of(model.data());
  EXPECT_THAT(error, HasSubstr("Strange (2 nodes, the first is \"Strange_1\")"));
  EXPECT_THAT(error, HasSubstr("com.x.Odd (1 node"));
}

Writer tensor(std::vector<std::int64_t> dims, std::int64_t dtype, std::string_view raw) {
  Writer w;
  for (const std::int64_t dim : dims) w.integer(1, dim);
  w.integer(2, dtype).text(8, "w").text(9, raw);
  return w;
}

// Exports name the lengths of each layer's cache apart. A mask made for another layer's has the same new tokens at its
// end; any other mask that may be shorter than the keys is padded.
TEST(Import, AMaskOfAnotherLayersPastIsNotPadded) {
  for (const bool of_past : {true, false}) {
    Model model;
    model.opset = 23;
    model.graph.text(2, "g")
        .message(1, node("Concat", {"past", "k"}, {"keys"}, {int_attribute("axis", 2)}))
        .message(1, node("Concat", {"m0", "m1"}, {"mask"}, {int_attribute("axis", 1)}))
        .message(1, node("Attention", {"q", "keys", "keys", of_past ? "mask" : "m0"}, {"y"}))
        .message(11, value("q", {"B", "H", "S", "D"}))
        .message(11, value("past", {"B", "H", "R", "D"}))
        .message(11, value("k", {"B", "H", "S", "D"}))
        .message(11, value("m0", {"S", "P"}))
        .message(11, value("m1", {"S", "S"}))
        .message(12, value("y", {"B", "H", "S", "D"}));
    const Graph graph = import_onnx(bytes_of(model.data()));
    const auto nodes = graph.nodes();
    const bool pads = std::ranges::any_of(nodes, [&](NodeId id) { return graph.node(id).op == "Pad"; });
    EXPECT_EQ(pads, !of_past);
  }
}

// A file may end anywhere: an Error, or what is left is a model.
TEST(Import, EveryPrefixIsAnErrorOrAModel) {
  Model model = one_node(node("Softmax", {"x"}, {"y"}, {int_attribute("axis", 0)}));
  model.graph.message(5, tensor({3}, 1, std::string(12, '\0')));
  const std::string data = model.data();
  int errors = 0;
  for (std::size_t length = 0; length < data.size(); ++length) errors += !error_of(data.substr(0, length)).empty();
  EXPECT_GT(errors, static_cast<int>(data.size()) * 9 / 10);
}

TEST(Import, AnAttributeThatNobodyReadsIsAnError) {
  EXPECT_THAT(error_of(one_node(node("Relu", {"x"}, {"y"}, {int_attribute("surprise", 1)})).data()),
              HasSubstr("\"surprise\" was not read"));
}

TEST(Import, RefusesBrokenStructure) {
  EXPECT_THAT(error_of(one_node(node("Relu", {"z"}, {"y"})).data()), HasSubstr("never defined"));
  EXPECT_THAT(error_of(one_node(node("Add", {"x"}, {"y"})).data()), HasSubstr("is missing"));
  Model cycle = one_node(node("Add", {"x", "b"}, {"a"}));
  cycle.graph.message(1, node("Relu", {"a"}, {"b"})).message(1, node("Relu", {"a"}, {"y"}));
  EXPECT_THAT(error_of(cycle.data()), HasSubstr("cycle"));
  Model twice = one_node(node("Relu", {"x"}, {"y"}));
  twice.graph.message(1, node("Neg", {"x"}, {"y"}));
  EXPECT_THAT(error_of(twice.data()), HasSubstr("twice"));
  EXPECT_THAT(error_of("not a model at all"), HasSubstr("invalid_model"));
  EXPECT_THAT(error_of(""), HasSubstr("no model"));
}

TEST(Import, SortsNodesThatComeInAnotherOrder) {
  Model model = one_node(node("Relu", {"a"}, {"y"}));
  model.graph.message(1, node("Neg", {"x"}, {"a"}));
  EXPECT_EQ(import_onnx(bytes_of(model.data())).node_count(), 2u);
}

TEST(Import, ChecksTheSizesOfTensors) {
  const auto with = [&](const Writer& initializer) {
    Model model = one_node(node("Add", {"x", "w"}, {"y"}));
    model.graph.message(5, initializer);
    return error_of(model.data());
  };
  EXPECT_EQ(with(tensor({3}, 1, std::string(12, '\0'))), "");
  EXPECT_THAT(with(tensor({3}, 1, std::string(11, '\0'))), HasSubstr("in tensor \"w\""));
  EXPECT_THAT(with(tensor({-3}, 1, std::string(12, '\0'))), HasSubstr("negative"));
  EXPECT_THAT(with(tensor({1 << 30, 1 << 30, 1 << 30}, 1, "")), HasSubstr("too many elements"));
  EXPECT_THAT(with(tensor({3}, 77, std::string(12, '\0'))), HasSubstr("element type 77"));
}

TEST(Import, ConfinesExternalData) {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "weft_importer_test";
  std::filesystem::create_directories(folder / "inside");
  std::ofstream(folder / "secret") << std::string(12, 'x');
  std::ofstream(folder / "inside" / "data") << std::string(12, '\0');
  std::filesystem::remove(folder / "inside" / "link");
  std::filesystem::create_symlink(folder / "secret", folder / "inside" / "link");
  const auto with = [&](std::string_view location, std::string_view offset = "0") {
    Writer key_location, key_offset, proto;
    key_location.text(1, "location").text(2, location);
    key_offset.text(1, "offset").text(2, offset);
    proto.integer(1, 3).integer(2, 1).text(8, "w").message(13, key_location).message(13, key_offset).integer(14, 1);
    Model model = one_node(node("Add", {"x", "w"}, {"y"}));
    model.graph.message(5, proto);
    return error_of(model.data(), folder / "inside");
  };
  EXPECT_EQ(with("data"), "");
  EXPECT_THAT(with("../secret"), HasSubstr("not inside"));
  EXPECT_THAT(with((folder / "secret").string()), HasSubstr("not inside"));
  EXPECT_THAT(with("link"), HasSubstr("leads out"));
  EXPECT_THAT(with("data", "4"), HasSubstr("which has 12"));
  EXPECT_THAT(with("data", "18446744073709551615"), HasSubstr("which has 12"));
  EXPECT_THAT(with("absent"), HasSubstr("io:"));
}

Writer function(std::string_view name, const Writer& body) {
  Writer import, w;
  import.text(1, "").integer(2, 17);
  w.text(1, name).text(4, "a").text(5, "b").message(7, body).message(9, import).text(10, "custom");
  return w;
}

TEST(Import, InlinesFunctionsAndRefusesRecursion) {
  Model model = one_node(node("Twice", {"x"}, {"y"}, {}, "custom"));
  model.functions = {function("Twice", node("Add", {"a", "a"}, {"b"}))};
  const Graph graph = import_onnx(bytes_of(model.data()));
  EXPECT_EQ(graph.node(graph.nodes()[0]).op, "Add");
  model.functions = {function("Twice", node("Twice", {"a"}, {"b"}, {}, "custom"))};
  EXPECT_THAT(error_of(model.data()), HasSubstr("calls itself"));
}

// --- Real files --------------------------------------------------------------------------------------

std::vector<std::filesystem::path> fixtures() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(WEFT_SOURCE_DIR "/tests/exports/fixtures"))
    paths.push_back(entry.path() / "model.onnx");
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST(Export, ReadsBackToTheSameGraph) {
  for (const auto& path : fixtures()) {
    const Graph graph = import_onnx(path);
    const Graph again = import_onnx(bytes_of(export_onnx(graph)));
    ASSERT_EQ(graph.node_count(), again.node_count()) << path;
    for (std::size_t i = 0; i < graph.nodes().size(); ++i) {
      const Node& a = graph.node(graph.nodes()[i]);
      const Node& b = again.node(again.nodes()[i]);
      ASSERT_EQ(a.op, b.op) << path;
      ASSERT_EQ(a.origin.nodes, b.origin.nodes) << path;
    }
  }
}

// Damaged files give an Error or a graph; they never crash.
// Runtimes that do not know weft's operators read the functions' bodies: of standard operators alone, with as many
// outputs as the call has.
TEST(Export, FunctionsNeedNoOtherFunctions) {
  for (const bool sum_is_read : {false, true}) {
    Graph graph;
    Builder b(graph);
    const ValueId x = graph.add_input("x", {DType::kF32, Shape{Dim::symbol("B"), Dim(4)}});
    const ValueId scale = b.constant(Tensor::of<float>({4}, {1, 2, 3, 4})).id();
    const ValueId inputs[] = {x, x, scale};
    const std::vector<Expr> made = b.make_many("SkipRMSNormalization", inputs, sum_is_read ? 2 : 1);
    for (const Expr& output : made) graph.add_output("y" + std::to_string(graph.outputs().size()), output);
    std::string data = export_onnx(graph);
    EXPECT_EQ(data.find("\x22\x10RMSNormalization"), std::string::npos) << "an operator of opset 23 in opset 20";
    EXPECT_EQ(data.find("output_sum") != std::string::npos, sum_is_read);
    for (std::size_t at = 0; (at = data.find("weft", at)) != std::string::npos;) data.replace(at, 4, "else");
    const Graph again = import_onnx(bytes_of(data));
    for (const NodeId id : again.nodes()) EXPECT_NE(again.node(id).op, "SkipRMSNormalization");
    const std::vector<Tensor> input = {Tensor::of<float>({1, 4}, {1, -2, 3, 5})};
    const auto before = evaluate_graph(graph, input), after = evaluate_graph(again, input);
    ASSERT_EQ(before.size(), after.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_NEAR(before[i].data<float>()[3], after[i].data<float>()[3], 1e-5);
    }
  }
}

TEST(Import, SurvivesMutations) {
  std::ifstream file(WEFT_SOURCE_DIR "/tests/exports/fixtures/gru-torchscript-14/model.onnx", std::ios::binary);
  const std::string original((std::istreambuf_iterator<char>(file)), {});
  ASSERT_GT(original.size(), 1000u);
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    std::string damaged = original;
    for (std::uint32_t i = random() % 8 + 1; i-- > 0;) {
      // Structure is where the small numbers are: the first and last parts of the file.
      const std::size_t at =
          random() % 2 ? random() % std::min<std::size_t>(4000, damaged.size()) : random() % damaged.size();
      damaged[at] = static_cast<char>(random());
    }
    if (random() % 4 == 0) damaged.resize(random() % damaged.size());
    try {
      import_onnx(bytes_of(damaged));
    } catch (const Error&) {
    }
  }
}

TEST(TensorProto, RoundTripsEveryType) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64, DType::kI8, DType::kI16, DType::kI32,
                            DType::kI64, DType::kU8, DType::kU16, DType::kU32, DType::kU64, DType::kBool}) {
    const Tensor tensor = Tensor::full(dtype, {2, 3}, 1.0);
    const NamedTensor again = read_tensor_proto(bytes_of(write_tensor_proto({"t", tensor})));
    EXPECT_TRUE(again.tensor.identical(tensor)) << to_string(dtype);
    EXPECT_EQ(again.name, "t");
  }
  const Tensor strings = Tensor::of<std::string>({2}, {"a", ""});
  EXPECT_TRUE(read_tensor_proto(bytes_of(write_tensor_proto({"", strings}))).tensor.identical(strings));
}

}  // namespace
}  // namespace weft
