#include "importers/onnx/schema.h"

namespace weft::onnx {
namespace {

constexpr int kMaxDepth = 64;
// Graphs, nodes, attributes, tensors and values: a few bytes of the file are hundreds in memory.
constexpr std::size_t kMaxParts = 2'000'000;

// How deep a message lies, and how many the model may still have.
struct Place {
  int depth;
  std::size_t* left;

  Place inside() const {
    if (depth >= kMaxDepth) fail(ErrorCode::kInvalidModel, "the model is nested too deeply");
    count();
    return {depth + 1, left};
  }
  void count() const {
    if ((*left)-- == 0) fail(ErrorCode::kInvalidModel, "the model has more than {} parts", kMaxParts);
  }
};

// Parses a message by calling on_field(field) for each; a frame of the call stack per nesting level.
template <class OnField>
void parse(Bytes bytes, const OnField& on_field) {
  Reader reader(bytes);
  Field field;
  while (reader.next(field)) on_field(field);
}

std::pair<std::string, std::string> parse_entry(Bytes bytes) {
  std::pair<std::string, std::string> entry;
  parse(bytes, [&](const Field& field) {
    if (field.number == 1) entry.first = field.text();
    if (field.number == 2) entry.second = field.text();
  });
  return entry;
}

void parse_into(TensorProto& tensor, Bytes bytes) {
  parse(bytes, [&](const Field& field) {
    switch (field.number) {
      case 1: append_ints(field, tensor.dims); break;
      case 2: tensor.data_type = field.as_int(); break;
      case 3: tensor.has_segment = true; break;
      case 4: append_floats(field, tensor.float_data); break;
      case 5:
      case 7:
      case 11: append_ints(field, tensor.int_data); break;
      case 6: tensor.string_data.push_back(field.text()); break;
      case 8: tensor.name = field.text(); break;
      case 9:
        tensor.raw_data = field.message();
        tensor.has_raw_data = true;
        break;
      case 10: append_doubles(field, tensor.double_data); break;
      case 13: tensor.external_data.insert(parse_entry(field.message())); break;
      case 14: tensor.external = field.as_int() == 1; break;
      default: break;
    }
  });
}

SparseTensorProto parse_sparse(Bytes bytes) {
  SparseTensorProto sparse;
  parse(bytes, [&](const Field& field) {
    if (field.number == 1) parse_into(sparse.values, field.message());
    if (field.number == 2) parse_into(sparse.indices, field.message());
    if (field.number == 3) append_ints(field, sparse.dims);
  });
  return sparse;
}

std::vector<DimProto> parse_shape(Bytes bytes) {
  std::vector<DimProto> shape;
  parse(bytes, [&](const Field& field) {
    if (field.number != 1) return;
    DimProto dim;
    parse(field.message(), [&](const Field& inner) {
      if (inner.number == 1) dim.value = inner.as_int();
      if (inner.number == 2) dim.symbol = inner.text();
    });
    shape.push_back(dim);
  });
  return shape;
}

// Nesting beyond an optional sequence of tensors is of kind kOther.
TypeProto parse_type(Bytes bytes, int depth = 0) {
  using Kind = TypeProto::Kind;
  TypeProto type;
  type.present = true;
  parse(bytes, [&](const Field& field) {
    if (field.number == 1) {
      type.kind = Kind::kTensor;
      parse(field.message(), [&](const Field& inner) {
        if (inner.number == 1) type.elem_type = inner.as_int();
        if (inner.number == 2) type.shape = parse_shape(inner.message());
      });
    } else if ((field.number == 4 || field.number == 9) && depth < 3) {
      TypeProto element;
      parse(field.message(), [&](const Field& inner) {
        if (inner.number == 1) element = parse_type(inner.message(), depth + 1);
      });
      type.elem_type = element.elem_type;
      if (element.kind == Kind::kTensor) {
        type.kind = field.number == 4 ? Kind::kSequence : Kind::kOptional;
      } else {
        type.kind = field.number == 9 && element.kind == Kind::kSequence ? Kind::kOptionalSequence : Kind::kOther;
      }
    } else if (field.number == 5 || field.number == 8) {
      type.kind = Kind::kOther;
    }
  });
  return type;
}

ValueInfoProto parse_value_info(Bytes bytes) {
  ValueInfoProto info;
  parse(bytes, [&](const Field& field) {
    if (field.number == 1) info.name = field.text();
    if (field.number == 2) info.type = parse_type(field.message());
  });
  return info;
}

void parse_into(GraphProto& graph, Bytes bytes, Place place);

AttributeProto parse_attribute(Bytes bytes, Place place) {
  AttributeProto attribute;
  parse(bytes, [&](const Field& field) {
    switch (field.number) {
      case 1: attribute.name = field.text(); break;
      case 2: attribute.f = field.as_float(); break;
      case 3: attribute.i = field.as_int(); break;
      case 4: attribute.s = field.text(); break;
      case 5:
        if (!attribute.tensor) attribute.tensor = std::make_shared<TensorProto>();
        parse_into(*attribute.tensor, field.message());
        break;
      case 6:
        if (!attribute.graph) attribute.graph = std::make_shared<GraphProto>();
        parse_into(*attribute.graph, field.message(), place.inside());
        break;
      case 7: append_floats(field, attribute.floats); break;
      case 8: append_ints(field, attribute.ints); break;
      case 9: attribute.strings.push_back(field.text()); break;
      case 20: attribute.type = static_cast<AttributeType>(field.as_int()); break;
      case 14: attribute.type_proto = parse_type(field.message()); break;
      case 21: attribute.reference = field.text(); break;
      case 22: attribute.sparse_tensor = std::make_shared<SparseTensorProto>(parse_sparse(field.message())); break;
      default: break;
    }
  });
  return attribute;
}

NodeProto parse_node(Bytes bytes, Place place) {
  NodeProto node;
  parse(bytes, [&](const Field& field) {
    switch (field.number) {
      case 1: node.inputs.push_back(field.text()); break;
      case 2: node.outputs.push_back(field.text()); break;
      case 3: node.name = field.text(); break;
      case 4: node.op_type = field.text(); break;
      case 5: node.attributes.push_back(parse_attribute(field.message(), place.inside())); break;
      case 7: node.domain = normal_domain(field.text()); break;
      case 8: node.overload = field.text(); break;
      case 9: node.metadata.insert(parse_entry(field.message())); break;
      default: break;
    }
  });
  return node;
}

void parse_into(GraphProto& graph, Bytes bytes, Place place) {
  parse(bytes, [&](const Field& field) {
    if (field.number != 1) place.count();
    switch (field.number) {
      case 1: graph.nodes.push_back(parse_node(field.message(), place.inside())); break;
      case 2: graph.name = field.text(); break;
      case 5: parse_into(graph.initializers.emplace_back(), field.message()); break;
      case 11: graph.inputs.push_back(parse_value_info(field.message())); break;
      case 12: graph.outputs.push_back(parse_value_info(field.message())); break;
      case 15: graph.sparse_initializers.push_back(parse_sparse(field.message())); break;
      default: break;
    }
  });
}

void parse_opset(Bytes bytes, OpsetImports& opsets) {
  std::string domain;
  std::int64_t version = 0;
  parse(bytes, [&](const Field& field) {
    if (field.number == 1) domain = normal_domain(field.text());
    if (field.number == 2) version = field.as_int();
  });
  const auto [place, added] = opsets.emplace(domain, version);
  if (!added && place->second != version) {
    fail(ErrorCode::kInvalidModel, "two versions of operator set \"{}\" are imported", domain);
  }
}

FunctionProto parse_function(Bytes bytes, Place place) {
  FunctionProto function;
  parse(bytes, [&](const Field& field) {
    switch (field.number) {
      case 1: function.name = field.text(); break;
      case 4: function.inputs.push_back(field.text()); break;
      case 5: function.outputs.push_back(field.text()); break;
      case 6: function.attributes.push_back(field.text()); break;
      case 7: function.nodes.push_back(parse_node(field.message(), place.inside())); break;
      case 9: parse_opset(field.message(), function.opsets); break;
      case 10: function.domain = normal_domain(field.text()); break;
      case 11: function.attribute_defaults.push_back(parse_attribute(field.message(), place.inside())); break;
      case 13: function.overload = field.text(); break;
      default: break;
    }
  });
  return function;
}

}  // namespace

std::string_view normal_domain(std::string_view domain) { return domain == "ai.onnx" ? std::string_view() : domain; }

ModelProto parse_model(Bytes bytes) {
  ModelProto model;
  std::size_t left = kMaxParts;
  const Place place{0, &left};
  parse(bytes, [&](const Field& field) {
    switch (field.number) {
      case 1: model.ir_version = field.as_int(); break;
      case 2: model.producer_name = field.text(); break;
      case 3: model.producer_version = field.text(); break;
      case 7:
        if (!model.graph) model.graph.emplace();
        parse_into(*model.graph, field.message(), place.inside());
        break;
      case 8: parse_opset(field.message(), model.opsets); break;
      case 14: model.metadata.insert(parse_entry(field.message())); break;
      case 25: model.functions.push_back(parse_function(field.message(), place.inside())); break;
      default: break;
    }
  });
  return model;
}

TensorProto parse_tensor(Bytes bytes) {
  TensorProto tensor;
  parse_into(tensor, bytes);
  return tensor;
}

}  // namespace weft::onnx
