#include "runtime/generate/generator.h"

#include <algorithm>
#include <tuple>

#include "runtime/generate/decode_loop.h"
#include "runtime/generate/language_model.h"

namespace weft::runtime {

struct Generator::Impl {
  Impl(const GenerationModel& model_files, const std::shared_ptr<ThreadPool>& threads)
      : files(model_files), pool(threads), model(model_files, threads) {}

  GenerationModel files;
  std::shared_ptr<ThreadPool> pool;
  std::shared_ptr<CacheBudget> budget;
  LanguageModel model;
  std::unique_ptr<LanguageModel> assistant;
  std::unique_ptr<LanguageModel> unconditional;  // made when guidance_scale asks for it

  Source source_of(const Request& request, const GenerationConfig& config) const {
    if (request.input_ids.empty() && request.encoder_inputs.empty()) {
      fail(ErrorCode::kInvalidArgument, "the prompt has no tokens");
    }
    if (!model.has_source()) {
      if (!request.encoder_inputs.empty()) fail(ErrorCode::kInvalidArgument, "the model has no encoder for features");
      if (!request.decoder_input_ids.empty()) {
        fail(ErrorCode::kInvalidArgument, "decoder_input_ids are for encoder-decoder models: put them into the prompt");
      }
      return {request.input_ids, {}, {}};
    }
    const auto start = config.decoder_start_token_id ? config.decoder_start_token_id : config.bos_token_id;
    if (!start) fail(ErrorCode::kInvalidArgument, "an encoder-decoder model needs decoder_start_token_id");
    Source source{request.decoder_input_ids, request.input_ids, request.encoder_inputs};
    if (source.prompt.empty() || source.prompt[0] != *start) source.prompt.insert(source.prompt.begin(), *start);
    return source;
  }

  // The last token generated is not read.
  void check_positions(const std::vector<std::int64_t>& prompt, const GenerationConfig& config) const {
    const std::optional<std::int64_t> limit = model.position_limit();
    const std::int64_t length = max_sequence_length(config, std::ssize(prompt));
    if (!limit || std::max(length - 1, std::ssize(prompt)) <= *limit) return;
    fail(ErrorCode::kInvalidArgument,
         "{} tokens, {} of them the prompt's, for a model of {} positions; max_length or max_new_tokens has to be "
         "lower, even if the sequence would end before",
         length, prompt.size(), *limit);
  }

  Decoding decoding_of(std::size_t number, const Request& request, const GenerationConfig& config,
                       const Callbacks& callbacks) const {
    Decoding result;
    result.number = number;
    result.source = source_of(request, config);
    result.unconditional.prompt = request.negative_prompt_ids;
    if (result.unconditional.prompt.empty()) result.unconditional.prompt = {result.source.prompt.back()};
    check_positions(result.source.prompt, config);
    result.search = make_search(
        config, {result.source.prompt, request.input_ids, static_cast<std::uint32_t>(number), number}, callbacks);
    if (result.search->done()) {
      fail(ErrorCode::kInvalidArgument, "the prompt has {} tokens, max_length allows {}", result.source.prompt.size(),
           max_sequence_length(config, std::ssize(result.source.prompt)));
    }
    return result;
  }

  bool together(const Decoding& a, const Decoding& b, bool guided) {
    if (!model.together(a.source, b.source)) return false;
    return !guided || unconditional->together(a.unconditional, b.unconditional);
  }

  void speculate(Decoding& decoding, const GenerationConfig& config, const LoopContext& context) {
    const auto stream = static_cast<std::uint32_t>(decoding.number);
    const std::unique_ptr<Drafter> drafter = config.prompt_lookup_num_tokens
                                                 ? make_prompt_lookup(config, std::ssize(decoding.source.prompt))
                                                 : make_assistant(config, *assistant, decoding.source, stream);
    decode_speculatively(model, decoding, *drafter, context);
  }

