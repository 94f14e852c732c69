// Reductions and operators along an axis, against their references.
#include <limits>

#include "tests/runtime/one_node.h"

namespace weft::runtime {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Given axes(const Ints& list) { return {Tensor::vector<std::int64_t>(list), true}; }

const char* const kReductions[] = {"ReduceSum", "ReduceMean", "ReduceL1",     "ReduceL2",       "ReduceMax",
                                   "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceSumSquare"};

TEST(Reduction, AlongAnyAxes) {
  const std::pair<Extents, Ints> cases[] = {
      {{5}, {0}},
      {{3, 37}, {1}},
      {{37, 3}, {0}},
      {{2, 3, 4, 5}, {0, 2}},
      {{2, 3, 4, 5}, {1, 3}},
      {{2, 3, 4, 5}, {1, 2, 3}},
      {{4, 1, 70, 1, 9}, {2, -1}},
      {{7, 1, 5}, {1}},  // nothing to add up
      {{1, 1}, {0, 1}},
      {{2, 2, 2, 2, 2, 2, 2}, {0, 2, 4, 6}},
      {{3, 700, 65}, {1}},  // several units of columns
      {{2, 40000}, {1}},    // several units of a row
      {{600, 2, 70}, {0, 2}},
      {{1, 1100, 3}, {0, 1}},
      {{0, 3}, {1}},
      {{3, 0, 2}, {1}},
  };
  for (const auto& [shape, list] : cases) {
    for (const char* op : kReductions) {
      for (const std::int64_t keep : {0, 1}) {
        SCOPED_TRACE(fmt::format("{} {} along {}", op, to_string(shape), to_string(list)));
        Tensor x = random_floats(shape, 1);
        const std::string_view name = op;
        for (float& v : x.mutable_data<float>()) {
          if (name == "ReduceProd") v = 1.0f + 1e-4f * v;
          if (name == "ReduceLogSum") v = std::abs(v) + 0.01f;
        }
        check(op, {{x}, axes(list)}, 1, {{"keepdims", keep}}, name == "ReduceProd" ? 1e-3 : 1e-4);
      }
    }
  }
  for (const char* op : kReductions) check(op, {{random_floats({3, 40, 500}, 1)}}, 1, {}, 1e-4);
}

TEST(Reduction, NaNWins) {
  Tensor x = random_floats({4, 3, 70}, 1);
  x.mutable_data<float>()[3] = NAN;
  x.mutable_data<float>()[211] = kInfinity;
  x.mutable_data<float>()[450] = -kInfinity;
  for (const char* op : kReductions) {
    if (std::string_view(op) == "ReduceLogSum") continue;
    for (const std::int64_t axis : {0, 1, 2}) check(op, {{x}, axes({axis})}, 1, {});
    check(op, {{x}}, 1, {});
  }
}

TEST(Reduction, AxesThatOnlyTheRunKnows) {
  const OneNode node("ReduceSum", {{random_floats({3, 4}, 1)}, {Tensor::vector<std::int64_t>(Ints{1})}}, 1, {});
  expect_close(node.actual(2)[0], node.expected()[0], 1e-6);
  EXPECT_THROW(OneNode("ReduceMax", {{random_floats({3}, 1)}, axes({1})}, 1, {}).actual(1), Error);
}

TEST(AlongAxis, ArgMaxAndArgMin) {
  for (const Extents& shape : {Extents{9}, Extents{3, 100}, Extents{100, 3}, Extents{4, 7, 300}, Extents{3, 1, 2}}) {
    Tensor x = random_floats(shape, 1, 5.0f);
    for (float& v : x.mutable_data<float>()) v = std::round(v);  // many are equal
    for (const bool nan : {false, true}) {
      if (nan) x.mutable_data<float>()[0] = x.mutable_data<float>()[4] = NAN;
      for (std::int64_t axis = 0; axis < x.rank(); ++axis) {
        for (const char* op : {"ArgMax", "ArgMin"}) {
          for (const std::int64_t last : {0, 1}) {
            SCOPED_TRACE(fmt::format("{} of {} along {}", op, to_string(shape), axis));
            check(op, {{x}}, 1, {{"axis", axis}, {"select_last_index", last}, {"keepdims", std::int64_t{axis % 2}}});
          }
        }
      }
    }
  }
  check("ArgMax", {{random_floats({0, 4}, 1)}}, 1, {{"axis", std::int64_t{1}}});
}

TEST(AlongAxis, TopK) {
  Tensor x = random_floats({3, 1000}, 1, 30.0f);
  for (float& v : x.mutable_data<float>()) v = std::round(v);  // many are equal
  for (const bool nan : {false, true}) {
    if (nan) x.mutable_data<float>()[1500] = NAN;
    for (const std::int64_t k : {0, 1, 7, 124, 126, 999, 1000}) {
      for (const std::int64_t largest : {0, 1}) {
        SCOPED_TRACE(k);
        check("TopK", {{x}, axes({k})}, 2, {{"largest", largest}});
        check("TopK", {{x}, {Tensor::vector<std::int64_t>(Ints{k})}}, 2, {{"largest", largest}});
      }
    }
  }
  EXPECT_THROW(OneNode("TopK", {{x}, {Tensor::vector<std::int64_t>(Ints{1001})}}, 2, {}).actual(1), Error);
}

TEST(AlongAxis, CumSum) {
  for (const Extents& shape : {Extents{9}, Extents{3, 100}, Extents{5, 3, 300}, Extents{2, 0, 3}}) {
    for (const DType dtype : {DType::kF32, DType::kI32, DType::kI64}) {
      const Tensor x = dtype == DType::kF32 ? random_floats(shape, 1) : random_bytes(dtype, shape, 1);
      for (std::int64_t axis = 0; axis < x.rank(); ++axis) {
        for (const std::int64_t flags : {0, 1, 2, 3}) {
          check("CumSum", {{x}, {Tensor::scalar(axis)}}, 1, {{"exclusive", flags & 1}, {"reverse", flags >> 1}}, 0);
        }
      }
    }
  }
}

TEST(AlongAxis, LogSoftmax) {
  for (const std::int64_t width : {1, 2, 15, 33, 5000}) {
    Tensor x = random_floats({7, width}, 1, 20.0f);
    float* const v = x.mutable_data<float>().data();
    v[width] = -kInfinity;
    v[2 * width] = NAN;
    std::fill_n(v + 3 * width, width, 1e4f);
    check("LogSoftmax", {{x}}, 1, {}, 2e-7);
  }
}

TEST(AlongAxis, LogSumExpAndLpNormalizationOfUnusualRows) {
  constexpr float kHuge = 1e30f, kTiny = 1e-30f;
  const std::vector<std::vector<float>> rows = {
      {1, -2, 3},         {0, 0, 0},         {-kInfinity, -kInfinity, -kInfinity},
      {-kInfinity, 1, 2}, {kInfinity, 1, 2}, {NAN, 1, kInfinity},
      {kHuge, -kHuge, 1}, {kTiny, -kTiny, 0}};
  std::vector<float> all;
  for (const std::vector<float>& row : rows) all.insert(all.end(), row.begin(), row.end());
  Tensor x = Tensor::uninitialized(DType::kF32, {static_cast<std::int64_t>(rows.size()), 3});
  std::copy(all.begin(), all.end(), x.mutable_data<float>().begin());
  check("ReduceLogSumExp", {{x}, axes({-1})}, 1, {});
  check("ReduceLogSumExp", {{random_floats({2, 3, 4, 5}, 1)}, axes({3, 2})}, 1, {});
  check("ReduceLogSumExp", {{random_floats({2, 40000}, 1)}}, 1, {{"keepdims", std::int64_t{0}}});
  check("ReduceLogSumExp", {{random_floats({3, 0}, 1)}, axes({-1})}, 1, {});
  for (const std::int64_t p : {1, 2}) {
    check("LpNormalization", {{x}}, 1, {{"p", p}});
    check("LpNormalization", {{random_floats({5, 70}, 1)}}, 1, {{"p", p}});
  }
}

TEST(AlongAxis, Softmax) {
  for (const Extents& shape :
       {Extents{3, 100}, Extents{100, 3}, Extents{4, 7, 300}, Extents{3, 1, 2}, Extents{2, 0, 3}}) {
    Tensor x = random_floats(shape, 1, 20.0f);
    if (x.size() > 0) {
      x.mutable_data<float>()[0] = NAN;
      x.mutable_data<float>()[5] = -kInfinity;
      x.mutable_data<float>()[x.size() - 1] = kInfinity;
    }
    for (std::int64_t axis = 0; axis < x.rank(); ++axis) check("Softmax", {{x}}, 1, {{"axis", axis}}, 1e-6);
  }
  check("Softmax", {{Tensor::full(DType::kF32, {3, 40}, -kInfinity)}}, 1, {{"axis", std::int64_t{0}}});
}

TEST(ChannelNorm, AgreesWithItsDefinition) {
  for (const Extents& shape : {Extents{2, 6, 5, 7}, Extents{1, 6, 1000}, Extents{7, 6, 1}, Extents{2, 6, 3, 2, 5},
                               Extents{0, 6, 4}, Extents{2, 6, 70, 71}}) {
    Tensor x = random_floats(shape, 1);
    for (float& v : x.mutable_data<float>()) v += 3.0f;
    const Given scale = {random_floats({6}, 2)}, bias = {random_floats({6}, 3), true};
    SCOPED_TRACE(to_string(shape));
    check("InstanceNormalization", {{x}, scale, bias}, 1, {{"epsilon", 1e-3}}, 2e-5);
    for (const std::int64_t groups : {1, 2, 6})
      check("GroupNormalization", {{x}, scale, bias}, 1, {{"num_groups", groups}}, 2e-5);
  }
}

}  // namespace
}  // namespace weft::runtime
