// Compiled once per instruction set, included by gemm.cc only.
#if defined(WEFT_GEMM_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_GEMM_INL_H
#undef WEFT_GEMM_INL_H
#else
#define WEFT_GEMM_INL_H
#endif

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "hwy/highway.h"
#include "runtime/kernels/activation-inl.h"
#include "runtime/kernels/gemm.h"

HWY_BEFORE_NAMESPACE();
namespace weft::runtime::gemm::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;
using simd::Activation;

// A tile of kRows x kVectors accumulators, a row of weights and one broadcast value fill the registers.
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3;
constexpr std::size_t kVectors = kManyRegisters ? 3 : 2;
constexpr std::size_t kRows = kManyRegisters ? 8 : 6;
// Rows of a panel that all tiles use before the next ones: a slice stays in the cache meanwhile. While the tiles work
// on a slice each of them asks the memory for its share of the next one. With few tiles, slices as long as the second
// cache allows; with one, the weights are one stream, asked for a little ahead: for the second cache first, then for
// the first, so that products wait for neither.
constexpr std::size_t kDepth = kManyRegisters ? 768 : 384;
constexpr std::size_t kFewTiles = 4;
constexpr std::size_t kFewTilesDepth = 2048;
constexpr std::size_t kPrefetchBytes = 8192, kNearBytes = 1024;
constexpr std::size_t kPrefetchRows = 8;  // of a matrix that lies as it is

constexpr float kZeros[kVectors * hn::MaxLanes(F())] = {};

HWY_INLINE std::size_t Lanes() { return hn::Lanes(F()); }

std::size_t PanelColumns() { return kVectors * Lanes(); }
std::size_t VectorColumns() { return Lanes(); }

struct Panel {
  std::size_t offset;  // into the packed matrix
  std::size_t column, columns, vectors;
};

HWY_INLINE Panel PanelAt(const PackedShape& shape, std::size_t index) {
  const std::size_t whole = kVectors * Lanes();
  const std::size_t columns = std::min(whole, shape.n - index * whole);
  return {index * whole * shape.k, index * whole, columns, (columns + Lanes() - 1) / Lanes()};
}

void Pack(const PackedShape& shape, const std::byte* source, std::size_t k_stride, std::size_t n_stride,
          std::size_t first, std::size_t last, float* packed) {
  for (std::size_t index = first; index < last; ++index) {
    const Panel panel = PanelAt(shape, index);
    const std::size_t width = panel.vectors * Lanes();
    const auto at = [&](std::size_t k, std::size_t n) {
      return source + (k * k_stride + (panel.column + n) * n_stride) * sizeof(float);
    };
    float* to = packed + panel.offset;
    if (n_stride == 1) {
      for (std::size_t k = 0; k < shape.k; ++k, to += width) {
        std::memcpy(to, at(k, 0), panel.columns * sizeof(float));
        std::fill(to + panel.columns, to + width, 0.0f);
      }
      continue;
    }
    constexpr std::size_t kTogether = 16;  // so that a line of the source is used at once
    for (std::size_t k0 = 0; k0 < shape.k; k0 += kTogether) {
      const std::size_t k1 = std::min(k0 + kTogether, shape.k);
      for (std::size_t n = 0; n < width; ++n) {
        for (std::size_t k = k0; k < k1; ++k) {
          float& element = to[k * width + n];
          element = 0.0f;
          if (n < panel.columns) std::memcpy(&element, at(k, n), sizeof element);
        }
      }
    }
  }
}

// One tile of c over a part of K.
struct Tile {
  const float* a;
  std::size_t a_stride;
  const float* b;
  std::size_t b_stride;
  std::size_t depth;
  float* c;
  std::size_t c_stride;
  std::size_t columns;
  const float* from;  // what the sums begin with: c, or the bias for every row
  std::size_t from_stride;
  const float* next;   // the c of the next tile
  const float* ahead;  // weights that will be wanted later, for each row of these
  std::size_t ahead_stride;
};

