// If and Loop. Captured values are inputs (docs/operators.md).
#include "ops/control.h"

#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {

std::vector<InferContext::Input> inputs_from(const InferContext& context, std::size_t first,
                                             std::vector<TensorType>& storage) {
  std::vector<InferContext::Input> inputs;
  storage.reserve(context.input_count());
  for (std::size_t i = first; i < context.input_count(); ++i) {
    storage.push_back(context.type(i));
    inputs.push_back({&storage.back(), context.elements(i), nullptr});
  }
  return inputs;
}

std::vector<Tensor> tensors_from(const KernelContext& context, std::size_t first) {
  std::vector<Tensor> tensors;
  for (std::size_t i = first; i < context.input_count(); ++i) tensors.push_back(context.input(i));
  return tensors;
}

Tensor stack(const std::vector<Tensor>& parts) {
  Extents shape = parts[0].shape();
  shape.insert(shape.begin(), static_cast<std::int64_t>(parts.size()));
  Tensor result = Tensor::uninitialized(parts[0].dtype(), shape);
  visit_storage(result.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = result.mutable_data<T>().data();
    for (const Tensor& part : parts) {
      if (part.shape() != parts[0].shape()) fail(ErrorCode::kInvalidModel, "scan outputs change shape");
      const auto from = part.data<T>();
      to = std::copy(from.begin(), from.end(), to);
    }
  });
  return result;
}

namespace {

using Input = InferContext::Input;
using Result = InferContext::Result;

// What holds whichever branch ran.
Result either(const InferContext& context, Result a, const Result& b) {
  if (a.type.dtype != b.type.dtype || a.type.element != b.type.element)
    fail(ErrorCode::kInvalidModel, "the branches of If differ in dtype");
  if (!a.type.shape || !b.type.shape || a.type.shape->size() != b.type.shape->size()) {
    a.type.shape.reset();
    a.elements.reset();
    return a;
  }
  for (std::size_t i = 0; i < a.type.shape->size(); ++i) {
    if (!((*a.type.shape)[i] == (*b.type.shape)[i])) (*a.type.shape)[i] = context.unknown_dim();
  }
  if (a.elements != b.elements) a.elements.reset();
  return a;
}

void check_condition(DType dtype) {
  if (dtype != DType::kBool) fail(ErrorCode::kInvalidModel, "a condition of {}", to_string(dtype));
}

void infer_if(InferContext& context) {
  check_condition(context.dtype(0));
  std::vector<TensorType> storage;
  const std::vector<Input> captured = inputs_from(context, 1, storage);
  const std::vector<Result> then_results = context.infer_subgraph(0, captured);
  const std::vector<Result> else_results = context.infer_subgraph(1, captured);
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    if (i >= then_results.size() || i >= else_results.size()) {
      fail(ErrorCode::kInvalidModel, "a branch of If has too few outputs");
    }
    context.set_result(i, either(context, then_results[i], else_results[i]));
  }
}

void if_kernel(KernelContext& context) {
  const bool condition = context.input(0).item() != 0;
  const std::vector<Tensor> results = context.run_subgraph(condition ? 0 : 1, tensors_from(context, 1));
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_output(i, results.at(i));
}

// Carried values may change shape between iterations: only dtypes are certain.
void infer_loop(InferContext& context) {
  const auto carried = static_cast<std::size_t>(context.integer("num_carried"));
  std::vector<TensorType> storage;
  storage.push_back({DType::kI64, Shape{}});
  storage.push_back({DType::kBool, Shape{}});
  std::vector<TensorType> rest;
  std::vector<Input> later = inputs_from(context, 2, rest);
  for (std::size_t i = 0; i < carried && i < later.size(); ++i) {
    rest[i].shape.reset();
    later[i].elements = nullptr;
  }
  std::vector<Input> inputs = {{&storage[0], nullptr, nullptr}, {&storage[1], nullptr, nullptr}};
  inputs.insert(inputs.end(), later.begin(), later.end());
  std::vector<Result> results = context.infer_subgraph(0, inputs);
  if (!results.empty()) check_condition(results[0].type.dtype);
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    if (i + 1 >= results.size()) fail(ErrorCode::kInvalidModel, "the body of Loop has too few outputs");
    Result result = std::move(results[i + 1]);
    result.elements.reset();
    if (i < carried) {
      // Optional values may become their elements.
      const bool plain = !is_container(result.type.dtype) && !is_container(rest[i].dtype);
      if (plain && result.type.dtype != rest[i].dtype) {
        fail(ErrorCode::kInvalidModel, "Loop carries {} that becomes {}", to_string(rest[i].dtype),
             to_string(result.type.dtype));
      }
      result.type.shape.reset();
    } else if (result.type.shape) {
      for (Dim& dim : *result.type.shape) {
        if (!dim.is_constant()) dim = context.unknown_dim();
      }
      result.type.shape->insert(result.type.shape->begin(), context.unknown_dim());
    }
    context.set_result(i, std::move(result));
  }
}

