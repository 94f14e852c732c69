#include "importers/onnx/wire.h"

#include <bit>
#include <cstring>

namespace weft::onnx {
namespace {

constexpr int kMaxGroupDepth = 32;

template <class T>
T load(Bytes bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

[[noreturn]] void malformed(std::string_view what) { fail(ErrorCode::kInvalidModel, "malformed protobuf: {}", what); }

}  // namespace

void Field::expect(std::uint8_t wanted) const {
  if (wire_type != wanted) {
    fail(ErrorCode::kInvalidModel, "malformed protobuf: field {} is of wire type {} instead of {}", number, wire_type,
         wanted);
  }
}

std::int64_t Field::as_int() const {
  expect(0);
  return static_cast<std::int64_t>(integer);
}
float Field::as_float() const {
  expect(5);
  return std::bit_cast<float>(static_cast<std::uint32_t>(integer));
}
double Field::as_double() const {
  expect(1);
  return std::bit_cast<double>(integer);
}
Bytes Field::message() const {
  expect(2);
  return bytes;
}

std::uint64_t Reader::varint() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) malformed("it ends inside a number");
    const auto byte = static_cast<std::uint8_t>(rest_.front());
    rest_ = rest_.subspan(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  malformed("a number of more than ten bytes");
}

void Reader::skip_group(std::uint32_t number, int depth) {
  if (depth > kMaxGroupDepth) malformed("groups nested too deeply");
  for (;;) {
    if (rest_.empty()) malformed("a group without end");
    const std::uint64_t tag = varint();
    const auto inner = static_cast<std::uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0: varint(); break;
      case 1: rest_ = rest_.size() < 8 ? (malformed("truncated"), rest_) : rest_.subspan(8); break;
      case 2: {
        const std::uint64_t size = varint();
        if (size > rest_.size()) malformed("truncated");
        rest_ = rest_.subspan(size);
        break;
      }
      case 3: skip_group(inner, depth + 1); break;
      case 4:
        if (inner != number) malformed("mismatched group");
        return;
      case 5: rest_ = rest_.size() < 4 ? (malformed("truncated"), rest_) : rest_.subspan(4); break;
      default: malformed("unknown wire type");
    }
  }
}

bool Reader::next(Field& field) {
  for (;;) {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff) malformed("field number out of range");
    field.number = static_cast<std::uint32_t>(tag >> 3);
    field.wire_type = tag & 7;
    field.bytes = {};
    field.integer = 0;
    switch (field.wire_type) {
      case 0: field.integer = varint(); return true;
      case 1:
        if (rest_.size() < 8) malformed("truncated");
        field.integer = load<std::uint64_t>(rest_);
        rest_ = rest_.subspan(8);
        return true;
      case 2: {
        const std::uint64_t size = varint();
        if (size > rest_.size()) malformed("a field is longer than what is left");
        field.bytes = rest_.first(size);
        rest_ = rest_.subspan(size);
        return true;
      }
      case 3: skip_group(field.number, 0); continue;
      case 5:
        if (rest_.size() < 4) malformed("truncated");
        field.integer = load<std::uint32_t>(rest_);
        rest_ = rest_.subspan(4);
        return true;
      default: malformed("unknown wire type");
    }
  }
}

void append_ints(const Field& field, std::vector<std::int64_t>& values) {
  if (field.wire_type == 0) {
    values.push_back(field.as_int());
    return;
  }
  if (field.wire_type != 2) malformed("integers of another wire type");
  // A packed run of varints is a message body without tags.
  Bytes rest = field.bytes;
  while (!rest.empty()) {
    std::uint64_t value = 0;
    std::size_t used = 0;
    for (;; ++used) {
      if (used >= rest.size() || used >= 10) malformed("packed integers");
      const auto byte = static_cast<std::uint8_t>(rest[used]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * used);
      if ((byte & 0x80) == 0) break;
    }
    rest = rest.subspan(used + 1);
    values.push_back(static_cast<std::int64_t>(value));
  }
}

void append_floats(const Field& field, std::vector<float>& values) {
  if (field.wire_type == 5) {
    values.push_back(field.as_float());
    return;
  }
  if (field.wire_type != 2 || field.bytes.size() % 4 != 0) malformed("packed floats");
  for (Bytes rest = field.bytes; !rest.empty(); rest = rest.subspan(4)) {
    values.push_back(load<float>(rest));
  }
}

void append_doubles(const Field& field, std::vector<double>& values) {
  if (field.wire_type == 1) {
    values.push_back(field.as_double());
    return;
  }
  if (field.wire_type != 2 || field.bytes.size() % 8 != 0) malformed("packed doubles");
  for (Bytes rest = field.bytes; !rest.empty(); rest = rest.subspan(8)) {
    values.push_back(load<double>(rest));
  }
}

void Writer::varint(std::uint64_t value) {
  while (value >= 0x80) {
    data_ += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  data_ += static_cast<char>(value);
}

Writer& Writer::integer(std::uint32_t number, std::int64_t value) {
  tag(number, 0);
  varint(static_cast<std::uint64_t>(value));
  return *this;
}

Writer& Writer::number32(std::uint32_t number, float value) {
  tag(number, 5);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) data_ += static_cast<char>(bits >> shift);
  return *this;
}

Writer& Writer::text(std::uint32_t number, std::string_view value) {
  tag(number, 2);
  varint(value.size());
  data_ += value;
  return *this;
}

Writer& Writer::bytes(std::uint32_t number, Bytes value) { return text(number, as_text(value)); }

}  // namespace weft::onnx
