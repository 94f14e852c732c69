#include "runtime/thread_pool.h"

#include <pthreadpool.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

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

// Pools of this process that are in a burst of regions.
std::atomic<int>& awake_pools() {
  static std::atomic<int> count = 0;
  return count;
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

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

// The threads beside the caller's, and the region they work on.
struct ThreadPool::Workers {
  // What is left of one thread's part of the range; others may take from it too.
  struct alignas(64) Part {
    std::atomic<std::size_t> next = 0;
    std::size_t end = 0;
  };
  // `state`: the number of workers inside the region, and whether more may enter.
  static constexpr std::uint32_t kOpen = std::uint32_t{1} << 31;
  static constexpr auto kSpin = std::chrono::microseconds(200);

  std::vector<Part> parts;
  std::size_t used = 0;  // parts of this region
  Body body{};
  std::mutex failure_mutex;
  std::size_t failed_at = 0;
  std::exception_ptr failure;
  alignas(64) std::atomic<std::uint32_t> state = 0;
  alignas(64) std::atomic<std::uint32_t> epoch = 0;  // changes when there is a region to enter, or the end
  std::atomic<std::size_t> spinning = 0;             // workers of a lower index may spin
  std::atomic<bool> ended = false;
  std::vector<std::thread> threads;

  explicit Workers(int count) : parts(static_cast<std::size_t>(count)) {
    for (std::size_t i = 1; i < parts.size(); ++i) threads.emplace_back([this, i] { loop(i); });
  }
  ~Workers() {
    ended = true;
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  void loop(std::size_t index) {
    std::uint32_t seen = 0;
    while (true) {
      seen = wait_for_change(seen, index);
      if (ended) return;
      std::uint32_t now = state.load(std::memory_order_relaxed);
      while ((now & kOpen) != 0 && !state.compare_exchange_weak(now, now + 1, std::memory_order_acquire)) {
      }
      if ((now & kOpen) == 0) continue;  // too late
      if (index < used) work(index);
      // Only a closed region has somebody who waits for it.
      if (state.fetch_sub(1, std::memory_order_release) == 1) state.notify_all();
    }
  }

  std::uint32_t wait_for_change(std::uint32_t seen, std::size_t index) {
    std::uint32_t now = epoch.load(std::memory_order_acquire);
    const auto start = std::chrono::steady_clock::now();
    for (unsigned i = 1; now == seen; ++i) {
      const bool late = i % 64 == 0 && std::chrono::steady_clock::now() - start > kSpin;
      if (late || index >= spinning.load(std::memory_order_relaxed)) epoch.wait(seen, std::memory_order_acquire);
      pause();
      now = epoch.load(std::memory_order_acquire);
    }
    return now;
  }

  void run(std::size_t count, std::size_t participants, Body work_body) {
    used = participants;
    body = work_body;
    failure = nullptr;
    for (std::size_t i = 0; i < used; ++i) {
      parts[i].next.store(i * count / used, std::memory_order_relaxed);
      parts[i].end = (i + 1) * count / used;
    }
    spinning.store(used, std::memory_order_relaxed);
    state.store(kOpen, std::memory_order_release);
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    work(0);
    leave();
    if (failure) std::rethrow_exception(failure);
  }

  // Lets nobody in any more and waits for those who are inside.
  void leave() {
    std::uint32_t now = state.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    const auto start = std::chrono::steady_clock::now();
    for (unsigned i = 1; now != 0; ++i) {
      if (i % 64 == 0 && std::chrono::steady_clock::now() - start > kSpin) state.wait(now, std::memory_order_acquire);
      pause();
      now = state.load(std::memory_order_acquire);
    }
  }

  void work(std::size_t index) {
    for (std::size_t i = 0; i < used; ++i) {
      Part& part = parts[(index + i) % used];
      while (true) {
        const std::size_t item = part.next.fetch_add(1, std::memory_order_relaxed);
        if (item >= part.end) break;
        call(item);
      }
    }
  }

  void call(std::size_t item) {
    try {
      body.call(body.context, item);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure || item < failed_at) {
        failed_at = item;
        failure = std::current_exception();
      }
    }
  }
};

ThreadPool::ThreadPool(int threads) : threads_(threads), cpus_(available_cpus()) {
  if (threads_ <= 0) threads_ = cpus_;
  if (threads_ > 1) workers_ = std::make_unique<Workers>(threads_);
}

ThreadPool::~ThreadPool() { rest(); }

void ThreadPool::NativeDeleter::operator()(pthreadpool* pool) const { pthreadpool_destroy(pool); }

void ThreadPool::wake() {
  if (awake_) return;
  awake_ = true;
  ++awake_pools();
}

// All of them while no other pool is at work, else a fair share of the CPUs.
int ThreadPool::usable_threads() const {
  const int pools = awake_pools().load(std::memory_order_relaxed);
  return pools <= 1 ? threads_ : std::min(threads_, std::max(1, cpus_ / pools));
}

void ThreadPool::run(std::size_t count, Body body) {
  if (workers_ != nullptr && count > 1) {
    wake();
    const std::size_t participants = std::min(count, static_cast<std::size_t>(usable_threads()));
    if (participants > 1) return workers_->run(count, participants, body);
    workers_->spinning.store(0, std::memory_order_relaxed);
  }
  for (std::size_t i = 0; i < count; ++i) body.call(body.context, i);
}

pthreadpool* ThreadPool::native() {
  if (threads_ == 1) return nullptr;
  wake();
  if (usable_threads() == 1) return nullptr;
  if (native_ == nullptr) {
    native_.reset(pthreadpool_create(static_cast<std::size_t>(threads_)));
    if (native_ == nullptr) fail(ErrorCode::kBackend, "cannot start {} threads", threads_);
  }
  native_awake_ = true;
  return native_.get();
}

std::byte* ThreadPool::scratch(std::size_t bytes) {
  if (scratch_.byte_size() < bytes) {
    scratch_ = Tensor();  // the old one first
    scratch_ = Tensor::uninitialized(DType::kU8, {static_cast<std::int64_t>(bytes)});
  }
  return scratch_.mutable_bytes().data();
}

void ThreadPool::rest() {
  if (!awake_) return;
  awake_ = false;
  --awake_pools();
  workers_->spinning.store(0, std::memory_order_relaxed);
  if (!native_awake_) return;
  native_awake_ = false;
  // pthreadpool's threads go on spinning otherwise.
  pthreadpool_parallelize_1d(
      native_.get(), [](void*, std::size_t) {}, nullptr, static_cast<std::size_t>(threads_),
      PTHREADPOOL_FLAG_YIELD_WORKERS);
}

}  // namespace weft::runtime
