#include "tools/trace.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "graph/text.h"

namespace weft::tools {

std::function<void(const Graph&, std::string_view, std::string_view)> trace_to(const std::string& folder) {
  if (folder.empty()) return nullptr;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorCode::kIo, "cannot make the folder {}: {}", folder, error.message());
  return [folder, number = 0](const Graph& graph, std::string_view pass, std::string_view rule) mutable {
    constexpr std::int64_t kShownElements = 16;
    const std::string step = pass == rule ? std::string(pass) : fmt::format("{}-{}", pass, rule);
    const std::filesystem::path path = std::filesystem::path(folder) / fmt::format("{:05}-{}.txt", ++number, step);
    std::ofstream file(path);
    file << print(graph, {.elide_above = kShownElements});
    file.close();
    if (!file) fail(ErrorCode::kIo, "cannot write {}", path.string());
  };
}

}  // namespace weft::tools
