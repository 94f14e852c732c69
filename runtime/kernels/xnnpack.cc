#include "runtime/kernels/xnnpack.h"

#include <mutex>

#include "graph/error.h"

namespace weft::runtime::xnn {
namespace {

std::string_view describe(xnn_status status) {
  switch (status) {
    case xnn_status_success: return "success";
    case xnn_status_uninitialized: return "uninitialized";
    case xnn_status_invalid_parameter: return "invalid parameter";
    case xnn_status_invalid_state: return "invalid state";
    case xnn_status_unsupported_parameter: return "unsupported parameter";
    case xnn_status_unsupported_hardware: return "unsupported hardware";
    case xnn_status_out_of_memory: return "out of memory";
    default: return "unknown status";
  }
}

}  // namespace

void check(xnn_status status, std::string_view call) {
  if (status != xnn_status_success) {
    fail(ErrorCode::kBackend, "XNNPACK: {}: {}", call, describe(status));
  }
}

void initialize() {
  static std::once_flag once;
  std::call_once(once, [] { check(xnn_initialize(nullptr), "xnn_initialize"); });
}

}  // namespace weft::runtime::xnn
