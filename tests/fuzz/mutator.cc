// A mutator that knows the wire format: it changes fields of a message and writes lengths that fit again, so that most
// mutants get past the reader.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ops/op_def.h"

namespace {

struct Field {
  std::uint64_t number = 0;
  unsigned wire = 0;
  std::uint64_t value = 0;      // wire 0
  std::string bytes;            // wires 1, 2, 5
  std::vector<Field> children;  // wire 2 that reads as a message
};

constexpr int kMaxDepth = 12;

bool read_varint(const std::string& data, std::size_t& at, std::uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 64 && at < data.size(); shift += 7) {
    const auto byte = static_cast<unsigned char>(data[at++]);
    value |= static_cast<std::uint64_t>(byte & 127) << shift;
    if (byte < 128) return true;
  }
  return false;
}

bool read_message(const std::string& data, std::vector<Field>& fields, int depth) {
  for (std::size_t at = 0; at < data.size();) {
    std::uint64_t key = 0, size = 0;
    if (!read_varint(data, at, key)) return false;
    Field field;
    field.number = key >> 3;
    field.wire = static_cast<unsigned>(key & 7);
    if (field.number == 0 || field.number > 200) return false;
    if (field.wire == 0) {
      if (!read_varint(data, at, field.value)) return false;
    } else if (field.wire == 2) {
      if (!read_varint(data, at, size) || size > data.size() - at) return false;
      field.bytes = data.substr(at, size);
      at += size;
      if (depth < kMaxDepth && size > 1 && !read_message(field.bytes, field.children, depth + 1))
        field.children.clear();
    } else if (field.wire == 1 || field.wire == 5) {
      size = field.wire == 1 ? 8 : 4;
      if (size > data.size() - at) return false;
      field.bytes = data.substr(at, size);
      at += size;
    } else {
      return false;
    }
    fields.push_back(std::move(field));
  }
  return true;
}

void write_varint(std::string& out, std::uint64_t value) {
  for (; value > 127; value >>= 7) out += static_cast<char>((value & 127) | 128);
  out += static_cast<char>(value);
}

std::string write_message(const std::vector<Field>& fields) {
  std::string out;
  for (const Field& field : fields) {
    write_varint(out, field.number << 3 | field.wire);
    if (field.wire == 0) {
      write_varint(out, field.value);
    } else if (field.wire == 2) {
      const std::string bytes = field.children.empty() ? field.bytes : write_message(field.children);
      write_varint(out, bytes.size());
      out += bytes;
    } else {
      out += field.bytes;
    }
  }
  return out;
}

void collect(std::vector<Field>& fields, std::vector<std::pair<std::vector<Field>*, std::size_t>>& all) {
  for (std::size_t i = 0; i < fields.size(); ++i) {
    all.emplace_back(&fields, i);
    collect(fields[i].children, all);
  }
}

void mutate_one(std::vector<Field>& root, std::mt19937& random) {
  std::vector<std::pair<std::vector<Field>*, std::size_t>> all;
  collect(root, all);
  if (all.empty()) return;
  const auto pick = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  auto [owner, index] = all[pick(all.size())];
  Field& field = (*owner)[index];
  switch (random() % 6) {
    case 0: owner->erase(owner->begin() + static_cast<std::ptrdiff_t>(index)); return;
    case 1: {
      const Field copy = field;
      owner->insert(owner->begin() + static_cast<std::ptrdiff_t>(pick(owner->size() + 1)), copy);
      return;
    }
    case 2: {
      const auto [other, at] = all[pick(all.size())];
      const Field copy = (*other)[at];
      const std::uint64_t number = field.number;
      field = copy;
      if (random() % 2 == 0) field.number = number;
      return;
    }
    default: break;
  }
  if (field.wire == 0) {
    constexpr std::uint64_t kInteresting[] = {0,          1,          2,          7,     127,      1u << 20,
                                              1ull << 31, 1ull << 40, 1ull << 62, ~0ull, ~0ull - 1};
    field.value = random() % 3 == 0 ? field.value + random() % 5 - 2 : kInteresting[pick(std::size(kInteresting))];
  } else if (field.wire == 2 && field.children.empty()) {
    const auto ops = weft::all_ops();
    constexpr std::uint64_t kRawData = 9;
    if (field.number == kRawData && field.bytes.size() >= 8 && random() % 2 == 0) {
      // Shapes, indices and scales lie here.
      constexpr std::int64_t kElements[] = {0, 1, -1, 2, -2, 3, 64, 1 << 20, 1ll << 40, INT64_MAX, INT64_MIN};
      const std::int64_t element = kElements[pick(std::size(kElements))];
      std::memcpy(field.bytes.data() + pick(field.bytes.size() / 8) * 8, &element, sizeof element);
    } else if (random() % 2 == 0 && !field.bytes.empty()) {
      field.bytes[pick(field.bytes.size())] = static_cast<char>(random());
    } else if (random() % 2 == 0) {
      field.bytes = std::string(ops[pick(ops.size())]->name);
    } else {
      const auto [other, at] = all[pick(all.size())];
      if ((*other)[at].wire == 2) field.bytes = std::string((*other)[at].bytes);
    }
  } else if (field.wire != 2) {
    field.bytes[pick(field.bytes.size())] = static_cast<char>(random());
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  std::mt19937 random(seed);
  std::vector<Field> message;
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (random() % 8 == 0 || !read_message(text, message, 0)) return LLVMFuzzerMutate(data, size, max_size);
  for (unsigned i = 0; i <= random() % 4; ++i) mutate_one(message, random);
  const std::string mutant = write_message(message);
  if (mutant.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, mutant.data(), mutant.size());
  return mutant.size();
}
