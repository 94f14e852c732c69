// Which rewrite changed what a graph computes.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "passes/pipeline.h"

namespace weft {

// How far two tensors are apart.
struct Difference {
  double largest = 0;               // of |actual - expected|; infinite where only one is NaN or infinite
  double magnitude = 0;             // largest |expected| that is finite
  std::int64_t element = 0;         // where it is largest, in row-major order
  double actual = 0, expected = 0;  // there
  std::string other;                // dtype or shape differ: says how
  // Beyond tolerance times the magnitude.
  bool exceeds(double tolerance) const;
};
// Of floats of any width, or integers and bools, which must be equal; dtypes of floats may differ in width. NaN equals
// NaN.
Difference difference_of(const Tensor& actual, const Tensor& expected);

// A graph that a pass computes wrongly, with inputs that show it.
struct FailingGraph {
  Graph graph;
  std::vector<Tensor> inputs;  // in the order of Graph::inputs()
};

struct WrongRewrite {
  std::size_t number = 0;  // of the rewrite, from 1, among all that the passes made
  std::size_t rewrites = 0;
  std::string pass, rule;
  // The part of the graph before that rewrite that `pass` alone still computes wrongly: as few nodes as were found.
  FailingGraph smallest;
};

// Evaluates the graph in double precision after growing numbers of rewrites; nullopt when the optimized graph is
// within tolerance of the graph as given (times the largest magnitude of each output). inputs: in the order of
// Graph::inputs(). Errors of evaluation.
std::optional<WrongRewrite> find_wrong_rewrite(const Graph& graph, std::span<const Tensor> inputs,
                                               const PassOptions& options, double tolerance);

// The part of a graph that makes `output` out of the `depth` levels of nodes above it; what those read becomes
// inputs (or constants, where it is one) with the given contents.
FailingGraph cut_out(const Graph& graph, ValueId output, int depth, const std::map<ValueId, Tensor>& contents);

}  // namespace weft
