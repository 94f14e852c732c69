#include "graph/tensor.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graph/narrow.h"

namespace weft {
namespace {

TEST(Float16, EveryValueRoundTrips) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half = Float16::from_bits(static_cast<std::uint16_t>(bits));
    const auto value = static_cast<float>(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(Float16(value))));
    } else {
      ASSERT_EQ(Float16(value).bits, bits);
    }
  }
}

TEST(Float16, RoundsToNearestEven) {
  EXPECT_EQ(static_cast<float>(Float16(1.0f + 0x1p-11f)), 1.0f);
  EXPECT_EQ(static_cast<float>(Float16(1.0f + 3 * 0x1p-11f)), 1.0f + 0x1p-9f);
  EXPECT_TRUE(std::isinf(static_cast<float>(Float16(65520.0f))));
  EXPECT_EQ(static_cast<float>(Float16(65519.0f)), 65504.0f);
  EXPECT_EQ(Float16(0x1p-25f).bits, 0);
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(static_cast<float>(BFloat16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(static_cast<float>(BFloat16(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(NAN))));
}

TEST(Tensor, CopiesShareAndClonesDoNot) {
  Tensor a = Tensor::of<float>({2}, {1, 2});
  const Tensor shared = a;
  const Tensor cloned = a.clone();
  a.mutable_data<float>()[0] = 5;
  EXPECT_EQ(shared.data<float>()[0], 5);
  EXPECT_EQ(cloned.data<float>()[0], 1);
}

TEST(Tensor, RefusesWhatDoesNotFit) {
  EXPECT_THROW(Tensor::of<float>({3}, {1, 2}), Error);
  EXPECT_THROW(Tensor::zeros(DType::kF32, {-1}), Error);
  EXPECT_THROW(Tensor::zeros(DType::kF32, {std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
  EXPECT_THROW(Tensor::of<float>({2}, {1, 2}).data<double>(), Error);
  EXPECT_THROW(Tensor::of<float>({2}, {1, 2}).reshaped({3}), Error);
  const auto bytes = std::make_shared<std::byte>();
  EXPECT_THROW(Tensor::share(DType::kF32, {1}, bytes, 1), Error);
}

TEST(Tensor, SharedBytesAreReadOnlyAndMayBeMisaligned) {
  const Tensor owner = Tensor::of<std::uint8_t>({9}, {0, 0, 0, 128, 63, 0, 0, 0, 64});
  const std::shared_ptr<const std::byte> second(std::make_shared<Tensor>(owner), owner.bytes().data() + 1);
  Tensor shared = Tensor::share(DType::kF32, {2}, second, 8);
  EXPECT_THROW(shared.data<float>(), Error);
  EXPECT_EQ(shared.aligned().data<float>()[0], 1.0f);
  EXPECT_EQ(shared.aligned().data<float>()[1], 2.0f);
  EXPECT_THROW(shared.mutable_bytes(), Error);
}

TEST(Tensor, ZeroExtentsHoldNothing) {
  EXPECT_EQ(Tensor::zeros(DType::kI64, {3, 0, 2}).size(), 0);
  EXPECT_EQ(Tensor::scalar<std::int64_t>(7).rank(), 0);
  EXPECT_EQ(Tensor::scalar<std::int64_t>(7).item(), 7);
}

TEST(Narrow, EveryCodeRoundTrips) {
  for (const DType dtype : {DType::kI4, DType::kU4, DType::kI2, DType::kU2, DType::kF4E2M1, DType::kF8E4M3FN,
                            DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ, DType::kF8E8M0}) {
    const unsigned codes = 1u << packed_bits(dtype);
    const bool is_signed = dtype == DType::kI4 || dtype == DType::kI2;
    for (unsigned code = 0; code < codes; ++code) {
      const bool negative = is_signed && code >= codes / 2;
      const auto bits = static_cast<std::uint8_t>(negative ? code - codes : code);
      const float value = narrow_to_float(dtype, bits);
      const std::uint8_t again = narrow_from_double(dtype, static_cast<double>(value), false);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(narrow_to_float(dtype, again))) << to_string(dtype) << " " << code;
      } else {
        EXPECT_EQ(again, bits) << to_string(dtype) << " " << code;
      }
    }
  }
}

TEST(Narrow, RoundsToEvenAndSaturatesOrNot) {
  EXPECT_EQ(narrow_to_float(DType::kF8E4M3FN, narrow_from_double(DType::kF8E4M3FN, 1.0625)), 1.0f);
  EXPECT_EQ(narrow_to_float(DType::kF8E4M3FN, narrow_from_double(DType::kF8E4M3FN, 1.1875)), 1.25f);
  EXPECT_EQ(narrow_to_float(DType::kF8E4M3FN, narrow_from_double(DType::kF8E4M3FN, 1e9)), 448.0f);
  EXPECT_TRUE(std::isnan(narrow_to_float(DType::kF8E4M3FN, narrow_from_double(DType::kF8E4M3FN, 1e9, false))));
  EXPECT_TRUE(std::isinf(narrow_to_float(DType::kF8E5M2, narrow_from_double(DType::kF8E5M2, 1e9, false))));
  EXPECT_EQ(narrow_to_float(DType::kF4E2M1, narrow_from_double(DType::kF4E2M1, 1e9, false)), 6.0f);
  EXPECT_EQ(narrow_to_float(DType::kI4, narrow_from_double(DType::kI4, 9.0)), -7.0f);
  EXPECT_EQ(narrow_to_float(DType::kF8E8M0, narrow_from_double(DType::kF8E8M0, 3.0, true, Rounding::kDown)), 2.0f);
  EXPECT_EQ(narrow_to_float(DType::kF8E8M0, narrow_from_double(DType::kF8E8M0, 3.0, true, Rounding::kUp)), 4.0f);
}

TEST(Container, HoldsTensorsAndComparesThem) {
  Tensor sequence = Tensor::uninitialized(DType::kSequence, {2});
  sequence.mutable_data<Tensor>()[0] = Tensor::of<float>({2}, {1, 2});
  sequence.mutable_data<Tensor>()[1] = Tensor::of<float>({1}, {3});
  const Tensor copy = sequence.clone();
  EXPECT_TRUE(copy.identical(sequence));
  sequence.mutable_data<Tensor>()[1] = Tensor::of<float>({1}, {4});
  EXPECT_FALSE(copy.identical(sequence));
  EXPECT_THROW(sequence.bytes(), Error);
  EXPECT_THROW(sequence.data<float>(), Error);
}

}  // namespace
}  // namespace weft
