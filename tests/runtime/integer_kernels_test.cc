// Kernels of bytes and of packed weights: the integers, or the bytes of floats, that their definitions give.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "ops/cast.h"
#include "tests/runtime/one_node.h"
#include "tests/runtime/window_case.h"

namespace weft::runtime {
namespace {

struct IntegerCase {
  Extents a, b;
  std::int64_t a_zeros = 1, b_zeros = 1;  // 0: absent
};

TEST(IntegerKernels, MatMulIntegerIsExact) {
  const std::vector<IntegerCase> cases = {
      {{1, 5}, {5, 7}},
      {{7, 64}, {64, 33}, 7, 33},
      {{2, 3, 130}, {130, 200}, 1, 200},
      {{100, 300}, {300, 140}, 0, 0},
      {{2, 1, 3, 9}, {4, 9, 5}},
      {{3, 4, 8}, {3, 8, 6}, 4, 6},
      {{0, 4}, {4, 3}},
  };
  for (const DType da : {DType::kU8, DType::kI8}) {
    for (const DType db : {DType::kU8, DType::kI8}) {
      for (const IntegerCase& c : cases) {
        SCOPED_TRACE(fmt::format("{} by {}", to_string(c.a), to_string(c.b)));
        const auto zeros = [](DType dtype, std::int64_t count, std::uint32_t seed) {
          return count == 0 ? Tensor() : random_bytes(dtype, count == 1 ? Extents{} : Extents{count}, seed);
        };
        for (const bool constant : {false, true}) {
          check("MatMulInteger",
                {{random_bytes(da, c.a, 1)},
                 {random_bytes(db, c.b, 2), constant},
                 {zeros(da, c.a_zeros, 3)},
                 {zeros(db, c.b_zeros, 4), constant}},
                1, {});
        }
      }
    }
  }
}

// The same numbers as its definition by MatMulInteger has, to the last bit.
TEST(IntegerKernels, ProductsOfBytesBecomeFloats) {
  const std::vector<IntegerCase> cases = {
      {{1, 5}, {5, 7}},        {{7, 64}, {64, 33}, 0, 33}, {{2, 3, 130}, {130, 200}}, {{100, 300}, {300, 140}, 1, 0},
      {{1, 384}, {384, 1152}}, {{0, 4}, {4, 3}},           {{2, 0, 4}, {4, 3}, 0, 3}};
  for (const DType db : {DType::kU8, DType::kI8}) {
    for (const IntegerCase& c : cases) {
      SCOPED_TRACE(fmt::format("{} by {}", to_string(c.a), to_string(c.b)));
      const std::int64_t columns = c.b[1];
      const auto zeros = [](DType dtype, std::int64_t count, std::uint32_t seed) {
        return count == 0 ? Tensor() : random_bytes(dtype, count == 1 ? Extents{} : Extents{count}, seed);
      };
      const Given b = {random_bytes(db, c.b, 2), true}, b_zero = {zeros(db, c.b_zeros, 4), true};
      const Given scales = {random_floats({c.b_zeros == 1 ? 1 : columns}, 5), true};
      const Given bias = {random_floats({columns}, 6), true};
      Extents y = c.a;
      y.back() = columns;
      const Given residual = {random_floats(y, 7)}, none = {Tensor()};
      const std::int64_t left = (columns + 1) / 3;
      const Attributes cut = {{"widths", std::vector<std::int64_t>{left, columns - left}},
                              {"activations", std::vector<std::string>{"none", "relu"}}};
      for (const DType da : {DType::kU8, DType::kI8}) {
        const Given a = {random_bytes(da, c.a, 1)}, a_zero = {zeros(da, c.a_zeros, 3)};
        const Given a_scale = {Tensor::scalar(0.013f)};
        check("MatMulIntegerToFloat", {a, b, a_scale, scales, a_zero, b_zero, bias}, 1, {}, 0);
        check("MatMulIntegerToFloat", {a, b, a_scale, scales, a_zero, b_zero}, 2, cut, 0);
        check("MatMulIntegerToFloat", {a, b, a_scale, scales, a_zero, b_zero, none, residual}, 1, {}, 0);
      }
      const Given x = {random_floats(c.a, 8, 3.0f)};
      check("DynamicQuantizeMatMul", {x, b, scales, b_zero, bias}, 1, {}, 0);
      check("DynamicQuantizeMatMul", {x, b, scales, b_zero, none, residual}, 1, {}, 0);
      check("DynamicQuantizeMatMul", {x, b, scales, b_zero, bias}, 2, cut, 0);
    }
  }
}

TEST(IntegerKernels, QLinearMatMulIsExact) {
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    for (const std::int64_t columns : {1, 19, 64}) {
      for (const std::int64_t rows : {1, 7}) {
        const Tensor scale = Tensor::scalar(0.013f), y_scale = Tensor::scalar(3.7f);
        Tensor scales = random_floats({columns}, 9);
        for (float& s : scales.mutable_data<float>()) s = std::abs(s) + 0.01f;
        check("QLinearMatMul",
              {{random_bytes(DType::kU8, {rows, 40}, 1)},
               {scale},
               {random_bytes(DType::kU8, {}, 2)},
               {random_bytes(dtype, {40, columns}, 3), true},
               {scales, true},
               {random_bytes(dtype, {columns}, 4), true},
               {y_scale},
               {random_bytes(dtype, {}, 5)}},
              1, {});
      }
    }
  }
}

TEST(IntegerKernels, ConvolutionsAreExact) {
  const std::vector<WindowCase> cases = {
      {{2, 5, 9, 11}, {7, 5, 3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}},
      {{1, 40, 14, 14}, {100, 40, 3, 3}, {2, 2}, {1, 1}, {1, 1, 1, 1}},
      {{2, 6, 8, 9}, {9, 2, 3, 3}, {2, 1}, {1, 2}, {0, 1, 2, 0}, 3},
      {{3, 8, 7, 5}, {8, 1, 3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 8},
      {{1, 3, 20, 18}, {6, 1, 15, 16}, {1, 1}, {1, 1}, {7, 7, 7, 8}, 3},
      {{1, 3, 20, 18}, {3, 1, 17, 16}, {1, 1}, {1, 1}, {8, 7, 8, 8}, 3},  // more taps than are exact in f32
      {{1, 4, 12, 9}, {8, 1, 5, 5}, {2, 1}, {1, 1}, {2, 2, 2, 2}, 4},
      {{2, 20, 6, 7}, {33, 20, 1, 1}, {1, 1}, {1, 1}, {0, 0, 0, 0}},
      {{1, 8, 40}, {12, 8, 3}, {2}, {1}, {1, 1}},
  };
  for (const WindowCase& c : cases) {
    SCOPED_TRACE(describe(c));
    const Attributes attributes = {
        {"strides", c.strides}, {"dilations", c.dilations}, {"pads", c.pads}, {"group", c.group}};
    for (const DType dx : {DType::kU8, DType::kI8}) {
      for (const DType dw : {DType::kU8, DType::kI8}) {
        const Given x = {random_bytes(dx, c.x, 1)}, x_zero = {random_bytes(dx, {}, 3)};
        const Given w = {random_bytes(dw, c.w, 2), true}, w_zero = {random_bytes(dw, {}, 4), true};
        check("ConvInteger", {x, w, x_zero, w_zero}, 1, attributes);
        check("ConvInteger", {x, {w.tensor}}, 1, attributes);
        Tensor bias = random_bytes(DType::kI32, {c.w[0]}, 7);
        for (std::int32_t& value : bias.mutable_data<std::int32_t>()) value >>= 12;
        Tensor scales = random_floats({c.w[0]}, 5);
        for (float& s : scales.mutable_data<float>()) s = std::abs(s) + 0.01f;
        check("QLinearConv",
              {x,
               {Tensor::scalar(0.02f)},
               x_zero,
               w,
               {scales, true},
               w_zero,
               {Tensor::scalar(2.5f)},
               {random_bytes(dx, {}, 6)},
               {bias}},
              1, attributes);
      }
    }
  }
}

TEST(QuantizeKernels, AreExact) {
  Tensor x = random_floats({3, 5, 70}, 1, 200.0f);
  const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e30f, 0.5f, 1.5f, 2.5f, -0.5f};
  std::copy(std::begin(special), std::end(special), x.mutable_data<float>().begin());
  Tensor scales = random_floats({5}, 2);
  for (float& s : scales.mutable_data<float>()) s = std::abs(s) + 0.1f;
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    check("QuantizeLinear", {{x}, {Tensor::scalar(1.0f)}, {random_bytes(dtype, {}, 3)}}, 1, {});
    check("QuantizeLinear", {{x}, {scales}, {random_bytes(dtype, {5}, 3)}}, 1, {{"axis", std::int64_t{1}}});
    const Tensor q = random_bytes(dtype, {3, 5, 70}, 4);
    check("DequantizeLinear", {{q}, {Tensor::scalar(0.3f)}, {random_bytes(dtype, {}, 3)}}, 1, {}, 0);
    check("DequantizeLinear", {{q}, {scales}, {random_bytes(dtype, {5}, 3)}}, 1, {{"axis", std::int64_t{-2}}}, 0);
  }
  check("DequantizeLinear", {{random_bytes(DType::kI32, {40, 9}, 4)}, {Tensor::scalar(0.3f)}}, 1, {}, 0);
  check("DynamicQuantizeLinear", {{random_floats({7, 33}, 5, 3.0f)}}, 3, {}, 0);
  check("DynamicQuantizeLinear", {{random_floats({40, 1000}, 5, 3.0f)}}, 3, {}, 0);
  check("DynamicQuantizeLinear", {{Tensor::zeros(DType::kF32, {4, 4})}}, 3, {}, 0);
}

