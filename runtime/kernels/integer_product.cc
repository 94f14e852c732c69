#include "runtime/kernels/integer_product.h"

#include <algorithm>

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

PackedBytes::PackedBytes(const std::uint8_t* bytes, bool is_signed, std::size_t depth, std::size_t columns)
    : shifted_(!is_signed), depth_(depth), columns_(columns), padded_depth_(to_fours(depth)) {
  panels_ = Tensor::zeros(DType::kI8, {static_cast<std::int64_t>(tile::padded_columns(columns) * padded_depth_)});
  sums_.assign(columns, 0);
  std::vector<std::ptrdiff_t> rows(depth);
  for (std::size_t k = 0; k < depth; ++k) rows[k] = static_cast<std::ptrdiff_t>(k * columns);
  tile::pack_rows(bytes, rows, shifted_ ? 0x80 : 0, columns, panels_.mutable_data<std::int8_t>().data(),
                  padded_depth_ * tile::panel_columns(), sums_.data());
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
    tile::multiply(tile::IntegerProduct{bytes_ + first * stride_, stride_, count, stride_,
                                        panels + column * b.padded_depth_, b.padded_depth_ * tile::panel_columns(), to,
                                        columns, width});
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

std::vector<std::int32_t> zero_points(const Tensor* tensor) {
  if (tensor == nullptr) return {0};
  std::vector<std::int32_t> zeros;
  for (const std::int64_t zero : tensor->to_ints()) zeros.push_back(static_cast<std::int32_t>(zero));
  return zeros;
}

}  // namespace weft::runtime
