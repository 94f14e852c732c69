// Sequences and optional values: tensors whose elements are tensors (DType::kSequence, kOptional, ...).
#include <algorithm>

#include "ops/families.h"
#include "ops/index_util.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

TensorType sequence_of(DType element) { return {DType::kSequence, std::nullopt, element}; }

Tensor make_container(DType dtype, const std::vector<Tensor>& elements) {
  Tensor result = Tensor::uninitialized(dtype, {static_cast<std::int64_t>(elements.size())});
  std::copy(elements.begin(), elements.end(), result.mutable_data<Tensor>().begin());
  return result;
}

std::vector<Tensor> elements_of(const Tensor& sequence) {
  const auto elements = sequence.data<Tensor>();
  return {elements.begin(), elements.end()};
}

void check_sequence(InferContext& context) {
  if (context.dtype(0) != DType::kSequence) {
    fail(ErrorCode::kInvalidModel, "a sequence wanted, {} given", to_string(context.dtype(0)));
  }
}

// --- Construction --------------------------------------------------------------------------------------

void infer_construct(InferContext& context) { context.set_type(0, sequence_of(context.dtype(0))); }

void construct_kernel(KernelContext& context) {
  std::vector<Tensor> elements;
  for (std::size_t i = 0; i < context.input_count(); ++i) {
    elements.push_back(context.input(i).clone());
    if (elements.back().dtype() != elements.front().dtype()) fail(ErrorCode::kInvalidModel, "a sequence of two dtypes");
  }
  context.set_output(0, make_container(DType::kSequence, elements));
}

void infer_empty(InferContext& context) { context.set_type(0, sequence_of(context.attributes().type("dtype"))); }

void empty_kernel(KernelContext& context) { context.set_output(0, make_container(DType::kSequence, {})); }

// --- Elements --------------------------------------------------------------------------------------------

// Position given by input `index`, or the end; `limit` positions are allowed.
std::size_t position(const KernelContext& context, std::size_t index, std::int64_t last, std::int64_t limit) {
  const std::int64_t at = context.has(index) ? context.input(index).to_ints().at(0) : last;
  return static_cast<std::size_t>(checked_index(at, limit));
}

void infer_at(InferContext& context) {
  check_sequence(context);
  context.set_type(0, {context.type(0).element, std::nullopt});
}

void at_kernel(KernelContext& context) {
  const auto elements = context.input(0).data<Tensor>();
  const auto count = static_cast<std::int64_t>(elements.size());
  context.set_output(0, elements[position(context, 1, -1, count)]);
}

void infer_same_sequence(InferContext& context) {
  check_sequence(context);
  context.set_type(0, sequence_of(context.type(0).element));
}

void insert_kernel(KernelContext& context) {
  const DType inserted = context.input(1).dtype();
  if (!context.input(0).data<Tensor>().empty() && context.input(0).data<Tensor>()[0].dtype() != inserted) {
    fail(ErrorCode::kInvalidModel, "{} inserted into a sequence of {}", to_string(inserted),
         to_string(context.input(0).data<Tensor>()[0].dtype()));
  }
  std::vector<Tensor> elements = elements_of(context.input(0));
  const auto count = static_cast<std::int64_t>(elements.size());
  std::int64_t at = context.has(2) ? context.input(2).to_ints().at(0) : count;
  if (at < -count || at > count) fail(ErrorCode::kInvalidArgument, "position {} in a sequence of {}", at, count);
  if (at < 0) at += count;
  elements.insert(elements.begin() + at, context.input(1).clone());
  context.set_output(0, make_container(DType::kSequence, elements));
}

void erase_kernel(KernelContext& context) {
  std::vector<Tensor> elements = elements_of(context.input(0));
  const auto at = position(context, 1, -1, static_cast<std::int64_t>(elements.size()));
  elements.erase(elements.begin() + static_cast<std::ptrdiff_t>(at));
  context.set_output(0, make_container(DType::kSequence, elements));
}

void infer_length(InferContext& context) {
  check_sequence(context);
  context.set(0, DType::kI64, {});
}

void length_kernel(KernelContext& context) {
  context.output(0, DType::kI64, {}).mutable_data<std::int64_t>()[0] = context.input(0).size();
}

// --- Splitting and joining ------------------------------------------------------------------------------

// Runs another operator's reference kernel.
Tensor apply(std::string_view op, std::vector<const Tensor*> inputs, Attributes attributes) {
  Node node;
  node.op = op;
  node.attributes = std::move(attributes);
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) node.inputs.push_back(ValueId{next++});
  node.outputs.push_back(ValueId{next});
  return evaluate_node(node, inputs).at(0);
}

