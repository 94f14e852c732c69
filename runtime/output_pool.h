// Memory of results, used again once the caller has let go of them.
#pragma once

#include <memory>

#include "graph/tensor.h"

namespace weft::runtime {

// Large results would otherwise be given back to the system and asked for again at every run, page by page. Results may
// be dropped on any thread, and after the pool.
class OutputPool {
 public:
  OutputPool();
  ~OutputPool();
  OutputPool(const OutputPool&) = delete;
  OutputPool& operator=(const OutputPool&) = delete;

  // A tensor whose contents are unspecified and that nobody else has.
  Tensor take(DType dtype, const Extents& shape);

 private:
  struct Shelf;
  std::shared_ptr<Shelf> shelf_;
};

}  // namespace weft::runtime
