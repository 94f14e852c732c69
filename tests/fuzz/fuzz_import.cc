// Any bytes: a graph that verifies, or an Error.
#include "importers/onnx/onnx.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const weft::MemoryLimit limit(weft::MemoryLimit::account(std::size_t{128} << 20));
  try {
    weft::verify(weft::import_onnx(std::as_bytes(std::span(data, size))));
  } catch (const weft::Error&) {
  }
  return 0;
}
