#include "runtime/cache_file.h"

#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <map>

#include "graph/error.h"

namespace weft::runtime {
namespace {

constexpr std::array<char, 8> kMagic = {'w', 'e', 'f', 't', 'k', 'v', '0', '2'};
constexpr std::uint32_t kDropped = ~std::uint32_t{0};
constexpr std::uint64_t kMostRows = 1 << 16, kMostTokens = std::uint64_t{1} << 40;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint64_t first = 0, second = 0, states = 0;
};

// Of what follows a state's name.
struct StateHeader {
  std::uint64_t heads = 0, size = 0, layout = 0, batch = 0, length = 0, first_token = 0;
  std::uint64_t blocks = 0, unique = 0;  // of a row, and different ones of all rows
};

// Finds damage; it is no protection against intent.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    for (std::size_t i = 0; i < bytes.size(); i += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data() + i, std::min<std::size_t>(8, bytes.size() - i));
      value_ = (value_ ^ word) * 0x9e3779b97f4a7c15u;
      value_ ^= value_ >> 32;
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

}  // namespace

class CacheFile {
 public:
  // --- Writing -------------------------------------------------------------------------------------

  explicit CacheFile(std::ofstream& out) : out_(&out) {}

  void write(std::string_view name, const CacheState& cache) {
    std::map<const CacheState::Block*, std::uint32_t> index;
    std::vector<const CacheState::Block*> unique;
    std::vector<std::uint32_t> table;
    StateHeader header;
    for (const CacheState::Row& row : cache.rows_) {
      header.blocks = static_cast<std::uint64_t>((cache.length_ + kTokens - 1) / kTokens);
      for (std::size_t j = 0; j < header.blocks; ++j) {
        const CacheState::Block* block = row.blocks[j].get();
        if (block == nullptr) {
          table.push_back(kDropped);
          continue;
        }
        const auto [at, added] = index.emplace(block, static_cast<std::uint32_t>(unique.size()));
        if (added) unique.push_back(block);
        table.push_back(at->second);
      }
    }
    header.heads = static_cast<std::uint64_t>(cache.heads_);
    header.size = static_cast<std::uint64_t>(cache.size_);
    header.layout = static_cast<std::uint64_t>(cache.options_.layout);
    header.batch = cache.rows_.size();
    header.length = static_cast<std::uint64_t>(cache.length_);
    header.first_token = static_cast<std::uint64_t>(cache.first_token_);
    header.unique = unique.size();
    put(std::uint64_t{name.size()});
    put_bytes(std::as_bytes(std::span(name)));
    put(header);
    put_bytes(std::as_bytes(std::span(table)));
    for (const CacheState::Block* block : unique) put_bytes(block->data.bytes());
  }
  template <class T>
  void put(const T& value) {
    put_bytes(std::as_bytes(std::span(&value, 1)));
  }
  void put_bytes(std::span<const std::byte> bytes) {
    sum_.add(bytes);
    out_->write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  std::uint64_t checksum() const { return sum_.value(); }

  // --- Reading -------------------------------------------------------------------------------------

  explicit CacheFile(std::span<const std::byte> bytes) : rest_(bytes) {}

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > rest_.size()) damaged("it ends early");
    const auto taken = rest_.first(static_cast<std::size_t>(count));
    rest_ = rest_.subspan(taken.size());
    sum_.add(taken);
    return taken;
  }
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::size_t left() const { return rest_.size(); }

  CacheState read(std::string_view name, const CacheState& like) {
    const auto name_bytes = take(take<std::uint64_t>());
    if (std::string_view(reinterpret_cast<const char*>(name_bytes.data()), name_bytes.size()) != name) {
      damaged(fmt::format("it has another state in place of \"{}\"", name));
    }
    const auto header = take<StateHeader>();
    check(header, name, like);
    CacheState cache(like);
    cache.reset(static_cast<std::int64_t>(header.batch));
    const auto table = take(header.batch * header.blocks * sizeof(std::uint32_t));
    if (const auto& budget = cache.ledger_->budget) budget->require(header.unique * cache.block_bytes());
    std::vector<std::shared_ptr<CacheState::Block>> unique;
    for (std::uint64_t i = 0; i < header.unique; ++i) {
      const auto bytes = take(cache.block_bytes());
      Tensor contents = Tensor::uninitialized(cache.dtype(), cache.block_shape());
      unique.push_back(std::make_shared<CacheState::Block>(cache.ledger_, std::move(contents)));
      std::memcpy(unique.back()->data.mutable_bytes().data(), bytes.data(), bytes.size());
    }
    for (std::size_t b = 0; b < header.batch; ++b) {
      for (std::size_t j = 0; j < header.blocks; ++j) {
        std::uint32_t index = 0;
        std::memcpy(&index, table.data() + (b * header.blocks + j) * sizeof index, sizeof index);
        const bool dropped = index == kDropped;
        if (dropped != (j < header.first_token / kTokens) || (!dropped && index >= unique.size())) {
          damaged("a row has no such block");
        }
        cache.rows_[b].blocks.push_back(dropped ? nullptr : unique[index]);
        cache.rows_[b].data.push_back(dropped ? nullptr : unique[index]->data.bytes().data());
      }
    }
    cache.length_ = static_cast<std::int64_t>(header.length);
    cache.first_token_ = static_cast<std::int64_t>(header.first_token);
    return cache;
  }

  [[noreturn]] static void damaged(std::string_view what) {
    fail(ErrorCode::kInvalidArgument, "this is no whole file of states: {}", what);
  }

 private:
  static constexpr std::int64_t kTokens = CacheState::kBlockTokens;

  static void check(const StateHeader& header, std::string_view name, const CacheState& like) {
    const bool same = header.heads == static_cast<std::uint64_t>(like.heads_) &&
                      header.size == static_cast<std::uint64_t>(like.size_) &&
                      header.layout == static_cast<std::uint64_t>(like.options_.layout);
    if (!same) {
      fail(ErrorCode::kInvalidArgument, "state \"{}\" has {} heads of {}, in the file {} of {}", name, like.heads_,
           like.size_, header.heads, header.size);
    }
    const bool in_order = header.batch <= kMostRows && header.length <= kMostTokens &&
                          header.blocks == (header.batch == 0 ? 0 : (header.length + kTokens - 1) / kTokens) &&
                          header.first_token <= header.length && header.first_token % CacheState::kDropped == 0 &&
                          (header.first_token == 0 || like.options_.window != CacheState::kUnbounded);
    if (!in_order || header.unique > header.batch * header.blocks) damaged("its lengths contradict each other");
  }

  std::ofstream* out_ = nullptr;
  std::span<const std::byte> rest_;
  Checksum sum_;
};

