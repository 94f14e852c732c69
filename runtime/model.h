// A compiled graph, shared and immutable.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "passes/pipeline.h"

namespace weft::runtime {

class WeightStore;  // runtime/weight_store.h

struct CompileOptions {
  std::vector<std::string> passes = default_passes();
  // See PassOptions.
  std::function<void(const Graph& graph, std::string_view pass, std::string_view rule)> after_rewrite = nullptr;
  // Called with the optimized graph, which it may change, before states are lifted.
  std::function<void(Graph& graph)> after_passes = nullptr;
  // (past input, present output) names to keep inside sessions, see lift_cache_states().
  std::vector<std::pair<std::string, std::string>> states;
  // false: only those that are [B, heads, P, size] in the file, so that set_state() takes what another file gives.
  bool states_of_any_layout = true;
  // What states of f32 become: kF16 or kBF16 take half the memory and half the bytes a step; keys and values are
  // rounded once, attention computes in f32. States that the file has in halves stay as they are. Error
  // kInvalidArgument for other types.
  DType cache_dtype = DType::kF32;
  // Outputs [B, S, ...] of which only the last position is read after a prompt, see keep_last_position(): their extent
  // S becomes 1 in runs of more than kAllPositions positions.
  std::vector<std::string> last_position_outputs;
  // Weights of models that are compiled with the same store are held once where they are equal (a prompt's decoder and
  // that of the steps, say). Null: each model has its own. Weights mapped from packed_folder are not looked for there.
  std::shared_ptr<WeightStore> weights;
  // Where packed weights are kept: the first load writes a file there, later ones map it instead of packing. Its name
  // is a hash of the weights (their files' sizes and times, shapes, samples of the contents), of weft's version and of
  // the instruction set: another model or machine makes another file. Empty: nowhere. Error kIo when it cannot be
  // written.
  std::filesystem::path packed_folder;
  // false: reference kernels only (the oracle of tests).
  bool fast_kernels = true;
  // Bytes that loading, and each run of a session, may take at most. 0: what model and inputs justify, that is 2 GiB
  // and 64 times the file, or the inputs, and 4 times the weights. Beyond: Error kInvalidArgument before allocating.
  std::size_t max_memory = 0;
};

// An optimized graph with its weights packed for the kernels chosen. Immutable: any number of sessions
// on any number of threads share one without a lock.
class Model {
 public:
  // Optimizes, chooses kernels and packs weights. Errors of passes and backends.
  static std::shared_ptr<const Model> compile(Graph graph, const CompileOptions& options = {});
  // import_onnx() + compile(); errors carry the file as a frame.
  static std::shared_ptr<const Model> load(const std::filesystem::path& path, const CompileOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // After optimization. Weights that kernels have packed have lost their contents.
  const Graph& graph() const;
  const PassReport& report() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::runtime
