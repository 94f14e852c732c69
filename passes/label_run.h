// Running what moves the elements of a cache on small tensors whose elements are all different.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace weft {

// Elements from `first` on, each the next number in f32, times sign. Error kUnsupported when there are too many.
Tensor labels(Extents extents, std::int64_t first, int sign = 1);

// Integers computed at run time are those of a decode loop: an input [S] is the positions of the new tokens, an input
// [B, T] a mask that masks nothing.
class LabelRun {
 public:
  struct Sizes {
    Bindings symbols;
    std::int64_t rest = 1;  // every other symbol, that of new tokens among them
    std::int64_t past = 0;  // tokens before
  };

  LabelRun(const Graph& graph, Sizes sizes, std::int64_t first_label)
      : graph_(graph), sizes_(std::move(sizes)), label_(first_label) {}

  // Floats that no mover makes get labels, f32 whatever their type. Error when something is not known before the run.
  void run(std::span<const NodeId> movers, ValueId past, const Tensor& contents);
  // Of a value made of sizes, constants and the integers above. Error when it is not.
  Tensor computed(ValueId id);

  Extents extents_of(const Value& value);
  const Tensor& value(ValueId id) const { return values_.at(id); }
  // Inputs whose contents were asked for.
  const std::set<ValueId>& read() const { return read_; }

 private:
  std::int64_t size_of(const Dim& dim);
  Tensor given(ValueId id);
  Tensor of_loop(ValueId input);
  std::optional<Tensor> from_elements(const Value& value);

  const Graph& graph_;
  Sizes sizes_;
  std::int64_t label_;
  std::map<ValueId, Tensor> values_;
  std::set<ValueId> read_;
};

}  // namespace weft
