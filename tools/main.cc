// The command weft. The only file that includes CLI11, which is slow to compile.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "graph/error.h"
#include "runtime/generate/config.h"
#include "runtime/isa.h"
#include "tools/commands.h"

namespace {

using namespace weft::tools;

constexpr const char* kPacked = "keep packed weights in this folder: the next load maps them";
constexpr const char* kPasses = "all, none, or a comma-separated list of passes";
constexpr const char* kTracePasses = "write the graph after each rewrite to this folder";

// Takes effect while the command line is read, before anything is compiled.
void add_isa(CLI::App& command) {
  std::vector<std::string> names;
  for (const std::string_view name : weft::runtime::isa_names()) names.emplace_back(name);
  command
      .add_option_function<std::string>("--isa", weft::runtime::restrict_isa,
                                        "the most that weft's own kernels use of the CPU's instructions")
      ->check(CLI::IsMember(names));
}

// Returns the option of random inputs.
CLI::Option* add_inputs(CLI::App& command, InputOptions& options) {
  command.add_option("--inputs", options.inputs, "inputs by name, a .npz file");
  command.add_option("--set", options.settings, "one input: NAME=file.npy");
  CLI::Option* random =
      command.add_option("--random", options.random, "random inputs for these dimensions: \"B=2,S=16\"");
  command.add_option("--seed", options.seed, "of the random inputs");
  return random;
}

void add_run(CLI::App& app, std::function<int()>& action) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Run a model once and summarize its outputs");
  add_isa(*command);
  command->add_option("model", options->model, "MODEL.onnx")->required();
  CLI::Option* random = add_inputs(*command, options->given);
  command->add_option("--output", options->output, "write the outputs to a .npz file");
  command->add_option("--passes", options->passes, kPasses);
  command->add_option("--trace-passes", options->trace_passes, kTracePasses);
  command->add_option("--threads", options->threads, "0: as many as this process may use");
  command->add_option("--packed", options->packed, kPacked);
  command->add_option("--max-memory", options->max_memory, "bytes (or 512MB, 2GB) that loading and running may take")
      ->transform(CLI::AsSizeValue(false));
  command->callback([options, random, &action] {
    options->given.use_random = random->count() > 0;
    action = [options] { return run(*options); };
  });
}

void add_test(CLI::App& app, std::function<int()>& action) {
  auto options = std::make_shared<TestOptions>();
  CLI::App* command = app.add_subcommand("test", "Run test folders in ONNX's format (model.onnx, test_data_set_*)");
  add_isa(*command);
  command->add_option("folders", options->folders, "test folders, or folders of them")->required();
  command->add_option("--passes", options->passes, kPasses);
  command->add_option("--json", options->json, "write each case and its reason to this file");
  command->add_option("--rtol", options->relative, "relative tolerance");
  command->add_option("--atol", options->absolute, "absolute tolerance");
  command->add_option("--of-largest", options->of_largest,
                      "tolerance relative to the output's largest magnitude, instead");
  command->callback([options, &action] { action = [options] { return test(*options); }; });
}

