// Resize and GridSample against their references.
#include "tests/runtime/one_node.h"

namespace weft::runtime {
namespace {

Given list(const Ints& values) { return {Tensor::vector<std::int64_t>(values), true}; }
Given scales(const std::vector<float>& values) { return {Tensor::vector<float>(values), true}; }
const Given kAbsent = {Tensor()};

std::string text(const char* value) { return value; }

TEST(ResizeKernel, AgreesWithTheReference) {
  struct Case {
    Extents x;
    std::vector<float> scales;
    Ints sizes;
  };
  const std::vector<Case> cases = {
      {{1, 2, 5, 7}, {1, 1, 2, 2}, {}},
      {{2, 3, 5, 7}, {1, 1, 1.7f, 0.6f}, {}},
      {{2, 3, 20, 33}, {}, {2, 3, 9, 50}},
      {{1, 3, 1, 9}, {}, {1, 3, 4, 1}},
      {{2, 6, 7, 5}, {1, 2, 3, 1}, {}},  // channels last
      {{2, 40, 3}, {1, 1.5f, 1}, {}},    // one axis, not the last
      {{2, 3, 40}, {1, 1, 2.5f}, {}},    // the last alone
      {{1, 2, 4, 5, 6}, {1, 1, 2, 2, 0.5f}, {}},
      {{3, 4, 5, 6}, {2, 1, 2, 1.5f}, {}},  // not beside each other
      {{3, 4}, {1, 1}, {}},                 // nothing
      {{0, 3, 4, 4}, {1, 1, 2, 2}, {}},
      {{1, 4, 60, 60}, {1, 1, 2, 2}, {}},  // for several threads
  };
  for (const Case& c : cases) {
    const Given given_scales = c.scales.empty() ? kAbsent : scales(c.scales);
    const Given given_sizes = c.sizes.empty() ? kAbsent : list(c.sizes);
    for (const char* mode : {"nearest", "linear", "cubic"}) {
      for (const char* transform : {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"}) {
        SCOPED_TRACE(fmt::format("{} {} {}", to_string(c.x), mode, transform));
        const Attributes attributes = {{"mode", text(mode)}, {"coordinate_transformation_mode", text(transform)}};
        check("Resize", {{random_floats(c.x, 1)}, kAbsent, given_scales, given_sizes}, 1, attributes);
      }
    }
    for (const DType dtype : {DType::kU8, DType::kF16, DType::kI64})
      check("Resize", {{random_bytes(dtype, c.x, 1)}, kAbsent, given_scales, given_sizes}, 1, {});
    check("Resize", {{random_floats(c.x, 1)}, kAbsent, given_scales, given_sizes}, 1,
          {{"mode", text("cubic")}, {"antialias", std::int64_t{1}}, {"exclude_outside", std::int64_t{1}}});
  }
  check("Resize", {{random_floats({2, 8, 6}, 1)}, kAbsent, kAbsent, list({5, 9})}, 1,
        {{"mode", text("linear")}, {"axes", Ints{2, 1}}});
}

TEST(ResizeKernel, ListsThatComeWithTheRun) {
  const Tensor x = random_floats({1, 2, 5, 6}, 1);
  const Tensor sizes = Tensor::vector<std::int64_t>(Ints{1, 2, 7, 3});
  check("Resize", {{x}, kAbsent, kAbsent, {sizes}}, 1, {{"mode", text("linear")}});
  const Tensor few = Tensor::vector<std::int64_t>(Ints{7, 3});
  EXPECT_THROW(OneNode("Resize", {{x}, kAbsent, kAbsent, {few}}, 1, {}).actual(1), Error);
}

TEST(GridSampleKernel, AgreesWithTheReference) {
  for (const Extents& x : {Extents{2, 3, 9, 11}, Extents{1, 1, 1, 1}, Extents{1, 4, 3, 5, 4}, Extents{2, 2, 12}}) {
    Extents grid = {x[0]};
    for (std::size_t i = 2; i < x.size(); ++i) grid.push_back(17);
    grid.push_back(static_cast<std::int64_t>(x.size()) - 2);
    Tensor image = random_floats(x, 1), at = random_floats(grid, 2, 1.4f);
    if (image.size() > 7) image.mutable_data<float>()[0] = image.mutable_data<float>()[7] = NAN;
    at.mutable_data<float>()[3] = NAN;
    at.mutable_data<float>()[5] = -1;  // on the border
    for (const char* mode : {"nearest", "linear", "cubic"}) {
      for (const char* padding : {"zeros", "border", "reflection"}) {
        for (const std::int64_t align : {0, 1}) {
          SCOPED_TRACE(fmt::format("{} {} {}", to_string(x), mode, padding));
          check("GridSample", {{image}, {at}}, 1,
                {{"mode", text(mode)}, {"padding_mode", text(padding)}, {"align_corners", align}});
        }
      }
    }
  }
  check("GridSample", {{random_floats({2, 3, 0, 4}, 1)}, {random_floats({2, 3, 3, 2}, 2)}}, 1, {});
  EXPECT_THROW(
      OneNode("GridSample", {{random_floats({2, 3, 4, 4}, 1)}, {random_floats({1, 3, 3, 2}, 2)}}, 1, {}).actual(1),
      Error);
}

}  // namespace
}  // namespace weft::runtime
