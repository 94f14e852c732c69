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

std::shared_ptr<const runtime::Model> load(const std::string& path, const std::string& passes,
                                           std::size_t max_memory = 0, const std::string& trace_folder = {}) {
  runtime::CompileOptions options;
  options.after_rewrite = trace_to(trace_folder);
  options.passes = parse_pass_list(passes);
  options.max_memory = max_memory;
  return runtime::Model::load(path, options);
}

}  // namespace

int run(const RunOptions& options) {
  const auto model = load(options.model, options.passes, options.max_memory, options.trace_passes);
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
