#include "runtime/generate/model_io.h"

#include <algorithm>

#include "ops/builder.h"
#include "runtime/generate/model_folder.h"

namespace weft::runtime {
namespace {

bool contains(std::string_view text, std::string_view word) { return text.find(word) != std::string_view::npos; }

bool is_integer_input(const Value& value) { return value.type.dtype == DType::kI64 || value.type.dtype == DType::kI32; }

std::size_t rank_of(const TensorType& type) { return type.shape ? type.shape->size() : 0; }

// A cache as it comes in and as it goes out: one extent may be longer.
bool may_follow(const TensorType& past, const TensorType& present) {
  if (past.dtype != present.dtype || !past.shape || rank_of(past) < 3) return false;
  if (!present.shape) return true;
  if (rank_of(past) != rank_of(present)) return false;
  for (std::size_t i = 0; i < past.shape->size(); ++i) {
    const Dim &a = (*past.shape)[i], &b = (*present.shape)[i];
    if (a.is_constant() && b.is_constant() && !(a == b)) return false;
  }
  return true;
}

bool is_constant_shape(const TensorType& type) {
  return type.shape &&
         std::all_of(type.shape->begin(), type.shape->end(), [](const Dim& d) { return d.is_constant(); });
}

std::string listed(const Graph& graph, const std::vector<ValueId>& ids) {
  std::string text;
  for (const ValueId id : ids) {
    const Value& value = graph.value(id);
    text += fmt::format("{}\"{}\" {}", text.empty() ? "" : ", ", value.name, to_string(value.type));
  }
  return text;
}

std::string listed_outputs(const Graph& graph, const std::vector<std::size_t>& indices) {
  std::string text;
  for (const std::size_t i : indices) {
    const Output& output = graph.outputs()[i];
    text +=
        fmt::format("{}\"{}\" {}", text.empty() ? "" : ", ", output.name, to_string(graph.value(output.value).type));
  }
  return text;
}

[[noreturn]] void undecided(std::string_view found, std::string_view wanted) {
  fail(ErrorCode::kUnsupported, "cannot tell which of {} is {}; --io NAME=ROLE settles it", found, wanted);
}

// The naming of one graph. What has a name already is left out of the lists.
class Namer {
 public:
  Namer(Graph& graph, const IoNames& given) : graph_(graph), given_(given) {
    for (const Output& output : graph.outputs()) output_names_.push_back(output.name);
    for (const ValueId id : graph.inputs()) {
      const std::string& name = graph.value(id).name;
      const auto settled = given.find(name);
      if (settled != given.end())
        names_[id] = settled->second;
      else if (is_known(name))
        names_[id] = name;
    }
    for (std::string& name : output_names_) {
      if (const auto settled = given.find(name); settled != given.end()) name = settled->second;
    }
    check_given();
  }

  void decoder() {
    name_caches();
    name_flags_and_states();
    name_integers("input_ids");
    name_logits();
    apply();
  }

  void encoder() {
    name_integers("input_ids");
    apply();
  }

 private:
  static bool is_known(std::string_view name) {
    static constexpr std::string_view kNames[] = {"input_ids",
                                                  "decoder_input_ids",
                                                  "attention_mask",
                                                  "position_ids",
                                                  "cache_position",
                                                  "decoder_attention_mask",
                                                  "decoder_position_ids",
                                                  "encoder_hidden_states",
                                                  "encoder_attention_mask",
                                                  "use_cache_branch"};
    return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
  }

  void check_given() const {
    for (const auto& [name, meaning] : given_) {
      const bool input = std::any_of(graph_.inputs().begin(), graph_.inputs().end(),
                                     [&](ValueId id) { return graph_.value(id).name == name; });
      const bool output = std::any_of(graph_.outputs().begin(), graph_.outputs().end(),
                                      [&](const Output& o) { return o.name == name; });
      const bool meant = is_known(meaning) || meaning == "logits" || is_past(meaning) || meaning.starts_with("present");
      if (!meant) fail(ErrorCode::kInvalidArgument, "\"{}\" is not a role of an input or output", meaning);
      if (!input && !output) continue;  // of another file of the folder
    }
  }

  std::vector<ValueId> unnamed() const {
    std::vector<ValueId> ids;
    for (const ValueId id : graph_.inputs()) {
      if (!names_.contains(id)) ids.push_back(id);
    }
    return ids;
  }

