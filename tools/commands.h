// The subcommands of weft. Each returns the exit code; errors leave as weft::Error.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace weft::tools {

// Where the inputs of a run come from.
struct InputOptions {
  std::string inputs;                 // .npz
  std::vector<std::string> settings;  // NAME=file.npy
  std::string random;                 // "B=2,S=16"
  bool use_random = false;
  std::uint64_t seed = 0;
};

struct RunOptions {
  std::string model;
  InputOptions given;
  std::string output;  // .npz
  std::string passes = "all";
  std::string trace_passes;  // a folder
  int threads = 0;
  std::size_t max_memory = 0;
  std::string packed;  // folder of packed weights
};
int run(const RunOptions& options);

struct TestOptions {
  std::vector<std::string> folders;
  std::string passes = "all";
  std::string json;
  double relative = 1e-3, absolute = 1e-7;  // ONNX's judging rules
  std::optional<double> of_largest;         // instead: |difference| <= this * largest magnitude of the output
};
int test(const TestOptions& options);

struct DumpOptions {
  std::string model;
  std::string stage = "optimized";
  std::string passes = "all";
  bool full = false;
};
int dump(const DumpOptions& options);

struct ExplainOptions {
  std::string model;
  std::string passes = "all";
  std::string require;       // "attention,norms,qkv,caches": exit code 1 when any of these is not fused
  std::string trace_passes;  // a folder
  bool json = false;
};
int explain(const ExplainOptions& options);

struct CompareOptions {
  std::string model;
  InputOptions given;
  std::string passes = "all";
  std::string output = "weft-compare";  // .onnx and .npz of the smallest graph that differs
  double tolerance = 1e-4;              // of the largest magnitude of each output
  int threads = 0;
};
int compare(const CompareOptions& options);

struct OptimizeOptions {
  std::string model;
  std::string output;
  std::string passes = "all";
  std::string target = "weft";  // weft, standard, microsoft
  bool external_data = false;
  std::string trace_passes;  // a folder
};
int optimize_file(const OptimizeOptions& options);

struct GenerateOptions {
  std::string model;
  std::vector<std::string> texts;
  std::string ids_file;
  std::string config;
  std::vector<std::string> io;                                // NAME=ROLE of inputs and outputs, see model_io.h
  std::vector<std::pair<std::string, std::string>> settings;  // Hugging Face's names
  std::string passes = "all";
  int threads = 0;
  bool json = false;
  bool timing = false;         // report tokens per second after the results
  bool stream = false;         // print tokens as they come
  int batch_size = 8;          // prompts decoded together
  std::string assistant;       // a smaller model, for speculation
  int repeat = 1;              // generate from every prompt so often
  std::string packed;          // folder of packed weights
  std::string attentions;      // .npz to write attention weights to
  std::size_t max_memory = 0;  // bytes that loading and each run may take, and all caches
  std::size_t max_cache = 0;   // that all caches may take; 0: max_memory
  std::string cache_dtype;     // f16, bf16; empty: as in the file
};
int generate(const GenerateOptions& options);

struct BenchOptions {
  std::string model;                // an .onnx file; with prompt_lengths: what `generate` takes
  std::vector<std::string> random;  // a workload each: "B=1,S=128"
  // A workload each: generation after a prompt of so many random tokens, "128", or a batch of them, "8x128".
  std::vector<std::string> prompt_lengths;
  int new_tokens = 32;
  int num_beams = 1;
  std::uint64_t seed = 0;
  std::string passes = "all";
  int threads = 0;
  int repeat = 10;
  bool profile = false;
  std::string trace;  // file
  bool json = false;
  bool serve = false;       // a measurement for every line of standard input
  bool first = false;       // only from the start of loading to the first result
  std::string packed;       // folder of packed weights
  std::string cache_dtype;  // as GenerateOptions has it
};
int bench(const BenchOptions& options);

}  // namespace weft::tools
