// The wire format of Protocol Buffers over bytes in memory: what is read stays where it is, so that a
// mapped file of weights is never copied. Every read is checked against the end of its message.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/error.h"

namespace weft::onnx {

using Bytes = std::span<const std::byte>;

inline std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// One field of a message: its number and contents.
struct Field {
  std::uint32_t number = 0;
  std::uint8_t wire_type = 0;  // 0 varint, 1 64 bits, 2 bytes, 5 32 bits
  std::uint64_t integer = 0;   // wire types 0, 1, 5
  Bytes bytes;                 // wire type 2

  // Error kInvalidModel when the field is of another wire type.
  std::int64_t as_int() const;
  float as_float() const;
  double as_double() const;
  Bytes message() const;
  std::string_view text() const { return as_text(message()); }

 private:
  void expect(std::uint8_t wanted) const;
};

// Reads the fields of one message. Error kInvalidModel when the bytes are no message.
class Reader {
 public:
  explicit Reader(Bytes bytes) : rest_(bytes) {}
  // False at the end.
  bool next(Field& field);

 private:
  std::uint64_t varint();
  void skip_group(std::uint32_t number, int depth);

  Bytes rest_;
};

// Appends the values of a repeated scalar field, packed or not.
void append_ints(const Field& field, std::vector<std::int64_t>& values);
void append_floats(const Field& field, std::vector<float>& values);
void append_doubles(const Field& field, std::vector<double>& values);

// Writes messages.
class Writer {
 public:
  Writer& integer(std::uint32_t number, std::int64_t value);
  Writer& number32(std::uint32_t number, float value);
  Writer& text(std::uint32_t number, std::string_view value);
  Writer& bytes(std::uint32_t number, Bytes value);
  Writer& message(std::uint32_t number, const Writer& value) { return text(number, value.data_); }
  // Appends fields that are serialized already.
  Writer& raw(std::string_view fields) {
    data_ += fields;
    return *this;
  }
  const std::string& data() const { return data_; }

 private:
  void varint(std::uint64_t value);
  void tag(std::uint32_t number, std::uint32_t wire_type) { varint(number << 3 | wire_type); }
  std::string data_;
};

}  // namespace weft::onnx
