// Norms of sums: of a branch and what skips it, and of embeddings. A row is summed and normalised while it is in the
// cache.
#include <algorithm>

#include "ops/index_util.h"
#include "ops/shape_util.h"
#include "passes/node_util.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/simd.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kGrain = 16 * 1024;  // elements worth handing to a thread

struct NormOfSum {
  bool is_rms = false;
  std::size_t scale = 0, bias = 0;  // inputs; bias 0: none
  float epsilon = 0;

  void apply(const RunContext& context, const float* x, float* y, std::size_t columns) const {
    if (is_rms) return simd::rms_norm_row(x, context.in<float>(scale), epsilon, y, columns);
    simd::layer_norm_row(x, context.in<float>(scale), bias == 0 ? nullptr : context.in<float>(bias), epsilon, y,
                         columns);
  }
};

// sum_row(row, to) for each row; the sums go where they are wanted, else to the place of the result.
template <class SumRow>
void for_sums(const RunContext& context, const NormOfSum& norm, std::size_t rows, std::size_t columns,
              const SumRow& sum_row) {
  float* const y = context.out<float>(0);
  float* const sums =
      context.outputs.size() > 1 && context.outputs[1] != nullptr ? context.out<float>(1) : context.out<float>(0);
  const std::size_t per_block = std::max<std::size_t>(1, kGrain / std::max<std::size_t>(columns, 1));
  context.pool->parallel_for((rows + per_block - 1) / per_block, [&](std::size_t block) {
    for (std::size_t row = block * per_block; row < std::min(rows, (block + 1) * per_block); ++row) {
      float* const sum = sums + row * columns;
      sum_row(row, sum);
      norm.apply(context, sum, y + row * columns, columns);
    }
  });
}

// --- A branch and what skips it ---------------------------------------------------------------------------------

class BoundSkipNorm final : public BoundKernel {
 public:
  BoundSkipNorm(const NormOfSum& norm, std::size_t addend, const Extents& shape)
      : norm_(norm),
        addend_(addend),
        columns_(static_cast<std::size_t>(shape.back())),
        rows_(columns_ == 0 ? 0 : static_cast<std::size_t>(element_count(shape)) / columns_) {}

  void run(const RunContext& context) override {
    const float* const a = context.in<float>(0);
    const float* const b = context.in<float>(1);
    const float* const addend = addend_ == 0 ? nullptr : context.in<float>(addend_);
    for_sums(context, norm_, rows_, columns_, [&](std::size_t row, float* sum) {
      simd::add_row(a + row * columns_, b + row * columns_, addend, sum, columns_);
    });
  }

 private:
  NormOfSum norm_;
  std::size_t addend_;  // the input of a bias of the sum; 0: none
  std::size_t columns_, rows_;
};

class SkipNormKernel final : public Kernel {
 public:
  SkipNormKernel(const NormOfSum& norm, std::size_t addend) : norm_(norm), addend_(addend) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    const Extents& shape = context.outputs[0];
    for (std::size_t i = 0; i < context.inputs.size(); ++i) {
      const bool whole = i < 2, given = has_input(*context.node, i);
      if (given && (whole ? context.inputs[i] != shape : context.inputs[i] != Extents{shape.back()})) {
        fail(ErrorCode::kInvalidModel, "{} of {}, its input {} is {}", context.node->op, to_string(shape), i,
             to_string(context.inputs[i]));
      }
    }
    return std::make_unique<BoundSkipNorm>(norm_, addend_, shape);
  }

 private:
  NormOfSum norm_;
  std::size_t addend_;
};

// --- Embeddings -------------------------------------------------------------------------------------------------

struct Embedding {
  std::size_t table, indices;
  float factor;
};

class BoundEmbedNorm final : public BoundKernel {
 public:
  BoundEmbedNorm(const NormOfSum& norm, std::span<const Embedding> embeddings, const BindContext& context)
      : norm_(norm), embeddings_(embeddings.begin(), embeddings.end()), rows_(context.outputs[0]) {
    columns_ = static_cast<std::size_t>(rows_.back());
    rows_.pop_back();
    for (const Embedding& embedding : embeddings_) {
      const Extents& table = context.inputs[embedding.table];
      if (table.size() != 2 || table[1] != static_cast<std::int64_t>(columns_)) {
        fail(ErrorCode::kInvalidModel, "{} of rows of {} and a table of {}", context.node->op, columns_,
             to_string(table));
      }
      strides_.push_back(broadcast_strides(context.inputs[embedding.indices], rows_));
    }
  }

