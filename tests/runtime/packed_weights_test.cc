// Packed weights from memory and from files; one model under many threads.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "importers/onnx/onnx.h"
#include "ops/builder.h"
#include "runtime/bind_inputs.h"
#include "runtime/generate/generator.h"
#include "runtime/session.h"
#include "tests/tensors.h"

namespace weft::runtime {
namespace {

namespace fs = std::filesystem;

const Dim B = Dim::symbol("B"), S = Dim::symbol("S");

// A block: projection, attention, residual, norm, feed-forward.
Graph block(std::uint32_t seed) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, Shape{B, S, Dim(48)}});
  Builder b(graph);
  const auto weight = [&](Extents shape) { return b.constant(random_floats(std::move(shape), seed)).id(); };
  const Attributes heads = {{"q_num_heads", std::int64_t{4}}, {"kv_num_heads", std::int64_t{4}}};
  const auto projected = [&] { return b.make("Linear", {x, weight({48, 48}), weight({48})}).id(); };
  const Expr attended = b.make("Attention", {projected(), projected(), projected()}, heads);
  const Expr h = b.wrap(x) + b.make("MatMul", {attended, weight({48, 48})});
  const Expr n = b.make("LayerNormalization", {h, weight({48}), weight({48})});
  const Expr wide = b.make("Linear", {n, weight({48, 1100})}, {{"activation", std::string("gelu")}});
  graph.add_output("y", h + b.make("MatMul", {wide, weight({1100, 48})}));
  return graph;
}

class PackedWeights : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    if (fs::exists(packed_)) found.assign(fs::directory_iterator(packed_), fs::directory_iterator());
    return found;
  }
  Tensor run(bool keep) const {
    CompileOptions options;
    if (keep) options.packed_folder = packed_;
    Session session(Model::load(model_, options), std::make_shared<ThreadPool>(2));
    return session.run({{"x", random_floats({2, 5, 48}, 9)}})[0];
  }

  const fs::path folder_ = fs::temp_directory_path() / fmt::format("weft_packed_{}", ::getpid());
  const fs::path model_ = folder_ / "model.onnx", packed_ = folder_ / "kept/here";
};

TEST_F(PackedWeights, FromAFileAreThoseOfTheModel) {
  export_onnx(block(1), model_);
  const Tensor expected = run(false);
  EXPECT_TRUE(files().empty());
  EXPECT_TRUE(run(true).identical(expected));
  ASSERT_EQ(files().size(), 1u);
  const auto written = fs::last_write_time(files()[0]);
  EXPECT_TRUE(run(true).identical(expected));
  EXPECT_EQ(fs::last_write_time(files()[0]), written);  // only read
}

TEST_F(PackedWeights, OfAnotherModelAreNotTaken) {
  export_onnx(block(1), model_);
  run(true);
  export_onnx(block(2), model_);
  const Tensor expected = run(false);
  EXPECT_TRUE(run(true).identical(expected));
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(PackedWeights, OfABrokenFileAreMadeAnew) {
  export_onnx(block(1), model_);
  const Tensor expected = run(true);
  const fs::path file = files().at(0);
  fs::resize_file(file, fs::file_size(file) - 1);
  EXPECT_TRUE(run(true).identical(expected));
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary).write("x", 1);
  EXPECT_TRUE(run(true).identical(expected));
  fs::resize_file(file, 0);
  EXPECT_TRUE(run(true).identical(expected));
}

TEST_F(PackedWeights, ThatCannotBeKeptAreAnError) {
  export_onnx(block(1), model_);
  std::ofstream(folder_ / "kept") << "a file, not a folder";
  EXPECT_THROW(run(true), Error);
}

// --- Threads -----------------------------------------------------------------------------------------

TEST(ManyThreads, GiveTheSameBytes) {
  const auto model = Model::compile(block(3));
  for (const std::int64_t length : {1, 7, 64}) {
    const Tensor x = random_floats({3, length, 48}, 5);
    std::vector<Tensor> results;
    for (const int threads : {1, 2, 3})
      results.push_back(Session(model, std::make_shared<ThreadPool>(threads)).run({{"x", x}})[0]);
    EXPECT_TRUE(results[1].identical(results[0]));
    EXPECT_TRUE(results[2].identical(results[0]));
  }
}

