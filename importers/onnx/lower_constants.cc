// Constants, identities and conversions.
#include "importers/onnx/lower.h"

namespace weft::onnx {
namespace {

using Values = std::vector<ValueId>;

template <class T>
Tensor one(T value) {
  return Tensor::scalar<T>(value);
}

// Exactly one of the value attributes.
Values constant(Lowering& l) {
  Tensor tensor;
  if (const AttributeProto* a = l.find("value")) {
    if (!a->tensor) fail(ErrorCode::kInvalidModel, "attribute \"value\" is no tensor");
    tensor = l.tensor(*a);
  } else if (const AttributeProto* sparse = l.find("sparse_value")) {
    if (!sparse->sparse_tensor) fail(ErrorCode::kInvalidModel, "attribute \"sparse_value\" is no tensor");
    tensor = l.tensors().load(*sparse->sparse_tensor);
  } else if (const AttributeProto* f = l.find("value_float")) {
    tensor = one(f->f);
  } else if (const AttributeProto* i = l.find("value_int")) {
    tensor = one(i->i);
  } else if (const AttributeProto* s = l.find("value_string")) {
    tensor = one(std::string(s->s));
  } else if (const AttributeProto* fs = l.find("value_floats")) {
    tensor = Tensor::vector<float>(fs->floats);
  } else if (const AttributeProto* is = l.find("value_ints")) {
    tensor = Tensor::vector<std::int64_t>(is->ints);
  } else if (const AttributeProto* ss = l.find("value_strings")) {
    const std::vector<std::string> strings(ss->strings.begin(), ss->strings.end());
    tensor = Tensor::vector<std::string>(strings);
  } else {
    fail(ErrorCode::kInvalidModel, "a Constant without a value");
  }
  return {l.builder().constant(std::move(tensor), l.wants(0) ? l.node().outputs[0] : "").id()};
}

Values constant_of_shape(Lowering& l) {
  Attributes attributes = l.schema_attributes("ConstantOfShape");
  if (!attributes.contains("value")) attributes["value"] = Tensor::of<float>({1}, {0.0f});
  return {l.builder().make("ConstantOfShape", {l.input(0).id()}, std::move(attributes)).id()};
}

Values identity(Lowering& l) { return {l.input(0).id()}; }

// Inference: the input; the mask is all true.
Values dropout(Lowering& l) {
  l.ignore("ratio");
  l.ignore("seed");
  if (l.has(2)) {
    const Value& training = l.builder().graph().value(l.input(2));
    if (training.kind != ValueKind::kConstant || training.tensor->aligned().item() != 0) {
      fail(ErrorCode::kUnsupported, "Dropout in training mode");
    }
  }
  Values values = {l.input(0).id()};
  if (l.wants(1)) {
    const Expr shape = l.builder().shape_of(l.input(0));
    Tensor value =
        l.opset() < 10 ? Tensor::full(l.builder().dtype(l.input(0)), {1}, 1.0) : Tensor::of<bool>({1}, {true});
    values.push_back(l.builder().make("ConstantOfShape", {shape.id()}, {{"value", std::move(value)}}).id());
  }
  return values;
}

Values cast_like(Lowering& l) {
  const DType to = l.builder().dtype(l.input(1));
  return {l.builder()
              .make("Cast", {l.input(0).id()},
                    {{"to", to}, {"saturate", l.integer("saturate", 1)}, {"round_mode", l.text("round_mode", "up")}})
              .id()};
}

Values eye_like(Lowering& l) {
  Attributes attributes = l.schema_attributes("EyeLike");
  if (!attributes.contains("dtype")) attributes["dtype"] = l.builder().dtype(l.input(0));
  return {l.builder().make("EyeLike", {l.input(0).id()}, std::move(attributes)).id()};
}

}  // namespace

std::span<const LoweringEntry> constant_lowerings() {
  static constexpr LoweringEntry kEntries[] = {
      {"Constant", constant},  {"ConstantOfShape", constant_of_shape},
      {"Identity", identity},  {"Dropout", dropout},
      {"CastLike", cast_like}, {"EyeLike", eye_like},
  };
  return kEntries;
}

}  // namespace weft::onnx
