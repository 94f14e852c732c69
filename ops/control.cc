// If, Loop and Scan. Captured values are inputs (docs/operators.md).
#include <algorithm>

#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

using Result = InferContext::Result;
using Input = InferContext::Input;

std::vector<Input> inputs_from(const InferContext& context, std::size_t first, std::vector<TensorType>& storage) {
  std::vector<Input> inputs;
  storage.reserve(context.input_count());
  for (std::size_t i = first; i < context.input_count(); ++i) {
    storage.push_back({context.dtype(i), std::nullopt});
    if (context.has_shape(i)) storage.back().shape = context.shape(i);
    inputs.push_back({&storage.back(), context.elements(i), nullptr});
  }
  return inputs;
}

// What holds whichever branch ran.
Result either(const InferContext& context, Result a, const Result& b) {
  if (a.type.dtype != b.type.dtype) fail(ErrorCode::kInvalidModel, "the branches of If differ in dtype");
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

void infer_if(InferContext& context) {
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

std::vector<Tensor> tensors_from(const KernelContext& context, std::size_t first) {
  std::vector<Tensor> tensors;
  for (std::size_t i = first; i < context.input_count(); ++i) tensors.push_back(context.input(i));
  return tensors;
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
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    if (i + 1 >= results.size()) fail(ErrorCode::kInvalidModel, "the body of Loop has too few outputs");
    Result result = std::move(results[i + 1]);
    result.elements.reset();
    if (i < carried) {
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

// Joins equal tensors along a new first axis.
Tensor stack(const std::vector<Tensor>& parts) {
  Extents shape = parts[0].shape();
  shape.insert(shape.begin(), static_cast<std::int64_t>(parts.size()));
  Tensor result = Tensor::uninitialized(parts[0].dtype(), shape);
  visit_dtype(result.dtype(), [&](auto tag) {
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
      const Graph& body = *context.node().subgraphs[0].graph;
      const TensorType& type = body.value(body.outputs()[1 + i].value).type;
      Extents shape = {0};
      for (const Dim& dim : type.shape.value_or(Shape{})) shape.push_back(dim.is_constant() ? dim.value() : 0);
      context.set_output(i, Tensor::zeros(type.dtype, std::move(shape)));
    }
  }
}

// --- Scan (ONNX 9) -----------------------------------------------------------------------------------

std::int64_t listed(const AttributeReader& attributes, std::string_view name, std::size_t index) {
  if (!attributes.has(name)) return 0;
  const auto& values = attributes.integers(name);
  return index < values.size() ? values[index] : 0;
}

void infer_scan(InferContext& context) {
  const auto states = static_cast<std::size_t>(context.integer("num_states"));
  const auto scans = static_cast<std::size_t>(context.integer("num_scan_inputs"));
  std::vector<TensorType> storage;
  std::vector<Input> inputs = inputs_from(context, 0, storage);
  Dim length = context.unknown_dim();
  for (std::size_t i = states; i < states + scans && i < inputs.size(); ++i) {
    if (!storage[i].shape || storage[i].shape->empty()) continue;
    const auto rank = static_cast<std::int64_t>(storage[i].shape->size());
    const auto axis = normalize_axis(listed(context.attributes(), "scan_input_axes", i - states), rank);
    length = (*storage[i].shape)[static_cast<std::size_t>(axis)];
    storage[i].shape->erase(storage[i].shape->begin() + axis);
    inputs[i].elements = nullptr;
  }
  std::vector<Result> results = context.infer_subgraph(0, inputs);
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    if (i >= results.size()) fail(ErrorCode::kInvalidModel, "the body of Scan has too few outputs");
    Result result = std::move(results[i]);
    result.elements.reset();
    if (i >= states && result.type.shape) {
      const auto rank = static_cast<std::int64_t>(result.type.shape->size()) + 1;
      const auto axis = normalize_axis(listed(context.attributes(), "scan_output_axes", i - states), rank);
      result.type.shape->insert(result.type.shape->begin() + axis, length);
    }
    context.set_result(i, std::move(result));
  }
}

// Element `index` along `axis`.
Tensor slice_of(const Tensor& x, std::int64_t axis, std::int64_t index) {
  Extents shape = x.shape();
  shape.erase(shape.begin() + axis);
  Tensor result = Tensor::uninitialized(x.dtype(), std::move(shape));
  std::int64_t inner = 1;
  for (std::int64_t i = axis + 1; i < x.rank(); ++i) inner *= x.extent(i);
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.data<T>().data();
    T* to = result.mutable_data<T>().data();
    for (std::int64_t o = 0; o < result.size() / std::max<std::int64_t>(inner, 1); ++o) {
      const T* row = from + (o * x.extent(axis) + index) * inner;
      to = std::copy(row, row + inner, to);
    }
  });
  return result;
}

// The first axis of x goes to position `axis`.
Tensor with_first_axis_at(const Tensor& x, std::int64_t axis) {
  if (axis == 0) return x;
  Extents shape = x.shape();
  const std::int64_t length = shape[0];
  shape.erase(shape.begin());
  shape.insert(shape.begin() + axis, length);
  Tensor result = Tensor::uninitialized(x.dtype(), shape);
  std::int64_t inner = 1;
  for (std::size_t i = static_cast<std::size_t>(axis) + 1; i < shape.size(); ++i) inner *= shape[i];
  visit_dtype(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const std::int64_t outer = length == 0 ? 0 : x.size() / length / std::max<std::int64_t>(inner, 1);
    for (std::int64_t n = 0; n < length; ++n) {
      for (std::int64_t o = 0; o < outer; ++o) {
        const T* from = x.data<T>().data() + (n * outer + o) * inner;
        std::copy(from, from + inner, result.mutable_data<T>().data() + (o * length + n) * inner);
      }
    }
  });
  return result;
}