// kAlone: no other tile uses these weights, which lie row after row.
template <std::size_t kR, std::size_t kV, bool kAlone>
HWY_INLINE void MultiplyTile(const Tile& t) {
  const F d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t tail = t.columns - (kV - 1) * lanes;  // columns of the last vector
  const bool whole = tail == lanes;
  V sum[kR][kV];  // written in whole loops only, so that it becomes registers
  for (std::size_t r = 0; r < kR; ++r) {
    for (std::size_t v = 0; v < kV; ++v) {
      const float* from = t.from + r * t.from_stride + v * lanes;
      sum[r][v] = whole || v + 1 < kV ? hn::LoadU(d, from) : hn::LoadN(d, from, tail);
    }
  }
  const float* a[kR];
  for (std::size_t r = 0; r < kR; ++r) {
    a[r] = t.a + r * t.a_stride;
    for (std::size_t v = 0; v <= kV; ++v) __builtin_prefetch(t.next + r * t.c_stride + v * lanes, 1, 3);
  }
  const float* b = t.b;
  const float* ahead = t.ahead;
  for (std::size_t k = 0; k < t.depth; ++k, b += t.b_stride, ahead += t.ahead_stride) {
    V w[kV];
    for (std::size_t v = 0; v < kV; ++v) {
      __builtin_prefetch(ahead + v * lanes, 0, 2);
      if (kAlone) __builtin_prefetch(b + v * lanes + kNearBytes / sizeof(float), 0, 3);
      w[v] = hn::LoadU(d, b + v * lanes);
    }
    for (std::size_t r = 0; r < kR; ++r) {
      const V x = hn::Set(d, a[r][k]);
      for (std::size_t v = 0; v < kV; ++v) sum[r][v] = hn::MulAdd(x, w[v], sum[r][v]);
    }
  }
  for (std::size_t r = 0; r < kR; ++r) {
    for (std::size_t v = 0; v < kV; ++v) {
      float* c = t.c + r * t.c_stride + v * lanes;
      if (whole || v + 1 < kV) {
        hn::StoreU(sum[r][v], d, c);
      } else {
        hn::StoreN(sum[r][v], d, c, tail);
      }
    }
  }
}

template <std::size_t kR, bool kAlone>
HWY_NOINLINE void MultiplyRows(std::size_t vectors, const Tile& t) {
  switch (vectors) {
    case 1: return MultiplyTile<kR, 1, kAlone>(t);
    case 2: return MultiplyTile<kR, 2, kAlone>(t);
    default: return MultiplyTile<kR, kVectors, kAlone>(t);
  }
}

template <bool kAlone>
HWY_INLINE void MultiplyTile(std::size_t rows, std::size_t vectors, const Tile& t) {
  switch (rows) {
    case 1: return MultiplyRows<1, kAlone>(vectors, t);
    case 2: return MultiplyRows<2, kAlone>(vectors, t);
    case 3: return MultiplyRows<3, kAlone>(vectors, t);
    case 4: return MultiplyRows<4, kAlone>(vectors, t);
    case 5: return MultiplyRows<5, kAlone>(vectors, t);
    case 6: return MultiplyRows<6, kAlone>(vectors, t);
    case 7: return MultiplyRows<std::min<std::size_t>(7, kRows), kAlone>(vectors, t);
    default: return MultiplyRows<kRows, kAlone>(vectors, t);
  }
}

// Activation and residual of a tile that has just been computed.
HWY_NOINLINE void Finish(const Product& p, std::size_t row, std::size_t row_end, const Panel& panel) {
  using namespace simd::HWY_NAMESPACE;
  const auto each = [&](const auto& body) HWY_ATTR {
    for (std::size_t r = row; r < row_end; ++r) {
      float* const c = p.c + r * p.c_stride + panel.column;
      ForEachVector(panel.columns, [&](std::size_t i, std::size_t lanes) HWY_ATTR { body(r, c, i, lanes); });
    }
  };
  if (p.activation != Activation::kNone) {
    WithActivation(p.activation, 1.0f, [&](const auto& f) HWY_ATTR {
      each([&](std::size_t, float* c, std::size_t i, std::size_t lanes)
               HWY_ATTR { Store(f(Load(c + i, lanes)), c + i, lanes); });
    });
  }
  if (p.residual == nullptr) return;
  each([&](std::size_t r, float* c, std::size_t i, std::size_t lanes) HWY_ATTR {
    const float* residual = p.residual + r * p.residual_stride + panel.column + i;
    Store(hn::Add(Load(c + i, lanes), Load(residual, lanes)), c + i, lanes);
  });
}

// Where the weights lie that the block reads after this panel's part.
HWY_INLINE const float* Later(const Product& p, const Block& block, std::size_t index, std::size_t part,
                              std::size_t parts) {
  const bool last = index + 1 == block.panel_end;
  const std::size_t next = last ? (part + 1 < parts ? block.panel : index) : index + 1;
  const Panel panel = PanelAt(p.shape, next);
  const std::size_t next_part = last ? part + 1 : part;
  return p.packed + panel.offset + next_part * p.shape.k / parts * panel.vectors * Lanes();
}

