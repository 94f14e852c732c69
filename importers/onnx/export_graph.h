// From a graph to the bytes of a model.
#pragma once

#include <fstream>
#include <string>

#include "importers/onnx/export_target.h"

namespace weft::onnx {

// The file beside a model that holds its large tensors.
struct DataFile {
  std::ofstream stream;
  std::string name;
  std::size_t size = 0;
};

// data: where tensors of 1 KiB and more go; null: they stay in the message.
std::string serialize_model(const Graph& graph, ExportTarget target, DataFile* data);

}  // namespace weft::onnx
