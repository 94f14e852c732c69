// Operators that only move elements, of any type whose elements are bytes.
#include "ops/movement.h"

#include <algorithm>
#include <cstring>

#include "ops/index_util.h"
#include "ops/shape_util.h"
#include "runtime/kernels/kernel.h"
#include "runtime/kernels/strided_copy.h"

namespace weft::runtime {
namespace {

using Move = void (*)(const Node& node, const RunContext& context);

AttributeReader attributes_of(const Node& node) { return {get_op(node.op), node.attributes}; }

// What contents of inputs say about a shape is known only here.
Tensor& checked_output(const Node& node, const RunContext& context, std::size_t i, const Extents& shape) {
  Tensor& y = *context.outputs[i];
  if (y.shape() != shape) {
    fail(ErrorCode::kInternal, "{} gives {}, inference says {}", node.op, to_string(shape), to_string(y.shape()));
  }
  return y;
}

// body(bytes), a number the compiler knows where it is a common one.
template <class Body>
void with_width(std::size_t bytes, const Body& body) {
  switch (bytes) {
    case 1: return body(std::integral_constant<std::size_t, 1>{});
    case 2: return body(std::integral_constant<std::size_t, 2>{});
    case 4: return body(std::integral_constant<std::size_t, 4>{});
    case 8: return body(std::integral_constant<std::size_t, 8>{});
    default: return body(bytes);
  }
}

void copy_view(ThreadPool& pool, const Tensor& x, const StridedView& view, Tensor& y) {
  if (y.size() == 0) return;
  const std::size_t size = element_size(x.dtype());
  strided_copy(pool, {view.shape, view.strides, row_major_strides(view.shape), size},
               x.bytes().data() + view.offset * static_cast<std::int64_t>(size), y.mutable_bytes().data());
}

void transpose(const Node& node, const RunContext& context) {
  const Tensor& x = *context.inputs[0];
  const StridedView view = transposed_view(attributes_of(node), x.shape());
  copy_view(*context.pool, x, view, checked_output(node, context, 0, view.shape));
}

void expand(const Node& node, const RunContext& context) {
  const StridedView view = expanded_view(*context.inputs[0], *context.inputs[1]);
  copy_view(*context.pool, *context.inputs[0], view, checked_output(node, context, 0, view.shape));
}

void slice(const Node& node, const RunContext& context) {
  const StridedView view = sliced_view(context.inputs);
  copy_view(*context.pool, *context.inputs[0], view, checked_output(node, context, 0, view.shape));
}

void tile(const Node& node, const RunContext& context) {
  const Tensor& x = *context.inputs[0];
  const std::vector<std::int64_t> repeats = context.inputs[1]->to_ints();
  Tensor& y = checked_output(node, context, 0, tiled_shape(x.shape(), repeats));
  copy_view(*context.pool, x, tiled_view(x.shape(), repeats), y);
}

void split(const Node& node, const RunContext& context) {
  const Tensor& x = *context.inputs[0];
  const auto axis = static_cast<std::size_t>(normalize_axis(attributes_of(node).integer("axis"), x.rank()));
  const Tensor* sizes = context.inputs.size() > 1 ? context.inputs[1] : nullptr;
  StridedView view{x.shape(), row_major_strides(x.shape())};
  std::size_t output = 0;
  for (const std::int64_t size : split_sizes(x.shape()[axis], sizes, context.outputs.size())) {
    view.shape[axis] = size;
    if (context.outputs[output] != nullptr) {
      copy_view(*context.pool, x, view, checked_output(node, context, output, view.shape));
    }
    view.offset += size * view.strides[axis];
    ++output;
  }
}

void concat(const Node& node, const RunContext& context) {
  const Tensor& first = *context.inputs[0];
  const auto axis = static_cast<std::size_t>(normalize_axis(attributes_of(node).integer("axis"), first.rank()));
  Extents shape = first.shape();
  shape[axis] = 0;
  for (const Tensor* next : context.inputs) {
    Extents fitting = first.shape();
    if (next->rank() == first.rank()) fitting[axis] = next->shape()[axis];
    if (next->shape() != fitting || next->dtype() != first.dtype()) {
      fail(ErrorCode::kInvalidModel, "Concat of {} and {}", to_string(first.shape()), to_string(next->shape()));
    }
    shape[axis] += next->shape()[axis];
  }
  Tensor& y = checked_output(node, context, 0, shape);
  if (y.size() == 0) return;
  const Extents strides = row_major_strides(shape);
  const std::size_t size = element_size(first.dtype());
  std::byte* to = y.mutable_bytes().data();
  for (const Tensor* next : context.inputs) {
    if (next->size() == 0) continue;
    strided_copy(*context.pool, {next->shape(), row_major_strides(next->shape()), strides, size}, next->bytes().data(),
                 to);
    to += static_cast<std::size_t>(next->shape()[axis] * strides[axis]) * size;
  }
}

template <class Index>
void gather(const RunContext& context, std::size_t axis, const Index* indices, std::size_t count) {
  const Tensor& x = *context.inputs[0];
  const std::int64_t extent = x.shape()[axis];
  const auto outer = static_cast<std::size_t>(product(x.shape(), 0, axis));
  const auto block = static_cast<std::size_t>(product(x.shape(), axis + 1, x.shape().size())) * element_size(x.dtype());
  if (block == 0) {
    for (std::size_t k = 0; outer > 0 && k < count; ++k) checked_index(indices[k], extent);
    return;
  }
  const std::byte* from = x.bytes().data();
  std::byte* to = context.outputs[0]->mutable_bytes().data();
  for_units(*context.pool, outer * count, block, [&](std::size_t first, std::size_t last) {
    std::size_t o = first / count, k = first % count;
    with_width(block, [&](auto width) {
      for (std::size_t unit = first; unit < last; ++unit) {
        const auto place = static_cast<std::size_t>(checked_index(indices[k], extent));
        std::memcpy(to + unit * width, from + (o * static_cast<std::size_t>(extent) + place) * width, width);
        if (++k == count) k = 0, ++o;
      }
    });
  });
}

void gather(const Node& node, const RunContext& context) {
  const Tensor& x = *context.inputs[0];
  const Tensor& indices = *context.inputs[1];
  const auto axis = static_cast<std::size_t>(normalize_axis(attributes_of(node).integer("axis"), x.rank()));
  const auto count = static_cast<std::size_t>(indices.size());
  if (indices.dtype() == DType::kI64) return gather(context, axis, indices.data<std::int64_t>().data(), count);
  if (indices.dtype() == DType::kI32) return gather(context, axis, indices.data<std::int32_t>().data(), count);
  gather(context, axis, indices.to_ints().data(), count);
}

// Rows of the last axis of the indices; an index moves along `axis`, other coordinates stay.
template <class W, class Index>
void gather_elements(const RunContext& context, std::size_t axis) {
  const Tensor& x = *context.inputs[0];
  const Tensor& indices = *context.inputs[1];
  const Extents strides = row_major_strides(x.shape());
  const W* from = x.data<W>().data();
  const Index* at = indices.data<Index>().data();
  W* to = context.outputs[0]->mutable_data<W>().data();
  const std::size_t last_axis = indices.shape().size() - 1;
  const auto length = static_cast<std::size_t>(indices.shape()[last_axis]);
  const std::int64_t extent = x.shape()[axis], step = strides[axis], advance = axis == last_axis ? 0 : 1;
  const std::size_t rows = static_cast<std::size_t>(indices.size()) / length;
  for_units(*context.pool, rows, length * (sizeof(W) + sizeof(Index)), [&](std::size_t first, std::size_t last) {
    for (std::size_t row = first; row < last; ++row) {
      std::int64_t base = 0;
      auto rest = static_cast<std::int64_t>(row);
      for (std::size_t i = last_axis; i-- > 0;) {
        if (i != axis) base += rest % indices.shape()[i] * strides[i];
        rest /= indices.shape()[i];
      }
      const Index* places = at + row * length;
      const W* source = from + base;
      W* target = to + row * length;
      constexpr std::size_t kTogether = 256;  // indices that are read, checked and followed in turns
      std::int64_t known[kTogether];
      for (std::size_t i = 0; i < length; i += kTogether) {
        const std::size_t count = std::min(kTogether, length - i);
        bool outside = false;
        for (std::size_t k = 0; k < count; ++k) {
          const std::int64_t place = places[i + k];
          known[k] = place + (place >> 63 & extent);
          outside |= static_cast<std::uint64_t>(known[k]) >= static_cast<std::uint64_t>(extent);
        }
        for (std::size_t k = 0; outside && k < count; ++k) checked_index(places[i + k], extent);  // one of them throws
        if (advance == 0) {
          for (std::size_t k = 0; k < count; ++k) target[i + k] = source[known[k] * step];
        } else {
          for (std::size_t k = 0; k < count; ++k)
            target[i + k] = source[i + k + static_cast<std::size_t>(known[k] * step)];
        }
      }
    }
  });
}

void gather_elements(const Node& node, const RunContext& context) {
  const Tensor& x = *context.inputs[0];
  const Tensor& indices = *context.inputs[1];
  const auto axis = static_cast<std::size_t>(normalize_axis(attributes_of(node).integer("axis"), x.rank()));
  if (indices.rank() != x.rank())
    fail(ErrorCode::kInvalidModel, "indices of rank {} for data of rank {}", indices.rank(), x.rank());
  checked_output(node, context, 0, indices.shape());
  if (indices.size() == 0) return;
  for (std::size_t i = 0; i < x.shape().size(); ++i) {
    if (i != axis) checked_index(indices.shape()[i] - 1, x.shape()[i]);
  }
  visit_storage(x.dtype(), [&](auto tag) {
    using W = typename decltype(tag)::type;
    if constexpr (requires { W::kWordSize; }) {
      indices.dtype() == DType::kI64 ? gather_elements<W, std::int64_t>(context, axis)
                                     : gather_elements<W, std::int32_t>(context, axis);
    }
  });
}

// --- Pad -------------------------------------------------------------------------------------------

// Positions of the last padded axis that are read in one go.
struct Run {
  std::int64_t source;  // -1: filled
  std::int64_t step;    // 1: onwards, 0: one element again and again, -1: backwards
  std::int64_t count;
};

std::vector<Run> runs_of(const std::vector<std::int64_t>& sources) {
  std::vector<Run> runs;
  for (const std::int64_t source : sources) {
    if (!runs.empty()) {
      Run& run = runs.back();
      const std::int64_t step = source - (run.source + (run.count - 1) * run.step);
      const bool read = run.source >= 0 && source >= 0 && step >= -1 && step <= 1;
      if ((run.source < 0 && source < 0) || (read && (run.count == 1 || step == run.step))) {
        run.step = read ? step : 0;
        ++run.count;
        continue;
      }
    }
    runs.push_back({source, 1, 1});
  }
  return runs;
}

// Of an axis of so many elements in front of which there are `before`, negative where it is cropped.
std::vector<Run> runs_of(std::int64_t length, std::int64_t before, std::int64_t extent, const std::string& mode) {
  const auto outside = [&](std::int64_t first, std::int64_t last) {
    std::vector<std::int64_t> sources;
    for (std::int64_t k = first; k < last; ++k) sources.push_back(padded_source(k - before, extent, mode));
    return runs_of(sources);
  };
  const std::int64_t start = std::clamp<std::int64_t>(before, 0, length);
  const std::int64_t end = std::clamp<std::int64_t>(before + extent, start, length);
  std::vector<Run> runs = outside(0, start);
  if (end > start) runs.push_back({start - before, 1, end - start});
  const std::vector<Run> behind = outside(end, length);
  runs.insert(runs.end(), behind.begin(), behind.end());
  return runs;
}

// Elements of `bytes` bytes of a row.
void copy_run(const std::byte* row, const Run& run, std::size_t bytes, std::byte* to) {
  const std::byte* from = row + run.source * static_cast<std::int64_t>(bytes);
  if (run.step == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(run.count) * bytes);
    return;
  }
  const auto count = static_cast<std::size_t>(run.count);
  with_width(bytes, [&](auto width) {
    if (run.step == 0) {
      for (std::size_t i = 0; i < count; ++i) std::memcpy(to + i * width, from, width);
    } else {
      for (std::size_t i = 0; i < count; ++i) std::memcpy(to + i * width, from - i * width, width);
    }
  });
}

void fill(std::byte* to, std::size_t bytes, std::span<const std::byte> filler) {
  if (std::all_of(filler.begin(), filler.end(), [&](std::byte b) { return b == filler[0]; })) {
    std::memset(to, static_cast<int>(filler[0]), bytes);
    return;
  }
  for (std::size_t i = 0; i < bytes; i += filler.size()) std::memcpy(to + i, filler.data(), filler.size());
}

void pad(const Node& node, const RunContext& context) {
  const Tensor& x = *context.inputs[0];
  const AttributeReader attributes = attributes_of(node);
  const auto [shape, before] = padding_of(context.inputs);
  Tensor& y = checked_output(node, context, 0, shape);
  if (y.size() == 0) return;
  const std::size_t size = element_size(x.dtype());
  std::vector<std::byte> filler(size);
  if (context.inputs.size() > 2 && context.inputs[2] != nullptr && context.inputs[2]->size() > 0) {
    const auto given = context.inputs[2]->bytes();
    std::copy_n(given.begin(), size, filler.begin());
  }
  std::size_t rank = shape.size();  // axes behind the last padded one are part of its elements
  while (rank > 0 && shape[rank - 1] == x.shape()[rank - 1] && before[rank - 1] == 0) --rank;
  const std::size_t element = static_cast<std::size_t>(product(shape, rank, shape.size())) * size;
  if (rank == 0) return std::memcpy(y.mutable_bytes().data(), x.bytes().data(), y.byte_size()), void();
  const std::string& mode = attributes.text("mode");
  std::vector<std::vector<std::int64_t>> sources(rank - 1);
  for (std::size_t i = 0; i + 1 < rank; ++i) {
    for (std::int64_t k = 0; k < shape[i]; ++k) sources[i].push_back(padded_source(k - before[i], x.shape()[i], mode));
  }
  const std::vector<Run> runs = runs_of(shape[rank - 1], before[rank - 1], x.shape()[rank - 1], mode);
  const std::size_t row_bytes = static_cast<std::size_t>(shape[rank - 1]) * element;
  const auto rows = static_cast<std::size_t>(product(shape, 0, rank - 1));
  const std::byte* from = x.size() > 0 ? x.bytes().data() : nullptr;
  std::byte* const out = y.mutable_bytes().data();
  for_units(*context.pool, rows, row_bytes, [&](std::size_t first, std::size_t last) {
    for (std::size_t row = first; row < last; ++row) {
      std::int64_t source = 0, scale = 1;
      std::size_t rest = row;
      for (std::size_t i = rank - 1; i-- > 0;) {
        const std::int64_t at = sources[i][rest % sources[i].size()];
        rest /= sources[i].size();
        source = at < 0 || source < 0 ? -1 : source + at * scale;
        scale *= x.shape()[i];
      }
      std::byte* to = out + row * row_bytes;
      if (source < 0) {
        fill(to, row_bytes, filler);
        continue;
      }
      for (const Run& run : runs) {
        const std::size_t bytes = static_cast<std::size_t>(run.count) * element;
        if (run.source < 0) {
          fill(to, bytes, filler);
        } else {
          copy_run(from + static_cast<std::size_t>(source * x.shape()[rank - 1]) * element, run, element, to);
        }
        to += bytes;
      }
    }
  });
}

// --- The kernel ------------------------------------------------------------------------------------

// Shapes may depend on contents, so nothing is decided before the run.
class BoundMovement final : public BoundKernel {
 public:
  BoundMovement(Move move, const Node* node) : move_(move), node_(node) {}
  void run(const RunContext& context) override { move_(*node_, context); }

