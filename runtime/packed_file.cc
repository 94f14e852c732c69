#include "runtime/packed_file.h"

#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>

#include "graph/error.h"

namespace weft::runtime {
namespace {

constexpr std::array<char, 8> kMagic = {'w', 'e', 'f', 't', 'p', 'a', 'c', '1'};
constexpr std::size_t kPage = 4096;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint64_t first = 0, second = 0, buffers = 0, bytes = 0;  // the key; how many; of the whole file
};

std::size_t padded(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Readers may look a vector beyond the end.
std::size_t room(std::size_t floats) { return padded(floats * sizeof(float) + 64); }

Header header_of(const PackedKey& key, std::span<const std::size_t> floats) {
  Header header;
  header.first = key.first();
  header.second = key.second();
  header.buffers = floats.size();
  header.bytes = kPage;
  for (const std::size_t count : floats) header.bytes += room(count);
  return header;
}

std::filesystem::path file_in(const std::filesystem::path& folder, const PackedKey& key) {
  return folder / (key.text() + ".weft");
}

}  // namespace

void PackedKey::add(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) {
    first_ = (first_ ^ std::to_integer<std::uint64_t>(byte)) * 1099511628211u;
    second_ = (second_ + std::to_integer<std::uint64_t>(byte)) * 0xff51afd7ed558ccdu;
    second_ ^= second_ >> 29;
  }
}

std::string PackedKey::text() const { return fmt::format("{:016x}{:016x}", first_, second_); }

std::optional<std::vector<Tensor>> read_packed(const std::filesystem::path& folder, const PackedKey& key,
                                               std::span<const std::size_t> floats) {
  const std::filesystem::path path = file_in(folder, key);
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return std::nullopt;
  const MappedFile file = map_file(path.string());
  const Header wanted = header_of(key, floats);
  if (file.size != wanted.bytes || std::memcmp(file.bytes.get(), &wanted, sizeof wanted) != 0) return std::nullopt;
  std::vector<Tensor> buffers;
  std::size_t at = kPage;
  for (const std::size_t count : floats) {
    buffers.push_back(Tensor::share(DType::kF32, {static_cast<std::int64_t>(count)},
                                    std::shared_ptr<const std::byte>(file.bytes, file.bytes.get() + at),
                                    count * sizeof(float)));
    at += room(count);
  }
  return buffers;
}

void write_packed(const std::filesystem::path& folder, const PackedKey& key, std::span<const Tensor> buffers) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::path path = file_in(folder, key);
  const std::filesystem::path unfinished = path.string() + fmt::format(".{}", ::getpid());
  std::vector<std::size_t> floats;
  for (const Tensor& buffer : buffers) floats.push_back(static_cast<std::size_t>(buffer.size()));
  const Header header = header_of(key, floats);
  const std::vector<char> nothing(2 * kPage);
  {
    std::ofstream file(unfinished, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&header), sizeof header);
    file.write(nothing.data(), kPage - sizeof header);
    for (const Tensor& buffer : buffers) {
      file.write(reinterpret_cast<const char*>(buffer.bytes().data()),
                 static_cast<std::streamsize>(buffer.byte_size()));
      const std::size_t rest = room(static_cast<std::size_t>(buffer.size())) - buffer.byte_size();
      file.write(nothing.data(), static_cast<std::streamsize>(rest));
    }
    if (file.flush()) std::filesystem::rename(unfinished, path, error);
    if (file && !error) return;
  }
  std::error_code ignored;
  std::filesystem::remove(unfinished, ignored);
  fail(ErrorCode::kIo, "cannot write packed weights to {}", path.string());
}

}  // namespace weft::runtime
