#include "runtime/generate/generator.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "importers/onnx/onnx.h"
#include "runtime/bind_inputs.h"

namespace weft::runtime {
namespace {

// "past_key_values.0.key" -> "present.0.key", "past_key_self_0" -> "present_key_self_0", "past_0" -> "present_0".
std::string present_name(const std::string& past) {
  for (const std::string_view prefix : {"past_key_values", "past"}) {
    if (past.rfind(prefix, 0) == 0) return "present" + past.substr(prefix.size());
  }
  return {};
}

bool is_past(std::string_view name) { return name.rfind("past", 0) == 0; }

std::optional<std::size_t> output_index(const Graph& graph, std::string_view name) {
  for (std::size_t i = 0; i < graph.outputs().size(); ++i) {
    if (graph.outputs()[i].name == name) return i;
  }
  return std::nullopt;
}

const Value* find_input(const Graph& graph, std::string_view name) {
  for (const ValueId id : graph.inputs()) {
    if (graph.value(id).name == name) return &graph.value(id);
  }
  return nullptr;
}

// Caches become states of the session where the pass that lifts them can.
constexpr std::string_view kUseCache = "use_cache_branch";

// Of a file with both decoders the one that use_cache_branch chooses: inputs that only the other reads go.
void choose_branch(Graph& graph, bool with_past) {
  for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
    const ValueId id = graph.inputs()[i];
    if (graph.value(id).name != kUseCache) continue;
    graph.replace_uses(id, graph.add_constant(Tensor::of<bool>({1}, {with_past})));
    graph.remove_input(i);
    break;
  }
  optimize(graph, {{"fold-constants", "inline-branches", "dead-code"}, false});
  for (std::size_t i = graph.inputs().size(); i-- > 0;) {
    if (graph.use_count(graph.inputs()[i]) == 0) graph.remove_input(i);
  }
}

std::shared_ptr<const Model> load_decoder(const std::filesystem::path& path, const std::vector<std::string>& passes,
                                          std::optional<bool> with_past = std::nullopt) {
  return with_frame([&] { return "while loading " + path.string(); },
                    [&] {
                      Graph graph = import_onnx(path);
                      if (with_past) choose_branch(graph, *with_past);
                      CompileOptions options;
                      options.passes = passes;
                      for (const ValueId id : graph.inputs()) {
                        const std::string& name = graph.value(id).name;
                        if (!is_past(name)) continue;
                        const std::string present = present_name(name);
                        if (output_index(graph, present)) options.states.emplace_back(name, present);
                      }
                      return Model::compile(std::move(graph), options);
                    });
}

// The rows `picked` of axis 0.
Tensor select_rows(const Tensor& x, std::span<const std::int64_t> picked) {
  Extents shape = x.shape();
  const std::size_t row = x.extent(0) == 0 ? 0 : x.byte_size() / static_cast<std::size_t>(x.extent(0));
  shape[0] = static_cast<std::int64_t>(picked.size());
  Tensor result = Tensor::uninitialized(x.dtype(), std::move(shape));
  for (std::size_t i = 0; i < picked.size() && row > 0; ++i) {
    std::memcpy(result.mutable_bytes().data() + i * row, x.bytes().data() + static_cast<std::size_t>(picked[i]) * row,
                row);
  }
  return result;
}

Tensor int_rows(std::int64_t rows, std::int64_t columns, std::int64_t first, std::int64_t step, DType dtype) {
  Tensor result = Tensor::uninitialized(dtype, {rows, columns});
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const auto at = static_cast<std::size_t>(r * columns + c);
      const std::int64_t value = first + c * step;
      if (dtype == DType::kI64)
        result.mutable_data<std::int64_t>()[at] = value;
      else if (dtype == DType::kI32)
        result.mutable_data<std::int32_t>()[at] = static_cast<std::int32_t>(value);
      else if (dtype == DType::kF32)
        result.mutable_data<float>()[at] = static_cast<float>(value);
      else if (dtype == DType::kBool)
        result.mutable_data<bool>()[at] = value != 0;
      else
        fail(ErrorCode::kUnsupported, "generation with an input of {}", to_string(dtype));
    }
  }
  return result;
}