 private:
  Move move_;
  const Node* node_;
};

class MovementKernel final : public Kernel {
 public:
  MovementKernel(Move move, bool bytes) : move_(move), bytes_(bytes) {}
  std::unique_ptr<BoundKernel> bind(const BindContext& context) const override {
    return std::make_unique<BoundMovement>(move_, context.node);
  }
  bool reads_unaligned(std::size_t input) const override { return bytes_ && input == 0; }

 private:
  Move move_;
  bool bytes_;  // moves bytes, not words
};

constexpr Move kGather = gather;
constexpr std::pair<std::string_view, Move> kMoves[] = {
    {"Transpose", transpose},
    {"Expand", expand},
    {"Slice", slice},
    {"Split", split},
    {"Concat", concat},
    {"Tile", tile},
    {"Gather", kGather},
    {"GatherElements", [](const Node& node, const RunContext& context) { gather_elements(node, context); }},
    {"Pad", pad},
};

}  // namespace

std::unique_ptr<Kernel> make_movement_kernel(const Graph& graph, const Node& node) {
  for (const auto& [op, move] : kMoves) {
    if (op != node.op) continue;
    const DType dtype = graph.value(node.inputs[0]).type.dtype;
    return is_object(dtype) ? nullptr : std::make_unique<MovementKernel>(move, move == kGather);
  }
  return nullptr;
}

}  // namespace weft::runtime
