// weft test: folders in ONNX's format, or with two models of constants in the place of .pb files, judged by ONNX's
// rules.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "importers/onnx/onnx.h"
#include "ops/cast.h"
#include "runtime/session.h"
#include "tools/commands.h"
#include "tools/inputs.h"

namespace weft::tools {
namespace {

namespace fs = std::filesystem;

struct Verdict {
  enum class Kind : std::uint8_t { kPassed, kFailed, kSkipped } kind = Kind::kPassed;
  std::string reason;
  double apart = 0;  // the largest difference of any number, relative to the largest of its output; passed only
};

NamedTensor read_tensor(const fs::path& path, const TensorType& type) {
  const MappedFile file = map_file(path.string());
  NamedTensor named = with_frame([&] { return "in " + path.string(); },
                                 [&] { return read_tensor_proto({file.bytes.get(), file.size}, type); });
  // Releases of ONNX before 1.19 wrote bf16 as the integers of its bits.
  if (type.dtype == DType::kBF16 && named.tensor.dtype() == DType::kU16) {
    Tensor bits = Tensor::uninitialized(DType::kBF16, named.tensor.shape());
    std::ranges::copy(named.tensor.bytes(), bits.mutable_bytes().begin());
    named.tensor = std::move(bits);
  }
  return named;
}

// Empty when they agree: dtype and shape exactly, floats within the tolerance, NaN equal to NaN. `apart` grows to the
// largest difference, relative to the largest number expected.
std::string compare(const Tensor& actual, const Tensor& expected, const TestOptions& options, double& apart) {
  if (actual.dtype() != expected.dtype() || actual.shape() != expected.shape()) {
    return fmt::format("{}{} instead of {}{}", to_string(actual.dtype()), to_string(actual.shape()),
                       to_string(expected.dtype()), to_string(expected.shape()));
  }
  if (is_container(actual.dtype())) {
    for (std::size_t i = 0; i < actual.data<Tensor>().size(); ++i) {
      const std::string inside = compare(actual.data<Tensor>()[i], expected.data<Tensor>()[i], options, apart);
      if (!inside.empty()) return fmt::format("element {}: {}", i, inside);
    }
    return "";
  }
  const bool approximate = is_float(actual.dtype()) || is_narrow(actual.dtype());
  if (!approximate) return actual.identical(expected) ? "" : "elements differ";
  const Tensor wide_a = cast(actual, DType::kF64);
  const Tensor wide_b = cast(expected, DType::kF64);
  const auto a = wide_a.data<double>();
  const auto b = wide_b.data<double>();
  double largest = 0;
  for (const double x : b) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  }
  largest = std::max(largest, 1e-30);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double difference = std::abs(a[i] - b[i]);
    const double allowed =
        options.of_largest ? *options.of_largest * largest : options.absolute + options.relative * std::abs(b[i]);
    apart = std::max(apart, difference / largest);
    if (!(difference <= allowed)) return fmt::format("element {} is {:.9g} instead of {:.9g}", i, a[i], b[i]);
  }
  return "";
}

std::size_t number_in(const fs::path& path) {
  const std::string stem = path.stem().string();
  return std::stoul(stem.substr(stem.find_last_of('_') + 1));
}

std::vector<fs::path> files_with(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".pb")) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return number_in(a) < number_in(b); });
  return files;
}

void expect_equal(std::string_view name, const Tensor& actual, const Tensor& expected, const fs::path& set,
                  const TestOptions& options, double& apart) {
  const std::string difference = compare(actual, expected, options, apart);
  if (difference.empty()) return;
  fail(ErrorCode::kInternal, "{}: output \"{}\": {}", set.filename().string(), name, difference);
}

// The outputs of a model that are constants, by name.
runtime::TensorMap read_constants(const fs::path& path) {
  const Graph graph = import_onnx(path);
  runtime::TensorMap tensors;
  for (const Output& output : graph.outputs()) {
    const Value& value = graph.value(output.value);
    if (value.kind != ValueKind::kConstant) {
      fail(ErrorCode::kInvalidArgument, "{}: \"{}\" is not a constant", path.string(), output.name);
    }
    tensors[output.name] = value.tensor->aligned();
  }
  return tensors;
}

