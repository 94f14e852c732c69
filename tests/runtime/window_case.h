// Cases of convolutions and pools.
#pragma once

#include <cstdint>
#include <string>

#include "tests/runtime/one_node.h"

namespace weft::runtime {

struct WindowCase {
  Extents x, w;  // of a pool: w is its kernel
  Ints strides, dilations, pads;
  std::int64_t group = 1;
};

inline std::string describe(const WindowCase& c) {
  return to_string(c.x) + " by " + to_string(c.w) + " strides " + to_string(c.strides) + " dilations " +
         to_string(c.dilations) + " pads " + to_string(c.pads) + fmt::format(" group {}", c.group);
}

}  // namespace weft::runtime
