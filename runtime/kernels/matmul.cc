// MatMul of two computed f32 tensors: the second is multiplied as it lies, or packed on the way where many rows read
// it; small matrices by many rows on XNNPACK. Whoever multiplies, a row has the same bytes.
#include <algorithm>

#include "ops/shape_util.h"
#include "runtime/kernels/gemm.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/parallel.h"
#include "runtime/kernels/xnnpack.h"

namespace weft::runtime {
namespace {

constexpr std::size_t kMaxBatchDims = 6;  // of XNNPACK
// As many rows earn the packing of what they are multiplied by; of matrices of fewer elements than these XNNPACK makes
// more.
constexpr std::int64_t kPackedRows = 256, kSmallMatrix = 64 * 1024;
// Multiplications that are worth a thread of their own.
constexpr std::size_t kSerialWork = 64 * 1024;

// Matrices of the result that read one matrix of the second operand.
struct Group {
  std::size_t b;                                       // floats into the operand
  std::vector<std::pair<std::size_t, std::size_t>> a;  // floats into the first operand and into the result
};

class BoundMatMul final : public BoundKernel {
 public:
  explicit BoundMatMul(const BindContext& context) {
    const Extents& a = context.inputs[0];
    const Extents& b = context.inputs[1];
    rows_ = static_cast<std::size_t>(a[a.size() - 2]);
    shape_ = {static_cast<std::size_t>(b[b.size() - 2]), static_cast<std::size_t>(b.back())};
    group(a, b, context.outputs[0]);
    is_packed_ = rows_ >= static_cast<std::size_t>(kPackedRows);
    std::size_t columns = is_packed_ ? shape_.n : shape_.n % gemm::panel_columns();
    if (rows_ == 1) columns = 0;  // one row is multiplied by all of it as it lies
    packed_ = {shape_.k, columns};
    floats_ = (gemm::packed_size(packed_) + 15) / 16 * 16;
    gemm::Product product = product_of(nullptr, nullptr, nullptr);
    const std::size_t work = rows_ * shape_.k * shape_.n * groups_.size() * groups_[0].a.size();
    const int threads = work < kSerialWork ? 1 : context.pool->threads();
    by_group_ = threads == 1 || groups_.size() >= 2 * static_cast<std::size_t>(threads);
    tasks_ = gemm::schedule({&product, 1}, by_group_ ? 1 : threads);
    if (by_group_) {
      per_task_ = std::max<std::size_t>(1, groups_.size() * kSerialWork / std::max<std::size_t>(work, 1));
      workers_ = Workers(*context.pool, floats_);
    } else {
      workspace_ = Tensor::uninitialized(DType::kF32, {static_cast<std::int64_t>(groups_.size() * floats_)});
    }
  }

  void run(const RunContext& context) override {
    if (by_group_) {
      const std::size_t tasks = (groups_.size() + per_task_ - 1) / per_task_;
      workers_.run(*context.pool, tasks, [&](std::size_t task, float* packed) {
        const std::size_t end = std::min(groups_.size(), (task + 1) * per_task_);
        for (std::size_t g = task * per_task_; g < end; ++g) multiply_group(context, groups_[g], packed);
      });
      return;
    }
    float* const packed = workspace_.mutable_data<float>().data();
    const std::size_t panels = gemm::panel_count(packed_);
    context.pool->parallel_for(groups_.size() * panels, [&](std::size_t i) {
      pack(context, groups_[i / panels], i % panels, i % panels + 1, packed + i / panels * floats_);
    });
    const std::size_t each = groups_[0].a.size();
    context.pool->parallel_for(groups_.size() * each * tasks_.size(), [&](std::size_t i) {
      const std::size_t g = i / tasks_.size() / each;
      gemm::multiply(product(context, groups_[g], i / tasks_.size() % each, packed + g * floats_),
                     tasks_[i % tasks_.size()].block);
    });
  }

 private:
  // Batches that follow each other and read the same matrix are one group, or one matrix if they also lie together.
  void group(const Extents& a, const Extents& b, const Extents& out) {
    const auto batch_of = [](const Extents& shape) { return std::span(shape).first(shape.size() - 2); };
    const Extents batch(out.begin(), out.end() - 2);
    const Extents a_strides = broadcast_strides(batch_of(a), batch), b_strides = broadcast_strides(batch_of(b), batch);
    const std::size_t a_size = rows_ * shape_.k, b_size = shape_.k * shape_.n, c_size = rows_ * shape_.n;
    const auto count = static_cast<std::size_t>(element_count(batch));
    bool together = true;
    for (std::size_t i = 0; i < count; ++i) {
      std::int64_t rest = static_cast<std::int64_t>(i), at_a = 0, at_b = 0;
      for (std::size_t axis = batch.size(); axis-- > 0; rest /= batch[axis]) {
        at_a += rest % batch[axis] * a_strides[axis];
        at_b += rest % batch[axis] * b_strides[axis];
      }
      const std::size_t from = static_cast<std::size_t>(at_b) * b_size;
      if (groups_.empty() || groups_.back().b != from) groups_.push_back({from, {}});
      together = together && at_a == static_cast<std::int64_t>(i);
      groups_.back().a.emplace_back(static_cast<std::size_t>(at_a) * a_size, i * c_size);
    }
    const std::size_t each = groups_[0].a.size();
    const bool even = std::ranges::all_of(groups_, [&](const Group& g) { return g.a.size() == each; });
    if (together && even) {
      rows_ *= each;
      for (Group& g : groups_) g.a.resize(1);
    } else if (!even) {
      split_groups();
    }
  }

  // One matrix of the result each.
  void split_groups() {
    std::vector<Group> single;
    for (const Group& g : groups_) {
      for (const auto& place : g.a) single.push_back({g.b, {place}});
    }
    groups_ = std::move(single);
  }

