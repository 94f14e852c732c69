// One operator through its kernel and through its reference.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "ops/builder.h"
#include "runtime/kernels/kernel.h"
#include "runtime/session.h"
#include "tests/tensors.h"

namespace weft::runtime {

using Ints = std::vector<std::int64_t>;

struct Given {
  Tensor tensor;
  bool constant = false;
};

// One node with these inputs (those without elements and shape {0} are absent) in a graph of its own.
class OneNode {
 public:
  OneNode(std::string_view op, std::vector<Given> given, std::size_t outputs, Attributes attributes) {
    Builder builder(graph_);
    std::vector<ValueId> ids;
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (given[i].tensor.shape() == Extents{0}) {
        ids.push_back({});
      } else if (given[i].constant) {
        ids.push_back(builder.constant(given[i].tensor));
      } else {
        const std::string name = "x" + std::to_string(i);
        ids.push_back(graph_.add_input(name, {given[i].tensor.dtype(), to_shape(given[i].tensor.shape())}));
        inputs_[name] = given[i].tensor;
        list_.push_back(given[i].tensor);
      }
    }
    const std::vector<Expr> made = builder.make_many(op, ids, outputs, std::move(attributes));
    for (std::size_t i = 0; i < made.size(); ++i) graph_.add_output("y" + std::to_string(i), made[i]);
  }

  bool fast() const {
    const auto kernel = make_fast_kernel(graph_, graph_.node(graph_.nodes().back()));
    return kernel != nullptr && !kernel->is_reference();
  }
  std::vector<Tensor> expected() const { return evaluate_graph(graph_, list_); }
  std::vector<Tensor> actual(int threads) const {
    CompileOptions plain;
    plain.passes = {};
    return Session(Model::compile(graph_.clone(), plain), std::make_shared<ThreadPool>(threads)).run(inputs_);
  }

 private:
  Graph graph_;
  std::map<std::string, Tensor, std::less<>> inputs_;
  std::vector<Tensor> list_;
};

inline void expect_close(const Tensor& actual, const Tensor& expected, double tolerance) {
  ASSERT_EQ(actual.shape(), expected.shape());
  ASSERT_EQ(actual.dtype(), expected.dtype());
  if (actual.dtype() != DType::kF32) {
    EXPECT_TRUE(actual.identical(expected));
    return;
  }
  double largest = 1;
  for (const float x : expected.data<float>()) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(static_cast<double>(x)));
  }
  for (std::size_t i = 0; i < actual.data<float>().size(); ++i) {
    const double a = actual.data<float>()[i], b = expected.data<float>()[i];
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    ASSERT_LE(std::abs(a - b), tolerance * largest) << "at " << i << ": " << a << " instead of " << b;
  }
}

inline void check(std::string_view op, const std::vector<Given>& given, std::size_t outputs,
                  const Attributes& attributes, double tolerance = 1e-5) {
  const OneNode node(op, given, outputs, attributes);
  EXPECT_TRUE(node.fast());
  const std::vector<Tensor> expected = node.expected(), actual = node.actual(1);
  for (std::size_t i = 0; i < expected.size(); ++i) expect_close(actual[i], expected[i], tolerance);
  for (const int threads : {2, 3}) {
    const std::vector<Tensor> again = node.actual(threads);
    for (std::size_t i = 0; i < expected.size(); ++i)
      EXPECT_TRUE(again[i].identical(actual[i])) << threads << " threads";
  }
}

}  // namespace weft::runtime
