// Threads for one session at a time.
#pragma once

#include <cstddef>
#include <memory>

#include "graph/tensor.h"

struct pthreadpool;

namespace weft::runtime {

// The CPUs this process may use: the smaller of its affinity mask and its cgroup quota, at least 1.
int available_cpus();

// A fixed set of threads, the caller's included. One parallel region runs at a time: sessions that run at the same time
// want a pool each; they then share the CPUs between them, so that together they never keep more threads busy than
// there are. Between regions threads spin for a moment, then sleep; one that wakes up late is not waited for.
class ThreadPool {
 public:
  explicit ThreadPool(int threads = 0);  // 0: available_cpus()
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  // Calls body(i) for i in [0, count), on any thread and in any order; returns when all are done. Each thread begins
  // with an equal part of the range and then takes what others have not begun. An exception of a body is rethrown here
  // (of the lowest i that threw). Not to be called from a body.
  template <class Body>
  void parallel_for(std::size_t count, const Body& body) {
    run(count, {[](const void* context, std::size_t i) { (*static_cast<const Body*>(context))(i); }, &body});
  }
  // Memory for what runs until the next call, contents unspecified, at a multiple of 64 bytes: kernels run one after
  // the other and need not keep any of their own.
  std::byte* scratch(std::size_t bytes);
  // For XNNPACK operators that divide their work themselves; null for one thread. Its threads start with the first
  // call.
  pthreadpool* native();
  // Ends a burst of regions: the threads sleep, and the CPUs are free for other pools.
  void rest();

 private:
  struct Body {
    void (*call)(const void* context, std::size_t i);
    const void* context;
  };
  struct Workers;

  void run(std::size_t count, Body body);
  void wake();
  int usable_threads() const;

  int threads_;
  int cpus_;
  bool awake_ = false;
  bool native_awake_ = false;
  std::unique_ptr<Workers> workers_;  // null for one thread
  struct NativeDeleter {
    void operator()(pthreadpool* pool) const;
  };
  std::unique_ptr<pthreadpool, NativeDeleter> native_;
  Tensor scratch_;
};

}  // namespace weft::runtime
