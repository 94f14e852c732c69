// Halves are computed with more widely and rounded once, whichever passes run.
#include "ops/cast.h"
#include "tests/runtime/one_node.h"

namespace weft::runtime {
namespace {

// One Gemm in a graph; A is an input, the others too or constants.
struct Gemm {
  Graph graph;
  std::map<std::string, Tensor, std::less<>> inputs;
  std::vector<Tensor> wide;  // in f32

  Gemm(DType dtype, bool constants, const Extents& a, const Extents& b, const Extents& c,
       const Attributes& attributes) {
    Builder builder(graph);
    std::vector<ValueId> ids;
    for (const Extents& shape : {a, b, c}) {
      const Tensor narrow = cast(random_floats(shape, static_cast<std::uint32_t>(ids.size() + 1), 3.0f), dtype);
      wide.push_back(cast(narrow, DType::kF32));
      if (constants && !ids.empty()) {
        ids.push_back(builder.constant(narrow));
        continue;
      }
      const std::string name = "x" + std::to_string(ids.size());
      ids.push_back(graph.add_input(name, {dtype, to_shape(shape)}));
      inputs[name] = narrow;
    }
    graph.add_output("y", builder.make("Gemm", ids, attributes));
  }
};

TEST(Halves, GemmRoundsOnce) {
  const Attributes cases[] = {
      {},
      {{"alpha", 0.3}},
      {{"beta", 0.7}},
      {{"alpha", -1.7}, {"beta", 0.3}, {"transA", std::int64_t{1}}},
      {{"transA", std::int64_t{1}}, {"transB", std::int64_t{1}}},
  };
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const Attributes& attributes : cases) {
      const bool trans_a = attributes.contains("transA"), trans_b = attributes.contains("transB");
      for (const Extents& c : {Extents{19}, Extents{7, 19}, Extents{7, 1}, Extents{}}) {
        for (const bool constants : {false, true}) {
          const Gemm gemm(dtype, constants, trans_a ? Extents{33, 7} : Extents{7, 33},
                          trans_b ? Extents{19, 33} : Extents{33, 19}, c, attributes);
          Graph f64;
          Builder builder(f64);
          std::vector<ValueId> ids;
          std::vector<Tensor> given;
          for (const Tensor& tensor : gemm.wide) {
            given.push_back(cast(tensor, DType::kF64));
            ids.push_back(f64.add_input("x" + std::to_string(ids.size()), {DType::kF64, to_shape(tensor.shape())}));
          }
          f64.add_output("y", builder.make("Gemm", ids, attributes));
          const Tensor exact = evaluate_graph(f64, given)[0];
          for (const bool passes : {false, true}) {
            SCOPED_TRACE(fmt::format("{} alpha {} C {} constants {} passes {}", to_string(dtype),
                                     attributes.contains("alpha"), to_string(c), constants, passes));
            CompileOptions options;
            if (!passes) options.passes = {};
            Session session(Model::compile(gemm.graph.clone(), options), std::make_shared<ThreadPool>(1));
            const Tensor y = cast(session.run(gemm.inputs)[0], DType::kF64);
            ASSERT_EQ(y.shape(), exact.shape());
            // Half a unit in the last place, and what f32 rounds away.
            const double unit = dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
            for (std::size_t i = 0; i < y.data<double>().size(); ++i) {
              const double a = y.data<double>()[i], b = exact.data<double>()[i];
              ASSERT_LE(std::abs(a - b), std::abs(b) * unit * 1.001 + 2e-4 * 0x1p-8) << a << " instead of " << b;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft::runtime
