// Activations by the names that products have for them.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/kernels/simd.h"

namespace weft::runtime {

// nullopt when one has no kernel.
inline std::optional<std::vector<simd::Activation>> read_activations(std::span<const std::string> names) {
  using simd::Activation;
  static constexpr std::array<std::pair<std::string_view, Activation>, 7> kNames = {
      {{"none", Activation::kNone},
       {"relu", Activation::kRelu},
       {"gelu", Activation::kGelu},
       {"gelu_tanh", Activation::kGeluTanh},
       {"silu", Activation::kSilu},
       {"tanh", Activation::kTanh},
       {"sigmoid", Activation::kSigmoid}}};
  std::vector<Activation> activations;
  for (const std::string& name : names) {
    const auto* found =
        std::find_if(kNames.begin(), kNames.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == kNames.end()) return std::nullopt;
    activations.push_back(found->second);
  }
  return activations;
}

}  // namespace weft::runtime