  gemm::Product product_of(const float* a, const float* packed, float* c) const {
    gemm::Product product;
    product.a = a;
    product.a_stride = shape_.k;
    product.rows = rows_;
    product.packed = packed;
    product.shape = shape_;
    product.c = c;
    product.c_stride = shape_.n;
    return product;
  }

  gemm::Product product(const RunContext& context, const Group& group, std::size_t i, const float* packed) const {
    gemm::Product result =
        product_of(context.in<float>(0) + group.a[i].first, packed, context.out<float>(0) + group.a[i].second);
    if (!is_packed_) result.loose = context.in<float>(1) + group.b;
    return result;
  }

  // All of a matrix, or what is left of its columns behind the last whole panel.
  void pack(const RunContext& context, const Group& group, std::size_t first, std::size_t last, float* packed) const {
    const float* from = context.in<float>(1) + group.b + (shape_.n - packed_.n);
    gemm::pack(packed_, reinterpret_cast<const std::byte*>(from), shape_.n, 1, first, last, packed);
  }

  void multiply_group(const RunContext& context, const Group& group, float* packed) const {
    pack(context, group, 0, gemm::panel_count(packed_), packed);
    for (std::size_t i = 0; i < group.a.size(); ++i) {
      const gemm::Product one = product(context, group, i, packed);
      for (const gemm::Task& task : tasks_) gemm::multiply(one, task.block);
    }
  }

  std::size_t rows_ = 0;
  gemm::PackedShape shape_, packed_;
  std::vector<Group> groups_;  // of equally many matrices each
  bool is_packed_ = false, by_group_ = false;
  std::size_t floats_ = 0, per_task_ = 1;
  std::vector<gemm::Task> tasks_;  // of one matrix
  Workers workers_;
  Tensor workspace_;
};

// XNNPACK's batch matrix multiplication. Its sums take their terms in the order of K too.
class BoundXnnMatMul final : public BoundKernel {
 public:
  explicit BoundXnnMatMul(const BindContext& context) {
    const Extents& a = context.inputs[0];
    const Extents& b = context.inputs[1];
    const std::size_t batch = context.outputs[0].size() - 2;
    const auto batch_dims = [&](const Extents& shape) {
      std::vector<std::size_t> dims(batch, 1);
      const std::size_t own = shape.size() - 2;
      for (std::size_t i = 0; i < own; ++i) {
        dims[batch - own + i] = static_cast<std::size_t>(shape[i]);
      }
      return dims;
    };
    const std::vector<std::size_t> dims_a = batch_dims(a);
    const std::vector<std::size_t> dims_b = batch_dims(b);
    xnn_operator_t op = nullptr;
    xnn::check(xnn_create_batch_matrix_multiply_nc_f32(0, &op), "xnn_create_batch_matrix_multiply_nc_f32");
    operator_.reset(op);
    std::size_t bytes = 0;
    std::size_t alignment = 0;
    work_ = static_cast<double>(element_count(context.outputs[0])) * static_cast<double>(a.back());
    xnn::check(xnn_reshape_batch_matrix_multiply_nc_f32(
                   op, batch, dims_a.data(), dims_b.data(), static_cast<std::size_t>(a[a.size() - 2]),
                   static_cast<std::size_t>(a[a.size() - 1]), static_cast<std::size_t>(b[b.size() - 1]), &bytes,
                   &alignment, pool_for(*context.pool, work_)),
               "xnn_reshape_batch_matrix_multiply_nc_f32");
    workspace_ = Tensor::uninitialized(DType::kU8, {static_cast<std::int64_t>(bytes + alignment)});
    if (alignment > 64) fail(ErrorCode::kBackend, "XNNPACK wants an alignment of {}", alignment);
  }

  void run(const RunContext& context) override {
    xnn::check(
        xnn_setup_batch_matrix_multiply_nc_f32(operator_.get(), workspace_.mutable_bytes().data(), context.in<float>(0),
                                               context.in<float>(1), context.out<float>(0)),
        "xnn_setup_batch_matrix_multiply_nc_f32");
    xnn::check(xnn_run_operator(operator_.get(), pool_for(*context.pool, work_)), "xnn_run_operator");
  }

 private:
  xnn::Operator operator_;
  double work_ = 0;
  Tensor workspace_;
};

// No output elements, or sums of no terms.
class BoundZero final : public BoundKernel {
 public:
  void run(const RunContext& context) override {
    for (float& y : context.outputs[0]->mutable_data<float>()) y = 0.0f;
  }
};

class MatMulKernel final : public Kernel {
 public:
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    if (element_count(context.outputs[0]) == 0 || context.inputs[0].back() == 0) {
      return std::make_unique<BoundZero>();
    }
    const Extents &a = context.inputs[0], &b = context.inputs[1];
    const bool many = a[a.size() - 2] >= kPackedRows && b[b.size() - 2] * b.back() <= kSmallMatrix;
    if (many && context.outputs[0].size() <= 2 + kMaxBatchDims) {
      xnn::initialize();
      return std::make_unique<BoundXnnMatMul>(context);
    }
    return std::make_unique<BoundMatMul>(context);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_matmul_kernel(const Graph& graph, const Node& node) {
  if (node.op != "MatMul" || !input_is(graph, node, 0, DType::kF32) || !input_is(graph, node, 1, DType::kF32)) {
    return nullptr;
  }
  for (const ValueId id : node.inputs) {
    const TensorType& type = graph.value(id).type;
    if (!type.shape || type.shape->size() < 2) return nullptr;
  }
  return std::make_unique<MatMulKernel>();
}

}  // namespace weft::runtime