void add_graph_commands(CLI::App& app, std::function<int()>& action) {
  auto dump_options = std::make_shared<DumpOptions>();
  CLI::App* dump_command = app.add_subcommand("dump", "Print a model in text form");
  dump_command->add_option("model", dump_options->model, "MODEL.onnx")->required();
  dump_command->add_option("--stage", dump_options->stage, "imported, canonical or optimized");
  dump_command->add_option("--passes", dump_options->passes, kPasses);
  dump_command->add_flag("--full", dump_options->full, "print large constants too");
  dump_command->callback([dump_options, &action] { action = [dump_options] { return dump(*dump_options); }; });

  auto explain_options = std::make_shared<ExplainOptions>();
  CLI::App* explain_command = app.add_subcommand("explain", "Say what optimization did, and why not more");
  explain_command->add_option("model", explain_options->model, "MODEL.onnx")->required();
  explain_command->add_option("--passes", explain_options->passes, kPasses);
  explain_command->add_option(
      "--require", explain_options->require,
      "attention,norms,rotary,qkv,caches: exit with 1 when any of these is not fused, or no state");
  explain_command->add_option("--trace-passes", explain_options->trace_passes, kTracePasses);
  explain_command->add_flag("--json", explain_options->json, "as JSON");
  explain_command->callback(
      [explain_options, &action] { action = [explain_options] { return explain(*explain_options); }; });

  auto optimize_options = std::make_shared<OptimizeOptions>();
  CLI::App* optimize_command = app.add_subcommand("optimize", "Write the optimized model as ONNX");
  optimize_command->add_option("model", optimize_options->model, "IN.onnx")->required();
  optimize_command->add_option("-o,--output", optimize_options->output, "OUT.onnx")->required();
  optimize_command->add_option("--passes", optimize_options->passes, kPasses);
  optimize_command->add_option(
      "--target", optimize_options->target,
      "operators of the file: weft (functions with their definitions), standard (operator set 23 "
      "and newer), microsoft (com.microsoft, for ONNX Runtime)");
  optimize_command->add_flag("--external-data", optimize_options->external_data, "weights into OUT.onnx.data");
  optimize_command->add_option("--trace-passes", optimize_options->trace_passes, kTracePasses);
  optimize_command->callback(
      [optimize_options, &action] { action = [optimize_options] { return optimize_file(*optimize_options); }; });
}

void add_compare(CLI::App& app, std::function<int()>& action) {
  auto options = std::make_shared<CompareOptions>();
  CLI::App* command = app.add_subcommand("compare", "Compare the optimized model with what the file means");
  command->add_option("model", options->model, "MODEL.onnx")->required();
  CLI::Option* random = add_inputs(*command, options->given);
  command->add_option("--passes", options->passes, kPasses);
  command->add_option("--tolerance", options->tolerance, "of the largest magnitude of each output (1e-4)");
  command->add_option("-o,--output", options->output, "on a difference, write PREFIX.onnx and PREFIX.npz that show it");
  command->add_option("--threads", options->threads, "0: as many as this process may use");
  command->callback([options, random, &action] {
    options->given.use_random = random->count() > 0;
    action = [options] { return compare(*options); };
  });
}

void add_cache_dtype(CLI::App& command, std::string& dtype) {
  command.add_option("--cache-dtype", dtype, "keep keys and values in f16 or bf16: half the memory, rounded once")
      ->check(CLI::IsMember({"f16", "bf16"}));
}

void add_generate(CLI::App& app, std::function<int()>& action) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Generate tokens with an exported language model");
  add_isa(*command);
  command->add_option("model", options->model, "an .onnx file, or a folder of them")->required();
  command->add_option("--text", options->texts, "generate from this text (needs tokenizer.json)");
  command->add_option("--ids-file", options->ids_file, "prompts, one {\"input_ids\": [...]} a line");
  command->add_option("--config", options->config, "a generation_config.json");
  command->add_option("--io", options->io,
                      "what an input or output is, NAME=ROLE, where it cannot be told: ids=input_ids");
  command->add_option("--passes", options->passes, kPasses);
  command->add_option("--threads", options->threads, "0: as many as this process may use");
  command->add_flag("--json", options->json, "one JSON object a prompt");
  command->add_option("--packed", options->packed, kPacked);
  command->add_flag("--timing", options->timing, "report tokens per second at the end");
  command->add_option("--batch-size", options->batch_size, "prompts decoded together; results do not depend on it")
      ->check(CLI::PositiveNumber);
  command->add_flag("--stream", options->stream, "print tokens as soon as they are certain");
  command->add_option("--assistant", options->assistant, "a smaller model with the same tokens, for speculation");
  command->add_option("--attentions", options->attentions,
                      "write what each position of the results attends to into this .npz (another run, unfused)");
  command
      ->add_option("--max-memory", options->max_memory,
                   "bytes (or 512MB, 2GB) that loading and each run may take, and all keys and values")
      ->transform(CLI::AsSizeValue(false));
  command->add_option("--max-cache", options->max_cache, "bytes that all keys and values may take")
      ->transform(CLI::AsSizeValue(false));
  add_cache_dtype(*command, options->cache_dtype);
  command->add_option("--repeat", options->repeat, "generate from every prompt so often")->check(CLI::PositiveNumber);
  // Hugging Face's options; what is not one of them is answered with the nearest name.
  command->allow_extras();
  command->footer([] {
    std::string names = "Generation options, with Hugging Face's names and meaning:\n ";
    for (std::string name : weft::runtime::generation_option_names()) {
      std::replace(name.begin(), name.end(), '_', '-');
      names += " --" + name;
    }
    return names;
  });
  command->callback([options, command, &action] {
    const std::vector<std::string> extras = command->remaining();
    for (std::size_t i = 0; i < extras.size(); ++i) {
      std::string name = extras[i];
      if (name.rfind("--", 0) != 0) throw CLI::ExtrasError({name});
      name = name.substr(2);
      std::string value;
      if (const std::size_t equals = name.find('='); equals != std::string::npos) {
        value = name.substr(equals + 1);
        name.resize(equals);
      } else if (i + 1 < extras.size()) {
        value = extras[++i];
      } else {
        throw CLI::ArgumentMismatch("--" + name + " wants a value");
      }
      std::replace(name.begin(), name.end(), '-', '_');
      options->settings.emplace_back(name, value);
    }
    action = [options] { return generate(*options); };
  });
}

