#include "runtime/isa.h"

#include <array>

#include "graph/error.h"
#include "hwy/highway.h"
#include "hwy/targets.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

#if HWY_ARCH_X86
constexpr std::int64_t kAvx512 = HWY_AVX3 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR;
constexpr std::array<std::string_view, 3> kNames = {"sse2", "avx2", "avx512"};
constexpr std::array<std::int64_t, 3> kDisabled = {kAvx512 | HWY_AVX2 | HWY_SSE4 | HWY_SSSE3, kAvx512, 0};
#else
constexpr std::array<std::string_view, 1> kNames = {"native"};
constexpr std::array<std::int64_t, 1> kDisabled = {0};
#endif

}  // namespace

std::span<const std::string_view> isa_names() { return kNames; }

void restrict_isa(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return hwy::DisableTargets(kDisabled[i]);
  }
  fail(ErrorCode::kInvalidArgument, "there is no instruction set \"{}\" to restrict kernels to", name);
}

std::string isa_in_use() { return simd::target_name(); }

}  // namespace weft::runtime
