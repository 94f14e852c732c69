#include "runtime/generate/generator.h"

#include <algorithm>

#include "runtime/generate/decoder.h"

namespace weft::runtime {
namespace {

// The scores of the last position, one row per beam: a prompt is run once, whatever the beams.
std::vector<float> last_scores(const Tensor& logits, std::int64_t rows) {
  if (logits.dtype() != DType::kF32 || logits.rank() != 3 || logits.extent(1) == 0) {
    fail(ErrorCode::kUnsupported, "logits of {}{}", to_string(logits.dtype()), to_string(logits.shape()));
  }
  const auto steps = static_cast<std::size_t>(logits.extent(1));
  const auto vocabulary = static_cast<std::size_t>(logits.extent(2));
  const auto data = logits.data<float>();
  std::vector<float> scores(static_cast<std::size_t>(rows) * vocabulary);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto from = static_cast<std::size_t>(std::min(r, logits.extent(0) - 1));
    const auto row = data.subspan((from * steps + steps - 1) * vocabulary, vocabulary);
    std::copy(row.begin(), row.end(),
              scores.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(r) * vocabulary));
  }
  return scores;
}

Tensor as_rows(std::span<const std::int64_t> tokens) {
  return Tensor::of<std::int64_t>({1, static_cast<std::int64_t>(tokens.size())}, tokens);
}

}  // namespace

struct Generator::Impl {
  using Request = Generator::Request;
  std::shared_ptr<ThreadPool> pool;
  std::unique_ptr<Session> encoder;
  std::unique_ptr<Decoder> first, next;

  // What the encoder makes of the input, as inputs of the decoders.
  TensorMap encode(const Request& request) {
    TensorMap inputs = request.encoder_inputs;
    const Graph& graph = encoder->model().graph();
    if (!request.input_ids.empty()) inputs["input_ids"] = as_rows(request.input_ids);
    Tensor mask;
    if (const auto given = inputs.find("attention_mask"); given != inputs.end()) {
      mask = given->second;
    } else if (!request.input_ids.empty()) {
      mask = int_rows(1, static_cast<std::int64_t>(request.input_ids.size()), 1, 0, DType::kI64);
      if (find_input(graph, "attention_mask") != nullptr) inputs["attention_mask"] = mask;
    }
    TensorMap fixed;
    const Tensor states = encoder->run(inputs)[0];
    if (mask.rank() != 2) mask = int_rows(1, states.extent(1), 1, 0, DType::kI64);
    fixed["encoder_hidden_states"] = states;
    fixed["encoder_attention_mask"] = mask;
    return fixed;
  }

  Tensor prefill(std::span<const std::int64_t> prompt, TensorMap fixed) {
    if (!first) {
      next->start(std::move(fixed));
      return next->run(as_rows(prompt));
    }
    first->start(fixed);
    Tensor logits = first->run(as_rows(prompt));
    if (next) {
      next->start(std::move(fixed));
      hand_over();
    }
    return logits;
  }

  // Caches of the first decoder become the past of the second.
  void hand_over() {
    const auto give = [&](const std::string& name) {
      const Tensor* present = first->output(present_name(name));
      if (present != nullptr) next->set_past(name, *present, !is_cross(name));
    };
    for (const State& state : next->graph().states()) give(state.name);
    for (const ValueId id : next->graph().inputs()) {
      const std::string name = next->graph().value(id).name;
      if (is_past(name)) give(name);
    }
  }
};

Generator::Generator(GenerationModel model, std::shared_ptr<ThreadPool> pool) : impl_(std::make_unique<Impl>()) {
  impl_->pool = pool ? std::move(pool) : std::make_shared<ThreadPool>();
  if (model.encoder) impl_->encoder = std::make_unique<Session>(model.encoder, impl_->pool);
  if (model.decoder) impl_->first = std::make_unique<Decoder>(model.decoder, impl_->pool);
  if (model.decoder_with_past) impl_->next = std::make_unique<Decoder>(model.decoder_with_past, impl_->pool);
}

void Generator::set_profile(Profile* profile) {
  if (impl_->encoder) impl_->encoder->set_profile(profile);
  if (impl_->first) impl_->first->set_profile(profile);
  if (impl_->next) impl_->next->set_profile(profile);
}

Generator::~Generator() = default;
Generator::Generator(Generator&&) noexcept = default;

std::vector<Hypothesis> Generator::generate(const Request& request, const GenerationConfig& config,
                                            const OnToken& on_token) {
  validate(config);
  if (request.input_ids.empty() && request.encoder_inputs.empty()) {
    fail(ErrorCode::kInvalidArgument, "the prompt has no tokens");
  }
  if (!impl_->encoder && !request.encoder_inputs.empty()) {
    fail(ErrorCode::kInvalidArgument, "the model has no encoder that takes features");
  }
  std::vector<std::int64_t> prompt = request.input_ids;
  TensorMap fixed;
  if (impl_->encoder) {
    const auto start = config.decoder_start_token_id ? config.decoder_start_token_id : config.bos_token_id;
    if (!start) fail(ErrorCode::kInvalidArgument, "an encoder-decoder model needs decoder_start_token_id");
    fixed = impl_->encode(request);
    prompt = {*start};
  }
  const std::unique_ptr<Search> search = make_search(config, {prompt, request.input_ids, request.stream});
  if (search->done()) {
    fail(ErrorCode::kInvalidArgument, "the prompt has {} tokens, max_length allows {}", prompt.size(),
         config.max_length);
  }
  Tensor logits = impl_->prefill(prompt, std::move(fixed));
  std::vector<std::vector<std::int64_t>> rows(static_cast<std::size_t>(search->rows()), prompt);
  Decoder& decoder = impl_->next ? *impl_->next : *impl_->first;
  for (;;) {
    std::vector<float> scores = last_scores(logits, search->rows());
    const std::vector<Pick> picks = search->step(scores, logits.extent(2));
    if (on_token && !picks.empty()) on_token(picks[0].token);
    if (search->done()) return search->results();
    std::vector<std::int64_t> parents, tokens;
    std::vector<std::vector<std::int64_t>> continued;
    for (const Pick& pick : picks) {
      parents.push_back(logits.extent(0) == 1 ? 0 : pick.parent);
      tokens.push_back(pick.token);
      continued.push_back(rows[static_cast<std::size_t>(pick.parent)]);
      continued.back().push_back(pick.token);
    }
    rows = std::move(continued);
    const auto count = static_cast<std::int64_t>(picks.size());
    if (impl_->next) {
      decoder.reorder(parents);
      logits = decoder.run(Tensor::of<std::int64_t>({count, 1}, tokens));
    } else {  // no cache: the whole sequence again
      TensorMap again;
      if (impl_->encoder) again = impl_->encode(request);
      decoder.start(std::move(again));
      decoder.reorder(std::vector<std::int64_t>(picks.size(), 0));
      std::vector<std::int64_t> flat;
      for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
      logits = decoder.run(Tensor::of<std::int64_t>({count, static_cast<std::int64_t>(rows[0].size())}, flat));
    }
  }
}

}  // namespace weft::runtime
