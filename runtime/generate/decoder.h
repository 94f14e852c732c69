// One decoder file at work: tokens in, logits out, what is past kept.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "runtime/bind_inputs.h"
#include "runtime/session.h"

namespace weft::runtime {

// Caches by the names of the decoder's inputs.
using Caches = std::map<std::string, Tensor>;

// Rows may have padding on the left: tokens in front that attention does not see and positions do not count.
class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool);

  const Graph& graph() const { return session_.model().graph(); }
  void set_profile(Profile* profile) { session_.set_profile(profile); }
  // Of all its caches. What the run needs before and after is asked for before it begins, see Session.
  void set_cache_budget(const std::shared_ptr<CacheBudget>& budget);
  CacheUsage cache_usage() const { return session_.cache_usage(); }
  // Names of its caches; empty: a decoder that remembers nothing.
  const std::vector<std::string>& caches() const { return caches_; }

  // Nothing is past. fixed: inputs that stay the same at every step (of the encoder), for each row.
  void start(TensorMap fixed, std::int64_t rows);
  // Goes on from caches, each row with so much padding in front.
  void start(TensorMap fixed, const Caches& past, std::vector<std::int64_t> padding);
  // Row r goes on from what row parents[r] was.
  void reorder(std::span<const std::int64_t> parents);
  // Forgets all but the first `length` tokens of every row, padding included.
  void truncate(std::int64_t length);
  // tokens: i64[rows, S]. Returns logits [rows, S, V], or [rows, 1, V] of a model that gives those of the last position
  // only; outputs of the run are kept.
  Tensor run(const Tensor& tokens);

  // Of the last run; null if there is none of that name.
  const Tensor* output(std::string_view name) const;
  // See cache_stays(): of the encoder, set when a prompt starts.
  bool stays(std::string_view cache) const;
  // All caches as they are now.
  Caches past() const;
  std::int64_t rows() const { return rows_; }
  std::int64_t length() const { return length_; }

 private:
  bool is_state(std::string_view name) const;
  void check_budget(std::int64_t steps) const;
  void set_past(const std::string& name, const Tensor& value);
  Tensor input(const Value& value, const Tensor& tokens) const;

  Session session_;
  std::shared_ptr<CacheBudget> budget_;
  std::vector<std::string> caches_;
  std::set<std::string, std::less<>> staying_;  // of them
  TensorMap fixed_;
  std::vector<std::int64_t> fixed_rows_;  // which row at the start each row of fixed_ is
  TensorMap pasts_;                       // caches that are no states of the session
  std::vector<Tensor> outputs_;
  std::vector<std::int64_t> padding_;
  std::int64_t length_ = 0;  // tokens past, padding included
  std::int64_t rows_ = 1;
};

// The rows `picked` of an axis.
Tensor select_rows(const Tensor& x, std::size_t axis, std::span<const std::int64_t> picked);

}  // namespace weft::runtime
