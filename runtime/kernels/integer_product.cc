#include "runtime/kernels/integer_product.h"

#include <algorithm>

#include "ops/wrapping.h"
#include "runtime/kernels/tile.h"

namespace weft::runtime {
namespace {

// Rows and columns of a task.
constexpr std::size_t kRows = 96;
constexpr std::size_t kColumns = 128;
// Below this many multiplications work stays on one thread.
constexpr std::size_t kSerialWork = 128 * 1024;

std::size_t to_fours(std::size_t n) { return (n + 3) / 4 * 4; }

}  // namespace

PackedBytes::PackedBytes(const std::uint8_t* bytes, bool is_signed, std::size_t depth, std::size_t columns,
                         std::size_t pitch)
    : shifted_(!is_signed), depth_(depth), columns_(columns), padded_depth_(to_fours(depth)) {
  panels_ = Tensor::zeros(DType::kI8, {static_cast<std::int64_t>(tile::padded_columns(columns) * padded_depth_)});
  sums_.assign(columns, 0);
  std::vector<std::ptrdiff_t> rows(depth);
  for (std::size_t k = 0; k < depth; ++k) rows[k] = static_cast<std::ptrdiff_t>(k * pitch);
  tile::pack_rows(bytes, rows, shifted_ ? 0x80 : 0, columns, panels_.mutable_data<std::int8_t>().data(),
                  padded_depth_ * tile::panel_columns(), sums_.data());
}

ScaledBytes::ScaledBytes(PackedBytes bytes, std::span<const std::int32_t> zeros, std::span<const float> scales,
                         std::span<const float> bias)
    : bytes_(std::move(bytes)) {
  const std::size_t columns = bytes_.columns_, padded = tile::padded_columns(columns);
  zeros_.assign(padded, 0);
  scales_.assign(padded, 0.0f);
  bool any = false;
  for (std::size_t n = 0; n < columns; ++n) {
    zeros_[n] = zeros[zeros.size() == 1 ? 0 : n] - (bytes_.shifted_ ? 128 : 0);
    scales_[n] = scales[scales.size() == 1 ? 0 : n];
    any = any || zeros_[n] != 0;
  }
  if (!any) zeros_.clear();
  if (bias.empty()) return;
  bias_.assign(padded, 0.0f);
  std::copy(bias.begin(), bias.end(), bias_.begin());
}

void IntegerMatrix::set(const std::uint8_t* bytes, bool is_signed, std::size_t rows, std::size_t depth,
                        std::span<const std::int32_t> zeros, ThreadPool& pool) {
  rows_ = rows;
  depth_ = depth;
  stride_ = to_fours(depth);
  zeros_.assign(zeros.begin(), zeros.end());
  bytes_ = bytes;
  if (is_signed) {
    for (std::int32_t& zero : zeros_) zero += 128;
  }
  if (is_signed || stride_ != depth) {
    own_.resize(rows * stride_);
    const std::uint8_t flip = is_signed ? 0x80 : 0;
    pool.parallel_for((rows + kRows - 1) / kRows, [&](std::size_t task) {
      for (std::size_t r = task * kRows; r < std::min(rows, (task + 1) * kRows); ++r) {
        std::uint8_t* to = own_.data() + r * stride_;
        for (std::size_t k = 0; k < depth; ++k) to[k] = static_cast<std::uint8_t>(bytes[r * depth + k] ^ flip);
        std::fill(to + depth, to + stride_, std::uint8_t{0});
      }
    });
    bytes_ = own_.data();
  }
  sums_.clear();
}

void IntegerMatrix::multiply(const PackedBytes& b, std::span<const std::int32_t> b_zeros, std::int32_t* y,
                             ThreadPool& pool) const {
  const std::size_t columns = b.columns_;
  std::vector<std::int32_t> zeros(columns);
  bool any = false;
  for (std::size_t n = 0; n < columns; ++n) {
    zeros[n] = b_zeros[b_zeros.size() == 1 ? 0 : n] - (b.shifted_ ? 128 : 0);
    any = any || zeros[n] != 0;
  }
  const std::int8_t* const panels = b.panels_.data<std::int8_t>().data();
  const std::size_t strips = (columns + kColumns - 1) / kColumns;
  const auto body = [&](std::size_t task) {
    const std::size_t first = task / strips * kRows, count = std::min(kRows, rows_ - first);
    const std::size_t column = task % strips * kColumns, width = std::min(kColumns, columns - column);
    std::int32_t* to = y + first * columns + column;
    tile::multiply(tile::IntegerProduct{{bytes_ + first * stride_, stride_, count, stride_,
                                         panels + column * b.padded_depth_, b.padded_depth_ * tile::panel_columns()},
                                        to,
                                        columns,
                                        width});
    for (std::size_t r = 0; r < count; ++r) {
      const std::int32_t zero = zeros_[zeros_.size() == 1 ? 0 : first + r];
      const std::int32_t sum =
          any ? tile::sum_of(bytes_ + (first + r) * stride_, depth_) - static_cast<std::int32_t>(depth_) * zero : 0;
      tile::subtract_products(zero, b.sums_.data() + column, sum, zeros.data() + column, to + r * columns, width);
    }
  };
  const std::size_t tasks = (rows_ + kRows - 1) / kRows * strips;
  if (rows_ * columns * depth_ < kSerialWork) {
    for (std::size_t task = 0; task < tasks; ++task) body(task);
  } else {
    pool.parallel_for(tasks, body);
  }
}

struct IntegerMatrix::Prepared {
  const ScaledPart* part;
  const std::int32_t* shifts;
  const float* scales;
  std::size_t first_task;
};

void IntegerMatrix::multiply(std::span<const ScaledPart> parts, float scale, ThreadPool& pool) {
  const std::int32_t zero = zeros_[0];
  const std::size_t bands = (rows_ + kRows - 1) / kRows;
  std::vector<Prepared> prepared;
  std::size_t total = 0, tasks = 0;
  bool sums = false;
  for (const ScaledPart& part : parts) total += part.b->scales_.size();
  shifts_.resize(total);
  scales_.resize(total);
  total = 0;
  for (const ScaledPart& part : parts) {
    const ScaledBytes& b = *part.b;
    prepared.push_back({&part, shifts_.data() + total, scales_.data() + total, tasks});
    for (std::size_t n = 0; n < b.scales_.size(); ++n) {
      shifts_[total + n] = n < b.bytes_.columns_ ? wrapping_multiply(zero, b.bytes_.sums_[n]) : 0;
      scales_[total + n] = scale * b.scales_[n];
    }
    total += b.scales_.size();
    tasks += bands * ((b.bytes_.columns_ + kColumns - 1) / kColumns);
    sums = sums || !b.zeros_.empty();
  }
  if (sums) {
    sums_.resize(rows_);
    const std::int32_t known = wrapping_multiply(static_cast<std::int32_t>(depth_), zero);
    pool.parallel_for(bands, [&](std::size_t band) {
      for (std::size_t r = band * kRows; r < std::min(rows_, (band + 1) * kRows); ++r) {
        sums_[r] = wrapping_subtract(tile::sum_of(bytes_ + r * stride_, depth_), known);
      }
    });
  }
  const auto body = [&](std::size_t task) {
    const auto next = std::upper_bound(prepared.begin(), prepared.end(), task,
                                       [](std::size_t t, const Prepared& p) { return t < p.first_task; });
    multiply_task(*(next - 1), task - (next - 1)->first_task);
  };
  if (rows_ * total * depth_ < kSerialWork) {
    for (std::size_t task = 0; task < tasks; ++task) body(task);
  } else {
    pool.parallel_for(tasks, body);
  }
}

void IntegerMatrix::multiply_task(const Prepared& prepared, std::size_t task) const {
  const ScaledPart& part = *prepared.part;
  const ScaledBytes& b = *part.b;
  const std::size_t columns = b.bytes_.columns_, strips = (columns + kColumns - 1) / kColumns;
  const std::size_t first = task / strips * kRows, count = std::min(kRows, rows_ - first);
  const std::size_t column = task % strips * kColumns, width = std::min(kColumns, columns - column);
  const std::size_t at = first * columns + column;
  tile::multiply(tile::ScaledProduct{{bytes_ + first * stride_, stride_, count, stride_,
                                      b.bytes_.panels_.data<std::int8_t>().data() + column * b.bytes_.padded_depth_,
                                      b.bytes_.padded_depth_ * tile::panel_columns()},
                                     prepared.shifts + column,
                                     b.zeros_.empty() ? nullptr : b.zeros_.data() + column,
                                     b.zeros_.empty() ? nullptr : sums_.data() + first,
                                     prepared.scales + column,
                                     b.bias_.empty() ? nullptr : b.bias_.data() + column,
                                     part.residual != nullptr ? part.residual + at : nullptr,
                                     part.y + at,
                                     columns,
                                     width});
  if (part.activation == simd::Activation::kNone) return;
  for (std::size_t r = 0; r < count; ++r) {
    float* row = part.y + at + r * columns;
    simd::activate(part.activation, 1.0f, row, row, width);
  }
}

std::vector<std::int32_t> zero_points(const Tensor* tensor) {
  if (tensor == nullptr) return {0};
  std::vector<std::int32_t> zeros;
  for (const std::int64_t zero : tensor->to_ints()) zeros.push_back(static_cast<std::int32_t>(zero));
  return zeros;
}

}  // namespace weft::runtime
