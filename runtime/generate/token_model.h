// What decoding asks of a model. A model of files answers (LanguageModel), or in tests a table.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/bind_inputs.h"

namespace weft::runtime {

// f32[rows, V]
struct Logits {
  std::int64_t rows = 0;
  std::int64_t vocabulary = 0;
  std::vector<float> values;

  std::span<const float> row(std::int64_t r) const {
    return std::span(values).subspan(static_cast<std::size_t>(r * vocabulary), static_cast<std::size_t>(vocabulary));
  }
};

// One row to begin with.
struct Source {
  std::vector<std::int64_t> prompt;          // of the decoder, at least one token
  std::vector<std::int64_t> encoder_tokens;  // of the encoder, if there is one
  TensorMap encoder_inputs;                  // or features, for one row
};

class TokenModel {
 public:
  TokenModel() = default;
  TokenModel(const TokenModel&) = delete;
  TokenModel& operator=(const TokenModel&) = delete;
  virtual ~TokenModel() = default;

  // Begins anew with these rows. Returns the scores of the token after each prompt.
  virtual Logits start(std::span<const Source> sources) = 0;
  // Row r is from now on what row parents[r] was with tokens[r] behind it. Returns the scores of the token after that.
  virtual Logits step(std::span<const std::int64_t> parents, std::span<const std::int64_t> tokens) = 0;
  // One row, several tokens: the scores of the token after each of them.
  virtual Logits extend(std::span<const std::int64_t> tokens) = 0;
  // One row: forgets all but its first `length` tokens.
  virtual void truncate(std::int64_t length) = 0;
  // May the two be rows of one start() and have the results that each has alone?
  virtual bool together(const Source& a, const Source& b) = 0;
};

}  // namespace weft::runtime
