#include "tools/machine_limits.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace weft::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRounds = 2048;
constexpr double kBudget = 0.1;  // seconds of one measurement
constexpr int kRepeats = 7;

// Keeps the compiler from dropping what computed it.
void keep(float value) { [[maybe_unused]] volatile float sink = value; }

// A number that the compiler does not see through: chains that start alike would become one.
float opaque(int value) {
  volatile float hidden = static_cast<float>(value);
  return hidden;
}

// --- Multiply-adds: independent chains, as many as hide the latency; returns how many operations one call makes ------

#if defined(__x86_64__)

__attribute__((target("avx512f"))) double multiply_adds_avx512() {
  constexpr int kChains = 12;
  const __m512 a = _mm512_set1_ps(opaque(1) / 2), b = _mm512_set1_ps(opaque(1) / 4);
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(opaque(i));
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(sums[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  keep(_mm512_cvtss_f32(sums[0]));
  return 2.0 * 16 * kChains * kRounds;
}

__attribute__((target("avx2,fma"))) double multiply_adds_avx2() {
  constexpr int kChains = 12;
  const __m256 a = _mm256_set1_ps(opaque(1) / 2), b = _mm256_set1_ps(opaque(1) / 4);
  __m256 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(opaque(i));
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  keep(_mm256_cvtss_f32(sums[0]));
  return 2.0 * 8 * kChains * kRounds;
}

double (*multiply_adds())() {
  if (__builtin_cpu_supports("avx512f")) return multiply_adds_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return multiply_adds_avx2;
  return nullptr;
}

#elif defined(__aarch64__)

double multiply_adds_neon() {
  constexpr int kChains = 24;
  const float32x4_t a = vdupq_n_f32(opaque(1) / 2), b = vdupq_n_f32(opaque(1) / 4);
  float32x4_t sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = vdupq_n_f32(opaque(i));
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) sums[i] = vfmaq_f32(sums[i], a, b);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = vaddq_f32(sums[0], sums[i]);
  keep(vgetq_lane_f32(sums[0], 0));
  return 2.0 * 4 * kChains * kRounds;
}

double (*multiply_adds())() { return multiply_adds_neon; }

#else

double (*multiply_adds())() { return nullptr; }

#endif

// --- Reading ---------------------------------------------------------------------------------------

using Word = std::uint64_t;
using Reader = Word (*)(const Word* words, std::size_t count);

Word read_plain(const Word* words, std::size_t count) {
  constexpr std::size_t kLanes = 32;
  Word sums[kLanes] = {};
  for (std::size_t i = 0; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] ^= words[i + lane];
  }
  Word total = 0;
  for (const Word sum : sums) total ^= sum;
  return total;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) Word read_avx512(const Word* words, std::size_t count) {
  constexpr std::size_t kWords = 8, kVectors = 8;
  __m512i sums[kVectors] = {};
  for (std::size_t i = 0; i + kWords * kVectors <= count; i += kWords * kVectors) {
#pragma GCC unroll 8
    for (std::size_t v = 0; v < kVectors; ++v)
      sums[v] = _mm512_xor_si512(sums[v], _mm512_loadu_si512(words + i + kWords * v));
  }
  for (std::size_t v = 1; v < kVectors; ++v) sums[0] = _mm512_xor_si512(sums[0], sums[v]);
  return static_cast<Word>(_mm512_reduce_add_epi64(sums[0]));
}
#endif

Reader reader() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return read_avx512;
#endif
  return read_plain;
}

// --- Threads that start together --------------------------------------------------------------------

void pin_to(int index) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != index) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    return;
  }
}

// work(thread) returns how much it did; the sum over all threads of that per second.
double rate(int threads, const std::function<double(int)>& work) {
  std::atomic<int> ready{0};
  std::vector<double> rates(static_cast<std::size_t>(threads));
  const auto body = [&](int thread) {
    pin_to(thread);
    ++ready;
    while (ready < threads) std::this_thread::yield();
    const Clock::time_point start = Clock::now();
    double done = 0, seconds = 0;
    while (seconds < kBudget) {
      done += work(thread);
      seconds = std::chrono::duration<double>(Clock::now() - start).count();
    }
    rates[static_cast<std::size_t>(thread)] = done / seconds;
  };
  std::vector<std::thread> pool;
  for (int i = 0; i < threads; ++i) pool.emplace_back(body, i);
  for (std::thread& thread : pool) thread.join();
  double sum = 0;
  for (const double value : rates) sum += value;
  return sum;
}

MachineLimits measure(int threads) {
  MachineLimits limits;
  double (*const compute)() = multiply_adds();
  const Reader read = reader();
  constexpr std::size_t kBytes = std::size_t{512} << 20;  // beyond every cache, all threads together
  const std::size_t words = kBytes / sizeof(Word) / static_cast<std::size_t>(threads);
  std::vector<std::vector<Word>> memory(static_cast<std::size_t>(threads));
  for (auto& part : memory) part.assign(words, 1);
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    if (compute != nullptr)
      limits.gflops = std::max(limits.gflops, rate(threads, [&](int) { return compute(); }) / 1e9);
    const double bytes = rate(threads, [&](int thread) {
      keep(static_cast<float>(read(memory[static_cast<std::size_t>(thread)].data(), words)));
      return static_cast<double>(words * sizeof(Word));
    });
    limits.gbytes = std::max(limits.gbytes, bytes / 1e9);
  }
  return limits;
}

// --- The file ----------------------------------------------------------------------------------------

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 1);
  }
  return "processor";
}

std::filesystem::path limits_file(int threads) {
  std::filesystem::path folder;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    folder = cache;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    folder = std::filesystem::path(home) / ".cache";
  } else {
    return {};
  }
  std::string name;
  for (const char c : processor_name()) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      name += c;
    else if (!name.empty() && name.back() != '-')
      name += '-';
  }
  return folder / "weft" / fmt::format("limits-{}-{}.json", name, threads);
}

}  // namespace

MachineLimits machine_limits(int threads, bool remeasure) {
  const std::filesystem::path path = limits_file(threads);
  if (!remeasure && !path.empty()) {
    std::ifstream file(path);
    const nlohmann::json kept = nlohmann::json::parse(file, nullptr, false);
    if (kept.is_object() && kept.value("gflops", 0.0) >= 0 && kept.value("gbytes", 0.0) > 0) {
      return {kept.value("gflops", 0.0), kept.value("gbytes", 0.0)};
    }
  }
  const MachineLimits limits = measure(threads);
  if (!path.empty()) {
    std::error_code ignored;
    std::filesystem::create_directories(path.parent_path(), ignored);
    std::ofstream(path) << nlohmann::json{{"gflops", limits.gflops}, {"gbytes", limits.gbytes}}.dump() << "\n";
  }
  return limits;
}

}  // namespace weft::tools