// What `output` of the body stacks to without an iteration: [0, ...], the rest as the first iteration would give it.
Tensor nothing_scanned(const Graph& body, std::size_t output, const std::vector<Tensor>& state,
                       const std::vector<Tensor>& captured) {
  Graph graph = body.clone();
  std::size_t next = 2;
  for (const auto* tensors : {&state, &captured}) {
    for (const Tensor& tensor : *tensors) {
      graph.value(graph.inputs()[next++]).type = {tensor.dtype(), to_shape(tensor.shape())};
    }
  }
  infer_graph(graph);
  const TensorType& type = graph.value(graph.outputs()[output].value).type;
  Extents shape = {0};
  for (const Dim& dim : type.shape.value_or(Shape{})) shape.push_back(dim.is_constant() ? dim.value() : 0);
  return Tensor::zeros(type.dtype, std::move(shape));
}

void loop_kernel(KernelContext& context) {
  const auto carried = static_cast<std::size_t>(context.integer("num_carried"));
  const std::int64_t limit = context.has(0) ? context.input(0).to_ints().at(0) : INT64_MAX;
  bool condition = !context.has(1) || context.input(1).item() != 0;
  std::vector<Tensor> state, captured;
  for (std::size_t i = 2; i < context.input_count(); ++i) {
    (i < 2 + carried ? state : captured).push_back(context.input(i));
  }
  const std::size_t scans = context.node().subgraphs[0].graph->outputs().size() - 1 - carried;
  std::vector<std::vector<Tensor>> scanned(scans);
  for (std::int64_t i = 0; i < limit && condition; ++i) {
    constexpr std::int64_t kMostIterations = 1'000'000;
    if (i >= kMostIterations) fail(ErrorCode::kInvalidArgument, "Loop does not end within {} iterations", i);
    std::vector<Tensor> inputs = {Tensor::scalar<std::int64_t>(i), Tensor::scalar<bool>(condition)};
    inputs.insert(inputs.end(), state.begin(), state.end());
    inputs.insert(inputs.end(), captured.begin(), captured.end());
    const std::vector<Tensor> results = context.run_subgraph(0, inputs);
    condition = results.at(0).item() != 0;
    for (std::size_t k = 0; k < carried; ++k) state[k] = results[1 + k];
    for (std::size_t k = 0; k < scans; ++k) scanned[k].push_back(results[1 + carried + k]);
  }
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    if (i < carried) {
      context.set_output(i, state[i]);
    } else if (!scanned[i - carried].empty()) {
      context.set_output(i, stack(scanned[i - carried]));
    } else {
      context.set_output(i, nothing_scanned(*context.node().subgraphs[0].graph, 1 + i, state, captured));
    }
  }
}

}  // namespace

std::span<const OpDef> control_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "If",
       .inputs = {{"cond"}, {"captured", Arity::kVariadic}},
       .outputs = {{"outputs", Arity::kVariadic}},
       .subgraphs = {"then_branch", "else_branch"},
       .infer = infer_if,
       .reference = if_kernel},
      {.name = "Loop",
       .inputs = {{"M", Arity::kOptional}, {"cond", Arity::kOptional}, {"values", Arity::kVariadic}},
       .outputs = {{"outputs", Arity::kVariadic}},
       .attributes = {{"num_carried", AttributeKind::kInt, true}},
       .subgraphs = {"body"},
       .infer = infer_loop,
       .reference = loop_kernel},
  };
  return ops;
}

}  // namespace weft