// inputs.onnx and outputs.onnx, tensors by name, in the place of one file for each.
void run_packed_set(runtime::Session& session, const fs::path& set, const TestOptions& options, double& apart) {
  const Graph& graph = session.model().graph();
  const std::vector<Tensor> outputs = session.run(read_constants(set / "inputs.onnx"));
  const runtime::TensorMap expected = read_constants(set / "outputs.onnx");
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::string& name = graph.outputs()[i].name;
    const auto found = expected.find(name);
    if (found == expected.end()) fail(ErrorCode::kInvalidArgument, "outputs.onnx has no \"{}\"", name);
    expect_equal(name, outputs[i], found->second, set, options, apart);
  }
}

void run_set(runtime::Session& session, const fs::path& set, const TestOptions& options, double& apart) {
  if (fs::exists(set / "inputs.onnx")) return run_packed_set(session, set, options, apart);
  const Graph& graph = session.model().graph();
  runtime::TensorMap inputs;
  for (const fs::path& path : files_with(set, "input_")) {
    const std::size_t index = number_in(path);
    if (index >= graph.inputs().size())
      fail(ErrorCode::kInvalidArgument, "{} inputs, {} files", graph.inputs().size(), index + 1);
    const Value& value = graph.value(graph.inputs()[index]);
    inputs[value.name] = read_tensor(path, value.type).tensor;
  }
  const std::vector<Tensor> outputs = session.run(inputs);
  for (const fs::path& path : files_with(set, "output_")) {
    const std::size_t index = number_in(path);
    const NamedTensor expected = read_tensor(path, graph.value(graph.outputs()[index].value).type);
    expect_equal(expected.name, outputs.at(index), expected.tensor, set, options, apart);
  }
}

Verdict judge(const fs::path& folder, const TestOptions& options) {
  try {
    runtime::CompileOptions compile;
    compile.passes = parse_pass_list(options.passes);
    runtime::Session session(runtime::Model::load(folder / "model.onnx", compile));
    std::vector<fs::path> sets;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().filename().string().starts_with("test_data_set_")) sets.push_back(entry.path());
    }
    std::sort(sets.begin(), sets.end());
    if (sets.empty()) return {Verdict::Kind::kSkipped, "no test_data_set_*", 0};
    Verdict passed;
    for (const fs::path& set : sets) run_set(session, set, options, passed.apart);
    return passed;
  } catch (const Error& error) {
    const bool unsupported = error.code() == ErrorCode::kUnsupported;
    return {unsupported ? Verdict::Kind::kSkipped : Verdict::Kind::kFailed, error.what(), 0};
  }
}

// The folder itself, or the test folders below it.
std::vector<fs::path> find_cases(const std::vector<std::string>& folders) {
  std::vector<fs::path> cases;
  for (const std::string& folder : folders) {
    if (!fs::is_directory(folder)) fail(ErrorCode::kIo, "{} is not a folder", folder);
    if (fs::exists(fs::path(folder) / "model.onnx")) cases.emplace_back(folder);
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.path().filename() == "model.onnx" && entry.path().parent_path() != fs::path(folder)) {
        cases.push_back(entry.path().parent_path());
      }
    }
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

}  // namespace

int test(const TestOptions& options) {
  int counts[3] = {0, 0, 0};
  constexpr std::string_view kWords[] = {"passed", "failed", "skipped"};
  nlohmann::json report = nlohmann::json::array();
  for (const fs::path& folder : find_cases(options.folders)) {
    const Verdict verdict = judge(folder, options);
    const auto kind = static_cast<std::size_t>(verdict.kind);
    ++counts[kind];
    report.push_back({{"case", folder.string()},
                      {"result", kWords[kind]},
                      {"reason", verdict.reason},
                      {"largest_difference", verdict.apart}});
    if (verdict.kind != Verdict::Kind::kPassed)
      fmt::print("{} {}\n  {}\n", kWords[kind], folder.string(), verdict.reason);
  }
  if (!options.json.empty()) {
    std::ofstream file(options.json);
    file << report.dump(1) << '\n';
    if (!file) fail(ErrorCode::kIo, "cannot write {}", options.json);
  }
  fmt::print("{} passed, {} failed, {} skipped\n", counts[0], counts[1], counts[2]);
  return counts[1] == 0 ? 0 : 1;
}

}  // namespace weft::tools
