// How the runtime executes one node: a Kernel is made once per model (and holds packed weights), a
// BoundKernel once per session and set of shapes (and holds operators and scratch memory).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "graph/graph.h"
#include "runtime/thread_pool.h"

namespace weft::runtime {

class CacheState;  // runtime/cache.h

struct BindContext {
  const Node* node;
  std::span<const Extents> inputs;  // absent inputs: empty
  std::span<const Extents> outputs;
  ThreadPool* pool;
};

struct RunContext {
  std::span<const Tensor* const> inputs;      // null where absent or given as a cache
  std::span<const CacheState* const> caches;  // per input: the cache it is, or null
  std::span<Tensor* const> outputs;           // null where absent
  ThreadPool* pool;

  template <class T>
  const T* in(std::size_t i) const {
    return inputs[i]->data<T>().data();
  }
  template <class T>
  T* out(std::size_t i) const {
    return outputs[i]->mutable_data<T>().data();
  }
};

class BoundKernel {
 public:
  BoundKernel() = default;
  BoundKernel(const BoundKernel&) = delete;
  BoundKernel& operator=(const BoundKernel&) = delete;
  virtual ~BoundKernel() = default;
  virtual void run(const RunContext& context) = 0;
};

class Kernel {
 public:
  Kernel() = default;
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  virtual ~Kernel() = default;

  virtual std::unique_ptr<BoundKernel> bind(const BindContext& context) const = 0;
  // May output 0 occupy the memory of this input (of the same byte size) when that dies here?
  virtual bool may_overwrite(std::size_t /*input*/) const { return false; }
  // Does the kernel read this input straight from a cache? Then its extents in BindContext are those of that moment:
  // the bound kernel must ask RunContext::caches for the length, which grows without binding again.
  virtual bool reads_cache(std::size_t /*input*/) const { return false; }
  // True when it runs the reference kernel, which needs no binding.
  virtual bool is_reference() const { return false; }
  // True when the kernel has its own form of this input, if it is a constant, and reads the original no more.
  virtual bool packs_constant(std::size_t /*input*/) const { return false; }
  // May the bytes of this input be anywhere, as they may be where a file is mapped?
  virtual bool reads_unaligned(std::size_t input) const { return packs_constant(input); }
  // Of kernels whose form is one buffer, which the model makes in parallel or maps from a file: the floats it takes (0:
  // none of those); writes it; takes it, before the first bind(); gives it.
  virtual std::size_t packed_floats() const { return 0; }
  virtual void pack(std::span<float> /*packed*/, ThreadPool& /*pool*/) const {}
  virtual void set_packed(Tensor /*packed*/) {}
  virtual Tensor packed() const { return {}; }
};

// One function per kernel file: the kernel for a node, or null when it does not take it.
std::unique_ptr<Kernel> make_linear_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_matmul_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_elementwise_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_softmax_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_convolution_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_pooling_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_recurrent_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_quantize_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_integer_matmul_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_scaled_matmul_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_integer_convolution_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_packed_weights_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_normalization_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_norm_of_sum_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_activation_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_rotary_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_attention_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_cast_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_movement_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_resize_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_grid_sample_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_reduction_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_axis_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_axis_norm_kernel(const Graph& graph, const Node& node);
std::unique_ptr<Kernel> make_channel_norm_kernel(const Graph& graph, const Node& node);
// Any operator with a reference kernel.
std::unique_ptr<Kernel> make_reference_kernel(const Graph& graph, const Node& node);

// The first of those made for the operator and its types that takes the node, or null.
std::unique_ptr<Kernel> make_specific_kernel(const Graph& graph, const Node& node);
// The same, else the reference; null when only its decomposition remains.
std::unique_ptr<Kernel> make_fast_kernel(const Graph& graph, const Node& node);

// Does a node that reads f16 or bf16 have one of the former once these are f32?
bool has_kernel_in_f32(const Graph& graph, const Node& node);

// --- Helpers of kernel files -----------------------------------------------------------------------

// The contents if the node's input is a constant, else null.
const Tensor* constant_input(const Graph& graph, const Node& node, std::size_t index);
// True when the input is given and of this dtype.
bool input_is(const Graph& graph, const Node& node, std::size_t index, DType dtype);
// The pool for XNNPACK, or null for work (elements touched, or multiplications) too small to share.
inline pthreadpool* pool_for(ThreadPool& pool, double work) {
  constexpr double kSerialWork = 64 * 1024;
  return work < kSerialWork ? nullptr : pool.native();
}
inline bool has_input(const Node& node, std::size_t index) {
  return index < node.inputs.size() && node.inputs[index].valid();
}

}  // namespace weft::runtime