// Drives one decoder file: feeds tokens, keeps what is past.
class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool)
      : session_(std::move(model), std::move(pool)) {}

  const Graph& graph() const { return session_.model().graph(); }

  // fixed: inputs that stay the same at every step (of the encoder), for one row.
  void start(TensorMap fixed) {
    fixed_ = std::move(fixed);
    pasts_.clear();
    length_ = 0;
    rows_ = 1;
    session_.reset_states(1);
    for (const ValueId id : graph().inputs()) {
      const Value& value = graph().value(id);
      if (is_past(value.name) && !fixed_.contains(value.name)) pasts_[value.name] = empty_past(value);
    }
  }

  // Takes over caches that another decoder made for one row.
  void set_past(const std::string& name, const Tensor& value, bool grows) {
    for (const State& state : graph().states()) {
      if (state.name != name) continue;
      session_.set_state(name, value);
      if (grows) length_ = value.extent(value.rank() - 2);
      return;
    }
    if (find_input(graph(), name) == nullptr) return;
    if (output_index(graph(), present_name(name))) {
      pasts_[name] = value;
      length_ = value.extent(value.rank() - 2);
    } else {
      pasts_.erase(name);
      fixed_[name] = value;
    }
  }

  void reorder(std::span<const std::int64_t> parents) {
    rows_ = static_cast<std::int64_t>(parents.size());
    session_.reorder_states(parents);
    for (auto& [name, past] : pasts_) past = select_rows(past, parents);
    for (auto& [name, tensor] : fixed_) {
      if (tensor.extent(0) != rows_) tensor = select_rows(tensor, std::vector<std::int64_t>(parents.size(), 0));
    }
  }

  // tokens: [rows, S]. Returns logits [rows, S, V] and keeps the outputs of the run.
  Tensor run(const Tensor& tokens) {
    const std::int64_t steps = tokens.extent(1);
    TensorMap inputs = pasts_;
    for (const ValueId id : graph().inputs()) {
      const Value& value = graph().value(id);
      const std::string& name = value.name;
      if (inputs.contains(name)) continue;
      if (const auto given = fixed_.find(name); given != fixed_.end()) {
        inputs[name] = given->second;
      } else if (name == "input_ids" || name == "decoder_input_ids") {
        inputs[name] = value.type.dtype == DType::kI32 ? narrowed(tokens) : tokens;
      } else if (name == "attention_mask" || name == "decoder_attention_mask") {
        inputs[name] = int_rows(rows_, length_ + steps, 1, 0, value.type.dtype);
      } else if (name == "position_ids") {
        inputs[name] = int_rows(rows_, steps, length_, 1, value.type.dtype);
      } else if (name == "cache_position") {
        inputs[name] = int_rows(1, steps, length_, 1, value.type.dtype).reshaped({steps});
      } else if (!value.tensor) {
        fail(ErrorCode::kUnsupported, "generation does not know what input \"{}\" of the decoder is", name);
      }
    }
    outputs_ = session_.run(inputs);
    length_ += steps;
    for (auto& [name, past] : pasts_) {
      if (const auto index = output_index(graph(), present_name(name))) past = outputs_[*index];
    }
    const auto logits = output_index(graph(), "logits");
    return outputs_[logits.value_or(0)];
  }

  const Tensor* output(std::string_view name) const {
    const auto index = output_index(graph(), name);
    return index ? &outputs_[*index] : nullptr;
  }
  std::int64_t length() const { return length_; }

 private:
  static Tensor narrowed(const Tensor& tokens) {
    Tensor result = Tensor::uninitialized(DType::kI32, tokens.shape());
    const auto in = tokens.data<std::int64_t>();
    for (std::size_t i = 0; i < in.size(); ++i) {
      result.mutable_data<std::int32_t>()[i] = static_cast<std::int32_t>(in[i]);
    }
    return result;
  }

  // [1, heads, 0, size]
  static Tensor empty_past(const Value& value) {
    if (!value.type.shape || value.type.shape->size() < 3) {
      fail(ErrorCode::kUnsupported, "generation with the cache \"{}\" of {}", value.name, to_string(value.type));
    }
    Extents shape;
    const std::size_t time = value.type.shape->size() - 2;
    for (std::size_t i = 0; i < value.type.shape->size(); ++i) {
      const Dim& dim = (*value.type.shape)[i];
      if (i == time)
        shape.push_back(0);
      else
        shape.push_back(dim.is_constant() ? dim.value() : 1);
    }
    return Tensor::zeros(value.type.dtype, std::move(shape));
  }

  Session session_;
  TensorMap fixed_;
  TensorMap pasts_;
  std::vector<Tensor> outputs_;
  std::int64_t length_ = 0;
  std::int64_t rows_ = 1;
};

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

GenerationModel GenerationModel::load(const std::filesystem::path& path, const std::vector<std::string>& passes) {
  GenerationModel model;
  if (!std::filesystem::is_directory(path)) {
    model.decoder_with_past = load_decoder(path, passes);
    return model;
  }
  const auto exists = [&](const char* name) { return std::filesystem::exists(path / name); };
  CompileOptions options;
  options.passes = passes;
  if (exists("encoder_model.onnx")) model.encoder = Model::load(path / "encoder_model.onnx", options);
  if (exists("decoder_model.onnx")) model.decoder = load_decoder(path / "decoder_model.onnx", passes);
  if (exists("decoder_with_past_model.onnx")) {
    model.decoder_with_past = load_decoder(path / "decoder_with_past_model.onnx", passes);
  } else if (exists("model.onnx")) {
    model.decoder_with_past = load_decoder(path / "model.onnx", passes);
  } else if (!model.decoder && exists("decoder_model_merged.onnx")) {
    model.decoder = load_decoder(path / "decoder_model_merged.onnx", passes, false);
    model.decoder_with_past = load_decoder(path / "decoder_model_merged.onnx", passes, true);
  }
  if (!model.decoder && !model.decoder_with_past) {
    fail(ErrorCode::kIo,
         "{} holds none of model.onnx, decoder_model.onnx, decoder_with_past_model.onnx, decoder_model_merged.onnx",
         path.string());
  }
  return model;
}

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
      if (present != nullptr) next->set_past(name, *present, name.find(".encoder.") == std::string::npos);
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
