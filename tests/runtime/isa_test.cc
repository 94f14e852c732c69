// WEFT_TEST_ISA=sse2 (avx2, avx512): the tests of this program with no more than these instructions.
#include "runtime/isa.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace weft::runtime {
namespace {

class RestrictedIsa final : public testing::Environment {
 public:
  void SetUp() override {
    const char* isa = std::getenv("WEFT_TEST_ISA");
    if (isa == nullptr) return;
    restrict_isa(isa);
    std::string used = isa_in_use();
    std::transform(used.begin(), used.end(), used.begin(), [](unsigned char c) { return std::tolower(c); });
    EXPECT_EQ(used, isa);
  }
};

const testing::Environment* const kRestricted = testing::AddGlobalTestEnvironment(new RestrictedIsa);

}  // namespace
}  // namespace weft::runtime