void add_bench(CLI::App& app, std::function<int()>& action) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "Time runs of a model, or generation");
  add_isa(*command);
  command->add_option("model", options->model, "MODEL.onnx; with --prompt-length what generate takes")->required();
  command->add_option("--random", options->random, "random inputs for these dimensions: \"B=2,S=16\"; may be repeated");
  command->add_option(
      "--prompt-length", options->prompt_lengths,
      "generate after a prompt (a source) of so many random tokens, \"128\", or a batch of them, \"8x128\"; may "
      "be repeated");
  command->add_option("--new-tokens", options->new_tokens, "tokens generated")->check(CLI::PositiveNumber);
  command->add_option("--num-beams", options->num_beams, "beams of the generation")->check(CLI::PositiveNumber);
  command->add_option("--seed", options->seed, "of the random inputs");
  command->add_option("--passes", options->passes, kPasses);
  command->add_option("--threads", options->threads, "0: as many as this process may use");
  command->add_option("--repeat", options->repeat, "runs that are timed")->check(CLI::PositiveNumber);
  command->add_flag("--profile", options->profile, "time by operator, PyTorch module and node");
  command->add_option("--trace", options->trace, "write one run to this file, in Chrome's trace format");
  command->add_flag("--json", options->json, "as JSON");
  command->add_flag("--first", options->first, "time loading and the first run of the first workload, once");
  command->add_option("--packed", options->packed, kPacked);
  add_cache_dtype(*command, options->cache_dtype);
  command->add_flag("--serve", options->serve,
                    "make a measurement for every line of standard input, the number of a workload");
  command->callback([options, &action] { action = [options] { return bench(*options); }; });
}

// For a terminal: names come from the model's file. Control characters are shown as "?", long lines are cut.
std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 1000;
  std::string result;
  std::size_t column = 0;
  for (const char c : text) {
    column = c == '\n' ? 0 : column + 1;
    if (column == kLongest) result += "...";
    if (column < kLongest) result += c != '\n' && (static_cast<unsigned char>(c) < ' ' || c == '\x7f') ? '?' : c;
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kFailure = 1;
  constexpr int kUsage = 2;
  CLI::App app("Runs, explains and optimizes exported Transformer models.", "weft");
  app.require_subcommand(1);
  std::function<int()> action;
  add_run(app, action);
  add_test(app, action);
  add_graph_commands(app, action);
  add_compare(app, action);
  add_generate(app, action);
  add_bench(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  try {
    return action();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", printable(error.what()));
    return kFailure;
  }
}
