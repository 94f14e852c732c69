// Weights that several models share.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string_view>

#include "graph/tensor.h"

namespace weft::runtime {

// What a tensor holds and how, as 128 bits: equal for equal contents, whatever the file or the value's name.
class ContentKey {
 public:
  explicit ContentKey(std::string_view kind) { add(std::as_bytes(std::span(kind))); }
  void add(std::span<const std::byte> bytes);
  void add(std::uint64_t number) { add(std::as_bytes(std::span(&number, 1))); }
  void add(const Tensor& tensor);  // dtype, shape, contents
  friend auto operator<=>(const ContentKey&, const ContentKey&) = default;

 private:
  std::uint64_t first_ = 0x243f6a8885a308d3u, second_ = 0x13198a2e03707344u;
};

// Tensors by contents. Models that are compiled with the same store (CompileOptions::weights) hold one copy of what
// they have in common: packed weights, and constants that kernels read as they are. Thread safe. The models keep what
// they use; the store is needed while they are compiled only.
class WeightStore {
 public:
  // The tensor known by this key; at first what `make` gives, which is kept.
  Tensor get(const ContentKey& key, const std::function<Tensor()>& make);
  // Bytes of tensors that were given out again, each time counted.
  std::size_t shared_bytes() const;

 private:
  mutable std::mutex mutex_;
  std::map<ContentKey, Tensor> tensors_;
  std::size_t shared_bytes_ = 0;
};

}  // namespace weft::runtime
