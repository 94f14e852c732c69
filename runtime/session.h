// One request: buffers, kernels bound to shapes, and cache states.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/cache.h"
#include "runtime/model.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

class Profile;  // runtime/profile.h

// Cheap to make; not thread-safe itself: one thread at a time. Sessions of one model are independent.
// The first run with a new set of input shapes binds (dims evaluated, kernels reshaped, memory laid out); later ones
// with those shapes do not, whatever the lengths of the states; where an input grows with them (a mask), only what
// depends on it is bound again. A run of known shapes allocates its outputs and nothing else.
class Session {
 public:
  // pool: shared with the caller, or a new one sized by available_cpus().
  explicit Session(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool = nullptr);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  const Model& model() const;
  // From now on every run is recorded there, which costs a few tens of nanoseconds a node; null: no more. The profile
  // outlives the session or is taken back.
  void set_profile(Profile* profile);

  // inputs by name. Missing inputs take their default; Error kInvalidArgument for a missing one
  // without default, an unknown name (with a suggestion), a wrong dtype, rank or extent, or extents
  // that contradict each other. Returns the outputs in the order of Graph::outputs(); they own their
  // bytes. States move on by one run.
  std::vector<Tensor> run(const std::map<std::string, Tensor, std::less<>>& inputs);
  // The same, one tensor for every input of the graph, in the order of Graph::inputs(): for loops that run often.
  std::vector<Tensor> run(std::span<const Tensor> inputs);

  // --- States (models compiled with CompileOptions::states) --------------------------------------
  // Empties every state. batch: rows that the next run will have.
  void reset_states(std::int64_t batch);
  // Row r of every state becomes what row parents[r] was (beam search; also grows or shrinks the
  // batch). Rows are shared, not copied, until written.
  void reorder_states(std::span<const std::int64_t> parents);
  // The state keeps its first `length` tokens in every row; a shorter one stays as it is.
  void truncate_state(std::string_view name, std::int64_t length);
  // Sets a state to a tensor [B, H, P, D] of f32 or of the state's type (caches that another model computed:
  // cross-attention).
  void set_state(std::string_view name, const Tensor& value);
  // Of the state's type: f32, or f16 or bf16 (of the file, or CompileOptions::cache_dtype).
  Tensor state(std::string_view name) const;
  // Another session with these states, shared until one of the two writes: a prompt run once serves many. pool: for
  // sessions that run at the same time; null: this one's.
  Session fork(std::shared_ptr<ThreadPool> pool = nullptr) const;
  // Keeps all states in a file, and takes them from there in another process: with the same model, compiled alike, by
  // the same version of weft; anything else, and a damaged file, is Error kInvalidArgument and leaves the states as
  // they were. Error kIo. What rows share is stored once.
  void save_states(const std::filesystem::path& path) const;
  void load_states(const std::filesystem::path& path);
  // What the states, and those of forks, may take, alone or together with those of other sessions of the same budget;
  // null: no limit. A run, or set_state() and load_states(), that would take more is Error kInvalidArgument before
  // anything is computed, and leaves the states as they were. For sessions without forks at work in other threads.
  void set_cache_budget(const std::shared_ptr<CacheBudget>& budget);
  // Of all states, and of forks: what they take, and what was written and copied so far.
  CacheUsage cache_usage() const;

 private:
  std::vector<Tensor> run_matched(const std::vector<Tensor>& inputs);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::runtime