void split_kernel(KernelContext& context) {
  const Tensor& x = context.input(0);
  const std::int64_t axis = normalize_axis(context.integer("axis"), x.rank());
  const std::int64_t total = x.extent(axis);
  std::vector<std::int64_t> sizes;
  if (!context.has(1) || context.input(1).rank() == 0) {
    const std::int64_t chunk = context.has(1) ? context.input(1).to_ints().at(0) : 1;
    if (chunk <= 0) fail(ErrorCode::kInvalidModel, "SplitToSequence in pieces of {}", chunk);
    MemoryLimit::check(static_cast<std::size_t>(total / chunk) * sizeof(Tensor));
    for (std::int64_t start = 0; start < total; start += sizes.back()) sizes.push_back(std::min(chunk, total - start));
  } else {
    sizes = context.input(1).to_ints();
  }
  if (!is_partition(sizes, total)) {
    fail(ErrorCode::kInvalidModel, "SplitToSequence of {} into {}", total, to_string(sizes));
  }
  std::vector<Tensor> pieces;
  std::int64_t start = 0;
  for (const std::int64_t size : sizes) {
    const Tensor from = Tensor::of<std::int64_t>({1}, {start}), to = Tensor::of<std::int64_t>({1}, {start + size});
    const Tensor axes = Tensor::of<std::int64_t>({1}, {axis});
    pieces.push_back(apply("Slice", {&x, &from, &to, &axes}, {}));
    if (!context.has(1) && context.integer("keepdims") == 0) {
      Extents shape = x.shape();
      shape.erase(shape.begin() + axis);
      pieces.back() = pieces.back().reshaped(shape);
    }
    start += size;
  }
  context.set_output(0, make_container(DType::kSequence, pieces));
}

void concat_kernel(KernelContext& context) {
  std::vector<Tensor> elements = elements_of(context.input(0));
  if (elements.empty()) fail(ErrorCode::kInvalidArgument, "ConcatFromSequence of an empty sequence");
  const bool stacked = context.integer("new_axis") != 0;
  const std::int64_t axis = normalize_axis(context.integer("axis"), elements[0].rank() + (stacked ? 1 : 0));
  std::vector<const Tensor*> parts;
  for (Tensor& element : elements) {
    if (stacked) {
      Extents shape = element.shape();
      if (axis > element.rank()) fail(ErrorCode::kInvalidModel, "ConcatFromSequence of different ranks");
      shape.insert(shape.begin() + axis, 1);
      element = element.reshaped(std::move(shape));
    }
    parts.push_back(&element);
  }
  context.set_output(0, apply("Concat", parts, {{"axis", axis}}));
}

// --- SequenceMap -------------------------------------------------------------------------------------------

// The first `num_inputs` inputs are the node's own, sequences among them give one element a turn; the rest is
// captured.
void infer_map(InferContext& context) {
  const auto own = static_cast<std::size_t>(context.integer("num_inputs"));
  std::vector<TensorType> types;
  std::vector<InferContext::Input> inputs;
  types.reserve(context.input_count());
  for (std::size_t i = 0; i < context.input_count(); ++i) {
    const TensorType& type = context.type(i);
    const bool element = i < own && type.dtype == DType::kSequence;
    types.push_back(element ? TensorType{type.element, std::nullopt} : type);
    inputs.push_back({&types.back(), element ? nullptr : context.elements(i), nullptr});
  }
  const auto results = context.infer_subgraph(0, inputs);
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    context.set_type(i, sequence_of(results.at(i).type.dtype));
  }
}

void map_kernel(KernelContext& context) {
  const auto own = static_cast<std::size_t>(context.integer("num_inputs"));
  const std::size_t length = context.input(0).data<Tensor>().size();
  std::vector<std::vector<Tensor>> results(context.output_count());
  for (std::size_t turn = 0; turn < length; ++turn) {
    std::vector<Tensor> inputs;
    for (std::size_t i = 0; i < context.input_count(); ++i) {
      const Tensor& input = context.input(i);
      if (i >= own || input.dtype() != DType::kSequence) {
        inputs.push_back(input);
      } else if (input.data<Tensor>().size() != length) {
        fail(ErrorCode::kInvalidArgument, "SequenceMap over sequences of {} and {}", length, input.size());
      } else {
        inputs.push_back(input.data<Tensor>()[turn]);
      }
    }
    const std::vector<Tensor> outputs = context.run_subgraph(0, inputs);
    for (std::size_t i = 0; i < results.size(); ++i) results[i].push_back(outputs.at(i));
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    context.set_output(i, make_container(DType::kSequence, results[i]));
  }
}

