// Constants where files leave them, and those that a kernel reads beside the weights that it packs.
#include <cstring>

#include "tests/runtime/one_node.h"

namespace weft::runtime {
namespace {

// The same elements one byte off every alignment, as a mapped file may have them.
Tensor misaligned(const Tensor& tensor) {
  const std::span<const std::byte> bytes = tensor.bytes();
  const std::shared_ptr<std::byte[]> memory(new std::byte[bytes.size() + 65]);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.get());
  std::byte* const at = memory.get() + (64 - address % 64) + 1;
  std::memcpy(at, bytes.data(), bytes.size());
  return Tensor::share(tensor.dtype(), tensor.shape(), std::shared_ptr<const std::byte>(memory, at), bytes.size());
}

TEST(Constants, BesidePackedWeightsStay) {
  const Tensor x = random_floats({3, 2, 20}, 1), w = random_floats({20, 9}, 2), b = random_floats({9}, 3),
               residual = random_floats({3, 2, 9}, 4);
  check("Linear", {{x}, {w, true}, {b, true}, {residual, true}}, 1, {});
  check("Linear", {{x, true}, {w, true}, {b, true}, {residual}}, 1, {});
  check("MatMul", {{x, true}, {w, true}}, 1, {});
  const Tensor steps = random_floats({5, 2, 6}, 5), input = random_floats({1, 16, 6}, 6),
               recurrence = random_floats({1, 16, 4}, 7), bias = random_floats({1, 32}, 8),
               state = random_floats({1, 2, 4}, 9);
  const Tensor none = Tensor::zeros(DType::kF32, {0});
  const std::vector<Given> lstm = {{steps, true}, {input, true}, {recurrence, true}, {bias, true}, {none},
                                   {state, true}, {state}};
  check("LSTM", lstm, 3, {{"hidden_size", std::int64_t{4}}});
  const Tensor bytes = random_bytes(DType::kU8, {3, 20}, 10), zero = Tensor::scalar(std::uint8_t{7});
  check("MatMulInteger", {{bytes}, {random_bytes(DType::kI8, {20, 9}, 11), true}, {zero, true}}, 1, {}, 0);
}

TEST(Constants, MayLieAnywhere) {
  const Tensor table = misaligned(random_floats({30, 7}, 1)), w = misaligned(random_floats({7, 100}, 2)),
               b = misaligned(random_floats({100}, 3));
  EXPECT_THROW((void)table.data<float>(), Error);
  check("Gather", {{table, true}, {Tensor::of<std::int64_t>({2, 3}, {0, -1, 29, 3, 3, 11})}}, 1, {});
  check("Gather", {{table, true}, {Tensor::of<std::int64_t>({2}, {0, 6})}}, 1, {{"axis", std::int64_t{1}}});
  check("Linear", {{random_floats({4, 7}, 4)}, {w, true}, {b, true}}, 1, {});
  check("MatMul", {{random_floats({4, 7}, 4)}, {w, true}}, 1, {});
}

}  // namespace
}  // namespace weft::runtime
