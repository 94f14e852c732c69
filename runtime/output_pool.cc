#include "runtime/output_pool.h"

#include <mutex>
#include <vector>

namespace weft::runtime {
namespace {

constexpr std::size_t kKept = 4;
constexpr std::size_t kWorthKeeping = 64 * 1024;  // smaller ones the allocator keeps itself

}  // namespace

struct OutputPool::Shelf {
  std::mutex mutex;
  std::vector<Tensor> free;  // u8[bytes]

  Tensor take(std::size_t bytes) {
    {
      const std::lock_guard lock(mutex);
      for (Tensor& tensor : free) {
        const std::size_t size = tensor.byte_size();
        if (size < bytes || size / 2 > bytes) continue;
        Tensor taken = std::move(tensor);
        tensor = std::move(free.back());
        free.pop_back();
        return taken;
      }
    }
    return Tensor::uninitialized(DType::kU8, {static_cast<std::int64_t>(bytes)});
  }

  void give_back(Tensor tensor) {
    const std::lock_guard lock(mutex);
    if (free.size() == kKept) free.erase(free.begin());
    free.push_back(std::move(tensor));
  }
};

OutputPool::OutputPool() : shelf_(std::make_shared<Shelf>()) {}
OutputPool::~OutputPool() = default;

Tensor OutputPool::take(DType dtype, const Extents& shape) {
  if (is_object(dtype)) return Tensor::uninitialized(dtype, shape);
  const std::size_t bytes = static_cast<std::size_t>(element_count(shape)) * element_size(dtype);
  if (bytes < kWorthKeeping) return Tensor::uninitialized(dtype, shape);
  Tensor memory = shelf_->take(bytes);
  std::byte* const data = memory.mutable_bytes().data();
  const std::shared_ptr<std::byte> shared(data, [shelf = std::weak_ptr(shelf_), memory](std::byte*) {
    if (const auto there = shelf.lock()) there->give_back(memory);
  });
  return Tensor::wrap(dtype, shape, shared, memory.byte_size());
}

}  // namespace weft::runtime
