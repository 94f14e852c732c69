#include "importers/onnx/lower.h"

#include <charconv>

#include "importers/onnx/lower_microsoft.h"

namespace weft::onnx {
namespace {

void expect_type(const AttributeProto& attribute, AttributeType type) {
  // Very old files leave the type out.
  if (attribute.type != type && attribute.type != AttributeType::kUndefined) {
    fail(ErrorCode::kInvalidModel, "attribute \"{}\" is of the wrong type", attribute.name);
  }
}

// An attribute as f32, or the double that our own exporter rounded to it.
double exact_number(const NodeProto& node, const AttributeProto& attribute) {
  const auto exact = node.metadata.find("weft." + std::string(attribute.name));
  if (exact != node.metadata.end()) {
    double number = 0;
    const char* last = exact->second.data() + exact->second.size();
    const bool whole = std::from_chars(exact->second.data(), last, number).ptr == last;
    if (whole && static_cast<float>(number) == attribute.f) return number;
  }
  return static_cast<double>(attribute.f);
}

}  // namespace

Lowering::Lowering(const NodeProto& node, std::int64_t opset, std::vector<AttributeProto> attributes,
                   std::vector<ValueId> inputs, Builder& builder, TensorLoader& tensors)
    : node_(&node),
      opset_(opset),
      attributes_(std::move(attributes)),
      inputs_(std::move(inputs)),
      builder_(&builder),
      tensors_(&tensors) {}

Expr Lowering::input(std::size_t index) {
  if (!has(index)) fail(ErrorCode::kInvalidModel, "input {} is missing", index);
  return builder_->wrap(inputs_[index]);
}

Expr Lowering::maybe(std::size_t index) { return has(index) ? builder_->wrap(inputs_[index]) : Expr(); }

const AttributeProto* Lowering::find(std::string_view name) {
  for (const AttributeProto& attribute : attributes_) {
    if (attribute.name != name) continue;
    read_.insert(std::string(name));
    return &attribute;
  }
  return nullptr;
}

std::int64_t Lowering::integer(std::string_view name, std::int64_t fallback) {
  const AttributeProto* attribute = find(name);
  if (attribute == nullptr) return fallback;
  expect_type(*attribute, AttributeType::kInt);
  return attribute->i;
}

double Lowering::number(std::string_view name, double fallback) {
  const AttributeProto* attribute = find(name);
  if (attribute == nullptr) return fallback;
  if (attribute->type == AttributeType::kInt) return static_cast<double>(attribute->i);
  expect_type(*attribute, AttributeType::kFloat);
  return exact_number(*node_, *attribute);
}

std::string Lowering::text(std::string_view name, std::string_view fallback) {
  const AttributeProto* attribute = find(name);
  if (attribute == nullptr) return std::string(fallback);
  expect_type(*attribute, AttributeType::kString);
  return std::string(attribute->s);
}

std::optional<std::vector<std::int64_t>> Lowering::integers(std::string_view name) {
  const AttributeProto* attribute = find(name);
  if (attribute == nullptr) return std::nullopt;
  expect_type(*attribute, AttributeType::kInts);
  return attribute->ints;
}

Attributes Lowering::schema_attributes(std::string_view op) {
  Attributes result;
  for (const AttributeDef& definition : get_op(op).attributes) {
    const std::string name(definition.name);
    const AttributeProto* attribute = find(name);
    if (attribute == nullptr) continue;
    switch (definition.kind) {
      case AttributeKind::kInt: result[name] = integer(name, 0); break;
      case AttributeKind::kFloat: result[name] = number(name, 0); break;
      case AttributeKind::kString: result[name] = text(name, ""); break;
      case AttributeKind::kInts: result[name] = *integers(name); break;
      case AttributeKind::kFloats:
        expect_type(*attribute, AttributeType::kFloats);
        result[name] = std::vector<double>(attribute->floats.begin(), attribute->floats.end());
        break;
      case AttributeKind::kStrings:
        expect_type(*attribute, AttributeType::kStrings);
        result[name] = std::vector<std::string>(attribute->strings.begin(), attribute->strings.end());
        break;
      case AttributeKind::kTensor:
        if (!attribute->tensor) fail(ErrorCode::kInvalidModel, "attribute \"{}\" is no tensor", name);
        result[name] = tensor(*attribute);
        break;
      case AttributeKind::kType:
        if (integer(name, 0) != 0) result[name] = to_dtype(integer(name, 0));  // 0: as if not given
        break;
    }
  }
  return result;
}

void Lowering::check_all_read() const {
  for (const AttributeProto& attribute : attributes_) {
    if (!read_.contains(attribute.name)) {
      fail(ErrorCode::kUnsupported, "attribute \"{}\" was not read", attribute.name);
    }
  }
}

std::vector<Expr> Lowering::inline_graph(std::string_view name, std::span<const ValueId> inputs) {
  const AttributeProto* attribute = find(name);
  if (attribute == nullptr || !attribute->graph || !inliner_) {
    fail(ErrorCode::kInvalidModel, "attribute \"{}\" is no graph", name);
  }
  std::vector<Expr> outputs;
  for (const ValueId id : inliner_(*attribute->graph, inputs)) outputs.push_back(builder_->wrap(id));
  return outputs;
}

std::vector<ValueId> Lowering::pass(std::string_view op, std::span<const ValueId> inputs) {
  std::size_t outputs = output_count();
  while (outputs > 1 && !wants(outputs - 1)) --outputs;
  const std::vector<Expr> values =
      builder_->make_many(op, inputs, std::max<std::size_t>(outputs, 1), schema_attributes(op));
  return {values.begin(), values.end()};
}

bool is_known(std::string_view domain, std::string_view op) {
  if (domain == kMicrosoftDomain) return find_microsoft_lowering(op) != nullptr;
  // No name is in both domains of ONNX.
  return (domain.empty() || domain == "ai.onnx.preview") && (find_op(op) != nullptr || find_lowering(op) != nullptr);
}

LowerFunction find_lowering(std::string_view op) {
  for (const auto table : {constant_lowerings(), axes_lowerings(), network_lowerings(), attention_lowerings(),
                           value_lowerings(), misplaced_lowerings()}) {
    for (const LoweringEntry& entry : table) {
      if (entry.op == op) return entry.lower;
    }
  }
  return nullptr;
}

}  // namespace weft::onnx
