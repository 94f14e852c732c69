#include "runtime/cache.h"

#include <algorithm>
#include <cstring>

namespace weft::runtime {
namespace {

constexpr std::int64_t kFirstCapacity = 32;

}  // namespace

void CacheState::reset(std::int64_t batch) {
  length_ = 0;
  rows_.assign(static_cast<std::size_t>(batch), nullptr);
}

std::shared_ptr<CacheState::Row> CacheState::grown(const Row* from, std::int64_t capacity) const {
  auto row = std::make_shared<Row>();
  row->capacity = capacity;
  row->data = Tensor::uninitialized(DType::kF32, {heads_, capacity, size_});
  if (from != nullptr && length_ > 0) {
    const float* source = from->data.data<float>().data();
    float* target = row->data.mutable_data<float>().data();
    for (std::int64_t h = 0; h < heads_; ++h) {
      std::memcpy(target + h * capacity * size_, source + h * from->capacity * size_,
                  static_cast<std::size_t>(length_ * size_) * sizeof(float));
    }
  }
  return row;
}

void CacheState::assign(const Tensor& value) {
  if (value.dtype() != DType::kF32 || value.rank() != 4 || value.extent(1) != heads_ || value.extent(3) != size_) {
    fail(ErrorCode::kInvalidArgument, "a cache of f32[B, {}, P, {}] cannot hold {}{}", heads_, size_,
         to_string(value.dtype()), to_string(value.shape()));
  }
  reset(value.extent(0));
  append(value);
}

void CacheState::append(const Tensor& added) {
  const std::int64_t steps = added.extent(2);
  if (added.extent(0) != batch()) {
    fail(ErrorCode::kInvalidArgument, "a cache of {} rows is given {}", batch(), added.extent(0));
  }
  if (steps == 0) return;
  const float* source = added.data<float>().data();
  for (std::size_t b = 0; b < rows_.size(); ++b) {
    std::shared_ptr<Row>& row = rows_[b];
    if (!row || row->capacity < length_ + steps) {
      const std::int64_t wanted = std::max({kFirstCapacity, length_ + steps, length_ * 2});
      row = grown(row.get(), wanted);
    } else if (row.use_count() > 1) {
      row = grown(row.get(), row->capacity);
    }
    float* target = row->data.mutable_data<float>().data();
    for (std::int64_t h = 0; h < heads_; ++h) {
      std::memcpy(target + (h * row->capacity + length_) * size_,
                  source + (static_cast<std::int64_t>(b) * heads_ + h) * steps * size_,
                  static_cast<std::size_t>(steps * size_) * sizeof(float));
    }
  }
  length_ += steps;
}

void CacheState::reorder(std::span<const std::int64_t> parents) {
  std::vector<std::shared_ptr<Row>> next;
  next.reserve(parents.size());
  for (const std::int64_t parent : parents) {
    if (parent < 0 || parent >= batch()) {
      fail(ErrorCode::kInvalidArgument, "cache row {} of {} does not exist", parent, batch());
    }
    next.push_back(rows_[static_cast<std::size_t>(parent)]);
  }
  rows_ = std::move(next);
}

const float* CacheState::head(std::int64_t b, std::int64_t h) const {
  const Row* row = rows_[static_cast<std::size_t>(b)].get();
  if (row == nullptr) return nullptr;
  return row->data.data<float>().data() + h * row->capacity * size_;
}

Tensor CacheState::to_tensor() const {
  Tensor result = Tensor::uninitialized(DType::kF32, shape());
  float* target = result.mutable_data<float>().data();
  const std::size_t count = static_cast<std::size_t>(length_ * size_);
  for (std::int64_t b = 0; b < batch() && count > 0; ++b) {
    for (std::int64_t h = 0; h < heads_; ++h) {
      std::memcpy(target + static_cast<std::size_t>(b * heads_ + h) * count, head(b, h), count * sizeof(float));
    }
  }
  return result;
}

}  // namespace weft::runtime
