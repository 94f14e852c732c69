// weft dump, weft optimize
#include <fmt/format.h>

#include "graph/text.h"
#include "importers/onnx/onnx.h"
#include "passes/pipeline.h"
#include "tools/commands.h"
#include "tools/trace.h"

namespace weft::tools {
namespace {

ExportTarget parse_target(const std::string& name) {
  if (name == "weft") return ExportTarget::kFunctions;
  if (name == "standard") return ExportTarget::kStandard;
  if (name == "microsoft") return ExportTarget::kMicrosoft;
  fail(ErrorCode::kInvalidArgument, "--target is weft, standard or microsoft, not \"{}\"", name);
}

}  // namespace

int dump(const DumpOptions& options) {
  Graph graph = import_onnx(options.model);
  if (options.stage == "canonical") {
    optimize(graph, {.passes = canonical_passes()});
  } else if (options.stage == "optimized") {
    optimize(graph, {.passes = parse_pass_list(options.passes)});
  } else if (options.stage != "imported") {
    fail(ErrorCode::kInvalidArgument, "--stage is imported, canonical or optimized, not \"{}\"", options.stage);
  }
  TextOptions text;
  if (!options.full) text.elide_above = 16;
  fmt::print("{}", print(graph, text));
  return 0;
}

int optimize_file(const OptimizeOptions& options) {
  Graph graph = import_onnx(options.model);
  const PassReport report =
      optimize(graph, {.passes = parse_pass_list(options.passes), .after_rewrite = trace_to(options.trace_passes)});
  export_onnx(graph, options.output, {parse_target(options.target), options.external_data});
  fmt::print("{}: {} operators, {} before\n", options.output, report.ops_after, report.ops_before);
  return 0;
}

}  // namespace weft::tools
