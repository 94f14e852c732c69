// Threads for one session at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

struct pthreadpool;

namespace weft::runtime {

// The CPUs this process may use: the smaller of its affinity mask and its cgroup quota, at least 1.
int available_cpus();

// A fixed set of threads, the caller's included. One parallel region runs at a time: sessions that run
// at the same time want a pool each.
class ThreadPool {
 public:
  explicit ThreadPool(int threads = 0);  // 0: available_cpus()
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  // Calls body(i) for i in [0, count), on any thread and in any order; returns when all are done.
  // An exception of a body is rethrown here (of the lowest i that threw).
  void parallel_for(std::size_t count, const std::function<void(std::size_t)>& body);
  // Null for one thread; for XNNPACK.
  pthreadpool* native() {
    awake_ = true;
    return pool_;
  }
  // Lets the threads sleep: after a region they spin for a moment, waiting for the next one.
  void rest();

 private:
  int threads_;
  pthreadpool* pool_ = nullptr;
  bool awake_ = false;  // a region may have run since the last rest
};

}  // namespace weft::runtime