  bool has(std::string_view name) const {
    return std::any_of(names_.begin(), names_.end(), [&](const auto& entry) { return entry.second == name; });
  }

  const TensorType& output_type(std::size_t index) const { return graph_.value(graph_.outputs()[index].value).type; }

  // past... with the present... of the same name, else in the order they come.
  void name_caches() {
    std::vector<ValueId> unpaired;
    for (const ValueId id : unnamed()) {
      const Value& value = graph_.value(id);
      if (!is_float(value.type.dtype) || (value.type.shape && rank_of(value.type) < 3)) continue;
      if (is_past(value.name)) {
        names_[id] = value.name;
        if (!has_output(present_name(value.name)) && !is_cross(value.name)) {
          fail(ErrorCode::kUnsupported, "cache \"{}\" does not come out again as \"{}\"", value.name,
               present_name(value.name));
        }
      } else {
        unpaired.push_back(id);
      }
    }
    std::vector<std::size_t> outputs;
    for (std::size_t i = 0; i < output_names_.size(); ++i) {
      const bool free = output_names_[i] != "logits" && !output_names_[i].starts_with("present");
      if (free && is_float(output_type(i).dtype) && i != logits_guess()) outputs.push_back(i);
    }
    pair_in_order(unpaired, outputs);
  }

  bool has_output(std::string_view name) const {
    return std::find(output_names_.begin(), output_names_.end(), name) != output_names_.end();
  }

  void pair_in_order(std::vector<ValueId> inputs, const std::vector<std::size_t>& outputs) {
    // Only inputs that some output may continue are caches; an encoder's states are not.
    std::erase_if(inputs, [&](ValueId id) {
      return std::none_of(outputs.begin(), outputs.end(),
                          [&](std::size_t o) { return may_follow(graph_.value(id).type, output_type(o)); });
    });
    if (inputs.empty()) {  // the first of two decoders: what comes out beside the logits is for the second
      std::size_t count = 0;
      for (const std::size_t i : outputs) {
        if (has_output("logits") || !may_be_logits(i)) output_names_[i] = fmt::format("present.{}", count++);
      }
      return;
    }
    if (inputs.size() != outputs.size()) {
      fail(ErrorCode::kUnsupported,
           "{} inputs may be caches ({}) and {} outputs what follows them ({}); --io NAME=past_key_values.0 "
           "and --io NAME=present.0 settle it",
           inputs.size(), listed(graph_, inputs), outputs.size(), listed_outputs(graph_, outputs));
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Value& value = graph_.value(inputs[i]);
      if (!may_follow(value.type, output_type(outputs[i]))) {
        fail(ErrorCode::kUnsupported, "cache \"{}\" {} does not come out as \"{}\" {}", value.name,
             to_string(value.type), output_names_[outputs[i]], to_string(output_type(outputs[i])));
      }
      names_[inputs[i]] = fmt::format("past_key_values.{}", i);
      output_names_[outputs[i]] = fmt::format("present.{}", i);
    }
  }

  void name_flags_and_states() {
    std::vector<ValueId> flags, states, masks;
    for (const ValueId id : unnamed()) {
      const Value& value = graph_.value(id);
      if (value.type.dtype == DType::kBool) (rank_of(value.type) < 2 ? flags : masks).push_back(id);
      if (is_float(value.type.dtype) && rank_of(value.type) == 3) states.push_back(id);
    }
    if (flags.size() > 1) undecided(listed(graph_, flags), "use_cache_branch");
    if (states.size() > 1) undecided(listed(graph_, states), "encoder_hidden_states");
    if (masks.size() > 1) undecided(listed(graph_, masks), "attention_mask");
    if (!flags.empty()) names_[flags[0]] = "use_cache_branch";
    if (!states.empty()) names_[states[0]] = "encoder_hidden_states";
    if (!masks.empty()) names_[masks[0]] = "attention_mask";
  }

  // Tokens, masks and positions are all integers: words tell them apart, or that only one is left.
  void name_integers(const std::string& tokens) {
    std::vector<ValueId> left;
    for (const ValueId id : unnamed()) {
      const Value& value = graph_.value(id);
      if (!is_integer_input(value)) continue;
      const bool vector = rank_of(value.type) == 1;
      if (contains(value.name, "mask"))
        names_[id] = contains(value.name, "encoder") && !contains(value.name, "decoder") ? "encoder_attention_mask"
                                                                                         : "attention_mask";
      else if (contains(value.name, "position"))
        names_[id] = vector ? "cache_position" : "position_ids";
      else
        left.push_back(id);
    }
    if (left.empty()) return;
    if (has(tokens)) undecided(listed(graph_, left), "attention_mask, position_ids or decoder_input_ids");
    if (left.size() > 1) undecided(listed(graph_, left), tokens);
    names_[left[0]] = tokens;
  }

