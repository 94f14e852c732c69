// The loop: the model's scores -> each prompt's search -> the next rows, until all are done.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/generate/callbacks.h"
#include "runtime/generate/search.h"
#include "runtime/generate/speculation.h"
#include "runtime/generate/token_model.h"

namespace weft::runtime {

// One prompt of a batch.
struct Decoding {
  std::size_t number = 0;  // of the request
  Source source;
  Source unconditional;  // for guidance_scale
  std::unique_ptr<Search> search;
};

struct LoopContext {
  const Callbacks& callbacks;
  std::optional<std::chrono::steady_clock::time_point> deadline = {};
};

// Runs every search to its end. Prompts whose search is done leave the batch. unconditional: null without guidance.
void decode_batch(TokenModel& model, TokenModel* unconditional, std::span<Decoding> batch, const LoopContext& context);

// The same for one prompt whose search has one row, several tokens a run where `drafter` guesses what the search picks.
void decode_speculatively(TokenModel& model, Decoding& decoding, Drafter& drafter, const LoopContext& context);

}  // namespace weft::runtime
