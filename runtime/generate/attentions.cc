#include "runtime/generate/attentions.h"

#include <algorithm>

#include "ops/cast.h"
#include "passes/pipeline.h"

namespace weft::runtime {
namespace {

constexpr std::string_view kAlone = "attentions", kEncoder = "encoder_attentions", kDecoder = "decoder_attentions",
                           kCross = "cross_attentions";
constexpr std::string_view kPrefix = "weft.";  // of outputs, so that they are not the file's

// What generates: the tokens that a decoder goes on from.
std::optional<ValueId> generated(const Graph& graph) {
  if (!output_index(graph, "logits")) return std::nullopt;
  for (const std::string_view name : {"decoder_input_ids", "input_ids"}) {
    for (const ValueId id : graph.inputs()) {
      if (graph.value(id).name == name) return id;
    }
  }
  return std::nullopt;
}

bool has_source(const Graph& graph) {
  return find_input(graph, "decoder_input_ids") || find_input(graph, "encoder_hidden_states") ||
         std::any_of(graph.inputs().begin(), graph.inputs().end(),
                     [&](ValueId id) { return is_past(graph.value(id).name) && is_cross(graph.value(id).name); });
}

std::vector<std::string> exposed(const Graph& graph) {
  std::vector<std::string> names;
  for (const Output& output : graph.outputs()) {
    if (output.name.starts_with(kPrefix)) names.push_back(output.name.substr(kPrefix.size()));
  }
  return names;
}

// Some layers' weights would be taken for those of all.
void check_all_written_out(const Graph& graph, std::string_view which, std::size_t written_out) {
  const std::vector<NodeId> nodes = graph.nodes();
  const auto whole = static_cast<std::size_t>(
      std::count_if(nodes.begin(), nodes.end(), [&](NodeId id) { return graph.node(id).op == "Attention"; }));
  if (whole == 0) return;
  fail(ErrorCode::kUnsupported,
       "no attention weights: {} of its {} attentions the {} has as one operator, without a Softmax that weighs values",
       whole, whole + written_out, which);
}

// [..., S, T] of one row as f32 [H, S, T].
Tensor by_heads(const Tensor& weights, const std::string& name) {
  const std::size_t rank = weights.rank();
  if (rank < 3) fail(ErrorCode::kUnsupported, "{} are of rank {}: heads, queries and keys wanted", name, rank);
  std::int64_t heads = 1;
  for (std::size_t i = 0; i + 2 < rank; ++i) heads *= weights.extent(i);
  return cast(weights, DType::kF32).reshaped({heads, weights.extent(rank - 2), weights.extent(rank - 1)});
}

}  // namespace

// Values computed from the tokens generated: the decoder looks at itself. Weights that are not: the encoder does.
void expose_attentions(Graph& graph) {
  optimize(graph, {.passes = canonical_passes()});
  const std::optional<ValueId> tokens = generated(graph);
  const std::set<ValueId> own = tokens ? computed_from(graph, *tokens) : std::set<ValueId>();
  const std::string_view itself = has_source(graph) ? kDecoder : kAlone;
  std::map<std::string_view, int> layers;
  for (const auto& [weights, values] : find_attention_weights(graph)) {
    const std::string_view kind = !own.contains(weights) ? kEncoder : own.contains(values) ? itself : kCross;
    graph.add_output(fmt::format("{}{}.{}", kPrefix, kind, layers[kind]++), weights);
  }
}

AttentionReader::AttentionReader(const GenerationModel& model, std::shared_ptr<ThreadPool> pool)
    : model_(model, std::move(pool)) {
  if (model.encoder) {
    names_ = exposed(model.encoder->graph());
    check_all_written_out(model.encoder->graph(), "encoder", names_.size());
  }
  const Graph& graph = (model.decoder ? model.decoder : model.decoder_with_past)->graph();
  const std::vector<std::string> decoder = exposed(graph);
  check_all_written_out(graph, "decoder", decoder.size());
  if (decoder.empty()) {
    fail(ErrorCode::kUnsupported, "no attention weights: the decoder has no Softmax that weighs values");
  }
  names_.insert(names_.end(), decoder.begin(), decoder.end());
}

Attentions AttentionReader::read(const Request& request, std::span<const std::int64_t> sequence) {
  Source source{{sequence.begin(), sequence.end()}, {}, request.encoder_inputs};
  if (model_.has_source()) source.encoder_tokens = request.input_ids;
  if (source.prompt.empty()) fail(ErrorCode::kInvalidArgument, "the sequence has no tokens");
  model_.start({&source, 1});
  Attentions result;
  for (const std::string& name : names_) {
    const Tensor* weights = model_.output(std::string(kPrefix) + name);
    if (weights == nullptr) fail(ErrorCode::kInternal, "no output {}", name);
    result[name.substr(0, name.rfind('.'))].push_back(by_heads(*weights, name));
  }
  return result;
}

}  // namespace weft::runtime
