// A key or value cache: one growing buffer per batch row, shared between rows until written.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "graph/tensor.h"

namespace weft::runtime {

// f32[B, H, length, D] in rows of [H, capacity, D]. Appending is in place; beams that continue the
// same parent share its row until one of them appends (copy on write).
class CacheState {
 public:
  CacheState(std::int64_t heads, std::int64_t size) : heads_(heads), size_(size) {}

  std::int64_t batch() const { return static_cast<std::int64_t>(rows_.size()); }
  std::int64_t heads() const { return heads_; }
  std::int64_t length() const { return length_; }
  std::int64_t size() const { return size_; }
  Extents shape() const { return {batch(), heads_, length_, size_}; }

  void reset(std::int64_t batch);
  // The whole contents: f32[B, H, P, D].
  void assign(const Tensor& value);
  // added: [B, H, S, D].
  void append(const Tensor& added);
  void reorder(std::span<const std::int64_t> parents);
  Tensor to_tensor() const;

  // First element of head h of row b; the next token is token_stride() floats on.
  const float* head(std::int64_t b, std::int64_t h) const;
  std::size_t token_stride() const { return static_cast<std::size_t>(size_); }

 private:
  struct Row {
    std::int64_t capacity = 0;
    Tensor data;  // f32[H, capacity, D]
  };
  std::shared_ptr<Row> grown(const Row* from, std::int64_t capacity) const;

  std::int64_t heads_, size_;
  std::int64_t length_ = 0;
  std::vector<std::shared_ptr<Row>> rows_;
};

}  // namespace weft::runtime
