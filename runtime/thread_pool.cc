#include "runtime/thread_pool.h"

#include <pthreadpool.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

#include "graph/error.h"

namespace weft::runtime {
namespace {

// CPUs that the control group's quota allows: cgroup v2 "max 100000" or "200000 100000", else v1.
double cpu_quota() {
  std::ifstream unified("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (unified >> quota >> period && quota != "max" && period > 0) return std::stod(quota) / period;
  std::ifstream legacy_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream legacy_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double time = 0;
  if (legacy_quota >> time && legacy_period >> period && time > 0 && period > 0) {
    return time / period;
  }
  return 0;
}

struct Region {
  const std::function<void(std::size_t)>* body;
  std::mutex mutex;
  std::size_t failed_at = SIZE_MAX;
  std::exception_ptr failure;

  void call(std::size_t i) {
    try {
      (*body)(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (i < failed_at) {
        failed_at = i;
        failure = std::current_exception();
      }
    }
  }
};

}  // namespace

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int count = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
  if (const double quota = cpu_quota(); quota > 0) {
    count = std::min(count, static_cast<int>(std::ceil(quota)));
  }
  return std::max(count, 1);
}

ThreadPool::ThreadPool(int threads) : threads_(threads > 0 ? threads : available_cpus()) {
  if (threads_ == 1) return;
  pool_ = pthreadpool_create(static_cast<std::size_t>(threads_));
  if (pool_ == nullptr) fail(ErrorCode::kBackend, "cannot start {} threads", threads_);
}

ThreadPool::~ThreadPool() { pthreadpool_destroy(pool_); }

void ThreadPool::parallel_for(std::size_t count, const std::function<void(std::size_t)>& body) {
  if (pool_ == nullptr || count <= 1) {
    for (std::size_t i = 0; i < count; ++i) body(i);
    return;
  }
  awake_ = true;
  Region region{&body, {}, SIZE_MAX, nullptr};
  pthreadpool_parallelize_1d(
      pool_, [](void* context, std::size_t i) { static_cast<Region*>(context)->call(i); }, &region, count, 0);
  if (region.failure) std::rethrow_exception(region.failure);
}

void ThreadPool::rest() {
  if (pool_ == nullptr || !awake_) return;
  awake_ = false;
  pthreadpool_parallelize_1d(
      pool_, [](void*, std::size_t) {}, nullptr, static_cast<std::size_t>(threads_), PTHREADPOOL_FLAG_YIELD_WORKERS);
}

}  // namespace weft::runtime