  void run(const RunContext& context) override {
    const auto rows = static_cast<std::size_t>(element_count(rows_));
    for_sums(context, norm_, columns_ == 0 ? 0 : rows, columns_, [&](std::size_t row, float* sum) {
      for (std::size_t i = 0; i < embeddings_.size(); ++i) {
        const Tensor& table = *context.inputs[embeddings_[i].table];
        const std::int64_t at =
            checked_index(index(*context.inputs[embeddings_[i].indices], row, strides_[i]), table.shape()[0]);
        const std::byte* from = table.bytes().data() + static_cast<std::size_t>(at) * columns_ * sizeof(float);
        simd::accumulate_row(from, embeddings_[i].factor, i == 0, sum, columns_);
      }
    });
  }

 private:
  std::int64_t index(const Tensor& indices, std::size_t row, const Extents& strides) const {
    auto rest = static_cast<std::int64_t>(row);
    std::int64_t at = 0;
    for (std::size_t i = rows_.size(); i-- > 0;) {
      at += rest % rows_[i] * strides[i];
      rest /= rows_[i];
    }
    const auto place = static_cast<std::size_t>(at);
    return indices.dtype() == DType::kI64 ? indices.data<std::int64_t>()[place] : indices.data<std::int32_t>()[place];
  }

  NormOfSum norm_;
  std::vector<Embedding> embeddings_;
  std::vector<Extents> strides_;
  Extents rows_;
  std::size_t columns_ = 0;
};

class EmbedNormKernel final : public Kernel {
 public:
  EmbedNormKernel(const NormOfSum& norm, std::vector<Embedding> embeddings)
      : norm_(norm), embeddings_(std::move(embeddings)) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundEmbedNorm>(norm_, embeddings_, context);
  }
  bool reads_unaligned(std::size_t input) const override {
    return std::ranges::any_of(embeddings_, [&](const Embedding& e) { return e.table == input; });
  }

 private:
  NormOfSum norm_;
  std::vector<Embedding> embeddings_;
};

std::unique_ptr<Kernel> make_embed_kernel(const Graph& graph, const Node& node, NormOfSum norm) {
  const std::vector<double>& factors = attributes_of(node).numbers("factors");
  norm.scale = 0;
  norm.bias = norm.is_rms ? 0 : 1;
  std::vector<Embedding> embeddings;
  for (const Lookup& lookup : lookups_of(node)) {
    const bool indices =
        input_is(graph, node, lookup.indices, DType::kI64) || input_is(graph, node, lookup.indices, DType::kI32);
    if (!indices || !input_is(graph, node, lookup.table, DType::kF32)) return nullptr;
    const std::size_t i = embeddings.size();
    embeddings.push_back({lookup.table, lookup.indices, factors.empty() ? 1.0f : static_cast<float>(factors[i])});
  }
  for (std::size_t i = 0; i < (norm.is_rms ? 1u : 2u); ++i) {
    if (!input_is(graph, node, i, DType::kF32) || rank_of(graph, node.inputs[i]) != 1) return nullptr;
  }
  return std::make_unique<EmbedNormKernel>(norm, std::move(embeddings));
}

}  // namespace

std::unique_ptr<Kernel> make_norm_of_sum_kernel(const Graph& graph, const Node& node) {
  const bool skip = node.op == "SkipLayerNormalization" || node.op == "SkipRMSNormalization";
  if (!skip && node.op != "EmbedLayerNormalization" && node.op != "EmbedRMSNormalization") return nullptr;
  NormOfSum norm;
  norm.is_rms = node.op.ends_with("RMSNormalization");
  norm.epsilon = static_cast<float>(attributes_of(node).number("epsilon"));
  if (!skip) return make_embed_kernel(graph, node, norm);
  // Sums that broadcast are left to the definition.
  const auto same = [&](ValueId id) { return same_type(graph, id, node.outputs[0]); };
  if (!same(node.inputs[0]) || !same(node.inputs[1]) || !input_is(graph, node, 0, DType::kF32)) return nullptr;
  for (std::size_t i = 2; i < node.inputs.size(); ++i) {
    if (has_input(node, i) && (!input_is(graph, node, i, DType::kF32) || rank_of(graph, node.inputs[i]) != 1))
      return nullptr;
  }
  norm.scale = 2;
  norm.bias = !norm.is_rms && has_input(node, 3) ? 3 : 0;
  const std::size_t addend = norm.is_rms ? 3 : 4;
  return std::make_unique<SkipNormKernel>(norm, has_input(node, addend) ? addend : 0);
}

}  // namespace weft::runtime
