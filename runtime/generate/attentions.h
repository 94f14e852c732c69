// Attention weights of a finished sequence: what each position looked at.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "runtime/bind_inputs.h"
#include "runtime/generate/generator.h"
#include "runtime/generate/language_model.h"
#include "runtime/generate/model_folder.h"

namespace weft::runtime {

// f32 [H, S, T] for each layer in order of execution, rows of S queries over T keys that sum to 1 where anything is
// seen, by Hugging Face's names: "attentions" of a decoder alone; else "encoder_attentions", "decoder_attentions" and
// "cross_attentions". A kind that the model does not have is absent.
using Attentions = std::map<std::string, std::vector<Tensor>>;

// Runs sequences through a model whose attention is not fused, so that there are weights to be read: slower, with
// [H, S, T] in memory for each layer, and rounded otherwise than what generated them. One call at a time; not
// thread-safe.
class AttentionReader {
 public:
  // model: of GenerationModel::load_with_attentions(). Error kUnsupported when its decoder has no Softmax that weighs
  // values, or encoder or decoder hold attention, of some layers or all, as one operator.
  AttentionReader(const GenerationModel& model, std::shared_ptr<ThreadPool> pool);

  // Of one sequence that generate() returned for the request, prompt or decoder start included, in one run. Errors of
  // the model's runs.
  Attentions read(const Request& request, std::span<const std::int64_t> sequence);

 private:
  LanguageModel model_;
  std::vector<std::string> names_;  // of layers, in order of execution
};

// Makes the attention weights of an encoder's or decoder's graph, its inputs named as model_io.h says, outputs. Runs
// canonical passes.
void expose_attentions(Graph& graph);

}  // namespace weft::runtime
