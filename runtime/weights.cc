#include "runtime/weights.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "graph/text.h"
#include "passes/node_util.h"
#include "runtime/kernels/gemm.h"
#include "runtime/mapped_pages.h"
#include "runtime/packed_file.h"

namespace weft::runtime {
namespace {

// Only kernels that pack them see these: weights of products.
bool stays_in_file(const Graph& graph, const Value& value) {
  const bool matrix = value.tensor->dtype() == DType::kF32 && value.tensor->rank() == 2;
  return !value.uses.empty() && std::all_of(value.uses.begin(), value.uses.end(), [&](const Use& use) {
    const std::string& op = graph.node(use.node).op;
    if (use.input == 0 && op == "Gather") return true;
    const std::vector<Lookup> lookups = lookups_of(graph.node(use.node));
    if (std::ranges::any_of(lookups, [&](const Lookup& lookup) { return lookup.table == use.input; })) return true;
    return matrix && use.input == 1 && (op == "Linear" || op == "LinearSplit" || op == "MatMul");
  });
}

// Of a file that may be changed in place.
void add_file(PackedKey& key, const std::string& path) {
  std::error_code error;
  key.add(static_cast<std::uint64_t>(std::filesystem::file_size(path, error)));
  const auto changed = std::filesystem::last_write_time(path, error);
  key.add(static_cast<std::uint64_t>(changed.time_since_epoch().count()));
}

// Shape and a sample of the contents: what another training would have changed.
void add_sample(PackedKey& key, const Tensor& tensor) {
  constexpr std::size_t kSamples = 4, kSampleBytes = 64;
  for (const std::int64_t extent : tensor.shape()) key.add(static_cast<std::uint64_t>(extent));
  const std::span<const std::byte> bytes = tensor.bytes();
  for (std::size_t i = 0; i < kSamples; ++i) {
    const std::size_t at = bytes.size() / kSamples * i;
    key.add(bytes.subspan(at, std::min(kSampleBytes, bytes.size() - at)));
  }
}

// The kernels that pack, with the constants they pack.
class Weights {
 public:
  Weights(Model::Impl& impl, WeightStore* store) : impl_(impl), store_(store) {
    for (const CompiledNode& compiled : impl.nodes) {
      if (compiled.kernel != nullptr && compiled.kernel->packed_floats() > 0) nodes_.push_back(&compiled);
    }
    for (const CompiledNode* compiled : nodes_) floats_.push_back(compiled->kernel->packed_floats());
  }

  void pack_or_read(const std::filesystem::path& folder) {
    if (folder.empty() || nodes_.empty()) return pack();
    const PackedKey key = make_key();
    if (auto buffers = read_packed(folder, key, floats_)) {
      for (std::size_t i = 0; i < nodes_.size(); ++i) {
        nodes_[i]->kernel->set_packed(std::move((*buffers)[i]));
        drop(*nodes_[i]);
      }
      return;
    }
    pack();
    std::vector<Tensor> buffers;
    for (const CompiledNode* compiled : nodes_) buffers.push_back(compiled->kernel->packed());
    write_packed(folder, key, buffers);
  }

  // Constants that kernels have in a form of their own are not read again.
  void drop(const CompiledNode& compiled) {
    Graph& graph = impl_.graph;
    const Node& node = graph.node(compiled.node);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId input = node.inputs[i];
      if (!input.valid() || !compiled.kernel->packs_constant(i)) continue;
      Value& value = graph.value(input);
      if (value.kind != ValueKind::kConstant || value.uses.size() != 1 || graph.is_output(input) ||
          is_object(value.tensor->dtype()))
        continue;
      pages_.release(value.tensor->bytes());
      // An empty mapping of the same type: nobody reads its bytes.
      value.tensor = Tensor::share(value.tensor->dtype(), value.tensor->shape(), std::make_shared<std::byte>(),
                                   value.tensor->byte_size());
    }
  }

