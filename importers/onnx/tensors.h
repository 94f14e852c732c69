// Tensors of the ONNX format, in every encoding.
#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "graph/graph.h"
#include "importers/onnx/schema.h"

namespace weft::onnx {

// ONNX's number of an element type <-> DType. Error kUnsupported for types weft has not.
DType to_dtype(std::int64_t data_type);
std::int64_t from_dtype(DType dtype);

// The type without its shape. Error kUnsupported for maps, sparse tensors and deeper nesting.
TensorType base_type(const TypeProto& type);

// Turns TensorProtos into Tensors. Raw and external data are shared with the mapped files.
class TensorLoader {
 public:
  // owner keeps the memory of the protos alive. folder: where external data may be, empty: nowhere. Links in it may
  // lead to other files of the folder, or to files beside the one that `model` (empty: none) is a link to, as in the
  // cache of Hugging Face.
  TensorLoader(std::shared_ptr<const std::byte> owner, std::filesystem::path folder, std::filesystem::path model = {});

  // Error kInvalidModel (sizes, encodings), kIo, kUnsupported; the tensor's name is a frame.
  Tensor load(const TensorProto& proto);
  Tensor load(const SparseTensorProto& proto);

 private:
  Tensor load_external(const TensorProto& proto, DType dtype, Extents shape);
  const MappedFile& map(const std::string& location);

  std::shared_ptr<const std::byte> owner_;
  std::filesystem::path folder_, model_;
  std::map<std::string, MappedFile> files_;
};

}  // namespace weft::onnx