void write_caches(const std::filesystem::path& path, const PackedKey& key, std::span<const State> states,
                  std::span<const CacheState> caches) {
  const std::filesystem::path unfinished = path.string() + fmt::format(".{}", ::getpid());
  std::error_code error;
  {
    std::ofstream out(unfinished, std::ios::binary);
    CacheFile file(out);
    file.put(Header{kMagic, key.first(), key.second(), caches.size()});
    for (std::size_t i = 0; i < caches.size(); ++i) file.write(states[i].name, caches[i]);
    file.put(file.checksum());
    if (out.flush()) std::filesystem::rename(unfinished, path, error);
    if (out && !error) return;
  }
  std::error_code ignored;
  std::filesystem::remove(unfinished, ignored);
  fail(ErrorCode::kIo, "cannot write states to {}", path.string());
}

std::vector<CacheState> read_caches(const std::filesystem::path& path, const PackedKey& key,
                                    std::span<const State> states, std::span<const CacheState> caches) {
  const MappedFile mapped = map_file(path.string());
  return with_frame(
      [&] { return "in " + path.string(); },
      [&] {
        CacheFile file(std::span(mapped.bytes.get(), mapped.size));
        const auto header = file.take<Header>();
        if (header.magic != kMagic) CacheFile::damaged("it begins with something else");
        if (header.first != key.first() || header.second != key.second()) {
          fail(ErrorCode::kInvalidArgument,
               "these states are of another model, of caches of another type, or of another version of weft");
        }
        if (header.states != caches.size()) CacheFile::damaged("it has another number of states");
        std::vector<CacheState> result;
        for (std::size_t i = 0; i < caches.size(); ++i) {
          result.push_back(file.read(states[i].name, caches[i]));
        }
        const std::uint64_t sum = file.checksum();
        if (file.take<std::uint64_t>() != sum || file.left() != 0) CacheFile::damaged("its sum is wrong");
        return result;
      });
}

}  // namespace weft::runtime