 private:
  void pack() {
    std::vector<std::size_t> order(nodes_.size());  // the largest first: least is held twice at the end
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return floats_[a] > floats_[b]; });
    constexpr std::size_t kWorthThreads = 1 << 20;
    ThreadPool pool(std::accumulate(floats_.begin(), floats_.end(), std::size_t{0}) < kWorthThreads ? 1 : 0);
    for (const std::size_t index : order) {
      Kernel& kernel = *nodes_[index]->kernel;
      const auto pack_now = [&] {
        Tensor packed = Tensor::uninitialized(DType::kF32, {static_cast<std::int64_t>(floats_[index])});
        kernel.pack(packed.mutable_data<float>(), pool);
        return packed;
      };
      kernel.set_packed(store_ == nullptr ? pack_now() : store_->get(content_of(*nodes_[index]), pack_now));
      drop(*nodes_[index]);
    }
  }

  // Equal keys: equal bytes once packed.
  ContentKey content_of(const CompiledNode& compiled) const {
    const Node& node = impl_.graph.node(compiled.node);
    ContentKey key(node.op == "LinearSplit" ? "split" : "whole");
    key.add(compiled.kernel->packed_floats());
    if (const auto widths = node.attributes.find("widths"); widths != node.attributes.end())
      key.add(std::as_bytes(std::span(std::get<std::vector<std::int64_t>>(widths->second))));
    key.add(*impl_.graph.value(node.inputs[1]).tensor);
    return key;
  }

  PackedKey make_key() const {
    PackedKey key;
    key.add(std::string_view(WEFT_VERSION));
    key.add(static_cast<std::uint64_t>(gemm::panel_columns()));
    std::set<std::string> files;
    for (const CompiledNode* compiled : nodes_) {
      const Node& node = impl_.graph.node(compiled->node);
      key.add(std::string_view(node.op));
      key.add(static_cast<std::uint64_t>(compiled->kernel->packed_floats()));
      if (const auto widths = node.attributes.find("widths"); widths != node.attributes.end()) {
        for (const std::int64_t width : std::get<std::vector<std::int64_t>>(widths->second))
          key.add(static_cast<std::uint64_t>(width));
      }
      const Tensor& weight = *impl_.graph.value(node.inputs[1]).tensor;
      add_sample(key, weight);
      if (const std::string* file = pages_.file_of(weight.bytes().data())) files.insert(*file);
    }
    for (const std::string& file : files) add_file(key, file);
    return key;
  }

  Model::Impl& impl_;
  WeightStore* store_;
  MappedPages pages_;
  std::vector<const CompiledNode*> nodes_;
  std::vector<std::size_t> floats_;  // by node
};

}  // namespace

PackedKey identity_of(const Graph& graph) {
  PackedKey key;
  key.add(std::string_view(WEFT_VERSION));
  key.add(print(graph, {.elide_above = 64, .origins = false}));
  for (const ValueId id : graph.values()) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::kConstant && !is_object(value.tensor->dtype())) add_sample(key, *value.tensor);
  }
  return key;
}

void align_constants(Graph& graph, WeightStore* store) {
  constexpr std::size_t kWorthSharing = 4096;
  const MappedPages pages;
  for (const ValueId id : graph.values()) {
    Value& value = graph.value(id);
    if (value.kind != ValueKind::kConstant || stays_in_file(graph, value)) continue;
    value.tensor = value.tensor->aligned();
    if (store == nullptr || is_object(value.tensor->dtype()) || value.tensor->byte_size() < kWorthSharing) continue;
    ContentKey key("constant");
    key.add(*value.tensor);
    const Tensor own = *value.tensor;
    value.tensor = store->get(key, [&] { return own; });
    pages.release(own.bytes());  // what reading it all for the key has brought in
  }
}

void pack_weights(Model::Impl& impl, const std::filesystem::path& packed_folder, WeightStore* store) {
  Weights weights(impl, store);
  weights.pack_or_read(packed_folder);
  std::map<NodeId, const Kernel*> kernels;
  for (const CompiledNode& compiled : impl.nodes) {
    if (compiled.kernel == nullptr) continue;
    kernels[compiled.node] = compiled.kernel.get();
    // Those that packed when they were made.
    if (compiled.kernel->packed_floats() == 0) weights.drop(compiled);
  }
  // Left for other kernels after all.
  for (const ValueId id : impl.graph.values()) {
    Value& value = impl.graph.value(id);
    if (value.kind != ValueKind::kConstant || !stays_in_file(impl.graph, value)) continue;
    const bool anywhere = std::all_of(value.uses.begin(), value.uses.end(), [&](const Use& use) {
      const auto kernel = kernels.find(use.node);
      return kernel != kernels.end() && kernel->second->reads_unaligned(use.input);
    });
    if (!anywhere) value.tensor = value.tensor->aligned();
  }
}

}  // namespace weft::runtime
