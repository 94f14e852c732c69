#include "passes/label_run.h"

#include <algorithm>
#include <numeric>

#include "ops/cast.h"
#include "ops/op_def.h"
#include "passes/cache_views.h"

namespace weft {

Tensor labels(Extents extents, std::int64_t first, int sign) {
  constexpr std::int64_t kExact = 1 << 24;
  if (first + element_count(extents) > kExact) fail(ErrorCode::kUnsupported, "the cache is too large to be labelled");
  Tensor tensor = Tensor::uninitialized(DType::kF32, std::move(extents));
  for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(sign * first++);
  return tensor;
}

void LabelRun::run(std::span<const NodeId> movers, ValueId past, const Tensor& contents) {
  values_[past] = contents;
  for (const NodeId id : movers) {
    const Node& node = graph_.node(id);
    std::vector<const Tensor*> inputs;
    for (const ValueId input : node.inputs) {
      if (input.valid() && !values_.contains(input)) values_[input] = given(input);
    }
    for (const ValueId input : node.inputs) inputs.push_back(input.valid() ? &values_.at(input) : nullptr);
    const std::vector<Tensor> results = evaluate_node(node, inputs);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (node.outputs[i].valid()) values_[node.outputs[i]] = results[i].aligned();
    }
  }
}

std::int64_t LabelRun::size_of(const Dim& dim) {
  for (const std::string& symbol : dim.symbols()) sizes_.symbols.try_emplace(symbol, sizes_.rest);
  return *dim.evaluate(sizes_.symbols);
}

Extents LabelRun::extents_of(const Value& value) {
  if (!value.type.shape) fail(ErrorCode::kUnsupported, "the rank of %{} is not known", value.name);
  Extents extents;
  for (const Dim& dim : *value.type.shape) extents.push_back(size_of(dim));
  return extents;
}

Tensor LabelRun::given(ValueId id) {
  const Value& value = graph_.value(id);
  if (value.kind == ValueKind::kConstant || !is_cache_type(value.type.dtype)) return computed(id);
  Tensor tensor = labels(extents_of(value), label_);
  label_ += tensor.size();
  return tensor;
}

std::optional<Tensor> LabelRun::from_elements(const Value& value) {
  if (!value.elements || value.type.dtype != DType::kI64) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const Dim& dim : *value.elements) numbers.push_back(size_of(dim));
  return Tensor::of<std::int64_t>(extents_of(value), numbers);
}

Tensor LabelRun::of_loop(ValueId input) {
  const Value& value = graph_.value(input);
  const bool integer = value.type.dtype == DType::kI64 || value.type.dtype == DType::kI32;
  const std::size_t rank = value.type.shape ? value.type.shape->size() : 0;
  if (!integer || (rank != 1 && rank != 2))
    fail(ErrorCode::kUnsupported, "the contents of \"{}\" are not known", value.name);
  read_.insert(input);
  Extents extents = extents_of(value);
  if (rank == 2) return cast(Tensor::full(DType::kI64, std::move(extents), 1), value.type.dtype);
  Tensor positions = Tensor::uninitialized(DType::kI64, std::move(extents));
  std::iota(positions.mutable_data<std::int64_t>().begin(), positions.mutable_data<std::int64_t>().end(), sizes_.past);
  return cast(positions, value.type.dtype);
}

Tensor LabelRun::computed(ValueId id) {
  if (const auto found = values_.find(id); found != values_.end()) return found->second;
  const Value& value = graph_.value(id);
  if (value.kind == ValueKind::kConstant) return value.tensor->aligned();
  if (const auto known = from_elements(value)) return *known;
  if (value.kind == ValueKind::kInput) return values_[id] = of_loop(id);
  const Node& node = graph_.node(value.producer);
  if (node.op == "Shape")
    fail(ErrorCode::kUnsupported, "the shape of %{} is not known", graph_.value(node.inputs[0]).name);
  if (!node.subgraphs.empty()) fail(ErrorCode::kUnsupported, "{} is not run beforehand", node.op);
  std::vector<Tensor> contents;
  for (const ValueId input : node.inputs) contents.push_back(input.valid() ? computed(input) : Tensor());
  std::vector<const Tensor*> inputs;
  for (std::size_t i = 0; i < contents.size(); ++i) inputs.push_back(node.inputs[i].valid() ? &contents[i] : nullptr);
  const std::vector<Tensor> results = evaluate_node(node, inputs);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (node.outputs[i].valid()) values_[node.outputs[i]] = results[i].aligned();
  }
  return values_.at(id);
}

}  // namespace weft