TEST(PackedWeightsKernel, AgreesWithItsDefinition) {
  struct Case {
    std::int64_t rows, k, n, bits, block;
    int zeros = 0;  // 1: packed, 2: floats
    bool bias = false;
  };
  const std::vector<Case> cases = {{1, 64, 40, 4, 32},      {7, 100, 33, 4, 16, 1, true}, {100, 130, 65, 4, 128, 2},
                                   {1, 70, 5, 2, 16, 1},    {3, 256, 32, 8, 64, 1},       {2, 48, 130, 8, 16},
                                   {5, 100, 300, 4, 32, 1}, {2, 64, 200, 2, 32},          {0, 32, 8, 4, 32}};
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("{} x {} x {} of {} bits in {}", c.rows, c.k, c.n, c.bits, c.block));
    const std::int64_t blocks = (c.k + c.block - 1) / c.block;
    const Attributes attributes = {{"K", c.k}, {"N", c.n}, {"bits", c.bits}, {"block_size", c.block}};
    Tensor zeros;
    if (c.zeros == 1) zeros = random_bytes(DType::kU8, {c.n, (blocks * c.bits + 7) / 8}, 4);
    if (c.zeros == 2) zeros = random_floats({c.n, blocks}, 4, 8.0f);
    const Tensor a = random_floats({1, c.rows, c.k}, 1);
    std::vector<Given> given = {{a},
                                {random_bytes(DType::kU8, {c.n, blocks, c.block * c.bits / 8}, 2), true},
                                {random_floats({c.n, blocks}, 3, 0.1f), true},
                                {zeros, true},
                                {Tensor()},
                                {c.bias ? random_floats({c.n}, 5) : Tensor(), true}};
    check("MatMulNBits", given, 1, attributes);
    if (c.rows == 0) continue;
    // A row has the same bytes alone and among others.
    const Tensor all = OneNode("MatMulNBits", given, 1, attributes).actual(1)[0];
    given[0] = {Tensor::of<float>({1, 1, c.k}, a.data<float>().first(static_cast<std::size_t>(c.k)))};
    const Tensor alone = OneNode("MatMulNBits", given, 1, attributes).actual(1)[0];
    EXPECT_EQ(std::memcmp(alone.bytes().data(), all.bytes().data(), alone.byte_size()), 0);
  }
}

}  // namespace
}  // namespace weft::runtime