void scan_kernel(KernelContext& context) {
  const auto states = static_cast<std::size_t>(context.integer("num_states"));
  const auto scans = static_cast<std::size_t>(context.integer("num_scan_inputs"));
  const AttributeReader& attributes = context.attributes();
  std::vector<Tensor> state;
  for (std::size_t i = 0; i < states; ++i) state.push_back(context.input(i));
  std::int64_t length = 0;
  for (std::size_t i = 0; i < scans; ++i) {
    const Tensor& x = context.input(states + i);
    length = x.extent(normalize_axis(listed(attributes, "scan_input_axes", i), x.rank()));
  }
  const std::vector<Tensor> captured = tensors_from(context, states + scans);
  std::vector<std::vector<Tensor>> scanned(context.output_count() - std::min(states, context.output_count()));
  for (std::int64_t step = 0; step < length; ++step) {
    std::vector<Tensor> inputs = state;
    for (std::size_t i = 0; i < scans; ++i) {
      const Tensor& x = context.input(states + i);
      const std::int64_t axis = normalize_axis(listed(attributes, "scan_input_axes", i), x.rank());
      const bool backwards = listed(attributes, "scan_input_directions", i) != 0;
      inputs.push_back(slice_of(x, axis, backwards ? length - 1 - step : step));
    }
    inputs.insert(inputs.end(), captured.begin(), captured.end());
    const std::vector<Tensor> results = context.run_subgraph(0, inputs);
    for (std::size_t i = 0; i < states; ++i) state[i] = results.at(i);
    for (std::size_t i = 0; i < scanned.size(); ++i) {
      const bool backwards = listed(attributes, "scan_output_directions", i) != 0;
      scanned[i].insert(backwards ? scanned[i].begin() : scanned[i].end(), results.at(states + i));
    }
  }
  for (std::size_t i = 0; i < states && i < context.output_count(); ++i) context.set_output(i, state[i]);
  for (std::size_t i = 0; i < scanned.size(); ++i) {
    if (scanned[i].empty()) fail(ErrorCode::kUnsupported, "Scan over a sequence of length 0");
    const Tensor stacked = stack(scanned[i]);
    const std::int64_t axis = normalize_axis(listed(attributes, "scan_output_axes", i), stacked.rank());
    context.set_output(states + i, with_first_axis_at(stacked, axis));
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
      {.name = "Scan",
       .inputs = {{"values", Arity::kVariadic}},
       .outputs = {{"outputs", Arity::kVariadic}},
       .attributes = {{"num_states", AttributeKind::kInt, true},
                      {"num_scan_inputs", AttributeKind::kInt, true},
                      {"scan_input_axes", AttributeKind::kInts},
                      {"scan_output_axes", AttributeKind::kInts},
                      {"scan_input_directions", AttributeKind::kInts},
                      {"scan_output_directions", AttributeKind::kInts}},
       .subgraphs = {"body"},
       .infer = infer_scan,
       .reference = scan_kernel},
  };
  return ops;
}

}  // namespace weft
