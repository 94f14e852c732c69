// From one node of an ONNX operator set to canonical operators.
#pragma once

#include <functional>
#include <set>
#include <string_view>
#include <vector>

#include "importers/onnx/schema.h"
#include "importers/onnx/tensors.h"
#include "ops/builder.h"

namespace weft::onnx {

// The node being lowered: inputs that exist already, attributes with a record of which were read, and the
// Builder that adds to the graph.
class Lowering {
 public:
  Lowering(const NodeProto& node, std::int64_t opset, std::vector<AttributeProto> attributes,
           std::vector<ValueId> inputs, Builder& builder, TensorLoader& tensors);

  Builder& builder() { return *builder_; }
  std::string_view op() const { return node_->op_type; }
  std::int64_t opset() const { return opset_; }
  const NodeProto& node() const { return *node_; }

  std::size_t input_count() const { return inputs_.size(); }
  bool has(std::size_t index) const { return index < inputs_.size() && inputs_[index].valid(); }
  Expr input(std::size_t index);  // Error kInvalidModel when absent
  Expr maybe(std::size_t index);  // invalid when absent
  const std::vector<ValueId>& inputs() const { return inputs_; }
  std::size_t output_count() const { return node_->outputs.size(); }
  bool wants(std::size_t output) const { return output < node_->outputs.size() && !node_->outputs[output].empty(); }

  // Reading marks an attribute as read. Error kInvalidModel when it is of another type.
  const AttributeProto* find(std::string_view name);
  std::int64_t integer(std::string_view name, std::int64_t fallback);
  double number(std::string_view name, double fallback);
  std::string text(std::string_view name, std::string_view fallback);
  std::optional<std::vector<std::int64_t>> integers(std::string_view name);
  // Marks an attribute that has no meaning for inference as read.
  void ignore(std::string_view name) { read_.insert(std::string(name)); }

  // All attributes the operator's schema has, as canonical attributes.
  Attributes schema_attributes(std::string_view op);
  Tensor tensor(const AttributeProto& attribute) { return tensors_->load(*attribute.tensor); }
  TensorLoader& tensors() { return *tensors_; }

  // Error kUnsupported naming the first attribute that nobody read.
  void check_all_read() const;

  // Adds the nodes of a graph attribute to the graph that is being built, its inputs being these values; returns its
  // outputs. Error kInvalidModel when the attribute is absent or takes another number of inputs.
  using InlineGraph = std::function<std::vector<ValueId>(const GraphProto&, std::span<const ValueId>)>;
  std::vector<Expr> inline_graph(std::string_view attribute, std::span<const ValueId> inputs);
  void set_inliner(InlineGraph inliner) { inliner_ = std::move(inliner); }

  // op with these inputs and the attributes of its schema.
  std::vector<ValueId> pass(std::string_view op, std::span<const ValueId> inputs);

 private:
  const NodeProto* node_;
  std::int64_t opset_;
  std::vector<AttributeProto> attributes_;
  std::vector<ValueId> inputs_;
  Builder* builder_;
  TensorLoader* tensors_;
  std::set<std::string, std::less<>> read_;
  InlineGraph inliner_;
};

// The values of the node's outputs, one per output, invalid where absent.
using LowerFunction = std::vector<ValueId> (*)(Lowering&);

// A special lowering for an operator of the default domain; null: it is canonical as it is.
LowerFunction find_lowering(std::string_view op);
// Has weft this operator of this domain? (Functions of the model are another matter.)
bool is_known(std::string_view domain, std::string_view op);

// One table per family of special cases.
struct LoweringEntry {
  std::string_view op;
  LowerFunction lower;
};
std::span<const LoweringEntry> constant_lowerings();
std::span<const LoweringEntry> axes_lowerings();
std::span<const LoweringEntry> network_lowerings();
std::span<const LoweringEntry> attention_lowerings();
std::span<const LoweringEntry> value_lowerings();

}  // namespace weft::onnx
