#include "runtime/weight_store.h"

#include <array>
#include <cstring>

#include "graph/dtype.h"

namespace weft::runtime {
namespace {

// 64 x 64 bits folded to 64: every bit of the factors reaches every bit of the result.
std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

constexpr std::uint64_t kFirst = 0x9e3779b97f4a7c15u, kSecond = 0xd6e8feb86659fd93u;

}  // namespace

void ContentKey::add(std::span<const std::byte> bytes) {
  std::uint64_t a = first_ ^ bytes.size(), b = second_ + bytes.size();
  while (!bytes.empty()) {
    std::array<std::uint64_t, 2> words = {};
    const std::size_t taken = std::min(bytes.size(), sizeof words);
    std::memcpy(words.data(), bytes.data(), taken);
    a = mix(a ^ words[0] ^ kFirst, words[1] ^ kSecond) + b;
    b = mix(b ^ words[1] ^ kFirst, words[0] ^ kSecond ^ taken);
    bytes = bytes.subspan(taken);
  }
  first_ = mix(a ^ kSecond, b ^ kFirst);
  second_ = b ^ (a << 32 | a >> 32);
}

void ContentKey::add(const Tensor& tensor) {
  add(static_cast<std::uint64_t>(tensor.dtype()));
  for (const std::int64_t extent : tensor.shape()) add(static_cast<std::uint64_t>(extent));
  add(tensor.bytes());
}

Tensor WeightStore::get(const ContentKey& key, const std::function<Tensor()>& make) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = tensors_.find(key);
    if (found != tensors_.end()) {
      shared_bytes_ += found->second.byte_size();
      return found->second;
    }
  }
  Tensor made = make();
  const std::lock_guard lock(mutex_);
  return tensors_.emplace(key, std::move(made)).first->second;
}

std::size_t WeightStore::shared_bytes() const {
  const std::lock_guard lock(mutex_);
  return shared_bytes_;
}

}  // namespace weft::runtime
