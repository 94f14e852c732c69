#include "runtime/cache.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "runtime/kernels/attention_simd.h"
#include "runtime/kernels/convert.h"

namespace weft::runtime {

static_assert(CacheState::kBlockTokens == simd::kBlockKeys && CacheState::kDropped == simd::kPanelKeys);

CacheState::Block::Block(std::shared_ptr<Ledger> counted_by, Tensor contents)
    : ledger(std::move(counted_by)), data(std::move(contents)) {
  if (ledger->budget) ledger->budget->used_ += data.byte_size();
  const std::uint64_t bytes = ledger->bytes += data.byte_size();
  std::uint64_t peak = ledger->peak;
  while (peak < bytes && !ledger->peak.compare_exchange_weak(peak, bytes)) {
  }
}

CacheState::Block::~Block() {
  ledger->bytes -= data.byte_size();
  if (ledger->budget) ledger->budget->used_ -= data.byte_size();
}

void CacheBudget::require(std::uint64_t more) const {
  const std::uint64_t taken = used_;
  if (taken <= limit_ && more <= limit_ - taken) return;
  fail(ErrorCode::kInvalidArgument,
       "keys and values would take {} bytes more than the {} that they have; the limit is {}", more, taken, limit_);
}

CacheState::CacheState(std::int64_t heads, std::int64_t size, Options options)
    : heads_(heads), size_(size), options_(options), ledger_(std::make_shared<Ledger>()) {}

void CacheState::reset(std::int64_t batch) {
  length_ = first_token_ = 0;
  rows_.assign(static_cast<std::size_t>(batch), Row{});
}

CacheUsage& CacheUsage::operator+=(const CacheUsage& other) {
  bytes_appended += other.bytes_appended;
  bytes_copied += other.bytes_copied;
  bytes += other.bytes;
  peak_bytes += other.peak_bytes;
  return *this;
}

CacheUsage CacheState::usage() const { return {ledger_->appended, ledger_->copied, ledger_->bytes, ledger_->peak}; }

void CacheState::set_budget(std::shared_ptr<CacheBudget> budget) {
  if (ledger_->budget) ledger_->budget->used_ -= ledger_->bytes;
  ledger_->budget = std::move(budget);
  if (ledger_->budget) ledger_->budget->used_ += ledger_->bytes;
}

std::uint64_t CacheState::growth(std::int64_t tokens) {
  if (tokens == 0) return 0;
  drop_before_window();
  auto blocks = static_cast<std::uint64_t>(batch() * (blocks_for(length_ + tokens) - blocks_for(length_)));
  if (length_ % kBlockTokens == 0) return blocks * block_bytes();
  // Of a last block that rows share, and perhaps other caches, the last to write has none to copy.
  std::map<const Block*, long> shared;
  for (const Row& row : rows_) {
    const auto& last = row.blocks[static_cast<std::size_t>(length_ / kBlockTokens)];
    const long sharing = ++shared[last.get()];
    blocks += sharing < last.use_count() ? 1 : 0;
  }
  return blocks * block_bytes();
}

std::uint64_t CacheState::bytes_of(const Extents& shape) const {
  return shape.size() == 4 ? static_cast<std::uint64_t>(shape[0] * blocks_for(shape[2])) * block_bytes() : 0;
}

// --- Writing ---------------------------------------------------------------------------------------

void CacheState::assign(const Tensor& value) {
  if ((value.dtype() != DType::kF32 && value.dtype() != dtype()) || value.rank() != 4 || value.extent(1) != heads_ ||
      value.extent(3) != size_) {
    fail(ErrorCode::kInvalidArgument, "a cache of {}[B, {}, P, {}] cannot hold {}{}", to_string(dtype()), heads_, size_,
         to_string(value.dtype()), to_string(value.shape()));
  }
  CacheState next(*this);
  next.reset(value.extent(0));
  next.append(value);
  *this = std::move(next);
}

// Zero, because panels are read beyond their last token.
std::shared_ptr<CacheState::Block> CacheState::new_block() const {
  return std::make_shared<Block>(ledger_, Tensor::zeros(dtype(), block_shape()));
}

// Copies a block that somebody else may read. The fence pairs with the release of the other owner's last use.
void CacheState::own(std::shared_ptr<Block>& block) {
  if (block.use_count() == 1) {
    std::atomic_thread_fence(std::memory_order_acquire);
    return;
  }
  auto copy = std::make_shared<Block>(ledger_, Tensor::uninitialized(dtype(), block_shape()));
  std::memcpy(copy->data.mutable_bytes().data(), block->data.bytes().data(), block_bytes());
  ledger_->copied += block_bytes();
  block = std::move(copy);
}

// Blocks of the row's own for tokens [length, length + tokens).
void CacheState::make_room(Row& row, std::int64_t tokens) {
  const auto needed = static_cast<std::size_t>(blocks_for(length_ + tokens));
  // What an append that failed has left.
  row.blocks.resize(static_cast<std::size_t>(blocks_for(length_)));
  if (length_ % kBlockTokens != 0) own(row.blocks[static_cast<std::size_t>(length_ / kBlockTokens)]);
  while (row.blocks.size() < needed) row.blocks.push_back(new_block());
  row.data.resize(needed);
  for (std::size_t j = static_cast<std::size_t>(length_ / kBlockTokens); j < needed; ++j) {
    row.data[j] = row.blocks[j]->data.bytes().data();
  }
}

void CacheState::append(const Tensor& added, ThreadPool* pool) {
  if ((added.dtype() != DType::kF32 && added.dtype() != dtype()) || added.rank() != 4 || added.extent(0) != batch() ||
      added.extent(1) != heads_ || added.extent(3) != size_) {
    fail(ErrorCode::kInvalidArgument, "a cache of {} rows of [{}, P, {}] is given {}{}", batch(), heads_, size_,
         to_string(added.dtype()), to_string(added.shape()));
  }
  const std::int64_t tokens = added.extent(2);
  if (tokens == 0 || rows_.empty()) return;
  drop_before_window();  // before, so that what is appended can be taken back
  for (Row& row : rows_) make_room(row, tokens);
  const std::int64_t first = length_ / kBlockTokens, end = length_ + tokens;
  const std::int64_t blocks = blocks_for(end) - first;
  const auto write = [&](std::size_t i) {
    const auto at = static_cast<std::int64_t>(i);
    write_block(added, at / blocks, first + at % blocks, end);
  };
  const auto count = static_cast<std::size_t>(batch() * blocks);
  constexpr std::int64_t kSerialElements = 2048;
  if (pool == nullptr || added.size() <= kSerialElements) {
    for (std::size_t i = 0; i < count; ++i) write(i);
  } else {
    pool->parallel_for(count, write);
  }
  length_ = end;
  ledger_->appended += added.byte_size();
}

namespace {

// One head's new tokens in a block: [size][kBlockTokens] or [kBlockTokens][size].
struct Placed {
  CacheLayout layout;
  DType dtype;
  std::size_t size, at, count;
};

void place(const Placed& p, const float* from, std::byte* to) {
  if (p.layout == CacheLayout::kPanels) {
    simd::store_keys(from, p.size, p.count, p.size, simd::element_of(p.dtype), to, p.at);
    return;
  }
  if (p.dtype == DType::kF32) {
    std::memcpy(to + p.at * p.size * sizeof(float), from, p.count * p.size * sizeof(float));
  } else {
    auto* halves = reinterpret_cast<std::uint16_t*>(to) + p.at * p.size;
    convert::to_half(from, p.dtype == DType::kBF16, halves, p.count * p.size);
  }
}

// Halves that are given as such.
void place(const Placed& p, const std::uint16_t* from, std::byte* to) {
  constexpr auto kTokens = static_cast<std::size_t>(CacheState::kBlockTokens);
  auto* halves = reinterpret_cast<std::uint16_t*>(to);
  if (p.layout == CacheLayout::kTokens) {
    std::copy_n(from, p.count * p.size, halves + p.at * p.size);
    return;
  }
  for (std::size_t i = 0; i < p.size; ++i) {
    for (std::size_t t = 0; t < p.count; ++t) halves[i * kTokens + p.at + t] = from[t * p.size + i];
  }
}

}  // namespace

// The new tokens, up to `end`, that belong in one block of row b.
void CacheState::write_block(const Tensor& added, std::int64_t b, std::int64_t block, std::int64_t end) {
  const std::int64_t first = std::max(block * kBlockTokens, length_);
  const auto count = static_cast<std::size_t>(std::min((block + 1) * kBlockTokens, end) - first);
  const auto at = static_cast<std::size_t>(first - block * kBlockTokens);
  const Placed placed = {layout(), dtype(), static_cast<std::size_t>(size_), at, count};
  std::byte* to =
      rows_[static_cast<std::size_t>(b)].blocks[static_cast<std::size_t>(block)]->data.mutable_bytes().data();
  const std::int64_t from = (b * heads_ * added.extent(2) + first - length_) * size_;
  const std::byte* bytes = added.bytes().data();
  for (std::int64_t h = 0; h < heads_; ++h, to += head_offset(1)) {
    const std::int64_t head = from + h * added.extent(2) * size_;
    if (added.dtype() == DType::kF32)
      place(placed, reinterpret_cast<const float*>(bytes) + head, to);
    else
      place(placed, reinterpret_cast<const std::uint16_t*>(bytes) + head, to);
  }
}

void CacheState::drop_before_window() {
  if (options_.window == kUnbounded || length_ - kTakenBack <= options_.window) return;
  const std::int64_t first = (length_ - kTakenBack - options_.window) / kDropped * kDropped;
  for (Row& row : rows_) {
    for (std::int64_t j = first_token_ / kBlockTokens; j < first / kBlockTokens; ++j) {
      row.blocks[static_cast<std::size_t>(j)].reset();
      row.data[static_cast<std::size_t>(j)] = nullptr;
    }
  }
  first_token_ = std::max(first_token_, first);
}

void CacheState::reorder(std::span<const std::int64_t> parents) {
  std::vector<std::size_t> uses(rows_.size(), 0);
  for (const std::int64_t parent : parents) {
    if (parent < 0 || parent >= batch()) {
      fail(ErrorCode::kInvalidArgument, "cache row {} of {} does not exist", parent, batch());
    }
    ++uses[static_cast<std::size_t>(parent)];
  }
  std::vector<Row> next;
  next.reserve(parents.size());
  for (const std::int64_t parent : parents) {
    Row& row = rows_[static_cast<std::size_t>(parent)];
    if (--uses[static_cast<std::size_t>(parent)] == 0) {
      next.push_back(std::move(row));
    } else {
      next.push_back(row);
    }
  }
  rows_ = std::move(next);
}

void CacheState::truncate(std::int64_t length) {
  if (length < 0 || length > length_) {
    fail(ErrorCode::kInvalidArgument, "a cache of {} tokens cannot keep the first {}", length_, length);
  }
  if (length < first_token_ ||
      (options_.window != kUnbounded && length < first_token_ + options_.window && first_token_ > 0)) {
    fail(ErrorCode::kInvalidArgument, "a cache that has dropped tokens before {} cannot go back to token {}",
         first_token_, length);
  }
  for (Row& row : rows_) {
    row.blocks.resize(static_cast<std::size_t>(blocks_for(length)));
    row.data.resize(row.blocks.size());
  }
  length_ = length;
}

// --- Reading ---------------------------------------------------------------------------------------

namespace {

// One head of a block: element `at` of each dimension to `to`, or all of them if tokens lie one after another.
template <class T>
void copy_token(const std::byte* block, CacheLayout layout, std::int64_t at, std::int64_t size, T* to) {
  const T* from = reinterpret_cast<const T*>(block);
  if (layout == CacheLayout::kTokens) {
    std::copy_n(from + at * size, size, to);
  } else {
    for (std::int64_t i = 0; i < size; ++i) to[i] = from[i * CacheState::kBlockTokens + at];
  }
}

}  // namespace

Tensor CacheState::to_tensor() const {
  Tensor result = Tensor::zeros(dtype(), shape());
  const std::size_t token_bytes = static_cast<std::size_t>(size_) * element_size(dtype());
  std::byte* to = result.mutable_bytes().data();
  for (std::int64_t b = 0; b < batch(); ++b) {
    const std::span<const std::byte* const> table = blocks(b);
    for (std::int64_t h = 0; h < heads_; ++h, to += static_cast<std::size_t>(length_) * token_bytes) {
      for (std::int64_t t = first_token_; t < length_; ++t) {
        const std::byte* block = table[static_cast<std::size_t>(t / kBlockTokens)] + head_offset(h);
        std::byte* token = to + static_cast<std::size_t>(t) * token_bytes;
        if (dtype() == DType::kF32)
          copy_token(block, layout(), t % kBlockTokens, size_, reinterpret_cast<float*>(token));
        else
          copy_token(block, layout(), t % kBlockTokens, size_, reinterpret_cast<std::uint16_t*>(token));
      }
    }
  }
  return result;
}

}  // namespace weft::runtime
