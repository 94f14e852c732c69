#include "runtime/generate/model_folder.h"

namespace weft::runtime {

std::string present_name(const std::string& past) {
  for (const std::string_view prefix : {"past_key_values", "past"}) {
    if (past.rfind(prefix, 0) == 0) return "present" + past.substr(prefix.size());
  }
  return {};
}

bool is_past(std::string_view name) { return name.rfind("past", 0) == 0; }

bool is_cross(std::string_view name) {
  return name.find(".encoder.") != std::string_view::npos || name.find("_cross_") != std::string_view::npos;
}

CacheAxes cache_axes(const Value& cache) {
  const std::size_t rank = cache.type.shape ? cache.type.shape->size() : 4;
  CacheAxes axes{rank == 5 ? std::size_t{1} : 0, rank - 2};
  std::vector<std::size_t> open;
  for (std::size_t i = 0; cache.type.shape && i < rank; ++i) {
    if (!(*cache.type.shape)[i].is_constant()) open.push_back(i);
  }
  if (open.size() >= 2) axes = {open.front(), open.back()};
  if (open.size() == 1) axes.time = open[0];
  return axes;
}

std::optional<std::size_t> output_index(const Graph& graph, std::string_view name) {
  for (std::size_t i = 0; i < graph.outputs().size(); ++i) {
    if (graph.outputs()[i].name == name) return i;
  }
  return std::nullopt;
}

const Value* find_input(const Graph& graph, std::string_view name) {
  for (const ValueId id : graph.inputs()) {
    if (graph.value(id).name == name) return &graph.value(id);
  }
  return nullptr;
}

}  // namespace weft::runtime
