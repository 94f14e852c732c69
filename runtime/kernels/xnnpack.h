// XNNPACK behind RAII.
#pragma once

#include <xnnpack.h>

#include <memory>
#include <string_view>

namespace weft::runtime::xnn {

// Throws Error kBackend naming the call when status is not success.
void check(xnn_status status, std::string_view call);

// Initializes the library on first use; every maker of operators calls it.
void initialize();

struct OperatorDeleter {
  void operator()(xnn_operator_t op) const { xnn_delete_operator(op); }
};
using Operator = std::unique_ptr<xnn_operator, OperatorDeleter>;

}  // namespace weft::runtime::xnn