// --- Optional values -------------------------------------------------------------------------------------

void infer_optional(InferContext& context) {
  const DType element = context.attributes().type("element");
  context.set_type(0, {context.attributes().type("container"), std::nullopt, element});
}

void optional_kernel(KernelContext& context) {
  std::vector<Tensor> elements;
  if (context.has(0)) elements.push_back(context.input(0));
  context.set_output(0, make_container(context.attributes().type("container"), elements));
}

void infer_get(InferContext& context) {
  const TensorType& type = context.type(0);
  if (type.dtype == DType::kOptionalSequence) {
    context.set_type(0, sequence_of(type.element));
  } else {
    context.set_type(0, {type.element, std::nullopt});
  }
}

bool is_optional(DType dtype) { return dtype == DType::kOptional || dtype == DType::kOptionalSequence; }

// A Loop may carry an optional value in and a plain one from then on: that is its own element.
void get_kernel(KernelContext& context) {
  if (!is_optional(context.input(0).dtype())) return context.set_output(0, context.input(0));
  const auto elements = context.input(0).data<Tensor>();
  if (elements.empty()) fail(ErrorCode::kInvalidArgument, "OptionalGetElement of an optional that holds nothing");
  context.set_output(0, elements[0]);
}

void infer_has(InferContext& context) { context.set(0, DType::kBool, {}); }

void has_kernel(KernelContext& context) {
  context.output(0, DType::kBool, {}).mutable_data<bool>()[0] =
      !is_optional(context.input(0).dtype()) || context.input(0).size() > 0;
}

AttributeDef integer(std::string_view name, std::int64_t fallback) {
  return {name, AttributeKind::kInt, false, Attribute(fallback)};
}

}  // namespace

std::span<const OpDef> sequence_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "SequenceConstruct",
       .inputs = {{"first"}, {"inputs", Arity::kVariadic}},
       .outputs = {{"output_sequence"}},
       .infer = infer_construct,
       .reference = construct_kernel},
      {.name = "SequenceEmpty",
       .inputs = {},
       .outputs = {{"output"}},
       .attributes = {{"dtype", AttributeKind::kType, false, Attribute(DType::kF32)}},
       .infer = infer_empty,
       .reference = empty_kernel},
      {.name = "SequenceAt",
       .inputs = {{"input_sequence"}, {"position"}},
       .outputs = {{"tensor"}},
       .infer = infer_at,
       .reference = at_kernel},
      {.name = "SequenceInsert",
       .inputs = {{"input_sequence"}, {"tensor"}, {"position", Arity::kOptional}},
       .outputs = {{"output_sequence"}},
       .infer = infer_same_sequence,
       .reference = insert_kernel},
      {.name = "SequenceErase",
       .inputs = {{"input_sequence"}, {"position", Arity::kOptional}},
       .outputs = {{"output_sequence"}},
       .infer = infer_same_sequence,
       .reference = erase_kernel},
      {.name = "SequenceLength",
       .inputs = {{"input_sequence"}},
       .outputs = {{"length"}},
       .infer = infer_length,
       .reference = length_kernel},
      {.name = "SplitToSequence",
       .inputs = {{"input"}, {"split", Arity::kOptional}},
       .outputs = {{"output_sequence"}},
       .attributes = {integer("axis", 0), integer("keepdims", 1)},
       .infer = infer_construct,
       .reference = split_kernel},
      {.name = "ConcatFromSequence",
       .inputs = {{"input_sequence"}},
       .outputs = {{"concat_result"}},
       .attributes = {{"axis", AttributeKind::kInt, true}, integer("new_axis", 0)},
       .infer = infer_at,
       .reference = concat_kernel},
      {.name = "SequenceMap",
       .inputs = {{"input_sequence"}, {"additional_inputs", Arity::kVariadic}},
       .outputs = {{"out_sequence", Arity::kVariadic}},
       .attributes = {{"num_inputs", AttributeKind::kInt, true}},
       .subgraphs = {"body"},
       .infer = infer_map,
       .reference = map_kernel},
      {.name = "Optional",
       .inputs = {{"input", Arity::kOptional}},
       .outputs = {{"output"}},
       .attributes = {{"container", AttributeKind::kType, true}, {"element", AttributeKind::kType, true}},
       .infer = infer_optional,
       .reference = optional_kernel},
      {.name = "OptionalGetElement",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .infer = infer_get,
       .reference = get_kernel},
      {.name = "OptionalHasElement",
       .inputs = {{"input"}},
       .outputs = {{"output"}},
       .infer = infer_has,
       .reference = has_kernel},
  };
  return ops;
}

}  // namespace weft
