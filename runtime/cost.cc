#include "runtime/cost.h"

#include <algorithm>

#include "passes/node_util.h"
#include "runtime/cache.h"

namespace weft::runtime {
namespace {

double elements(const Tensor& tensor) { return static_cast<double>(tensor.size()); }

std::int64_t integer(const Node& node, std::string_view name) {
  const auto found = node.attributes.find(name);
  return found == node.attributes.end() ? 0 : std::get<std::int64_t>(found->second);
}

// q, k, v: [B, H, L, D], or [B, L, H * D] with the heads as attributes.
double attention_flops(const Node& node, std::span<const Tensor* const> inputs,
                       std::span<const CacheState* const> caches, const Tensor& out) {
  const Tensor& q = *inputs[0];
  const std::int64_t length_axis = q.rank() == 4 ? 2 : 1;
  if (q.rank() < 3) return 0;
  const auto queries = static_cast<double>(q.extent(length_axis));
  double keys = 0;
  if (caches[1] != nullptr) {
    keys = static_cast<double>(caches[1]->length());
  } else if (inputs[1] != nullptr && inputs[1]->rank() >= 3) {
    keys = static_cast<double>(inputs[1]->extent(inputs[1]->rank() == 4 ? 2 : 1));
  }
  const double seen = integer(node, "is_causal") != 0 ? std::max(keys - (queries - 1) / 2, keys / 2) : keys;
  return 2 * seen * (elements(q) + elements(out));
}

double flops_of(const Node& node, std::span<const Tensor* const> inputs, std::span<const CacheState* const> caches,
                const Tensor& out) {
  if (node.op == "Linear" || node.op == "MatMul" || node.op == "Gemm" || node.op == "FusedGemm") {
    if (inputs[0] == nullptr || inputs[0]->rank() == 0) return 0;
    const std::int64_t axis = integer(node, "transA") != 0 ? 0 : inputs[0]->rank() - 1;
    return 2 * elements(out) * static_cast<double>(inputs[0]->extent(axis));
  }
  if (node.op == "LinearSplit" && inputs[0] != nullptr && inputs[1] != nullptr && inputs[1]->rank() == 2) {
    return 2 * elements(*inputs[0]) * static_cast<double>(inputs[1]->extent(1));
  }
  if (node.op == "Attention" && inputs[0] != nullptr) return attention_flops(node, inputs, caches, out);
  if ((node.op == "Conv" || node.op == "FusedConv") && inputs[1] != nullptr && inputs[1]->extent(0) > 0) {
    return 2 * elements(out) * elements(*inputs[1]) / static_cast<double>(inputs[1]->extent(0));
  }
  return 0;
}

}  // namespace

Cost cost_of(const Graph& graph, const Node& node, std::span<const Tensor* const> inputs,
             std::span<const CacheState* const> caches, std::span<Tensor* const> outputs) {
  Cost cost;
  const std::vector<Lookup> lookups = lookups_of(node);
  if (!outputs.empty() && outputs[0] != nullptr && !inputs.empty())
    cost.flops = flops_of(node, inputs, caches, *outputs[0]);
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (i < caches.size() && caches[i] != nullptr) {
      const CacheState& cache = *caches[i];
      cost.bytes += static_cast<double>(element_size(cache.dtype())) *
                    static_cast<double>(cache.batch() * cache.heads() * cache.length() * cache.size());
    } else if (node.inputs[i].valid() && graph.value(node.inputs[i]).kind == ValueKind::kConstant &&
               inputs[i] != nullptr && !is_object(inputs[i]->dtype())) {
      // Of a table only the rows that are looked up.
      const bool table = !outputs.empty() && outputs[0] != nullptr &&
                         std::ranges::any_of(lookups, [&](const Lookup& lookup) { return lookup.table == i; });
      cost.bytes += static_cast<double>(table ? outputs[0]->byte_size() : inputs[i]->byte_size());
    }
  }
  return cost;
}

}  // namespace weft::runtime
