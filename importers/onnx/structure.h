// The structure of a model before its nodes are read: names, order, functions.
#pragma once

#include <array>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "importers/onnx/schema.h"

namespace weft::onnx {

// The node's name, or what else identifies it.
std::string node_label(const NodeProto& node);

// Its origin: its own name and source line, or those our exporter recorded. prefix: of names inside functions.
Origin origin_of(const NodeProto& node, const std::string& prefix);

// Calls of functions and subgraphs, each inside the other.
inline constexpr int kMaxCallDepth = 64;

// Names a graph reads without defining them, in order of appearance.
void collect_free_names(const GraphProto& graph, std::vector<std::string_view>& free);

// The node's attributes; those that refer to attributes of the function it is in (`arguments`, null outside) resolved,
// or left out when the call does not give them. Error kInvalidModel.
std::vector<AttributeProto> resolve_attributes(const NodeProto& node, const std::vector<AttributeProto>* arguments);

// Indices of the nodes in an order in which they can run: the given one if it is such. Error kInvalidModel for a
// cycle or a value defined twice.
std::vector<std::size_t> execution_order(const std::vector<NodeProto>& nodes);

// Functions that our exporter wrote are read back as the operator they define; "__" separates its name from a number.
bool is_own_function(const NodeProto& node);
std::string_view own_operator(std::string_view function_name);

// The model's functions by domain, name and overload.
class FunctionTable {
 public:
  explicit FunctionTable(const ModelProto& model);  // Error kInvalidModel when one is defined twice

  const FunctionProto* find(const NodeProto& node) const;
  // Error kUnsupported naming every operator that is neither weft's nor a function, with its count and first node;
  // kInvalidModel when functions call themselves or each other too deeply.
  void check_supported(const GraphProto& graph);

 private:
  struct Unsupported {
    int count = 0;
    std::string first;
  };
  void scan(const std::vector<NodeProto>& nodes, std::map<std::string, Unsupported>& missing,
            std::set<const FunctionProto*> inside);

  std::map<std::array<std::string_view, 3>, const FunctionProto*> functions_;
  std::set<const FunctionProto*> scanned_;
};

}  // namespace weft::onnx
