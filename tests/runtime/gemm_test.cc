#include "runtime/kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "runtime/thread_pool.h"

namespace weft::runtime::gemm {
namespace {

std::vector<float> random_floats(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& x : values) x = static_cast<float>(random()) / 2147483648.0f - 1.0f;
  return values;
}

// A buffer with the alignment that packed matrices want.
struct Packed {
  std::vector<float> storage;
  float* data;
  Packed(const PackedShape& shape, const std::vector<float>& weights, bool by_columns)
      : storage(packed_size(shape) + 16, NAN), data(storage.data()) {
    while (reinterpret_cast<std::uintptr_t>(data) % 64 != 0) ++data;
    const std::size_t panels = panel_count(shape);
    const std::size_t k_stride = by_columns ? 1 : shape.n, n_stride = by_columns ? shape.k : 1;
    std::vector<std::byte> file(weights.size() * sizeof(float) + 1);  // where floats are not aligned
    std::memcpy(file.data() + 1, weights.data(), weights.size() * sizeof(float));
    for (std::size_t i = panels; i-- > 0;) pack(shape, file.data() + 1, k_stride, n_stride, i, i + 1, data);
  }
};

void multiply_all(const Product& product, ThreadPool& pool) {
  const std::span<const Product> products(&product, 1);
  multiply(products, schedule(products, pool.threads()), pool);
}

struct Case {
  std::size_t rows, k, n;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.rows << " x " << c.k << " x " << c.n; }

class Gemm : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case c = GetParam();
    a = random_floats(c.rows * c.k, 1);
    b = random_floats(c.k * c.n, 2);
    bias = random_floats(c.n, 3);
    residual = random_floats(c.rows * c.n, 4);
  }
  Product product(const Packed& packed, std::vector<float>& c) const {
    const Case shape = GetParam();
    Product p;
    p.a = a.data();
    p.a_stride = shape.k;
    p.rows = shape.rows;
    p.packed = packed.data;
    p.shape = {shape.k, shape.n};
    p.bias = bias.data();
    p.activation = simd::Activation::kRelu;
    p.residual = residual.data();
    p.residual_stride = shape.n;
    p.c = c.data();
    p.c_stride = shape.n;
    return p;
  }
  std::vector<float> a, b, bias, residual;
};

TEST_P(Gemm, AgreesWithSumsInDouble) {
  const auto [rows, k, n] = GetParam();
  for (const bool by_columns : {false, true}) {
    std::vector<float> weights = b;
    if (by_columns) {
      for (std::size_t i = 0; i < k; ++i) {
        for (std::size_t j = 0; j < n; ++j) weights[j * k + i] = b[i * n + j];
      }
    }
    const Packed packed({k, n}, weights, by_columns);
    std::vector<float> c(rows * n, NAN);
    ThreadPool pool(2);
    multiply_all(product(packed, c), pool);
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        double sum = bias[j];
        for (std::size_t t = 0; t < k; ++t) sum += static_cast<double>(a[i * k + t]) * b[t * n + j];
        const double expected = std::max(sum, 0.0) + residual[i * n + j];
        ASSERT_NEAR(c[i * n + j], expected, 2e-6 * std::sqrt(static_cast<double>(k)) + 1e-6) << i << ", " << j;
      }
    }
  }
}

TEST_P(Gemm, RowsHaveTheSameBytesAloneAndOnAnyThreads) {
  const auto [rows, k, n] = GetParam();
  const Packed packed({k, n}, b, false);
  std::vector<float> together(rows * n), threads(rows * n), alone(rows * n);
  ThreadPool one(1), three(3);
  multiply_all(product(packed, together), one);
  multiply_all(product(packed, threads), three);
  for (std::size_t r = 0; r < rows; ++r) {
    Product p = product(packed, alone);
    p.a += r * k;
    p.residual += r * n;
    p.c += r * n;
    p.rows = 1;
    multiply_all(p, one);
  }
  EXPECT_EQ(std::memcmp(together.data(), threads.data(), rows * n * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(together.data(), alone.data(), rows * n * sizeof(float)), 0);
}

// Rows around each tile height, columns around vectors and panels, K around and beyond the parts it is cut into.
INSTANTIATE_TEST_SUITE_P(Shapes, Gemm,
                         ::testing::Values(Case{1, 1, 1}, Case{1, 5, 3}, Case{2, 7, 16}, Case{3, 16, 17},
                                           Case{4, 33, 47}, Case{5, 64, 48}, Case{6, 20, 49}, Case{7, 31, 96},
                                           Case{8, 400, 97}, Case{9, 769, 130}, Case{13, 384, 31}, Case{16, 2100, 33},
                                           Case{17, 385, 64}, Case{33, 800, 150}, Case{257, 40, 100},
                                           Case{300, 390, 70}));

TEST(Gemm, NothingToSumGivesTheBias) {
  const PackedShape shape{0, 5};
  EXPECT_EQ(packed_size(shape), 0u);
  const std::vector<float> bias = random_floats(5, 1);
  std::vector<float> c(10, NAN);
  alignas(64) const float nothing[16] = {};
  Product p;
  p.a = nothing;
  p.rows = 2;
  p.packed = nothing;
  p.shape = shape;
  p.bias = bias.data();
  p.c = c.data();
  p.c_stride = 5;
  ThreadPool pool(1);
  multiply_all(p, pool);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_EQ(c[i], bias[i % 5]);
}

TEST(Gemm, NanStaysInItsRow) {
  const PackedShape shape{20, 10};
  std::vector<float> a = random_floats(9 * 20, 1);
  a[4 * 20 + 3] = NAN;
  const Packed packed(shape, random_floats(200, 2), false);
  std::vector<float> c(90);
  Product p;
  p.a = a.data();
  p.a_stride = 20;
  p.rows = 9;
  p.packed = packed.data;
  p.shape = shape;
  p.c = c.data();
  p.c_stride = 10;
  ThreadPool pool(1);
  multiply_all(p, pool);
  for (std::size_t i = 0; i < 90; ++i) EXPECT_EQ(std::isnan(c[i]), i / 10 == 4);
}

}  // namespace
}  // namespace weft::runtime::gemm
