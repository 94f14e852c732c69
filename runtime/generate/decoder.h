// One decoder file at work: tokens in, logits out, what is past kept.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/bind_inputs.h"
#include "runtime/session.h"

namespace weft::runtime {

// first, first + step, ... in every row: [rows, columns] of an integer type, f32 or bool.
Tensor int_rows(std::int64_t rows, std::int64_t columns, std::int64_t first, std::int64_t step, DType dtype);

class Decoder {
 public:
  Decoder(std::shared_ptr<const Model> model, std::shared_ptr<ThreadPool> pool);

  const Graph& graph() const { return session_.model().graph(); }
  void set_profile(Profile* profile) { session_.set_profile(profile); }

  // Nothing is past, for one row. fixed: inputs that stay the same at every step (of the encoder), for one row.
  void start(TensorMap fixed);
  // Takes over caches that another decoder made for one row.
  void set_past(const std::string& name, const Tensor& value, bool grows);
  // Row r goes on from what row parents[r] was.
  void reorder(std::span<const std::int64_t> parents);
  // tokens: i64[rows, S]. Returns logits [rows, S, V]; outputs of the run are kept.
  Tensor run(const Tensor& tokens);

  // Of the last run; null if there is none of that name.
  const Tensor* output(std::string_view name) const;

 private:
  Session session_;
  TensorMap fixed_;
  TensorMap pasts_;
  std::vector<Tensor> outputs_;
  std::int64_t length_ = 0;
  std::int64_t rows_ = 1;
};

}  // namespace weft::runtime
