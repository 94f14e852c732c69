// Search strategies: state machines over scores, which never see the model.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "runtime/generate/callbacks.h"
#include "runtime/generate/config.h"
#include "runtime/generate/stop.h"

namespace weft::runtime {

// Row `parent` of the rows so far continues with `token`.
struct Pick {
  std::int64_t parent = 0;
  std::int64_t token = 0;
};

// One token as it was generated.
struct TokenScore {
  double score = 0;            // after processors (transformers' compute_transition_scores)
  double log_probability = 0;  // of the model, before them
  std::vector<std::pair<std::int64_t, double>> alternatives;  // likeliest tokens of the model with theirs, best first
};

struct Hypothesis {
  std::vector<std::int64_t> tokens;  // prompt included, no padding
  double score = 0;                  // beam search: log-probability / length^length_penalty
  StopReason stopped = StopReason::kNone;
  std::vector<TokenScore> token_scores;  // of the tokens generated; empty unless output_scores or top_logprobs ask
};

// What the model says about the next token.
struct StepScores {
  std::span<float> logits;               // [rows, V], consumed
  std::int64_t vocabulary = 0;           // V
  std::span<const float> unconditional;  // [rows, V] for guidance_scale; else empty
  bool last = false;                     // time is up: every sequence ends with this token
};

// One prompt's search. The caller evaluates the model for every row and calls step() until done().
class Search {
 public:
  Search() = default;
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;
  virtual ~Search() = default;

  // Rows of the next step.
  virtual std::int64_t rows() const = 0;
  // Returns one pick per row of the next step. Error kInvalidArgument when processors leave no token.
  virtual std::vector<Pick> step(const StepScores& scores) = 0;
  virtual bool done() const = 0;
  // Best first, num_return_sequences of them.
  virtual std::vector<Hypothesis> results() const = 0;
  // Tokens that have become certain since the last call, as (sequence, token).
  virtual std::vector<std::pair<std::int64_t, std::int64_t>> settled() = 0;
  // Ends now; results() are what there is.
  virtual void cancel() = 0;
};

// What a search starts from.
struct Prompt {
  std::span<const std::int64_t> tokens;          // before the first one generated
  std::span<const std::int64_t> encoder_tokens;  // the source, or as in Hugging Face the prompt of a decoder-only model
  std::uint32_t stream = 0;                      // of random numbers: the prompt's number
  std::size_t number = 0;                        // of the request, for callbacks
};

// num_beams = 1: greedy, or with do_sample num_return_sequences independent samples. Else beam search (Hugging Face's,
// with its early-stopping rules), with do_sample over candidates drawn without replacement, with num_beam_groups
// diverse.
std::unique_ptr<Search> make_search(const GenerationConfig& config, const Prompt& prompt,
                                    const Callbacks& callbacks = {});

// config's limit on the whole sequence for a prompt of this length.
std::int64_t max_sequence_length(const GenerationConfig& config, std::int64_t prompt_length);

}  // namespace weft::runtime
