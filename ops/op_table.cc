#include <algorithm>

#include "ops/families.h"

namespace weft {
namespace {

std::vector<const OpDef*> build_table() {
  std::vector<const OpDef*> table;
  for (const std::span<const OpDef> family : {unary_ops(),
                                              binary_ops(),
                                              logic_ops(),
                                              cast_ops(),
                                              reduce_ops(),
                                              along_axis_ops(),
                                              matmul_ops(),
                                              normalization_ops(),
                                              convolution_ops(),
                                              pooling_ops(),
                                              recurrent_ops(),
                                              fused_ops(),
                                              shape_ops(),
                                              movement_ops(),
                                              padding_ops(),
                                              gather_ops(),
                                              generate_ops(),
                                              control_ops(),
                                              scan_ops(),
                                              sequence_ops(),
                                              quantize_ops(),
                                              resize_ops(),
                                              rearrange_ops(),
                                              signal_ops(),
                                              vision_ops(),
                                              bits_ops(),
                                              state_space_ops(),
                                              attention_ops(),
                                              packed_weights_ops(),
                                              select_ops(),
                                              fused_normalization_ops()}) {
    for (const OpDef& def : family) table.push_back(&def);
  }
  std::sort(table.begin(), table.end(), [](const OpDef* a, const OpDef* b) { return a->name < b->name; });
  return table;
}

}  // namespace

std::span<const OpDef* const> all_ops() {
  static const std::vector<const OpDef*> table = build_table();
  return table;
}

const OpDef* find_op(std::string_view name) {
  const auto table = all_ops();
  const auto place = std::lower_bound(table.begin(), table.end(), name,
                                      [](const OpDef* def, std::string_view wanted) { return def->name < wanted; });
  return place != table.end() && (*place)->name == name ? *place : nullptr;
}

const OpDef& get_op(std::string_view name) {
  const OpDef* def = find_op(name);
  if (def == nullptr) fail(ErrorCode::kUnsupported, "operator {}", name);
  return *def;
}

}  // namespace weft
