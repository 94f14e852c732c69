// XNNPACK behind RAII.
#pragma once

#include <xnnpack.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "graph/tensor.h"

namespace weft::runtime::xnn {

// Throws Error kBackend naming the call when status is not success.
void check(xnn_status status, std::string_view call);

// Initializes the library on first use; every maker of operators calls it.
void initialize();

struct OperatorDeleter {
  void operator()(xnn_operator_t op) const { xnn_delete_operator(op); }
};
using Operator = std::unique_ptr<xnn_operator, OperatorDeleter>;

// Packed weights that operators of many sessions share. Fill it once by creating the operators from
// the original weights; seal it; then creating them again with the same (now possibly dangling)
// weight pointers finds the packed bytes and never reads the originals.
class PackedWeights {
 public:
  PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  xnn_weights_cache_t cache() const { return const_cast<xnn_weights_cache_t>(&provider_); }
  void seal() { sealed_ = true; }
  std::size_t byte_size() const { return byte_size_; }

 private:
  struct Entry {
    const void* kernel;
    const void* bias;
    std::uint32_t seed;
    Tensor bytes;
  };
  std::size_t find(const xnn_weights_cache_look_up_key& key) const;

  xnn_weights_cache_provider provider_{};
  std::vector<Entry> entries_;
  Tensor reserved_;
  std::size_t byte_size_ = 0;
  bool sealed_ = false;
};

}  // namespace weft::runtime::xnn
