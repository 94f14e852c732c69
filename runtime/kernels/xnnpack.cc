#include "runtime/kernels/xnnpack.h"

#include <mutex>

#include "graph/error.h"

namespace weft::runtime::xnn {
namespace {

std::string_view describe(xnn_status status) {
  switch (status) {
    case xnn_status_success: return "success";
    case xnn_status_uninitialized: return "uninitialized";
    case xnn_status_invalid_parameter: return "invalid parameter";
    case xnn_status_invalid_state: return "invalid state";
    case xnn_status_unsupported_parameter: return "unsupported parameter";
    case xnn_status_unsupported_hardware: return "unsupported hardware";
    case xnn_status_out_of_memory: return "out of memory";
    default: return "unknown status";
  }
}

}  // namespace

void check(xnn_status status, std::string_view call) {
  if (status != xnn_status_success) {
    fail(ErrorCode::kBackend, "XNNPACK: {}: {}", call, describe(status));
  }
}

void initialize() {
  static std::once_flag once;
  std::call_once(once, [] { check(xnn_initialize(nullptr), "xnn_initialize"); });
}

PackedWeights::PackedWeights() {
  provider_.context = this;
  provider_.look_up = [](void* context, const xnn_weights_cache_look_up_key* key) {
    return static_cast<const PackedWeights*>(context)->find(*key);
  };
  provider_.reserve_space = [](void* context, std::size_t size) -> void* {
    auto* self = static_cast<PackedWeights*>(context);
    if (self->sealed_) return nullptr;
    self->reserved_ = Tensor::uninitialized(DType::kU8, {static_cast<std::int64_t>(size)});
    return self->reserved_.mutable_bytes().data();
  };
  provider_.look_up_or_insert = [](void* context, const xnn_weights_cache_look_up_key* key, void* bytes,
                                   std::size_t size) -> std::size_t {
    auto* self = static_cast<PackedWeights*>(context);
    // Convolution asks here even when it has found them.
    if (const std::size_t known = self->find(*key); known != SIZE_MAX) return known;
    if (bytes != self->reserved_.bytes().data()) return SIZE_MAX;
    self->entries_.push_back({key->kernel, key->bias, key->seed, std::move(self->reserved_)});
    self->reserved_ = Tensor();
    self->byte_size_ += size;
    return self->entries_.size() - 1;
  };
  provider_.is_finalized = [](void* context) { return static_cast<PackedWeights*>(context)->sealed_; };
  provider_.offset_to_addr = [](void* context, std::size_t offset) -> void* {
    const auto& entry = static_cast<PackedWeights*>(context)->entries_[offset];
    return const_cast<std::byte*>(entry.bytes.bytes().data());
  };
  provider_.delete_cache = [](void*) { return xnn_status_success; };
}

std::size_t PackedWeights::find(const xnn_weights_cache_look_up_key& key) const {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.kernel == key.kernel && entry.bias == key.bias && entry.seed == key.seed) return i;
  }
  return SIZE_MAX;
}

}  // namespace weft::runtime::xnn