// One row by a matrix as it lies, row after row of that, as the memory gives them.
void MultiplyRow(const Product& p, const Block& block) {
  using namespace simd::HWY_NAMESPACE;
  const std::size_t first = block.panel * kVectors * Lanes();
  const std::size_t columns = std::min(block.panel_end * kVectors * Lanes(), p.shape.n) - first;
  const float* const a = p.a + block.row * p.a_stride;
  const float* const b = p.loose + first;
  float* const c = p.c + block.row * p.c_stride + first;
  std::fill_n(c, columns, 0.0f);
  constexpr std::size_t kTogether = 4;
  for (std::size_t k = 0; k < p.shape.k; k += kTogether) {
    const std::size_t count = std::min(kTogether, p.shape.k - k);
    const float* const rows = b + k * p.shape.n;
    ForEachVector(columns, [&](std::size_t i, std::size_t lanes) HWY_ATTR {
      V sum = Load(c + i, lanes);
      if (HWY_LIKELY(count == kTogether)) {
        for (std::size_t r = 0; r < kTogether; ++r)
          sum = hn::MulAdd(hn::Set(F(), a[k + r]), Load(rows + r * p.shape.n + i, lanes), sum);
      } else {
        for (std::size_t r = 0; r < count; ++r)
          sum = hn::MulAdd(hn::Set(F(), a[k + r]), Load(rows + r * p.shape.n + i, lanes), sum);
      }
      Store(sum, c + i, lanes);
    });
  }
}

void MultiplyBlock(const Product& p, const Block& block) {
  if (p.loose != nullptr && block.row_end - block.row == 1 && p.bias == nullptr && p.residual == nullptr &&
      p.activation == Activation::kNone) {
    return MultiplyRow(p, block);
  }
  const std::size_t rows = block.row_end - block.row;
  const std::size_t tiles = (rows + kRows - 1) / kRows;
  const std::size_t depth = tiles <= kFewTiles ? kFewTilesDepth : kDepth;
  const std::size_t parts = std::max<std::size_t>((p.shape.k + depth - 1) / depth, 1);
  const bool finish = p.activation != Activation::kNone || p.residual != nullptr;
  for (std::size_t part = 0; part < parts; ++part) {
    const std::size_t k = part * p.shape.k / parts;
    const std::size_t k_end = (part + 1) * p.shape.k / parts;
    for (std::size_t index = block.panel; index < block.panel_end; ++index) {
      const Panel panel = PanelAt(p.shape, index);
      Tile tile{};
      tile.a_stride = p.a_stride;
      const bool loose = p.loose != nullptr && panel.columns == kVectors * Lanes();
      tile.b_stride = loose ? p.shape.n : panel.vectors * Lanes();
      tile.b = k * tile.b_stride + (loose                ? p.loose + panel.column
                                    : p.loose != nullptr ? p.packed
                                                         : p.packed + panel.offset);
      tile.depth = k_end - k;
      tile.c_stride = p.c_stride;
      tile.columns = panel.columns;
      const float* start = p.bias != nullptr ? p.bias + panel.column : kZeros;
      tile.from_stride = part == 0 ? 0 : p.c_stride;
      tile.ahead_stride = loose ? p.shape.n : (panel.vectors * Lanes() + tiles - 1) / tiles;
      const float* later = p.loose == nullptr ? Later(p, block, index, part, parts) : tile.b;
      for (std::size_t i = 0; i < tiles; ++i) {
        tile.ahead = later + i * tile.depth * tile.ahead_stride;
        if (tiles == 1) tile.ahead = tile.b + kPrefetchBytes / sizeof(float);
        if (loose) tile.ahead = tile.b + kPrefetchRows * tile.b_stride;
        const std::size_t row = block.row + i * rows / tiles;
        const std::size_t row_end = block.row + (i + 1) * rows / tiles;
        tile.a = p.a + row * p.a_stride + k;
        tile.c = p.c + row * p.c_stride + panel.column;
        tile.from = part == 0 ? start : tile.c;
        tile.next = i + 1 < tiles ? tile.c + (row_end - row) * p.c_stride
                                  : p.c + block.row * p.c_stride + panel.column + panel.columns;
        tiles == 1 && !loose ? MultiplyTile<true>(row_end - row, panel.vectors, tile)
                             : MultiplyTile<false>(row_end - row, panel.vectors, tile);
        if (finish && part + 1 == parts) Finish(p, row, row_end, panel);
      }
    }
  }
}

}  // namespace weft::runtime::gemm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
