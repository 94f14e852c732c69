#include "tools/inputs.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>
#include <set>

#include "ops/cast.h"
#include "passes/node_util.h"
#include "tools/npz.h"

namespace weft::tools {

Bindings parse_bindings(const std::string& text) {
  Bindings bindings;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find(',', start), text.size());
    const std::string item = text.substr(start, end - start);
    const std::size_t equals = item.rfind('=');
    std::int64_t value = 0;
    const char* last = item.data() + item.size();
    if (equals == std::string::npos || equals == 0 ||
        std::from_chars(item.data() + equals + 1, last, value).ptr != last || value < 0) {
      fail(ErrorCode::kInvalidArgument, "\"{}\" is not of the form NAME=NUMBER", item);
    }
    bindings[item.substr(0, equals)] = value;
    start = end + 1;
  }
  return bindings;
}

namespace {

bool is_mask(std::string_view name) { return name.find("mask") != std::string_view::npos; }

// Integers below this can index what the input indexes.
double index_bound(const Graph& graph, const Value& value) {
  double bound = 10;
  for (const Use& use : value.uses) {
    const Node& node = graph.node(use.node);
    for (const Lookup& lookup : lookups_of(node)) {
      const auto& table = graph.value(node.inputs[lookup.table]).type.shape;
      if (lookup.indices == use.input && table && !table->empty() && (*table)[0].is_constant())
        bound = std::min(bound, static_cast<double>((*table)[0].value()));
    }
  }
  return bound;
}

Tensor random_tensor(const Graph& graph, const Value& value, Extents shape, std::mt19937_64& random) {
  const double bound = index_bound(graph, value);
  Tensor numbers = Tensor::uninitialized(DType::kF64, std::move(shape));
  for (double& x : numbers.mutable_data<double>()) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    if (is_float(value.type.dtype))
      x = 2 * unit - 1;
    else
      x = is_mask(value.name) || value.type.dtype == DType::kBool ? 1 : std::floor(bound * unit);
  }
  return cast(numbers, value.type.dtype);
}

}  // namespace

runtime::TensorMap random_inputs(const Graph& graph, const Bindings& bindings, std::uint64_t seed) {
  std::set<std::string> missing;
  runtime::TensorMap inputs;
  std::mt19937_64 random(seed);
  for (const ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    if (value.tensor) continue;
    if (!value.type.shape) fail(ErrorCode::kInvalidArgument, "the rank of input \"{}\" is not known", value.name);
    for (const Dim& dim : *value.type.shape) {
      for (const std::string& symbol : dim.symbols()) {
        if (!bindings.contains(symbol)) missing.insert(symbol);
      }
    }
    if (!missing.empty()) continue;
    inputs[value.name] = random_tensor(graph, value, *evaluate(*value.type.shape, bindings), random);
  }
  if (!missing.empty()) {
    fail(ErrorCode::kInvalidArgument, "--random leaves dimensions without a value: {}", fmt::join(missing, ", "));
  }
  return inputs;
}

runtime::TensorMap gather_inputs(const InputOptions& options, const Graph& graph) {
  runtime::TensorMap inputs;
  if (options.use_random) inputs = random_inputs(graph, parse_bindings(options.random), options.seed);
  if (!options.inputs.empty()) {
    for (auto& [name, tensor] : read_npz(options.inputs)) inputs[name] = std::move(tensor);
  }
  for (const std::string& setting : options.settings) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos)
      fail(ErrorCode::kInvalidArgument, "--set wants NAME=file.npy, not \"{}\"", setting);
    inputs[setting.substr(0, equals)] = read_npy(setting.substr(equals + 1));
  }
  return inputs;
}

std::string summarize(const Tensor& tensor) {
  if (tensor.size() == 0) return "empty";
  if (tensor.dtype() == DType::kString) {
    const auto strings = tensor.data<std::string>();
    return fmt::format("\"{}\"{}", strings[0], strings.size() > 1 ? ", ..." : "");
  }
  if (is_container(tensor.dtype())) return fmt::format("{} elements", tensor.size());
  const Tensor wide = cast(tensor, DType::kF64);
  const auto data = wide.data<double>();
  if (data.size() <= 8) return fmt::format("{:.6g}", fmt::join(data, " "));
  double low = data[0], high = data[0], total = 0;
  std::int64_t nans = 0;
  for (const double x : data) {
    nans += std::isnan(x);
    low = std::min(low, x);
    high = std::max(high, x);
    total += x;
  }
  std::string text =
      fmt::format("min {:.6g}, max {:.6g}, mean {:.6g}", low, high, total / static_cast<double>(data.size()));
  if (nans > 0) text += fmt::format(", {} NaN", nans);
  return text;
}

}  // namespace weft::tools
