#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "ops/builder.h"
#include "runtime/session.h"
#include "tests/tensors.h"

namespace weft::runtime {
namespace {

using TensorMap = std::map<std::string, Tensor, std::less<>>;

struct AttentionCase {
  std::int64_t batch = 1, heads = 1, key_heads = 1, queries = 1, keys = 1, size = 1, value_size = 1;
  bool packed = false, one_key_row = false;
  Attributes attributes;
  TensorMap side;  // "mask", "key_padding", "alibi_slopes", "sinks"

  Tensor heads_of(std::int64_t rows, std::int64_t count, std::int64_t length, std::int64_t width,
                  std::uint32_t seed) const {
    return random_floats(packed ? Extents{rows, length, count * width} : Extents{rows, count, length, width}, seed);
  }
  TensorMap inputs() const {
    TensorMap result = side;
    const std::int64_t rows = one_key_row ? 1 : batch;
    result["q"] = heads_of(batch, heads, queries, size, 1);
    result["k"] = heads_of(rows, key_heads, keys, size, 2);
    result["v"] = heads_of(rows, key_heads, keys, value_size, 3);
    return result;
  }
};

Graph graph_of(const AttentionCase& c, const TensorMap& inputs) {
  Graph graph;
  std::vector<ValueId> ids;
  for (const char* name : {"q", "k", "v", "mask", "key_padding", "alibi_slopes", "sinks"}) {
    const auto found = inputs.find(name);
    ids.push_back(found == inputs.end()
                      ? ValueId()
                      : graph.add_input(name, {found->second.dtype(), to_shape(found->second.shape())}));
  }
  while (!ids.back().valid()) ids.pop_back();
  Attributes attributes = c.attributes;
  if (c.packed) attributes.insert({{"q_num_heads", c.heads}, {"kv_num_heads", c.key_heads}});
  Builder builder(graph);
  graph.add_output("y", builder.make("Attention", ids, std::move(attributes)));
  return graph;
}

std::vector<Tensor> in_order(const Graph& graph, const TensorMap& inputs) {
  std::vector<Tensor> given;
  for (const ValueId id : graph.inputs()) given.push_back(inputs.at(graph.value(id).name));
  return given;
}

Tensor run_kernel(const Graph& graph, const TensorMap& inputs, std::shared_ptr<ThreadPool> pool) {
  CompileOptions plain;
  plain.passes = {};
  return Session(Model::compile(graph.clone(), plain), std::move(pool)).run(inputs)[0];
}
Tensor run_kernel(const Graph& graph, const TensorMap& inputs, int threads) {
  return run_kernel(graph, inputs, std::make_shared<ThreadPool>(threads));
}

// Against the definition, and the same bytes with more threads.
void expect_right(const AttentionCase& c, const TensorMap& inputs, std::shared_ptr<ThreadPool> pool = nullptr) {
  const Graph graph = graph_of(c, inputs);
  const Tensor expected = evaluate_graph(graph, in_order(graph, inputs))[0];
  const Tensor actual = run_kernel(graph, inputs, 1);
  EXPECT_LE(largest_difference(actual, expected), 2e-5);
  if (pool != nullptr) EXPECT_TRUE(actual.identical(run_kernel(graph, inputs, pool)));
}

class Draw {
 public:
  explicit Draw(std::uint32_t seed) : random_(seed) {}
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(n)); }
  bool one_in(std::int64_t n) { return below(n) == 0; }
  template <class T>
  T of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<std::int64_t>(values.size()))];
  }
  Tensor bits(Extents shape, DType dtype) {
    Tensor tensor = Tensor::zeros(dtype, std::move(shape));
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      const bool bit = !one_in(3);
      const auto at = static_cast<std::size_t>(i);
      if (dtype == DType::kBool) tensor.mutable_data<bool>()[at] = bit;
      if (dtype == DType::kI32) tensor.mutable_data<std::int32_t>()[at] = bit;
      if (dtype == DType::kI64) tensor.mutable_data<std::int64_t>()[at] = bit;
    }
    return tensor;
  }

 private:
  std::mt19937 random_;
};

