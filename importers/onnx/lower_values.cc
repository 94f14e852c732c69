// Quantization, sequences and optional values.
#include "importers/onnx/lower.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

// "precision" says in what type to divide: f32 here.
Values quantize_linear(Lowering& l) {
  l.ignore("precision");
  return l.pass(l.op(), l.inputs());
}

Values optional(Lowering& l) {
  Builder& b = l.builder();
  if (l.has(0)) {
    l.ignore("type");
    const TensorType& type = b.graph().value(l.input(0)).type;
    const bool sequence = type.dtype == DType::kSequence;
    return {b.make("Optional", {l.input(0).id()},
                   {{"container", sequence ? DType::kOptionalSequence : DType::kOptional},
                    {"element", sequence ? type.element : type.dtype}})
                .id()};
  }
  const AttributeProto* given = l.find("type");
  if (given == nullptr) fail(ErrorCode::kInvalidModel, "Optional without an input or a type");
  const TensorType type = base_type(given->type_proto);
  const bool sequence = type.dtype == DType::kSequence;
  return {b.make("Optional", {ValueId()},
                 {{"container", sequence ? DType::kOptionalSequence : DType::kOptional},
                  {"element", sequence ? type.element : type.dtype}})
              .id()};
}

bool is_optional(Lowering& l) {
  const DType dtype = l.builder().dtype(l.input(0));
  return dtype == DType::kOptional || dtype == DType::kOptionalSequence;
}

// Of a plain value: the value itself.
Values get_element(Lowering& l) {
  if (!is_optional(l)) return {l.input(0).id()};
  return l.pass(l.op(), l.inputs());
}

Values has_element(Lowering& l) {
  if (l.has(0) && is_optional(l)) return l.pass(l.op(), l.inputs());
  return {l.builder().constant(Tensor::scalar<bool>(l.has(0))).id()};
}

}  // namespace

std::span<const LoweringEntry> value_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"QuantizeLinear", quantize_linear},
      {"Optional", optional},
      {"OptionalGetElement", get_element},
      {"OptionalHasElement", has_element},
  };
  return kEntries;
}

}  // namespace weft::onnx