TEST(ManyThreads, EncodersGiveTheSameBytes) {
  const auto model =
      Model::load(fs::path(WEFT_SOURCE_DIR) / "tests/exports/fixtures/bert-sdpa-torchscript-17/model.onnx");
  for (const auto& [batch, length] : {std::pair{1, 1}, std::pair{1, 60}, std::pair{7, 33}}) {
    TensorMap inputs;
    for (const ValueId id : model->graph().inputs()) {
      const Value& value = model->graph().value(id);
      Tensor tensor = Tensor::full(DType::kI64, {batch, length}, 1);
      for (std::size_t i = 0; value.name == "input_ids" && i < tensor.mutable_data<std::int64_t>().size(); ++i)
        tensor.mutable_data<std::int64_t>()[i] = static_cast<std::int64_t>(i * 7 % 50);
      inputs[value.name] = value.name == "token_type_ids" ? Tensor::zeros(DType::kI64, {batch, length}) : tensor;
    }
    const std::vector<Tensor> expected = Session(model, std::make_shared<ThreadPool>(1)).run(inputs);
    for (const int threads : {2, 3}) {
      const std::vector<Tensor> results = Session(model, std::make_shared<ThreadPool>(threads)).run(inputs);
      for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(results[i].identical(expected[i])) << threads;
    }
  }
}

// Of every token generated: the token and its scores, to the last bit.
std::vector<double> scores_of(const std::vector<Generation>& generations) {
  std::vector<double> scores;
  for (const Generation& generation : generations) {
    for (const Hypothesis& sequence : generation.sequences) {
      scores.insert(scores.end(), sequence.tokens.begin(), sequence.tokens.end());
      scores.push_back(sequence.score);
      for (const TokenScore& token : sequence.token_scores) scores.push_back(token.log_probability);
    }
  }
  return scores;
}

TEST(ManyThreads, DecodersGiveTheSameScores) {
  std::vector<Request> prompts(5);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (std::size_t k = 0; k < 1 + i * i * 2; ++k)
      prompts[i].input_ids.push_back(static_cast<std::int64_t>(3 + (i * 5 + k * 7) % 40));
  }
  for (const char* name : {"gpt2", "t5"}) {
    for (const int beams : {1, 4}) {
      CompileOptions options;
      if (beams == 1) options.cache_dtype = DType::kF16;
      const auto model = GenerationModel::load(fs::path(WEFT_SOURCE_DIR) / "tests/generate" / name, options);
      GenerationConfig config;
      config.num_beams = config.num_return_sequences = beams;
      config.max_new_tokens = 5;
      config.decoder_start_token_id = 0;
      config.output_scores = true;
      std::vector<std::vector<double>> results;
      for (const int threads : {1, 2, 3}) {
        Generator generator(model, std::make_shared<ThreadPool>(threads));
        results.push_back(scores_of(generator.generate(prompts, config)));
      }
      EXPECT_EQ(results[1], results[0]) << name << " " << beams;
      EXPECT_EQ(results[2], results[0]) << name << " " << beams;
    }
  }
}

TEST(ManyThreads, SessionsOfOneModelDoNotDisturbEachOther) {
  const auto model = Model::compile(block(4));
  const auto input = [](int i) { return random_floats({1, 1 + i % 9, 48}, static_cast<std::uint32_t>(i)); };
  std::vector<Tensor> expected;
  Session alone(model, std::make_shared<ThreadPool>(1));
  for (int i = 0; i < 20; ++i) expected.push_back(alone.run({{"x", input(i)}})[0]);
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      Session session(model, std::make_shared<ThreadPool>(2));
      for (int i = 0; i < 20; ++i)
        EXPECT_TRUE(session.run({{"x", input(i)}})[0].identical(expected[static_cast<std::size_t>(i)]));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace weft::runtime