void draw_masks(Draw& draw, AttentionCase& c) {
  Attributes& a = c.attributes;
  const auto flag = [&](const char* name, std::int64_t rarity) {
    if (draw.one_in(rarity)) a[name] = std::int64_t{1};
  };
  flag("is_causal", 2);
  flag("zero_masked_rows", 3);
  flag("fill_per_condition", 2);
  if (draw.one_in(2)) a["query_position"] = std::string("end");
  if (draw.one_in(4)) a["left_window_size"] = draw.of<std::int64_t>({0, 1, 5, 40, 1000});
  if (draw.one_in(5)) a["right_window_size"] = draw.of<std::int64_t>({0, 2, 70});
  if (draw.one_in(6)) a["chunk_size"] = draw.of<std::int64_t>({1, 3, 16, 50, 1000});
  if (draw.one_in(5)) a["softcap"] = 2.0;
  if (draw.one_in(2)) a["scale"] = draw.of({0.7, 3.0, -0.5});
  if (draw.one_in(2)) a["masked_fill"] = draw.of({-3.4028234663852886e38, -10000.0, -1e9, -2.0});
  const auto extent = [&](std::int64_t full) { return draw.one_in(2) ? std::int64_t{1} : full; };
  const std::int64_t mask = draw.below(6);
  const Extents shape = {extent(c.batch), extent(c.heads), extent(c.queries), extent(c.keys)};
  if (mask == 0) c.side["mask"] = random_floats(shape, 4);
  if (mask == 1) c.side["mask"] = random_floats({c.queries, c.keys}, 5);
  if (mask == 2) c.side["mask"] = draw.bits(shape, DType::kBool);
  if (mask == 3) {  // some of which excludes
    Tensor low = random_floats(shape, 6);
    for (float& x : low.mutable_data<float>()) {
      if (draw.one_in(3)) x = static_cast<float>(draw.of({-3.4028234663852886e38, -1e9, -double{INFINITY}}));
    }
    c.side["mask"] = low;
  }
  if (draw.one_in(3)) {
    c.side["key_padding"] = draw.bits({extent(c.batch), c.keys}, draw.of({DType::kBool, DType::kI32, DType::kI64}));
  }
  if (draw.one_in(5)) c.side["alibi_slopes"] = random_floats({c.heads}, 6);
  if (draw.one_in(5)) c.side["sinks"] = random_floats({c.heads}, 7);
}

