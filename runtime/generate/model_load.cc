// Which file of a folder is what, and loading them.
#include <algorithm>
#include <tuple>

#include "importers/onnx/onnx.h"
#include "runtime/generate/attentions.h"
#include "runtime/generate/decoder_graph.h"
#include "runtime/generate/model_folder.h"
#include "runtime/weight_store.h"

namespace weft::runtime {
namespace {

using Path = std::filesystem::path;

// A decoder, and what it computes of its source alone (null if nothing).
using DecoderModels = std::pair<std::shared_ptr<const Model>, std::shared_ptr<const Model>>;

struct Loader {
  CompileOptions options;
  const ModelFiles& files;
  bool attentions = false;

  // Of files with decoders of prompts and of steps, which have the same weights. A store reads every weight to find
  // those: only where there are some.
  Loader with_store() const {
    Loader loader = *this;
    if (!options.weights) loader.options.weights = std::make_shared<WeightStore>();
    return loader;
  }

  std::shared_ptr<const Model> encoder(const Path& path) const {
    return with_frame([&] { return "while loading " + path.string(); },
                      [&] {
                        Graph graph = import_onnx(path);
                        name_encoder_io(graph, files.names);
                        if (attentions) expose_attentions(graph);
                        return Model::compile(std::move(graph), options);
                      });
  }

  // with_past: the branch of a file with both decoders. first: the decoder whose caches this one goes on with, if any.
  DecoderModels decoder(const Path& path, std::optional<bool> with_past = std::nullopt,
                        const Model* first = nullptr) const {
    return with_frame([&] { return "while loading " + path.string(); },
                      [&] { return decoder(import_onnx(path), with_past, first); });
  }

  // Caches become states of the session where the pass that lifts them can.
  DecoderModels decoder(Graph graph, std::optional<bool> with_past = std::nullopt, const Model* first = nullptr) const {
    check_given(graph);
    name_decoder_io(graph, files.names);
    if (!find_input(graph, "input_ids") && !find_input(graph, "decoder_input_ids")) {
      fail(ErrorCode::kUnsupported, "no input is tokens, integers [B, S]; found {}", describe_io(graph).text);
    }
    if (with_past) choose_branch(graph, *with_past);
    unify_extents(graph);
    CompileOptions own = options;
    if (attentions)
      expose_attentions(graph);
    else
      own.last_position_outputs = {"logits"};
    own.states = cache_pairs(graph);
    own.states_of_any_layout = first == nullptr;
    std::optional<Graph> source;
    if (!attentions)
      own.after_passes = [&](Graph& fused) {
        source = split_decoder_source(fused, first != nullptr, !own.states.empty());
      };
    DecoderModels models;
    models.first = Model::compile(std::move(graph), own);
    CompileOptions plain = options;
    plain.passes = {};
    if (source) models.second = Model::compile(*std::move(source), plain);
    return models;
  }

  // The decoder has what the caller says it has.
  void check_given(const Graph& graph) const {
    for (const std::string& name : files.decoder_io) {
      if (find_input(graph, name) != nullptr || output_index(graph, name)) continue;
      fail(ErrorCode::kInvalidArgument, "the decoder has no input or output \"{}\"; it is {}", name,
           describe_io(graph).text);
    }
  }

  void merged(const Path& path, GenerationModel& model) const {
    const Loader loader = with_store();
    set_first(model, loader.decoder(path, false));
    set_steps(model, loader.decoder(path, true, model.decoder.get()));
  }

