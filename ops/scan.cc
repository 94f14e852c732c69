// Scan (ONNX 9); batched: as it was in ONNX 8, where with has_lengths the input behind those to scan says how much of
// each row is scanned.
#include <algorithm>

#include "ops/control.h"
#include "ops/families.h"
#include "ops/shape_util.h"

namespace weft {
namespace {

using Result = InferContext::Result;

std::int64_t listed(const AttributeReader& attributes, std::string_view name, std::size_t index) {
  if (!attributes.has(name)) return 0;
  const auto& values = attributes.integers(name);
  return index < values.size() ? values[index] : 0;
}

// Only ranks and dtypes are certain when each row of a batch is a run of its own.
void infer_batched(InferContext& context) {
  const auto states = static_cast<std::size_t>(context.integer("num_states"));
  std::vector<TensorType> storage;
  std::vector<InferContext::Input> inputs = inputs_from(context, 0, storage);
  const auto own = states + static_cast<std::size_t>(context.integer("num_scan_inputs"));
  for (std::size_t i = 0; i < own && i < inputs.size(); ++i) {
    storage[i].shape.reset();
    inputs[i].elements = nullptr;
  }
  if (context.integer("has_lengths") != 0 && own < inputs.size()) {
    inputs.erase(inputs.begin() + static_cast<std::ptrdiff_t>(own));
  }
  const std::vector<Result> results = context.infer_subgraph(0, inputs);
  for (std::size_t i = 0; i < context.output_count(); ++i) {
    if (i >= results.size()) fail(ErrorCode::kInvalidModel, "the body of Scan has too few outputs");
    context.set_type(i, {results[i].type.dtype, std::nullopt});
  }
}

void infer_scan(InferContext& context) {
  if (context.integer("batched") != 0) return infer_batched(context);
  const auto states = static_cast<std::size_t>(context.integer("num_states"));
  const auto scans = static_cast<std::size_t>(context.integer("num_scan_inputs"));
  std::vector<TensorType> storage;
  std::vector<InferContext::Input> inputs = inputs_from(context, 0, storage);
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
  visit_storage(x.dtype(), [&](auto tag) {
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
  visit_storage(x.dtype(), [&](auto tag) {
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

// The inputs to scan have one length along their axes.
std::int64_t scanned_length(const KernelContext& context, const std::vector<Tensor>& given) {
  const auto states = static_cast<std::size_t>(context.integer("num_states"));
  std::int64_t length = 0;
  for (std::size_t i = states; i < given.size(); ++i) {
    const std::int64_t axis =
        normalize_axis(listed(context.attributes(), "scan_input_axes", i - states), given[i].rank());
    if (i > states && given[i].extent(axis) != length) {
      fail(ErrorCode::kInvalidArgument, "Scan over lengths {} and {}", length, given[i].extent(axis));
    }
    length = given[i].extent(axis);
  }
  return length;
}

// One run over `length` steps: states first, then inputs to scan. Returns final states, then what was scanned out.
std::vector<Tensor> scan_once(const KernelContext& context, const std::vector<Tensor>& given,
                              const std::vector<Tensor>& captured, std::int64_t length) {
  const auto states = static_cast<std::size_t>(context.integer("num_states"));
  const AttributeReader& attributes = context.attributes();
  std::vector<Tensor> state(given.begin(), given.begin() + static_cast<std::ptrdiff_t>(states));
  std::vector<std::vector<Tensor>> scanned(context.output_count() - std::min(states, context.output_count()));
  for (std::int64_t step = 0; step < length; ++step) {
    std::vector<Tensor> inputs = state;
    for (std::size_t i = states; i < given.size(); ++i) {
      const std::int64_t axis = normalize_axis(listed(attributes, "scan_input_axes", i - states), given[i].rank());
      const bool backwards = listed(attributes, "scan_input_directions", i - states) != 0;
      inputs.push_back(slice_of(given[i], axis, backwards ? length - 1 - step : step));
    }
    inputs.insert(inputs.end(), captured.begin(), captured.end());
    const std::vector<Tensor> results = context.run_subgraph(0, inputs);
    for (std::size_t i = 0; i < states; ++i) state[i] = results.at(i);
    for (std::size_t i = 0; i < scanned.size(); ++i) scanned[i].push_back(results.at(states + i));
  }
  std::vector<Tensor> results = std::move(state);
  for (std::size_t i = 0; i < scanned.size(); ++i) {
    if (scanned[i].empty()) fail(ErrorCode::kUnsupported, "Scan over a sequence of length 0");
    if (listed(attributes, "scan_output_directions", i) != 0) std::reverse(scanned[i].begin(), scanned[i].end());
    const Tensor stacked = stack(scanned[i]);
    const std::int64_t axis = normalize_axis(listed(attributes, "scan_output_axes", i), stacked.rank());
    results.push_back(with_first_axis_at(stacked, axis));
  }
  return results;
}

// Zeros behind what there is of the first axis.
Tensor lengthened(const Tensor& x, std::int64_t length) {
  if (x.extent(0) == length) return x;
  Extents shape = x.shape();
  shape[0] = length;
  Tensor result = Tensor::zeros(x.dtype(), std::move(shape));
  visit_storage(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    std::copy(x.data<T>().begin(), x.data<T>().end(), result.mutable_data<T>().begin());
  });
  return result;
}

// How much of each row is scanned: everything, or as much as is said.
std::vector<std::int64_t> row_lengths(const Tensor* said, std::int64_t rows, std::int64_t longest) {
  if (said == nullptr) return std::vector<std::int64_t>(static_cast<std::size_t>(rows), longest);
  std::vector<std::int64_t> lengths = said->to_ints();
  if (static_cast<std::int64_t>(lengths.size()) != rows) {
    fail(ErrorCode::kInvalidArgument, "Scan over a batch of {} with sequence_lens of {}", rows, lengths.size());
  }
  for (const std::int64_t length : lengths) {
    if (length < 1 || length > longest) {
      fail(ErrorCode::kInvalidArgument, "Scan with a sequence_len of {} among {}", length, longest);
    }
  }
  return lengths;
}

std::vector<Tensor> scan_batch(const KernelContext& context, const std::vector<Tensor>& given, const Tensor* lengths,
                               const std::vector<Tensor>& captured) {
  for (const Tensor& tensor : given) {
    if (tensor.rank() < 1 || tensor.extent(0) != given[0].extent(0) || tensor.extent(0) == 0) {
      fail(ErrorCode::kInvalidArgument, "Scan over batches that differ");
    }
  }
  const auto states = static_cast<std::size_t>(context.integer("num_states"));
  std::vector<std::vector<Tensor>> rows(context.output_count());
  std::vector<std::int64_t> each;
  for (std::int64_t b = 0; b < given.at(0).extent(0); ++b) {
    std::vector<Tensor> row;
    for (const Tensor& tensor : given) row.push_back(slice_of(tensor, 0, b));
    const std::int64_t longest = scanned_length(context, row);
    if (b == 0) each = row_lengths(lengths, given[0].extent(0), longest);
    std::vector<Tensor> outputs = scan_once(context, row, captured, each[static_cast<std::size_t>(b)]);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].push_back(i < states ? outputs.at(i) : lengthened(outputs.at(i), longest));
    }
  }
  std::vector<Tensor> results;
  for (const std::vector<Tensor>& row : rows) results.push_back(stack(row));
  return results;
}

void scan_kernel(KernelContext& context) {
  const auto own = static_cast<std::size_t>(context.integer("num_states") + context.integer("num_scan_inputs"));
  const bool has_lengths = context.integer("has_lengths") != 0;
  std::vector<Tensor> given;
  for (std::size_t i = 0; i < own; ++i) given.push_back(context.input(i));
  const std::vector<Tensor> captured = tensors_from(context, own + (has_lengths ? 1 : 0));
  const std::vector<Tensor> results =
      context.integer("batched") == 0
          ? scan_once(context, given, captured, scanned_length(context, given))
          : scan_batch(context, given, has_lengths ? &context.input(own) : nullptr, captured);
  for (std::size_t i = 0; i < context.output_count(); ++i) context.set_output(i, results.at(i));
}

}  // namespace

std::span<const OpDef> scan_ops() {
  static const std::vector<OpDef> ops = {
      {.name = "Scan",
       .inputs = {{"values", Arity::kVariadic}},
       .outputs = {{"outputs", Arity::kVariadic}},
       .attributes = {{"num_states", AttributeKind::kInt, true},
                      {"num_scan_inputs", AttributeKind::kInt, true},
                      {"batched", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
                      {"has_lengths", AttributeKind::kInt, false, Attribute(std::int64_t{0})},
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