AttentionCase draw_case(Draw& draw) {
  AttentionCase c;
  c.batch = draw.of<std::int64_t>({1, 2, 7});
  c.key_heads = draw.of<std::int64_t>({1, 2, 3});
  c.heads = c.key_heads * draw.of<std::int64_t>({1, 1, 3});
  c.queries = draw.of<std::int64_t>({0, 1, 1, 2, 7, 16, 17, 33, 129});
  c.keys = draw.of<std::int64_t>({0, 1, 2, 7, 16, 64, 129, 131, 530});
  c.size = draw.of<std::int64_t>({1, 3, 8, 16, 33, 64});
  c.value_size = draw.one_in(3) ? draw.of<std::int64_t>({1, 5, 16, 48, 80}) : c.size;
  c.packed = draw.one_in(2) && c.queries * c.keys > 0;  // the definition splits heads by what is left over
  c.one_key_row = draw.one_in(5);
  // The definition is slow.
  if (c.batch * c.heads * c.queries * c.keys > 20'000) c.batch = 1;
  if (c.heads * c.queries * c.keys > 20'000) c.heads = c.key_heads;
  draw_masks(draw, c);
  return c;
}

TEST(Attention, AgreesWithItsDefinitionForAnyShapeAndMask) {
  const auto pool = std::make_shared<ThreadPool>(3);
  for (std::uint32_t seed = 0; seed < 150; ++seed) {
    Draw draw(seed);
    const AttentionCase c = draw_case(draw);
    std::string description;
    for (const auto& [name, value] : c.attributes) description += name + " ";
    for (const auto& [name, tensor] : c.side) description += name + to_string(tensor.shape()) + " ";
    SCOPED_TRACE(fmt::format("seed {}: B {} H {}/{} S {} T {} D {} E {} packed {} {}", seed, c.batch, c.heads,
                             c.key_heads, c.queries, c.keys, c.size, c.value_size, c.packed, description));
    ASSERT_NO_THROW(expect_right(c, c.inputs(), seed % 3 == 0 ? pool : nullptr));
    if (HasFailure()) return;
  }
}

TEST(Attention, NanAndInfinityStayInTheirRows) {
  for (const std::int64_t queries : {1, 20}) {
    AttentionCase c;
    c.heads = c.key_heads = 2;
    c.queries = queries;
    c.keys = 40;
    c.size = c.value_size = 8;
    TensorMap inputs = c.inputs();
    inputs["q"].mutable_data<float>()[3] = NAN;
    inputs["q"].mutable_data<float>()[static_cast<std::size_t>(queries * 8 + 1)] = INFINITY;
    expect_right(c, inputs);
  }
}

// A query has the same result alone, among others, in any batch, and with its heads apart.
TEST(Attention, RowsDoNotDependOnTheirMates) {
  AttentionCase c;
  c.batch = 3;
  c.heads = 6;
  c.key_heads = 2;
  c.queries = 150;
  c.keys = 150;
  c.size = c.value_size = 24;
  c.attributes["is_causal"] = std::int64_t{1};
  const TensorMap inputs = c.inputs();
  const Tensor all = run_kernel(graph_of(c, inputs), inputs, 2);
  const auto rows = [](const Tensor& x, std::int64_t b, std::int64_t from, std::int64_t count) {
    Tensor result = Tensor::uninitialized(DType::kF32, {1, x.extent(1), count, x.extent(3)});
    for (std::int64_t h = 0; h < x.extent(1); ++h) {
      const float* begin = x.data<float>().data() + ((b * x.extent(1) + h) * x.extent(2) + from) * x.extent(3);
      std::copy_n(begin, count * x.extent(3), result.mutable_data<float>().data() + h * count * x.extent(3));
    }
    return result;
  };
  for (const std::int64_t s : {0, 17, 149}) {
    AttentionCase one = c;
    one.batch = one.queries = 1;
    one.keys = s + 1;
    one.attributes["query_position"] = std::string("end");
    const TensorMap alone = {{"q", rows(inputs.at("q"), 1, s, 1)},
                             {"k", rows(inputs.at("k"), 1, 0, s + 1)},
                             {"v", rows(inputs.at("v"), 1, 0, s + 1)}};
    EXPECT_TRUE(run_kernel(graph_of(one, alone), alone, 1).identical(rows(all, 1, s, 1))) << s;
  }
}

TEST(Attention, MasksThatDoNotFitAreErrors) {
  AttentionCase c;
  c.batch = 2;
  c.keys = 5;
  const auto expect_error = [&](const char* name, const Tensor& tensor) {
    AttentionCase bad = c;
    bad.side[name] = tensor;
    const TensorMap inputs = bad.inputs();
    EXPECT_THROW(run_kernel(graph_of(bad, inputs), inputs, 1), Error) << name << to_string(tensor.shape());
  };
  expect_error("mask", Tensor::zeros(DType::kF32, {3, 1, 1, 5}));
  expect_error("mask", Tensor::zeros(DType::kF32, {1, 4}));
  expect_error("key_padding", Tensor::zeros(DType::kBool, {2, 4}));
  expect_error("key_padding", Tensor::zeros(DType::kI64, {3, 5}));
  expect_error("alibi_slopes", Tensor::zeros(DType::kF32, {2}));
  expect_error("sinks", Tensor::zeros(DType::kF32, {3}));
}

}  // namespace
}  // namespace weft::runtime
