// Search strategies: state machines over scores, which never see the model.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/generate/config.h"
#include "runtime/generate/logits_processor.h"

namespace weft::runtime {

// Row `parent` of the rows so far continues with `token`.
struct Pick {
  std::int64_t parent = 0;
  std::int64_t token = 0;
};

struct Hypothesis {
  std::vector<std::int64_t> tokens;  // prompt included, no padding
  double score = 0;                  // beam search: log-probability / length^length_penalty
};

// One prompt's search. The caller evaluates the model for every row and calls step() until done().
class Search {
 public:
  Search() = default;
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;
  virtual ~Search() = default;

  virtual std::int64_t rows() const = 0;
  // logits: [rows, V]; consumed. Returns one pick per row of the next step.
  virtual std::vector<Pick> step(std::span<float> logits, std::int64_t vocabulary) = 0;
  virtual bool done() const = 0;
  // Best first, num_return_sequences of them.
  virtual std::vector<Hypothesis> results() const = 0;
};

// What a search starts from.
struct Prompt {
  std::span<const std::int64_t> tokens;          // before the first one generated
  std::span<const std::int64_t> encoder_tokens;  // the source, or as in Hugging Face the prompt of a decoder-only model
  std::uint32_t stream = 0;                      // of random numbers: the prompt's number
};

// num_beams = 1: greedy, or with do_sample num_return_sequences independent samples. Else beam search (Hugging Face's,
// with its early-stopping rules), with do_sample over candidates drawn without replacement.
std::unique_ptr<Search> make_search(const GenerationConfig& config, const Prompt& prompt);

// config's limit on the whole sequence for a prompt of this length.
std::int64_t max_sequence_length(const GenerationConfig& config, std::int64_t prompt_length);

}  // namespace weft::runtime