  static void set_first(GenerationModel& model, DecoderModels models) {
    std::tie(model.decoder, model.decoder_source) = std::move(models);
  }
  static void set_steps(GenerationModel& model, DecoderModels models) {
    std::tie(model.decoder_with_past, model.decoder_with_past_source) = std::move(models);
  }
};

// By the names that exporters give files; false if there is none of them.
bool load_named(const Path& folder, const Loader& given, GenerationModel& model) {
  const auto exists = [&](const char* name) { return std::filesystem::exists(folder / name); };
  const bool two = exists("decoder_model.onnx") && (exists("decoder_with_past_model.onnx") || exists("model.onnx"));
  const Loader loader = two ? given.with_store() : given;
  if (exists("encoder_model.onnx")) model.encoder = loader.encoder(folder / "encoder_model.onnx");
  if (exists("decoder_model.onnx")) Loader::set_first(model, loader.decoder(folder / "decoder_model.onnx"));
  if (exists("decoder_with_past_model.onnx")) {
    Loader::set_steps(model,
                      loader.decoder(folder / "decoder_with_past_model.onnx", std::nullopt, model.decoder.get()));
  } else if (exists("model.onnx")) {
    Loader::set_steps(model, loader.decoder(folder / "model.onnx"));
  } else if (!model.decoder && exists("decoder_model_merged.onnx")) {
    loader.merged(folder / "decoder_model_merged.onnx", model);
  }
  return model.decoder || model.decoder_with_past;
}

struct File {
  Path path;
  FileIo io;
};

std::string described(const std::vector<File>& files) {
  std::string text;
  for (const File& file : files) text += fmt::format("\n    {}: {}", file.path.filename().string(), file.io.text);
  return text;
}

// The one of them, null if there is none.
const File* only(const std::vector<File>& files, std::string_view role) {
  if (files.size() > 1) {
    fail(ErrorCode::kUnsupported, "{} files may be {}; give the path of one, or a folder with one:{}", files.size(),
         role, described(files));
  }
  return files.empty() ? nullptr : &files[0];
}

// By what the files take and give.
void load_by_interface(const std::vector<Path>& paths, const Loader& given, GenerationModel& model) {
  std::vector<File> merged, with_past, first, plain, others;
  for (const Path& path : paths) {
    const File file{path, describe_io(import_onnx(path))};
    const FileIo& io = file.io;
    (io.branch ? merged : !io.tokens ? others : io.caches ? with_past : io.states ? first : plain).push_back(file);
  }
  const File* both = only(merged, "the decoder with and without caches");
  const File* later = only(with_past, "the decoder with caches");
  const File* beginning = only(first, "the decoder");
  const Loader loader = beginning != nullptr && later != nullptr ? given.with_store() : given;
  const bool wants_encoder = beginning != nullptr || (both && both->io.states) || (later && later->io.states);
  std::vector<File> rest = plain;
  if (wants_encoder) {
    rest.insert(rest.end(), others.begin(), others.end());
    const File* encoder = only(rest, "the encoder");
    if (encoder == nullptr) {
      const File& decoder = beginning ? *beginning : both ? *both : *later;
      fail(ErrorCode::kUnsupported, "{} takes an encoder's states, and no file beside it gives them",
           decoder.path.filename().string());
    }
    model.encoder = loader.encoder(encoder->path);
  } else if (const File* whole = both ? nullptr : only(plain, "the decoder")) {
    Loader::set_first(model, loader.decoder(whole->path));
  }
  if (beginning != nullptr) Loader::set_first(model, loader.decoder(beginning->path));
  if (both != nullptr) loader.merged(both->path, model);
  if (later != nullptr) Loader::set_steps(model, loader.decoder(later->path, std::nullopt, model.decoder.get()));
  if (!model.decoder && !model.decoder_with_past) {
    fail(ErrorCode::kUnsupported, "no file takes tokens, integers [B, S]:{}", described(others));
  }
}

std::vector<Path> models_in(const Path& folder) {
  std::vector<Path> paths;
  if (!std::filesystem::is_directory(folder)) return paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".onnx") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// A decoder without caches does every step from the beginning: it is the only one.
void settle_first(GenerationModel& model) {
  if (!model.decoder_with_past || model.decoder) return;
  const Graph& graph = model.decoder_with_past->graph();
  const bool caches = !graph.states().empty() || std::any_of(graph.inputs().begin(), graph.inputs().end(),
                                                             [&](ValueId id) { return is_past(graph.value(id).name); });
  if (caches) return;
  model.decoder = std::exchange(model.decoder_with_past, nullptr);
  model.decoder_source = std::exchange(model.decoder_with_past_source, nullptr);
}

// A decoder that reads an encoder's states has to have one.
void check_whole(const GenerationModel& model) {
  for (const auto& decoder :
       {model.decoder, model.decoder_with_past, model.decoder_source, model.decoder_with_past_source}) {
    if (decoder && !model.encoder && find_input(decoder->graph(), "encoder_hidden_states")) {
      fail(ErrorCode::kUnsupported,
           "the decoder takes encoder_hidden_states, and there is no encoder; give the folder that has both");
    }
  }
}

}  // namespace

GenerationModel GenerationModel::load(const std::filesystem::path& path, const std::vector<std::string>& passes) {
  CompileOptions options;
  options.passes = passes;
  return load(path, options);
}

namespace {

GenerationModel load_files(const Path& path, const CompileOptions& options, const ModelFiles& files, bool attentions) {
  GenerationModel model;
  const Loader loader{options, files, attentions};
  if (!files.decoder.empty()) {
    if (!files.encoder.empty()) model.encoder = loader.encoder(path / files.encoder);
    Loader::set_steps(model, loader.decoder(path / files.decoder));
  } else if (!std::filesystem::is_directory(path)) {
    Graph graph = import_onnx(path);
    if (describe_io(graph).branch)
      loader.merged(path, model);
    else
      Loader::set_steps(model, loader.decoder(std::move(graph)));
  } else if (!load_named(path, loader, model)) {
    const Path folder = models_in(path).empty() ? path / "onnx" : path;
    const std::vector<Path> paths = models_in(folder);
    if (paths.empty()) fail(ErrorCode::kIo, "the folder holds no .onnx file");
    if (!load_named(folder, loader, model)) load_by_interface(paths, loader, model);
  }
  settle_first(model);
  check_whole(model);
  return model;
}

}  // namespace

GenerationModel GenerationModel::load(const std::filesystem::path& path, const CompileOptions& options,
                                      const ModelFiles& files) {
  return with_frame([&] { return "while loading " + path.string(); },
                    [&] { return load_files(path, options, files, false); });
}

GenerationModel GenerationModel::load_with_attentions(const std::filesystem::path& path, const CompileOptions& options,
                                                      const ModelFiles& files) {
  CompileOptions canonical = options;
  canonical.passes = canonical_passes();
  return with_frame([&] { return "while loading " + path.string(); },
                    [&] {
                      GenerationModel model = load_files(path, canonical, files, true);
                      if (model.decoder) model.decoder_with_past = nullptr;
                      return model;
                    });
}

}  // namespace weft::runtime
