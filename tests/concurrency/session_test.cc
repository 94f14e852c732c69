#include "runtime/session.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace weft::runtime {
namespace {

TEST(Session, FourSessionsShareOneModel) {
  const auto model = Model::load(WEFT_SOURCE_DIR "/tests/exports/fixtures/bert-sdpa-torchscript-17/model.onnx");
  const auto run = [&] {
    Session session(model, std::make_shared<ThreadPool>(2));
    Tensor ids = Tensor::zeros(DType::kI64, {3, 6}), ones = Tensor::full(DType::kI64, {3, 6}, 1);
    for (std::size_t i = 0; i < 18; ++i) ids.mutable_data<std::int64_t>()[i] = static_cast<std::int64_t>(i * 7 % 99);
    Tensor result;
    for (int i = 0; i < 5; ++i)
      result = session.run(
          {{"input_ids", ids}, {"attention_mask", ones}, {"token_type_ids", Tensor::zeros(DType::kI64, {3, 6})}})[0];
    return result;
  };
  std::vector<Tensor> results(4);
  std::vector<std::thread> threads;
  for (Tensor& result : results) threads.emplace_back([&] { result = run(); });
  for (std::thread& thread : threads) thread.join();
  for (const Tensor& result : results) EXPECT_TRUE(result.identical(results[0]));
}

}  // namespace
}  // namespace weft::runtime
