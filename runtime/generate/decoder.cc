#include "runtime/generate/decoder.h"

#include <cstring>

#include "runtime/generate/model_folder.h"

namespace weft::runtime {
namespace {

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

Tensor narrowed(const Tensor& tokens) {
  Tensor result = Tensor::uninitialized(DType::kI32, tokens.shape());
  const auto in = tokens.data<std::int64_t>();
  for (std::size_t i = 0; i < in.size(); ++i) {
    result.mutable_data<std::int32_t>()[i] = static_cast<std::int32_t>(in[i]);
  }
  return result;
}

// [1, heads, 0, size]
Tensor empty_past(const Value& value) {
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

}  // namespace

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

Decoder::Decoder(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool)
    : session_(std::move(model), std::move(pool)) {}

void Decoder::start(TensorMap fixed) {
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

void Decoder::set_past(const std::string& name, const Tensor& value, bool grows) {
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

void Decoder::reorder(std::span<const std::int64_t> parents) {
  rows_ = static_cast<std::int64_t>(parents.size());
  session_.reorder_states(parents);
  for (auto& [name, past] : pasts_) past = select_rows(past, parents);
  for (auto& [name, tensor] : fixed_) {
    if (tensor.extent(0) != rows_) tensor = select_rows(tensor, std::vector<std::int64_t>(parents.size(), 0));
  }
}

Tensor Decoder::run(const Tensor& tokens) {
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

const Tensor* Decoder::output(std::string_view name) const {
  const auto index = output_index(graph(), name);
  return index ? &outputs_[*index] : nullptr;
}

}  // namespace weft::runtime
