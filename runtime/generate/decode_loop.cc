#include "runtime/generate/decode_loop.h"

#include <algorithm>
#include <numeric>

namespace weft::runtime {
namespace {

bool late(const LoopContext& context) {
  return context.deadline && std::chrono::steady_clock::now() > *context.deadline;
}

void stream(Decoding& decoding, const LoopContext& context) {
  if (!context.callbacks.on_token) return;
  for (const auto& [sequence, token] : decoding.search->settled()) {
    if (context.callbacks.on_token({decoding.number, sequence, token})) continue;
    return decoding.search->cancel();
  }
}

// Rows of the model, each so many times: a prompt is run once, whatever the beams.
std::vector<float> repeated(std::span<const float> row, std::int64_t times) {
  std::vector<float> rows;
  rows.reserve(row.size() * static_cast<std::size_t>(times));
  for (std::int64_t i = 0; i < times; ++i) rows.insert(rows.end(), row.begin(), row.end());
  return rows;
}

// What the model is asked next.
struct Rows {
  std::vector<std::int64_t> parents, tokens;
};

// `at`: the prompt's first row; after the prompt itself all its rows are that one.
void step_search(Decoding& decoding, Logits& logits, Logits* unconditional, std::int64_t at, bool first, bool last,
                 Rows& next) {
  Search& search = *decoding.search;
  const auto size = static_cast<std::size_t>(search.rows() * logits.vocabulary);
  const auto offset = static_cast<std::size_t>(at * logits.vocabulary);
  std::vector<float> copy, other;
  StepScores scores{std::span<float>(), logits.vocabulary, {}, last};
  if (first) {
    copy = repeated(logits.row(at), search.rows());
    if (unconditional != nullptr) other = repeated(unconditional->row(at), search.rows());
    scores.logits = copy;
    scores.unconditional = other;
  } else {
    scores.logits = std::span(logits.values).subspan(offset, size);
    if (unconditional != nullptr) scores.unconditional = std::span(unconditional->values).subspan(offset, size);
  }
  for (const Pick& pick : search.step(scores)) {
    next.parents.push_back(first ? at : at + pick.parent);
    next.tokens.push_back(pick.token);
  }
}

}  // namespace

void decode_batch(TokenModel& model, TokenModel* unconditional, std::span<Decoding> batch, const LoopContext& context) {
  std::vector<Source> sources, others;
  for (const Decoding& decoding : batch) {
    sources.push_back(decoding.source);
    if (unconditional != nullptr) others.push_back(decoding.unconditional);
  }
  Logits logits = model.start(sources);
  Logits other = unconditional != nullptr ? unconditional->start(others) : Logits();
  std::vector<std::size_t> active(batch.size());
  std::iota(active.begin(), active.end(), 0);
  for (bool first = true; !active.empty(); first = false) {
    const bool last = late(context);
    Rows next;
    std::vector<std::size_t> going_on;
    std::int64_t at = 0;
    for (const std::size_t i : active) {
      Decoding& decoding = batch[i];
      const std::int64_t rows = first ? 1 : decoding.search->rows();
      const std::size_t before = next.tokens.size();
      step_search(decoding, logits, unconditional != nullptr ? &other : nullptr, at, first, last, next);
      at += rows;
      stream(decoding, context);
      if (!decoding.search->done()) {
        going_on.push_back(i);
        continue;
      }
      next.parents.resize(before);
      next.tokens.resize(before);
    }
    if (context.callbacks.on_step) context.callbacks.on_step();
    active = std::move(going_on);
    if (active.empty()) return;
    logits = model.step(next.parents, next.tokens);
    if (unconditional != nullptr) other = unconditional->step(next.parents, next.tokens);
  }
}

void decode_speculatively(TokenModel& model, Decoding& decoding, Drafter& drafter, const LoopContext& context) {
  Search& search = *decoding.search;
  std::vector<std::int64_t> sequence = decoding.source.prompt;
  Logits logits = model.start({&decoding.source, 1});
  std::vector<std::int64_t> draft;
  for (;;) {
    // Row i is what follows when the first i tokens of the draft are right.
    for (std::int64_t i = 0;; ++i) {
      const auto row =
          std::span(logits.values)
              .subspan(static_cast<std::size_t>(i * logits.vocabulary), static_cast<std::size_t>(logits.vocabulary));
      const std::vector<Pick> picks = search.step({row, logits.vocabulary, {}, late(context)});
      stream(decoding, context);
      if (context.callbacks.on_step) context.callbacks.on_step();
      if (search.done()) return;
      sequence.push_back(picks[0].token);
      if (i == std::ssize(draft) || draft[static_cast<std::size_t>(i)] != picks[0].token) break;
    }
    model.truncate(std::ssize(sequence) - 1);
    draft = drafter.propose(sequence);
    std::vector<std::int64_t> tokens = {sequence.back()};
    tokens.insert(tokens.end(), draft.begin(), draft.end());
    logits = model.extend(tokens);
  }
}

}  // namespace weft::runtime
