// A key or value cache: blocks of tokens that rows, and sessions, share until one of them writes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "graph/tensor.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

// How a block holds its tokens of each head.
enum class CacheLayout : std::uint8_t {
  kTokens,  // [tokens, size]
  kPanels,  // [size, tokens]: keys, two blocks a panel of attention
};

// What caches took and moved so far; of all caches that share blocks (copies, Session::fork).
struct CacheUsage {
  std::uint64_t bytes_appended = 0;  // new keys and values
  std::uint64_t bytes_copied = 0;    // shared blocks copied because they were written, and tokens assigned
  std::uint64_t bytes = 0;           // of the blocks there are
  std::uint64_t peak_bytes = 0;

  CacheUsage& operator+=(const CacheUsage& other);
};

// Bytes that the blocks of all caches given one budget may take: of a session, or of many. Thread-safe.
class CacheBudget {
 public:
  explicit CacheBudget(std::uint64_t limit) : limit_(limit) {}

  std::uint64_t limit() const { return limit_; }
  std::uint64_t used() const { return used_; }
  // Error kInvalidArgument when so many bytes more do not fit.
  void require(std::uint64_t more) const;

 private:
  friend class CacheState;

  std::uint64_t limit_;
  std::atomic<std::uint64_t> used_{0};
};

// [B, H, length, D] of f32, f16 or bf16. A row is a table of blocks of kBlockTokens tokens, so that growing moves
// nothing, rows of the same beginning share its blocks, and picking rows is picking tables. A shared block is copied
// when it is written. Copies of a cache share all blocks. Not thread-safe itself; caches that share blocks may be used
// from different threads.
class CacheState {
 public:
  static constexpr std::int64_t kBlockTokens = 8;
  static constexpr std::int64_t kUnbounded = -1;
  static constexpr std::int64_t kDropped = 2 * kBlockTokens;  // tokens that go together when a window leaves them
  static constexpr std::int64_t kTakenBack = 64;  // so many tokens truncate() can always forget, whatever the window

  struct Options {
    CacheLayout layout = CacheLayout::kTokens;
    std::int64_t window = kUnbounded;  // tokens before the next one that are still read; older blocks are dropped
    DType dtype = DType::kF32;         // or kF16, kBF16: half the bytes, each number rounded once, to nearest even
  };

  CacheState(std::int64_t heads, std::int64_t size) : CacheState(heads, size, Options{}) {}
  CacheState(std::int64_t heads, std::int64_t size, Options options);

  std::int64_t batch() const { return static_cast<std::int64_t>(rows_.size()); }
  std::int64_t heads() const { return heads_; }
  // Tokens so far, those dropped included: positions never change.
  std::int64_t length() const { return length_; }
  std::int64_t size() const { return size_; }
  Extents shape() const { return {batch(), heads_, length_, size_}; }
  CacheLayout layout() const { return options_.layout; }
  DType dtype() const { return options_.dtype; }
  // The first token that every row still has, a multiple of kDropped.
  std::int64_t first_token() const { return first_token_; }

  void reset(std::int64_t batch);
  // The whole contents: [B, H, P, D] of f32 or the cache's type.
  void assign(const Tensor& value);
  // added: [B, H, S, D] of f32 or the cache's type. pool: may be null. Strong: an Error (memory) leaves the contents as
  // they were.
  void append(const Tensor& added, ThreadPool* pool = nullptr);
  // Bytes of the blocks that an append of so many tokens makes. What the window lets go is dropped first.
  std::uint64_t growth(std::int64_t tokens);
  // Of the blocks that hold a value of this shape when nothing shares them.
  std::uint64_t bytes_of(const Extents& shape) const;
  // Counts its blocks there from now on, and those of caches that share them; null: nowhere. These caches may not be at
  // work in other threads. Who appends asks the budget first.
  void set_budget(std::shared_ptr<CacheBudget> budget);
  // Row r becomes what row parents[r] was.
  void reorder(std::span<const std::int64_t> parents);
  // Forgets tokens from `length` on. Error kInvalidArgument when there are fewer, or when it is more than kTakenBack
  // tokens and dropped ones would be needed.
  void truncate(std::int64_t length);
  // Of the cache's type. Dropped tokens are 0.
  Tensor to_tensor() const;

  // The blocks of row b, each at [H, kBlockTokens, D] or [H, D, kBlockTokens] numbers; null where dropped. Valid until
  // the cache changes. Rows share a block only if they share all before it.
  std::span<const std::byte* const> blocks(std::int64_t b) const { return rows_[static_cast<std::size_t>(b)].data; }
  // Bytes from a block to its head h.
  std::size_t head_offset(std::int64_t h) const {
    return static_cast<std::size_t>(h * size_ * kBlockTokens) * element_size(dtype());
  }
  CacheUsage usage() const;

 private:
  friend class CacheFile;

  struct Ledger {
    std::atomic<std::uint64_t> appended{0}, copied{0}, bytes{0}, peak{0};
    std::shared_ptr<CacheBudget> budget;  // may be null
  };
  struct Block {
    Block(std::shared_ptr<Ledger> counted_by, Tensor contents);
    ~Block();
    std::shared_ptr<Ledger> ledger;
    Tensor data;
  };
  struct Row {
    std::vector<std::shared_ptr<Block>> blocks;
    std::vector<const std::byte*> data;
  };

  static std::int64_t blocks_for(std::int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }
  std::size_t block_bytes() const { return head_offset(heads_); }
  Extents block_shape() const { return {heads_, size_, kBlockTokens}; }
  std::shared_ptr<Block> new_block() const;
  void make_room(Row& row, std::int64_t tokens);
  void own(std::shared_ptr<Block>& block);
  void write_block(const Tensor& added, std::int64_t b, std::int64_t block, std::int64_t end);
  void drop_before_window();

  std::int64_t heads_, size_;
  Options options_;
  std::int64_t length_ = 0;
  std::int64_t first_token_ = 0;
  std::vector<Row> rows_;
  std::shared_ptr<Ledger> ledger_;
};

}  // namespace weft::runtime