  // The output that cannot be anything else, or the first of those; out of range when there is none.
  std::size_t logits_guess() const {
    for (std::size_t i = 0; i < output_names_.size(); ++i) {
      if (output_names_[i] == "logits") return i;
    }
    for (std::size_t i = 0; i < output_names_.size(); ++i) {
      if (may_be_logits(i)) return i;
    }
    return output_names_.size();
  }

  bool may_be_logits(std::size_t i) const {
    const TensorType& type = output_type(i);
    return is_float(type.dtype) && !output_names_[i].starts_with("present") &&
           (!type.shape || rank_of(type) == 3 || rank_of(type) == 2);
  }

  void name_logits() {
    if (has_output("logits")) return;
    std::vector<std::size_t> candidates;
    for (std::size_t i = 0; i < output_names_.size(); ++i) {
      if (may_be_logits(i)) candidates.push_back(i);
    }
    std::vector<std::size_t> all(output_names_.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    if (candidates.empty()) {
      fail(ErrorCode::kUnsupported, "no output is logits [B, S, V] or [B, V]; found {}", listed_outputs(graph_, all));
    }
    if (candidates.size() > 1) undecided(listed_outputs(graph_, candidates), "logits");
    output_names_[candidates[0]] = "logits";
  }

  void apply() {
    for (const auto& [id, name] : names_) {
      if (graph_.value(id).name == name) continue;
      if (const auto taken = graph_.find_value(name)) graph_.rename_value(*taken, name + "_in_file");
      graph_.rename_value(id, name);
    }
    std::vector<Output> outputs(graph_.outputs().begin(), graph_.outputs().end());
    for (std::size_t i = outputs.size(); i-- > 0;) graph_.remove_output(i);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      ValueId value = outputs[i].value;
      if (output_names_[i] == "logits") value = full_logits(value);
      graph_.add_output(output_names_[i], value);
    }
  }

  // f32, with an axis of positions.
  ValueId full_logits(ValueId value) {
    Builder builder(graph_);
    Expr logits = builder.cast(builder.wrap(value), DType::kF32);
    if (rank_of(graph_.value(value).type) == 2) logits = builder.unsqueeze(logits, {1});
    return logits.id();
  }

  Graph& graph_;
  const IoNames& given_;
  std::map<ValueId, std::string> names_;
  std::vector<std::string> output_names_;
};

}  // namespace

FileIo describe_io(const Graph& graph) {
  FileIo io;
  std::size_t floats = 0;
  for (const Output& output : graph.outputs()) floats += is_float(graph.value(output.value).type.dtype) ? 1 : 0;
  std::vector<const Value*> wide;
  for (const ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    io.text += fmt::format("{}{} {}", io.text.empty() ? "" : ", ", value.name, to_string(value.type));
    io.tokens = io.tokens || (is_integer_input(value) && rank_of(value.type) == 2);
    io.branch = io.branch || (value.type.dtype == DType::kBool && rank_of(value.type) < 2);
    if (is_float(value.type.dtype) && (!value.type.shape || rank_of(value.type) >= 3)) wide.push_back(&value);
  }
  for (const Value* value : wide) {
    std::size_t followers = 0;
    for (const Output& output : graph.outputs())
      followers += may_follow(value->type, graph.value(output.value).type) ? 1 : 0;
    // A file with tokens and one result gives logits; what comes in beside is an encoder's.
    const bool cache =
        is_past(value->name) || (io.tokens && floats > 1 && followers > 0 && !is_constant_shape(value->type));
    (cache ? io.caches : io.states) = true;
  }
  io.states = io.states && io.tokens;
  io.text += " -> ";
  for (std::size_t i = 0; i < graph.outputs().size(); ++i) {
    const Output& output = graph.outputs()[i];
    io.text += fmt::format("{}{} {}", i == 0 ? "" : ", ", output.name, to_string(graph.value(output.value).type));
  }
  return io;
}

void name_decoder_io(Graph& graph, const IoNames& given) { Namer(graph, given).decoder(); }
void name_encoder_io(Graph& graph, const IoNames& given) { Namer(graph, given).encoder(); }

}  // namespace weft::runtime
