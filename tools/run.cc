// weft run
#include <fmt/format.h>

#include "importers/onnx/onnx.h"
#include "runtime/session.h"
#include "tools/commands.h"
#include "tools/inputs.h"
#include "tools/npz.h"
#include "tools/trace.h"

namespace weft::tools {
namespace {

std::shared_ptr<const runtime::Model> load(const RunOptions& options) {
  runtime::CompileOptions compile;
  compile.after_rewrite = trace_to(options.trace_passes);
  compile.passes = parse_pass_list(options.passes);
  compile.max_memory = options.max_memory;
  compile.packed_folder = options.packed;
  return runtime::Model::load(options.model, compile);
}

}  // namespace

int run(const RunOptions& options) {
  const auto model = load(options);
  runtime::Session session(model, std::make_shared<runtime::ThreadPool>(options.threads));
  const std::vector<Tensor> outputs = session.run(gather_inputs(options.given, model->graph()));
  std::map<std::string, Tensor, std::less<>> named;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::string& name = model->graph().outputs()[i].name;
    fmt::print("{}: {}{}  {}\n", name, to_string(outputs[i].dtype()), to_string(outputs[i].shape()),
               summarize(outputs[i]));
    named[name] = outputs[i];
  }
  if (!options.output.empty()) write_npz(options.output, named);
  return 0;
}

}  // namespace weft::tools
