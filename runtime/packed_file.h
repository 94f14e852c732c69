// Packed weights kept in a file, so that loading the model again is a matter of mapping it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/tensor.h"

namespace weft::runtime {

// What a packed file depends on: any difference makes another key.
class PackedKey {
 public:
  void add(std::span<const std::byte> bytes);
  void add(std::uint64_t number) { add(std::as_bytes(std::span(&number, 1))); }
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  std::uint64_t first() const { return first_; }
  std::uint64_t second() const { return second_; }
  std::string text() const;  // 32 hexadecimal digits

 private:
  std::uint64_t first_ = 14695981039346656037u, second_ = 0x9e3779b97f4a7c15u;
};

// Buffers of so many floats each, one after another at multiples of 4096 bytes, behind a header with the key.
// The tensors of folder/KEY.weft, mapped; nullopt when there is no such file or it is not whole.
std::optional<std::vector<Tensor>> read_packed(const std::filesystem::path& folder, const PackedKey& key,
                                               std::span<const std::size_t> floats);
// Writes that file (under another name first, so that nobody sees half of it). Makes the folder. Error kIo.
void write_packed(const std::filesystem::path& folder, const PackedKey& key, std::span<const Tensor> buffers);

}  // namespace weft::runtime