  bool prepare(const GenerationConfig& config, std::vector<std::string>& warnings) {
    validate(config);
    if (const auto positions = config.max_position_embeddings; positions && config.max_length > *positions) {
      warnings.push_back(fmt::format("max_length {} is beyond the {} positions that the model was trained for",
                                     *config.max_length, *positions));
    }
    for (const std::string& name : ignored_options(config)) {
      warnings.push_back(name + " has no effect with these options");
    }
    if (!assistant && config.num_assistant_tokens != GenerationConfig().num_assistant_tokens)
      warnings.emplace_back("num_assistant_tokens has no effect without an assistant");
    const bool guided = config.guidance_scale && *config.guidance_scale != 1;
    if (!guided) return false;
    if (model.has_source()) {
      fail(ErrorCode::kUnsupported, "guidance_scale with an encoder-decoder model");
    }
    if (!unconditional) {
      unconditional = std::make_unique<LanguageModel>(files, pool);
      unconditional->set_cache_budget(budget);
    }
    return true;
  }
};

Generator::Generator(const GenerationModel& model, std::shared_ptr<ThreadPool> pool, const GenerationModel* assistant) {
  if (!pool) pool = std::make_shared<ThreadPool>();
  impl_ = std::make_unique<Impl>(model, pool);
  if (assistant != nullptr) impl_->assistant = std::make_unique<LanguageModel>(*assistant, pool);
}

void Generator::set_profile(Profile* profile) {
  impl_->model.set_profile(profile);
  if (impl_->assistant) impl_->assistant->set_profile(profile);
}

void Generator::set_cache_budget(std::shared_ptr<CacheBudget> budget) {
  impl_->budget = std::move(budget);
  for (LanguageModel* model : {&impl_->model, impl_->assistant.get(), impl_->unconditional.get()}) {
    if (model != nullptr) model->set_cache_budget(impl_->budget);
  }
}

CacheUsage Generator::cache_usage() const { return impl_->model.cache_usage(); }

Generator::~Generator() = default;
Generator::Generator(Generator&&) noexcept = default;
Generator& Generator::operator=(Generator&&) noexcept = default;

bool Generator::has_source() const { return impl_->model.has_source(); }

std::vector<Generation> Generator::generate(std::span<const Request> requests, const GenerationConfig& config,
                                            const Callbacks& callbacks, std::size_t batch_size) {
  std::vector<std::string> warnings;
  const bool guided = impl_->prepare(config, warnings);
  const bool one_row = config.num_beams == 1 && config.num_return_sequences == 1 && !guided;
  const bool speculative = config.prompt_lookup_num_tokens || impl_->assistant;
  if (speculative && !one_row) {
    fail(ErrorCode::kInvalidArgument,
         "speculation goes with greedy search and sampling of one sequence, without guidance_scale");
  }
  std::vector<Decoding> decodings;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    decodings.push_back(impl_->decoding_of(i, requests[i], config, callbacks));
  }
  // Similar lengths together: less padding, fewer runs to prefill.
  std::sort(decodings.begin(), decodings.end(), [](const Decoding& a, const Decoding& b) {
    const auto key = [](const Decoding& d) {
      return std::tuple(d.source.encoder_tokens.size(), d.source.prompt.size(), d.number);
    };
    return key(a) < key(b);
  });
  for (std::size_t first = 0; first < decodings.size();) {
    std::size_t last = first + 1;
    while (last < decodings.size() && last - first < batch_size && !speculative &&
           impl_->together(decodings[first], decodings[last], guided)) {
      ++last;
    }
    LoopContext context{callbacks};
    if (config.max_time) {
      context.deadline = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(
                                                                std::chrono::duration<double>(*config.max_time));
    }
    const auto batch = std::span(decodings).subspan(first, last - first);
    if (speculative)
      impl_->speculate(batch[0], config, context);
    else
      decode_batch(impl_->model, guided ? impl_->unconditional.get() : nullptr, batch, context);
    first = last;
  }
  std::vector<Generation> results(requests.size());
  for (const Decoding& decoding : decodings) results[decoding.number] = {decoding.search->results(), warnings};
  return results;
}

Generation Generator::generate(const Request& request, const GenerationConfig& config, const Callbacks& callbacks) {
  return std::move(generate({&request, 1}, config, callbacks, 1)[0]);
}

}  // namespace weft::runtime
