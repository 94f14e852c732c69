// Operators that move elements, against their references: every element width, odd shapes, nothing to move.
#include "tests/runtime/one_node.h"

namespace weft::runtime {
namespace {

Tensor ints(const Ints& values) { return Tensor::vector<std::int64_t>(values); }

constexpr DType kWidths[] = {DType::kU8, DType::kBool, DType::kI4, DType::kF16, DType::kF32, DType::kI64};

Tensor any(DType dtype, const Extents& shape, std::uint32_t seed) {
  Tensor tensor = random_bytes(dtype, shape, seed);
  if (dtype == DType::kBool) {
    for (std::byte& x : tensor.mutable_bytes()) x &= std::byte{1};
  }
  return tensor;
}

TEST(Movement, Transpose) {
  const std::pair<Extents, Ints> cases[] = {
      {{}, {}},
      {{5}, {0}},
      {{3, 4}, {1, 0}},
      {{2, 67, 33}, {0, 2, 1}},
      {{2, 67, 33}, {2, 1, 0}},
      {{40, 9, 41}, {1, 2, 0}},
      {{2, 5, 3, 16}, {0, 2, 1, 3}},
      {{2, 8, 8, 8}, {3, 1, 0, 2}},
      {{1, 3, 1, 300, 7}, {0, 3, 4, 2, 1}},
      {{3, 0, 4}, {2, 0, 1}},
      {{300, 170}, {1, 0}},
  };
  for (const DType dtype : kWidths) {
    for (const auto& [shape, perm] : cases) {
      SCOPED_TRACE(to_string(shape) + " by " + to_string(perm));
      check("Transpose", {{any(dtype, shape, 1)}}, 1, {{"perm", perm}});
    }
    check("Transpose", {{any(dtype, {3, 4, 17}, 1)}}, 1, {});
  }
}

TEST(Movement, StringsStayWithTheReference) {
  const Tensor words = Tensor::of<std::string>({2, 3}, {"a", "bc", "", "def", "g", "h"});
  const OneNode node("Transpose", {{words}}, 1, {});
  EXPECT_FALSE(node.fast());
  EXPECT_TRUE(node.actual(2)[0].identical(Tensor::of<std::string>({3, 2}, {"a", "def", "bc", "g", "", "h"})));
}

TEST(Movement, Expand) {
  const std::pair<Extents, Ints> cases[] = {
      {{}, {2, 3}},      {{1}, {0}},          {{3, 1}, {2, 3, 5}}, {{3, 1, 17}, {3, 70, 17}},
      {{1, 1, 1}, {-1}}, {{7, 1, 4, 1}, {9}}, {{0, 1}, {0, 4}},    {{1, 300}, {200, 300}},
  };
  for (const DType dtype : kWidths) {
    for (const auto& [shape, wanted] : cases) {
      SCOPED_TRACE(to_string(shape) + " to " + to_string(wanted));
      check("Expand", {{any(dtype, shape, 1)}, {ints(wanted), true}}, 1, {});
    }
  }
}

TEST(Movement, Tile) {
  const std::pair<Extents, Ints> cases[] = {
      {{5}, {3}},       {{2, 3}, {1, 1}}, {{2, 3, 4}, {2, 1, 3}}, {{1, 300}, {170, 1}},
      {{2, 3}, {0, 2}}, {{0, 3}, {2, 2}}, {{7, 1}, {1, 5}},
  };
  for (const DType dtype : kWidths) {
    for (const auto& [shape, repeats] : cases) {
      SCOPED_TRACE(to_string(shape) + " by " + to_string(repeats));
      check("Tile", {{any(dtype, shape, 1)}, {ints(repeats), true}}, 1, {});
    }
  }
  EXPECT_THROW(OneNode("Tile", {{random_floats({2, 3}, 1)}, {ints({2})}}, 1, {}).actual(1), Error);
}

TEST(Movement, Slice) {
  struct Case {
    Extents x;
    Ints starts, ends, axes, steps;
  };
  constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();
  const Case cases[] = {
      {{9}, {2}, {7}, {0}, {1}},
      {{4, 9, 5}, {1, -3}, {kEnd, kEnd}, {1, 2}, {2, 1}},
      {{4, 9, 5}, {-1, -1}, {-kEnd, -kEnd}, {2, 0}, {-2, -1}},  // backwards
      {{4, 9, 5}, {5}, {2}, {1}, {1}},                          // nothing
      {{300, 200}, {1}, {199}, {1}, {1}},
      {{300, 200}, {199}, {0}, {1}, {-3}},
      {{0, 5}, {1}, {3}, {1}, {1}},
  };
  for (const DType dtype : kWidths) {
    for (const Case& c : cases) {
      SCOPED_TRACE(to_string(c.x) + " from " + to_string(c.starts));
      const Given x = {any(dtype, c.x, 1)};
      check("Slice", {x, {ints(c.starts), true}, {ints(c.ends), true}, {ints(c.axes), true}, {ints(c.steps), true}}, 1,
            {});
    }
  }
  // Bounds that only the run knows.
  check("Slice", {{random_floats({4, 9}, 1)}, {ints({1})}, {ints({3})}, {ints({1})}}, 1, {});
}

TEST(Movement, SplitAndConcat) {
  for (const DType dtype : kWidths) {
    for (const std::int64_t axis : {0, 1, -1}) {
      check("Split", {{any(dtype, {7, 7, 7}, 1)}, {ints({3, 0, 4}), true}}, 3, {{"axis", axis}});
      check("Split", {{any(dtype, {7, 7, 7}, 1)}}, 3, {{"axis", axis}});
      Extents other = {7, 7, 7};
      other[static_cast<std::size_t>(axis < 0 ? 2 : axis)] = 3;
      check("Concat", {{any(dtype, {7, 7, 7}, 1)}, {any(dtype, other, 2)}, {any(dtype, {7, 7, 7}, 3)}}, 1,
            {{"axis", axis}});
    }
    check("Concat", {{any(dtype, {2, 0, 3}, 1)}, {any(dtype, {2, 5, 3}, 2)}}, 1, {{"axis", std::int64_t{1}}});
    check("Concat", {{any(dtype, {40, 70, 3}, 1)}, {any(dtype, {40, 100, 3}, 2)}}, 1, {{"axis", std::int64_t{1}}});
  }
}

TEST(Movement, Gather) {
  const Tensor indices = Tensor::of<std::int32_t>({2, 3}, {0, -1, 2, 1, 1, -3});
  for (const DType dtype : kWidths) {
    for (const std::int64_t axis : {0, 1, 2}) {
      check("Gather", {{any(dtype, {3, 4, 5}, 1)}, {indices}}, 1, {{"axis", axis}});
    }
    check("Gather", {{any(dtype, {300, 200}, 1)}, {ints({5, 299, 7})}}, 1, {});
    check("Gather", {{any(dtype, {3, 0}, 1)}, {ints({2, 1})}}, 1, {});
    check("Gather", {{any(dtype, {3, 2}, 1)}, {Tensor::scalar<std::int64_t>(1)}}, 1, {{"axis", std::int64_t{1}}});
  }
  EXPECT_THROW(OneNode("Gather", {{random_floats({3}, 1)}, {ints({3})}}, 1, {}).actual(1), Error);
  EXPECT_THROW(OneNode("Gather", {{random_floats({0, 4}, 1)}, {ints({0})}}, 1, {}).actual(1), Error);
}

TEST(Movement, GatherElements) {
  for (const DType dtype : kWidths) {
    for (const std::int64_t axis : {0, 1, -1}) {
      const Tensor some = Tensor::of<std::int64_t>({2, 2, 3}, {0, 1, -1, 1, 0, 1, -2, 0, 0, 1, 1, -1});
      check("GatherElements", {{any(dtype, {2, 2, 3}, 1)}, {some}}, 1, {{"axis", axis}});
      const Tensor few = Tensor::of<std::int32_t>({1, 2, 2}, {1, 0, -1, 1});
      check("GatherElements", {{any(dtype, {2, 3, 4}, 1)}, {few}}, 1, {{"axis", axis}});
    }
  }
  EXPECT_THROW(OneNode("GatherElements", {{random_floats({3}, 1)}, {ints({3})}}, 1, {}).actual(1), Error);
  EXPECT_THROW(OneNode("GatherElements", {{random_floats({2, 3}, 1)}, {Tensor::zeros(DType::kI64, {3, 1})}}, 1,
                       {{"axis", std::int64_t{1}}})
                   .actual(1),
               Error);
}

TEST(Movement, Pad) {
  const std::pair<Extents, Ints> cases[] = {
      {{7}, {2, 3}},
      {{3, 5}, {0, 1, 0, 2}},
      {{3, 5, 4}, {1, 0, 0, 2, 0, 0}},
      {{2, 3, 40, 50}, {0, 0, 1, 2, 0, 0, 3, 4}},
      {{4, 6}, {-1, 2, -2, -3}},
      {{3, 4}, {0, 0, 0, 0}},
      {{1, 1}, {2, 0, 1, 1}},
      {{5, 200, 30}, {0, 4, 4, 0, 4, 4}},
  };
  for (const DType dtype : kWidths) {
    for (const char* mode : {"constant", "reflect", "edge", "wrap"}) {
      for (const auto& [shape, pads] : cases) {
        SCOPED_TRACE(fmt::format("{} {} by {}", mode, to_string(shape), to_string(pads)));
        check("Pad", {{any(dtype, shape, 1)}, {ints(pads), true}, {any(dtype, {}, 9)}}, 1,
              {{"mode", std::string(mode)}});
      }
    }
    check("Pad", {{any(dtype, {2, 5}, 1)}, {ints({3, 4}), true}, {Tensor()}, {ints({1}), true}}, 1, {});
    check("Pad", {{any(dtype, {2, 0}, 1)}, {ints({1, 2, 0, 1}), true}}, 1, {});
  }
  const Attributes edge = {{"mode", std::string("edge")}};
  EXPECT_THROW(OneNode("Pad", {{random_floats({2, 0}, 1)}, {ints({0, 1, 0, 1})}}, 1, edge).actual(1), Error);
}

}  // namespace
}  // namespace weft::runtime
