// Instruction sets that kernels of floats are compiled for: SSE2, AVX2 and AVX-512. Those between and beyond have
// nothing for them. Included before Highway.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
