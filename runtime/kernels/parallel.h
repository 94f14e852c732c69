// Tasks of unequal size over the threads of a pool, each with scratch memory of its own.
#pragma once

#include <atomic>

#include "graph/tensor.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

// Scratch memory for each thread of a pool. Must not be used by two regions at once.
class Workers {
 public:
  Workers() = default;
  Workers(const ThreadPool& pool, std::size_t floats_each)
      : count_(static_cast<std::size_t>(pool.threads())),
        each_((floats_each + 15) / 16 * 16),
        memory_(Tensor::uninitialized(DType::kF32, {static_cast<std::int64_t>(count_ * each_)})) {}

  // body(task, scratch) for every task in [0, tasks), in any order.
  template <class Body>
  void run(ThreadPool& pool, std::size_t tasks, const Body& body) {
    float* memory = memory_.mutable_data<float>().data();
    std::atomic<std::size_t> next = 0;
    pool.parallel_for(std::min(count_, tasks), [&](std::size_t worker) {
      for (std::size_t task = next++; task < tasks; task = next++) body(task, memory + worker * each_);
    });
  }

 private:
  std::size_t count_ = 1, each_ = 0;
  Tensor memory_;
};

}  // namespace weft::runtime
