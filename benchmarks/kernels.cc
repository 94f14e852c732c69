// Kernels by themselves: rates, and the share of the machine's limit that binds each (multiply-adds, or read
// bandwidth).
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ops/builder.h"
#include "runtime/isa.h"
#include "runtime/kernels/gemm.h"
#include "runtime/session.h"
#include "tools/machine_limits.h"

namespace {

using namespace weft;

struct Machine {
  std::shared_ptr<runtime::ThreadPool> pool;
  tools::MachineLimits limits;
};

Tensor random_tensor(Extents shape) {
  std::mt19937 random(1);
  Tensor tensor = Tensor::uninitialized(DType::kF32, std::move(shape));
  for (float& x : tensor.mutable_data<float>()) x = static_cast<float>(random()) / 2147483648.0f - 1.0f;
  return tensor;
}

// What one run of a graph does at least.
struct Work {
  double flops = 0;
  double bytes = 0;  // through memory
};

void report(benchmark::State& state, const Machine& machine, const Work& work) {
  const auto rate = [&](double amount) {
    return benchmark::Counter(amount / 1e9, benchmark::Counter::kIsIterationInvariantRate);
  };
  if (work.flops > 0) {
    state.counters["GFLOP/s"] = rate(work.flops);
    state.counters["of limit"] = rate(work.flops / machine.limits.gflops);
  }
  if (work.bytes > 0) {
    state.counters["GB/s"] = rate(work.bytes);
    state.counters["of bandwidth"] = rate(work.bytes / machine.limits.gbytes);
  }
}

// Products with one matrix after another, as in a model: together they are larger than any cache, so that each comes
// from memory.
void product(benchmark::State& state, const Machine& machine, std::size_t rows, std::size_t k, std::size_t n,
             runtime::simd::Activation activation) {
  constexpr std::size_t kWeightBytes = std::size_t{512} << 20;
  runtime::gemm::Product product;
  product.shape = {k, n};
  const std::size_t size = (runtime::gemm::packed_size(product.shape) + 15) / 16 * 16;
  const std::size_t count = std::max<std::size_t>(2, kWeightBytes / (4 * size));
  const auto floats = [](std::size_t number) { return random_tensor({static_cast<std::int64_t>(number)}); };
  const Tensor weights = floats(size * count), x = floats(rows * k), bias = floats(n);
  Tensor y = floats(rows * n);
  product.a = x.data<float>().data();
  product.a_stride = k;
  product.rows = rows;
  product.bias = bias.data<float>().data();
  product.activation = activation;
  product.c = y.mutable_data<float>().data();
  product.c_stride = n;
  const std::vector<runtime::gemm::Task> tasks = runtime::gemm::schedule({&product, 1}, machine.pool->threads());
  std::size_t next = 0;
  for (auto _ : state) {
    product.packed = weights.data<float>().data() + next * size;
    next = (next + 1) % count;
    runtime::gemm::multiply({&product, 1}, tasks, *machine.pool);
  }
  machine.pool->rest();
  report(state, machine, {2.0 * static_cast<double>(rows * k * n), 4.0 * static_cast<double>(k * n)});
}

// One operator of one input, whose rows are read and written.
void rows_of(benchmark::State& state, const Machine& machine, const std::string& op, std::int64_t rows,
             std::int64_t columns) {
  Graph graph;
  const ValueId x = graph.add_input("x", {DType::kF32, to_shape(Extents{rows, columns})});
  Builder b(graph);
  std::vector<ValueId> inputs = {x};
  if (op == "LayerNormalization" || op == "RMSNormalization")
    inputs.push_back(b.constant(random_tensor({columns})).id());
  if (op == "Add") inputs.push_back(x);
  graph.add_output("y", b.make(op, std::span<const ValueId>(inputs)));
  runtime::CompileOptions plain;
  plain.passes = {};
  runtime::Session session(runtime::Model::compile(std::move(graph), plain), machine.pool);
  const std::vector<Tensor> given = {random_tensor({rows, columns})};
  session.run(given);
  for (auto _ : state) benchmark::DoNotOptimize(session.run(given));
  report(state, machine, {0, 4.0 * static_cast<double>(rows * columns)});
}

// Shapes of one Attention, in [B, S, H * D] and [B, T, Hkv * D].
struct AttentionCase {
  const char* name;
  std::int64_t batch, queries, keys, heads, key_heads, size;
  bool causal;  // the last query sees all keys
};

void attention(benchmark::State& state, const Machine& machine, const AttentionCase& c) {
  Graph graph;
  const Extents q_shape = {c.batch, c.queries, c.heads * c.size}, k_shape = {c.batch, c.keys, c.key_heads * c.size};
  const ValueId q = graph.add_input("q", {DType::kF32, to_shape(q_shape)});
  const ValueId k = graph.add_input("k", {DType::kF32, to_shape(k_shape)});
  const ValueId v = graph.add_input("v", {DType::kF32, to_shape(k_shape)});
  Attributes attributes = {{"q_num_heads", c.heads}, {"kv_num_heads", c.key_heads}};
  if (c.causal) attributes.insert({{"is_causal", std::int64_t{1}}, {"query_position", std::string("end")}});
  Builder b(graph);
  const ValueId inputs[] = {q, k, v};
  graph.add_output("y", b.make("Attention", std::span<const ValueId>(inputs), attributes));
  runtime::CompileOptions plain;
  plain.passes = {};
  runtime::Session session(runtime::Model::compile(std::move(graph), plain), machine.pool);
  const std::vector<Tensor> given = {random_tensor(q_shape), random_tensor(k_shape), random_tensor(k_shape)};
  session.run(given);
  for (auto _ : state) benchmark::DoNotOptimize(session.run(given));
  // Of a square that is causal, half is wanted.
  const double pairs =
      static_cast<double>(c.queries * c.keys) - (c.causal ? static_cast<double>(c.queries * (c.queries - 1)) / 2 : 0);
  report(state, machine,
         {4.0 * static_cast<double>(c.batch * c.heads * c.size) * pairs,
          8.0 * static_cast<double>(c.batch * c.keys * c.key_heads * c.size)});
}

void register_attention(const Machine& machine) {
  static constexpr AttentionCase kCases[] = {
      {"encoder/1x128", 1, 128, 128, 12, 12, 64, false},  {"encoder/8x128", 8, 128, 128, 12, 12, 64, false},
      {"encoder/1x512", 1, 512, 512, 12, 12, 64, false},  {"MiniLM/8x128", 8, 128, 128, 12, 12, 32, false},
      {"causal/1x128", 1, 128, 128, 12, 12, 64, true},    {"causal/1x512", 1, 512, 512, 12, 12, 64, true},
      {"causal/1x2048", 1, 2048, 2048, 12, 12, 64, true}, {"grouped/1x512", 1, 512, 512, 32, 8, 128, true},
      {"decode/1x1024", 1, 1, 1024, 12, 12, 64, true},    {"few/1x8x1024", 1, 8, 1024, 12, 12, 64, true},
      {"cross/8x16x256", 8, 16, 256, 8, 8, 64, false},
  };
  for (const AttentionCase& c : kCases) {
    benchmark::RegisterBenchmark(fmt::format("Attention/{}", c.name).c_str(),
                                 [&machine, &c](benchmark::State& state) { attention(state, machine, c); })
        ->Unit(benchmark::kMicrosecond)
        ->UseRealTime();
  }
}

// A node of inputs that are given, or constants.
struct Operator {
  std::string name, op;
  std::vector<Tensor> given, constants;  // the constants behind what is given; of shape [0]: absent
  Attributes attributes = {};
  std::size_t outputs = 1;
  double flops = 0;
};

// What is given and what results, through memory once.
void run_operator(benchmark::State& state, const Machine& machine, const Operator& node) {
  Graph graph;
  Builder b(graph);
  std::vector<ValueId> inputs;
  double bytes = 0;
  for (const Tensor& tensor : node.given) {
    inputs.push_back(graph.add_input("x" + std::to_string(inputs.size()), {tensor.dtype(), to_shape(tensor.shape())}));
    bytes += static_cast<double>(tensor.byte_size());
  }
  for (const Tensor& tensor : node.constants)
    inputs.push_back(tensor.shape() == Extents{0} ? ValueId() : b.constant(tensor).id());
  const std::vector<Expr> results = b.make_many(node.op, inputs, node.outputs, node.attributes);
  for (std::size_t i = 0; i < results.size(); ++i) graph.add_output("y" + std::to_string(i), results[i]);
  runtime::CompileOptions plain;
  plain.passes = {};
  runtime::Session session(runtime::Model::compile(std::move(graph), plain), machine.pool);
  for (const Tensor& tensor : session.run(node.given)) bytes += static_cast<double>(tensor.byte_size());
  for (auto _ : state) benchmark::DoNotOptimize(session.run(node.given));
  report(state, machine, {node.flops, bytes});
}

std::vector<Operator> operators() {
  using Ints = std::vector<std::int64_t>;
  const auto ints = [](const Ints& list) { return Tensor::vector<std::int64_t>(list); };
  const Tensor x = random_tensor({8, 512, 768}), image = random_tensor({4, 64, 56, 56});
  const Tensor channels = random_tensor({64}), none, mask = Tensor::full(DType::kBool, {8, 512, 768}, 1);
  const Attributes last = {{"axis", std::int64_t{-1}}};
  return {
      {"Transpose/021", "Transpose", {x}, {}, {{"perm", Ints{0, 2, 1}}}},
      {"Transpose/0231", "Transpose", {image}, {}, {{"perm", Ints{0, 2, 3, 1}}}},
      {"Pad", "Pad", {image}, {ints({0, 0, 1, 1, 0, 0, 1, 1})}},
      {"Expand", "Expand", {random_tensor({8, 1, 768})}, {ints({8, 512, 768})}},
      {"Tile", "Tile", {random_tensor({1, 512, 768})}, {ints({8, 1, 1})}},
      {"Split", "Split", {x}, {}, last, 3},
      {"Concat", "Concat", {x, x}, {}, last},
      {"Max", "Max", {x, x}, {}},
      {"Greater", "Greater", {x}, {Tensor::scalar(0.3f)}},
      {"Where", "Where", {mask, x}, {Tensor::scalar(0.0f)}},
      {"Clip", "Clip", {x}, {Tensor::scalar(0.0f), Tensor::scalar(6.0f)}},
      {"HardSwish", "HardSwish", {x}, {}},
      {"ReduceMean/last", "ReduceMean", {x}, {ints({-1})}},
      {"ReduceMean/middle", "ReduceMean", {x}, {ints({1})}},
      {"ReduceMax/all", "ReduceMax", {x}, {}},
      {"ArgMax", "ArgMax", {random_tensor({8, 32000})}, {}, last},
      {"CumSum", "CumSum", {x}, {Tensor::scalar<std::int64_t>(1)}},
      {"TopK/50", "TopK", {random_tensor({8, 32000})}, {ints({50})}, last, 2},
      {"LogSoftmax", "LogSoftmax", {random_tensor({8, 32000})}, {}, last},
      {"InstanceNormalization", "InstanceNormalization", {image}, {channels, channels}},
      {"Resize/linear",
       "Resize",
       {image},
       {none, Tensor::vector<float>(std::vector<float>{1, 1, 2, 2})},
       {{"mode", std::string("linear")}}},
      {"Conv/depthwise7",
       "Conv",
       {random_tensor({1, 96, 56, 56})},
       {random_tensor({96, 1, 7, 7})},
       {{"group", std::int64_t{96}}, {"pads", Ints{3, 3, 3, 3}}},
       1,
       2.0 * 96 * 56 * 56 * 49},
      {"MatMulNBits/row",
       "MatMulNBits",
       {random_tensor({1, 2048})},
       {Tensor::full(DType::kU8, {2048, 64, 16}, 0x5A), random_tensor({2048, 64})},
       {{"K", std::int64_t{2048}},
        {"N", std::int64_t{2048}},
        {"bits", std::int64_t{4}},
        {"block_size", std::int64_t{32}}},
       1,
       2.0 * 2048 * 2048},
  };
}

void register_all(const Machine& machine) {
  register_attention(machine);
  const auto add = [](const std::string& name, auto body) {
    benchmark::RegisterBenchmark(name.c_str(), body)->Unit(benchmark::kMicrosecond)->UseRealTime();
  };
  using runtime::simd::Activation;
  const std::pair<std::size_t, std::size_t> shapes[] = {{384, 1536}, {768, 768},   {768, 2304},  {768, 3072},
                                                        {3072, 768}, {2048, 5632}, {768, 50257}, {768, 50256}};
  for (const auto& [k, n] : shapes) {
    for (const int rows : {1, 4, 8, 16, 32, 128, 512, 1024}) {
      add(fmt::format("Linear/{}x{}/rows:{}", k, n, rows),
          [&machine, rows, inputs = k, outputs = n](benchmark::State& state) {
            product(state, machine, static_cast<std::size_t>(rows), inputs, outputs, Activation::kNone);
          });
    }
  }
  const std::pair<const char*, Activation> activations[] = {{"relu", Activation::kRelu},
                                                            {"gelu", Activation::kGelu},
                                                            {"gelu_tanh", Activation::kGeluTanh},
                                                            {"silu", Activation::kSilu}};
  for (const auto& [name, activation] : activations) {
    add(fmt::format("Linear/768x3072/rows:512/{}", name),
        [&machine, kind = activation](benchmark::State& state) { product(state, machine, 512, 768, 3072, kind); });
  }
  for (const char* op : {"LayerNormalization", "RMSNormalization", "Softmax", "Gelu", "Tanh", "Exp", "Erf", "Add"}) {
    add(fmt::format("{}/1024x768", op),
        [&machine, op](benchmark::State& state) { rows_of(state, machine, op, 1024, 768); });
  }
  for (const Operator& node : operators())
    add(node.name, [&machine, node](benchmark::State& state) { run_operator(state, machine, node); });
}

// Takes our own options out of argv.
std::string take_option(int& count, char** values, const std::string& name, std::string fallback) {
  const std::string prefix = "--" + name + "=";
  for (int i = 1; i < count; ++i) {
    if (std::strncmp(values[i], prefix.c_str(), prefix.size()) != 0) continue;
    fallback = values[i] + prefix.size();
    std::copy(values + i + 1, values + count, values + i);
    --count;
    break;
  }
  return fallback;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (const std::string isa = take_option(argc, argv, "isa", ""); !isa.empty()) weft::runtime::restrict_isa(isa);
    const int threads = std::stoi(take_option(argc, argv, "threads", "0"));
    Machine machine;
    machine.pool = std::make_shared<weft::runtime::ThreadPool>(threads);
    machine.limits = weft::tools::machine_limits(machine.pool->threads());
    fmt::print("{} on {} threads; limits {:.0f} GFLOP/s, {:.1f} GB/s\n", weft::runtime::isa_in_use(),
               machine.pool->threads(), machine.limits.gflops, machine.limits.gbytes);
    register_all(machine);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
