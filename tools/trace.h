// What passes do, written down step by step.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "graph/graph.h"

namespace weft::tools {

// For PassOptions::after_rewrite: writes the graph as text, constants of more than 16 elements left out, to
// "FOLDER/<number>-<pass>-<rule>.txt" after each rewrite. Makes the folder. Empty for an empty name. Error kIo.
std::function<void(const Graph&, std::string_view pass, std::string_view rule)> trace_to(const std::string& folder);

}  // namespace weft::tools
