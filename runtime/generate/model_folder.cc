#include "runtime/generate/model_folder.h"

#include "importers/onnx/onnx.h"

namespace weft::runtime {

std::string present_name(const std::string& past) {
  for (const std::string_view prefix : {"past_key_values", "past"}) {
    if (past.rfind(prefix, 0) == 0) return "present" + past.substr(prefix.size());
  }
  return {};
}

bool is_past(std::string_view name) { return name.rfind("past", 0) == 0; }

bool is_cross(std::string_view name) { return name.find(".encoder.") != std::string_view::npos; }

CacheAxes cache_axes(const Value& cache) {
  const std::size_t rank = cache.type.shape ? cache.type.shape->size() : 4;
  CacheAxes axes{rank == 5 ? std::size_t{1} : 0, rank - 2};
  std::vector<std::size_t> open;
  for (std::size_t i = 0; cache.type.shape && i < rank; ++i) {
    if (!(*cache.type.shape)[i].is_constant()) open.push_back(i);
  }
  if (open.size() >= 2) axes = {open.front(), open.back()};
  if (open.size() == 1) axes.time = open[0];
  return axes;
}

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

namespace {

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
  optimize(graph, {.passes = {"fold-constants", "inline-branches", "dead-code"}});
  for (std::size_t i = graph.inputs().size(); i-- > 0;) {
    if (graph.use_count(graph.inputs()[i]) == 0) graph.remove_input(i);
  }
}

// Caches become states of the session where the pass that lifts them can.
std::shared_ptr<const Model> load_decoder(const std::filesystem::path& path, CompileOptions options,
                                          std::optional<bool> with_past = std::nullopt) {
  return with_frame([&] { return "while loading " + path.string(); },
                    [&] {
                      Graph graph = import_onnx(path);
                      if (with_past) choose_branch(graph, *with_past);
                      options.last_position_outputs = {"logits"};
                      for (const ValueId id : graph.inputs()) {
                        const std::string& name = graph.value(id).name;
                        if (!is_past(name)) continue;
                        const std::string present = present_name(name);
                        if (output_index(graph, present)) options.states.emplace_back(name, present);
                      }
                      return Model::compile(std::move(graph), options);
                    });
}

}  // namespace

GenerationModel GenerationModel::load(const std::filesystem::path& path, const std::vector<std::string>& passes) {
  CompileOptions options;
  options.passes = passes;
  return load(path, options);
}

GenerationModel GenerationModel::load(const std::filesystem::path& path, const CompileOptions& options) {
  GenerationModel model;
  if (!std::filesystem::is_directory(path)) {
    model.decoder_with_past = load_decoder(path, options);
    return model;
  }
  const auto exists = [&](const char* name) { return std::filesystem::exists(path / name); };
  if (exists("encoder_model.onnx")) model.encoder = Model::load(path / "encoder_model.onnx", options);
  if (exists("decoder_model.onnx")) model.decoder = load_decoder(path / "decoder_model.onnx", options);
  if (exists("decoder_with_past_model.onnx")) {
    model.decoder_with_past = load_decoder(path / "decoder_with_past_model.onnx", options);
  } else if (exists("model.onnx")) {
    model.decoder_with_past = load_decoder(path / "model.onnx", options);
  } else if (!model.decoder && exists("decoder_model_merged.onnx")) {
    model.decoder = load_decoder(path / "decoder_model_merged.onnx", options, false);
    model.decoder_with_past = load_decoder(path / "decoder_model_merged.onnx", options, true);
  }
  if (!model.decoder && !model.decoder_with_past) {
    fail(ErrorCode::kIo,
         "{} holds none of model.onnx, decoder_model.onnx, decoder_with_past_model.onnx, decoder_model_merged.onnx",
         path.string());
  }
  return model;
}

}  // namespace weft::runtime
