#include "passes/mask_tables.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace weft {
namespace {

constexpr std::int64_t kCovered = 8;
constexpr std::int64_t kRows = 64;
constexpr std::size_t kMaxChanges = 2;

// Calls body(data) with the elements of a numeric tensor.
template <class Body>
bool with_numbers(const Tensor& tensor, Body&& body) {
  bool result = false;
  const Tensor whole = tensor.aligned();
  visit_dtype(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T>) result = body(whole.data<T>());
  });
  return result;
}

// [..., heads, 1, N] or [heads, N], the steps of a row equal as far as their precision goes; one number is a row too.
bool is_steps_per_head(const Tensor& tensor, const Dim& heads) {
  constexpr double kPrecision = 4e-7;
  const Extents& shape = tensor.shape();
  if (shape.empty() || !is_float(tensor.dtype()) || !heads.is_constant()) return false;
  const std::int64_t columns = shape.back();
  std::vector<std::int64_t> wide;
  std::copy_if(shape.begin(), shape.end() - 1, std::back_inserter(wide), [](std::int64_t n) { return n != 1; });
  if (wide != std::vector<std::int64_t>{heads.value()}) return false;
  if (columns == 1) return true;
  return with_numbers(tensor, [&](auto numbers) {
    for (std::size_t row = 0; row < numbers.size(); row += static_cast<std::size_t>(columns)) {
      const auto at = [&](std::int64_t i) { return static_cast<double>(numbers[row + static_cast<std::size_t>(i)]); };
      const double step = (at(columns - 1) - at(0)) / static_cast<double>(columns - 1);
      const double allowed = kPrecision * std::max(std::abs(at(0)), std::abs(at(columns - 1)));
      for (std::int64_t i = 0; i < columns; ++i) {
        if (!(std::abs(at(i) - (at(0) + step * static_cast<double>(i))) <= allowed)) return false;
      }
    }
    return true;
  });
}

}  // namespace

bool is_covered_by_samples(const Tensor& tensor, const Dim& heads) {
  const bool small =
      std::all_of(tensor.shape().begin(), tensor.shape().end(), [](std::int64_t n) { return n <= kCovered; });
  if (small || is_steps_per_head(tensor, heads)) return true;
  const bool row =
      std::count_if(tensor.shape().begin(), tensor.shape().end(), [](std::int64_t n) { return n != 1; }) == 1;
  return row && with_numbers(tensor, [](auto numbers) {
           for (std::size_t i = 0; i < numbers.size(); ++i) {
             if (static_cast<double>(numbers[i]) != static_cast<double>(numbers[0]) + static_cast<double>(i))
               return false;
           }
           return true;
         });
}

std::optional<BandTable> read_band_table(const Tensor& tensor) {
  const auto rank = static_cast<std::size_t>(tensor.rank());
  if (rank < 2 ||
      std::any_of(tensor.shape().begin(), tensor.shape().end() - 2, [](std::int64_t n) { return n != 1; })) {
    return std::nullopt;
  }
  const std::int64_t rows = tensor.shape()[rank - 2], columns = tensor.shape()[rank - 1];
  if (rows == 0 || columns == 0) return std::nullopt;
  BandTable table{tensor.dtype(), tensor.shape(), {}, {}};
  const bool is_band = with_numbers(tensor, [&](auto numbers) {
    const auto at = [&](std::int64_t i, std::int64_t j) { return numbers[static_cast<std::size_t>(i * columns + j)]; };
    table.values.push_back(static_cast<double>(at(rows - 1, 0)));
    for (std::int64_t distance = 2 - rows; distance < columns; ++distance) {
      const auto value = static_cast<double>(distance < 0 ? at(-distance, 0) : at(0, distance));
      if (value == table.values.back()) continue;
      if (table.changes.size() == kMaxChanges) return false;
      table.changes.push_back(distance);
      table.values.push_back(value);
    }
    for (std::int64_t i = 1; i < rows; ++i) {
      for (std::int64_t j = 1; j < columns; ++j) {
        if (at(i, j) != at(i - 1, j - 1)) return false;
      }
    }
    return true;
  });
  return is_band ? std::optional(table) : std::nullopt;
}

Tensor make_band_table(const BandTable& table, const std::function<std::int64_t(std::int64_t)>& moved) {
  Extents shape = table.shape;
  for (std::size_t axis = shape.size() - 2; axis < shape.size(); ++axis) shape[axis] = std::min(shape[axis], kRows);
  const std::int64_t rows = shape[shape.size() - 2], columns = shape.back();
  Tensor result = Tensor::uninitialized(table.dtype, shape);
  visit_dtype(table.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T>) {
      const auto out = result.mutable_data<T>();
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
          std::size_t piece = 0;
          while (piece < table.changes.size() && j - i >= moved(table.changes[piece])) ++piece;
          out[static_cast<std::size_t>(i * columns + j)] = static_cast<T>(table.values[piece]);
        }
      }
    }
  });
  return result;
}

}  // namespace weft
